"""Ports that have more than one implementation: clocks, GPUs, and what hands instances to jobs."""

from datetime import datetime
from typing import Protocol

from migscaler.model.demand import Fetched
from migscaler.model.gpu import Allocations, GpuReading, ModeChange, NodeReading
from migscaler.model.ids import CiId, GiId, GpuUuid
from migscaler.model.layout import Layout
from migscaler.model.process import HostProcess
from migscaler.model.profile import InstanceSpec
from migscaler.model.stats import CallStats


class Clock(Protocol):
    """Time: a wall clock that can be stepped, and one that can't."""

    def now(self) -> datetime:
        """Return the wall clock as an aware UTC datetime."""

    def monotonic(self) -> float:
        """Return seconds since boot (suspend included); equal for all processes of a boot."""

    def sleep(self, seconds: float) -> None:
        """Wait that long; virtual clocks just move on."""


# Between the two looks at the one clock the other one was read at the same moment.
_SAME_MOMENT_SECONDS = 0.1
_LOOKS = 5


def one_moment(clock: Clock) -> tuple[datetime, float]:
    """Return what the wall clock and the monotonic one show at the same moment, as near as may be.

    A process that is paused between its looks at the two would take the pause for a step.
    """
    seconds, wall = clock.monotonic(), clock.now()
    for _ in range(_LOOKS):
        if clock.monotonic() - seconds < _SAME_MOMENT_SECONDS:
            break
        seconds, wall = clock.monotonic(), clock.now()
    return wall, seconds


class GpuReader(Protocol):
    """Reads GPUs; a GPU that can't be read becomes a gap, never an exception for the others."""

    def read_node(self) -> NodeReading:
        """Read everything a sample needs.

        Raises:
            HardwareError: NVML as a whole does not answer.
        """

    def read_gpu(self, uuid: GpuUuid) -> GpuReading:
        """Read mode, layout, processes and memory of one GPU afresh (no activity).

        Raises:
            HardwareError: the GPU does not answer.
        """

    def call_stats(self) -> CallStats:
        """Return the cumulative counts of NVML calls."""


class GpuWriter(Protocol):
    """Changes GPUs, one NVML call each; observe mode holds none."""

    def destroy_compute_instance(self, uuid: GpuUuid, gi_id: GiId, ci_id: CiId) -> None:
        """Destroy one compute instance.

        Raises:
            InUse: somebody holds it.
            HardwareError: anything else.
        """

    def destroy_gpu_instance(self, uuid: GpuUuid, gi_id: GiId) -> None:
        """Destroy one GPU instance without compute instances.

        Raises:
            InUse: somebody holds it.
            HardwareError: anything else.
        """

    def create_gpu_instance(self, uuid: GpuUuid, spec: InstanceSpec) -> GiId:
        """Create a GPU instance at exactly that placement.

        Raises:
            InsufficientResources: no room there.
            HardwareError: anything else.
        """

    def create_compute_instance(self, uuid: GpuUuid, gi_id: GiId) -> CiId:
        """Create the full-width compute instance in a GPU instance.

        Raises:
            HardwareError: it could not be made; the GPU instance stays.
        """

    def set_mig_mode(self, uuid: GpuUuid, *, enabled: bool) -> ModeChange:
        """Ask for MIG mode on or off; the answer says whether it is active or pending.

        Raises:
            HardwareError: the request was refused.
        """


class Scheduler(Protocol):
    """What hands instances to jobs on this node: bare, docker, slurm, kubernetes."""

    def allocations(self, reading: NodeReading) -> Allocations:
        """Return who owns which instance; unknown rather than an exception."""

    def waiting(self) -> Fetched:
        """Return the instances that jobs wait for here."""

    def fence(self, uuid: GpuUuid, specs: tuple[InstanceSpec, ...]) -> str | None:
        """Stop handing out these instances; None when it holds, else why it does not."""

    def unfence(self, uuid: GpuUuid) -> str | None:
        """Lift the fence; None when done, else why not (tried again next tick)."""

    def refresh(self, uuid: GpuUuid, layout: Layout) -> str | None:
        """Make the new layout known to jobs; None when it advertises it, else what is missing."""

    def period_seconds(self) -> float:
        """Return how long to wait between fencing and acting."""


class HostProcesses(Protocol):
    """The host's view of processes, to name holders and to distrust nonsense pids."""

    def visible(self) -> bool:
        """Say whether this process sees all processes of the host."""

    def exists(self, pid: int) -> bool:
        """Say whether such a process exists."""

    def process(self, pid: int) -> HostProcess:
        """Return name, account and container of a process as far as they can be read."""
