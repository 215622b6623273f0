"""Virtual time, and a simulated NVML library that lets the world act around each changing call."""

from collections.abc import Callable
from datetime import datetime, timedelta

from migscaler.sim.nvml_library import NvmlLibrary

MONOTONIC = 50_000.0
CHANGING = frozenset(
    {
        "nvmlGpuInstanceDestroy",
        "nvmlComputeInstanceDestroy",
        "nvmlDeviceCreateGpuInstanceWithPlacement",
        "nvmlGpuInstanceCreateComputeInstance",
        "nvmlDeviceSetMigMode",
    }
)
"""The calls with which migscaler changes a GPU."""

Around = Callable[[str, tuple[object, ...], Callable[[], int]], int]
"""Is given a call's name, its arguments and the call itself; returns the answer."""


class VirtualClock:
    """Moves only by `sleep`, `advance` and steps; who sleeps lets the world act (`on_sleep`)."""

    def __init__(self, start: datetime) -> None:
        self.start = start
        self._wall = start
        self._monotonic = MONOTONIC
        self.on_sleep: Callable[[], None] = lambda: None

    def now(self) -> datetime:
        return self._wall

    def monotonic(self) -> float:
        return self._monotonic

    def sleep(self, seconds: float) -> None:
        self.advance(seconds)
        self.on_sleep()

    def advance(self, seconds: float) -> None:
        """Let time pass while nobody looks."""
        self._wall += timedelta(seconds=seconds)
        self._monotonic += seconds

    def step_wall(self, seconds: float) -> None:
        """Set the wall clock to another time, as an administrator or NTP does."""
        self._wall += timedelta(seconds=seconds)


class HeldUpClock(VirtualClock):
    """Whoever reads it is held up for five seconds before the `reading`th reading, as by load."""

    def __init__(self, start: datetime, reading: int) -> None:
        super().__init__(start)
        self._left = reading

    def now(self) -> datetime:
        self._hold_up()
        return super().now()

    def monotonic(self) -> float:
        self._hold_up()
        return super().monotonic()

    def _hold_up(self) -> None:
        self._left -= 1
        if self._left == 0:
            self.advance(5.0)


class WatchedLibrary:
    """The simulated library with its changing functions wrapped."""

    def __init__(self, inner: NvmlLibrary, around: Around) -> None:
        self._inner = inner
        self._around = around

    def __getattr__(self, name: str) -> Callable[..., int]:
        function: Callable[..., int] = getattr(self._inner, name)
        if name not in CHANGING:
            return function
        around = self._around

        def watched(*arguments: object) -> int:
            return around(name, arguments, lambda: function(*arguments))

        return watched
