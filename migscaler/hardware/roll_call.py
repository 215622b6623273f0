"""Make one reading of the node from the answers of its GPUs, one of which may not come."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime

from migscaler.errors import DriverGone, HardwareError
from migscaler.model.gpu import Gap, GpuReading, NodeReading
from migscaler.model.ids import GpuUuid


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeFacts:
    """What a pass begins with."""

    taken_at: datetime
    taken_monotonic: float
    gpu_count: int
    driver_version: str | None
    nvml_version: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class GpuAnswer:
    """One GPU's part of a pass."""

    reading: GpuReading


Ask = Callable[[int, GpuUuid | None], GpuAnswer]
"""Reads the GPU of an index; the second argument is its UUID where known from before."""

Arrange = Callable[[Sequence[str]], Iterable[int]]
"""Returns the order to ask GPUs in, given what each is known by (`known_by`), by index."""


def known_by(index: int, uuid: GpuUuid | None) -> str:
    """Return what a GPU goes by: its UUID, or its index as long as that is not known."""
    return uuid or f"index {index}"


def _by_index(keys: Sequence[str]) -> Iterable[int]:
    return range(len(keys))


class RollCall:
    """Remembers who was there, so that a GPU which does not answer is still listed.

    Also each GPU's last XID: a process that took its place knows none from before, and a GPU that
    threw one is likely to be why it was replaced.
    """

    def __init__(self) -> None:
        self._known: dict[GpuUuid, GpuReading] = {}
        self._at: dict[int, GpuUuid] = {}
        self._xids: dict[GpuUuid, tuple[datetime, int]] = {}
        self._count = 0

    def read(self, facts: NodeFacts, ask: Ask, arrange: Arrange = _by_index) -> NodeReading:
        """Ask every GPU; one that raises is listed with its gap.

        Raises:
            DriverGone: NVML as a whole has gone.
        """
        if facts.gpu_count != self._count:
            # Indices may have moved; whom they mean is learnt anew.
            self._at.clear()
            self._count = facts.gpu_count
        gpus: list[GpuReading] = []
        failed: dict[int, str] = {}
        keys = [known_by(index, self._at.get(index)) for index in range(facts.gpu_count)]
        for index in arrange(keys):
            try:
                answer = ask(index, self._at.get(index))
            except DriverGone:
                raise
            except HardwareError as error:
                failed[index] = str(error)
                continue
            self._note(index, answer.reading)
            gpus.append(self._with_last_xid(answer.reading))
        seen = {gpu.uuid for gpu in gpus}
        gaps: list[Gap] = []
        for index, why in sorted(failed.items()):
            uuid = self._at.get(index)
            if uuid is None:
                gaps.append(Gap(what="gpu", why=f"GPU {index}: {why}"))
            else:
                gpus.append(self._absent(uuid, why))
                seen.add(uuid)
        gone = "the driver lists it no longer"
        if gaps:
            gone = "not seen; it may be one of those that did not say who they are"
        gpus += [self._absent(uuid, gone) for uuid in self._known if uuid not in seen]
        return NodeReading(
            taken_at=facts.taken_at,
            taken_monotonic=facts.taken_monotonic,
            driver_version=facts.driver_version,
            nvml_version=facts.nvml_version,
            gpus=tuple(sorted(gpus, key=lambda gpu: (gpu.index, gpu.uuid))),
            gaps=tuple(gaps),
        )

    def _note(self, index: int, reading: GpuReading) -> None:
        # After a mode change or a driver load indices may have moved, with as many GPUs as before.
        self._at = {at: uuid for at, uuid in self._at.items() if uuid != reading.uuid}
        self._at[index] = reading.uuid
        self._known[reading.uuid] = GpuReading(
            index=index,
            uuid=reading.uuid,
            name=reading.name,
            pci_bus_id=reading.pci_bus_id,
            serial=reading.serial,
            minor=reading.minor,
        )

    def _with_last_xid(self, reading: GpuReading) -> GpuReading:
        gauges = reading.gauges
        last = self._xids.get(reading.uuid)
        if gauges.last_xid is not None and gauges.last_xid_at is not None:
            told = (gauges.last_xid_at, gauges.last_xid)
            last = self._xids[reading.uuid] = max(last or told, told)
        if last is None:
            return reading
        at, xid = last
        return replace(reading, gauges=replace(gauges, last_xid=xid, last_xid_at=at))

    def _absent(self, uuid: GpuUuid, why: str) -> GpuReading:
        return replace(self._known[uuid], gaps=(Gap(what="gpu", why=why),))
