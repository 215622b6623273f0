"""One open NVML session and what stays the same while it lasts."""

from collections.abc import Callable

from migscaler.errors import DriverGone, HardwareError, NvmlError
from migscaler.hardware.call_counter import CallCounter
from migscaler.hardware.nvml_device_calls import DeviceCalls
from migscaler.hardware.nvml_mig_calls import MigCalls


class NvmlCalls(DeviceCalls, MigCalls):
    """Everything that is asked of NVML, over one counter."""


class NvmlSession:
    """Opens NVML at the first use and keeps it open.

    One per process; used from one thread at a time. `timer` gives seconds for call durations.
    """

    def __init__(self, timer: Callable[[], float]) -> None:
        self._calls = NvmlCalls(timer)
        self._open = False
        self.driver_version: str | None = None
        self.nvml_version: str | None = None

    @property
    def counted(self) -> CallCounter:
        """Return the counts of calls, whether a session is open or not."""
        return self._calls.counter

    @property
    def is_open(self) -> bool:
        """Say whether a session is open."""
        return self._open

    def calls(self) -> NvmlCalls:
        """Return the calls of the open session.

        Raises:
            DriverGone: there is no driver, or another version than the library's.
        """
        if not self._open:
            self._calls.start()
            self._open = True
            self.driver_version = self.nvml_version = None
            self.learn_versions()
        return self._calls

    def learn_versions(self) -> bool:
        """Ask for the versions that are not known yet; say whether the driver's was learnt.

        Without them a GPU is read all the same, as by a driver of today.

        Raises:
            DriverGone: there is no driver any more.
        """
        was_known = self.driver_version is not None
        try:
            self.driver_version = self.driver_version or self._calls.driver_version()
            self.nvml_version = self.nvml_version or self._calls.nvml_version()
        except DriverGone:
            raise
        except HardwareError:
            pass  # asked again at the next pass
        return not was_known and self.driver_version is not None

    @property
    def driver_branch(self) -> int | None:
        """Return the number before the first dot of the driver version."""
        head = (self.driver_version or "").partition(".")[0]
        return int(head) if head.isdigit() else None

    def close(self) -> None:
        """End the session; a driver that is gone has ended it already."""
        if not self._open:
            return
        self._open = False
        try:
            self._calls.stop()
        except NvmlError:
            return
