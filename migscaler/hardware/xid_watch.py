"""Notice critical XID errors, as far as the driver reports them."""

from datetime import datetime

from migscaler.errors import DriverGone, NoPermission, NotSupported, NvmlError
from migscaler.hardware.nvml_answers import Device, EventSetHandle
from migscaler.hardware.nvml_device_calls import XID_EVENT, DeviceCalls
from migscaler.model.ids import GpuUuid

# Events drained at one pass; a GPU that throws more keeps them for the next.
_MOST_EVENTS = 64


class XidWatch:
    """Keeps the last XID of each GPU. Best effort: a driver without events means no XIDs."""

    def __init__(self) -> None:
        self._events: EventSetHandle | None = None
        self._watched: set[GpuUuid] = set()
        self._last: dict[GpuUuid, tuple[int, datetime]] = {}

    def last(self, uuid: GpuUuid) -> tuple[int, datetime] | None:
        """Return the last XID seen on a GPU and when it was seen."""
        return self._last.get(uuid)

    def watch(self, calls: DeviceCalls, device: Device, uuid: GpuUuid) -> None:
        """Ask for a GPU's XIDs from now on; one call the first time.

        What is not offered, or not to us, is not asked for again; what fails is, at the next pass.
        """
        if uuid in self._watched:
            return
        try:
            if self._events is None:
                self._events = calls.new_event_set()
            calls.watch_xids(device, self._events)
        except DriverGone:
            raise
        except (NotSupported, NoPermission):
            pass
        except NvmlError:
            return
        self._watched.add(uuid)

    def drain(self, calls: DeviceCalls, now: datetime) -> None:
        """Take in the events that are waiting; one call when there is none."""
        if self._events is None:
            return
        try:
            for _ in range(_MOST_EVENTS):
                event = calls.next_event(self._events)
                if event is None:
                    return
                if event.kind == XID_EVENT:
                    self._last[GpuUuid(calls.uuid(event.device))] = (event.data, now)
        except DriverGone:
            self.release(calls)  # if it has gone, the next call of the pass finds it out
        except NvmlError:
            return  # e.g. the GPU of the event is lost and has no UUID any more

    def release(self, calls: DeviceCalls) -> None:
        """Let go of the events: an open event set may stand in the way of a mode change."""
        events, self._events = self._events, None
        self._watched.clear()
        if events is not None:
            try:
                calls.free_event_set(events)
            except NvmlError:
                return

    def reset(self) -> None:
        """Forget a session that is gone."""
        self._events = None
        self._watched.clear()
