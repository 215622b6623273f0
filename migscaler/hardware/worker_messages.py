"""What passes between the NVML worker and whoever asks it."""

from collections.abc import Callable
from dataclasses import dataclass

from migscaler.errors import HardwareError
from migscaler.hardware.roll_call import GpuAnswer
from migscaler.model.ports import Clock, HostProcesses
from migscaler.model.stats import CallStats


@dataclass(frozen=True, slots=True, kw_only=True)
class Setup:
    """How the worker is set up; everything in it can be pickled.

    `prepare` runs before the first call, e.g. to install a simulated library.
    """

    clock: Clock
    make_host: Callable[[], HostProcesses]
    prepare: Callable[[], None] | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """One command of `worker_commands.COMMANDS` with its arguments, checked by then."""

    name: str
    arguments: tuple[object, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class SameModel:
    """A GPU's answer without its model, which is the one of this process's last answer."""

    answer: GpuAnswer


@dataclass(frozen=True, slots=True, kw_only=True)
class Reply:
    """What came of a request, and the calls it took; with an error the value means nothing."""

    stats: CallStats
    value: object = None
    error: HardwareError | None = None
