"""What a privileged NVML worker refuses whoever asks: to take an instance from a process.

The asking daemon has looked at all this before it asks. This look is there for the day on which the
daemon is not what it should be.
"""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from migscaler.errors import HardwareError, HeldByProcess
from migscaler.hardware.nvml import NvmlReader, NvmlWriter
from migscaler.model.gpu import GpuProcess, GpuReading, InstanceReading, ModeChange, NodeReading
from migscaler.model.host import HostTable
from migscaler.model.ids import CiId, GiId, GpuUuid
from migscaler.model.ports import Clock
from migscaler.model.profile import InstanceSpec
from migscaler.schedulers.evidence import EvidenceScan

Processes = tuple[GpuProcess, ...] | None


class GuardedWriter:
    """Changes GPUs as the writer below it, after a look of its own (see `GpuWriter`)."""

    def __init__(
        self,
        reader: NvmlReader,
        clock: Clock,
        read_host: Callable[[bool], HostTable],
        mig_minors: Path,
    ) -> None:
        """Take where processes and the map of their device nodes are seen."""
        self._reader = reader
        self._writer = NvmlWriter(reader)
        self._clock = clock
        self._read_host = read_host
        self._scan = EvidenceScan(mig_minors)

    def destroy_compute_instance(self, uuid: GpuUuid, gi_id: GiId, ci_id: CiId) -> None:
        """Destroy a compute instance on whose GPU instance nobody is.

        Raises:
            HeldByProcess: somebody is.
            HardwareError: who is there is not known, or as the writer.
        """
        self._refuse_used("nvmlComputeInstanceDestroy", uuid, gi_id)
        self._writer.destroy_compute_instance(uuid, gi_id, ci_id)

    def destroy_gpu_instance(self, uuid: GpuUuid, gi_id: GiId) -> None:
        """Destroy a GPU instance on which nobody is.

        Raises:
            HeldByProcess: somebody is.
            HardwareError: who is there is not known, or as the writer.
        """
        self._refuse_used("nvmlGpuInstanceDestroy", uuid, gi_id)
        self._writer.destroy_gpu_instance(uuid, gi_id)

    def create_gpu_instance(self, uuid: GpuUuid, spec: InstanceSpec) -> GiId:
        """Create a GPU instance; it takes nothing from anybody, and the driver sees to room."""
        return self._writer.create_gpu_instance(uuid, spec)

    def create_compute_instance(self, uuid: GpuUuid, gi_id: GiId) -> CiId:
        """Create the full-width compute instance in a GPU instance."""
        return self._writer.create_compute_instance(uuid, gi_id)

    def set_mig_mode(self, uuid: GpuUuid, *, enabled: bool) -> ModeChange:
        """Ask for MIG mode on or off on a GPU where nobody is: instances go with the mode.

        Raises:
            HeldByProcess: somebody is.
            HardwareError: who is there is not known, or as the writer.
        """
        call = "nvmlDeviceSetMigMode"
        reading = self._reader.read_gpu(uuid)
        if reading.instances is None:
            raise HardwareError(f"{call} was not called: the GPU's instances are not known")
        if not reading.mig_enabled:
            _refuse_listed(call, "the GPU", reading.processes)
        for one in reading.instances:
            self._refuse_instance(call, reading, one)
        return self._writer.set_mig_mode(uuid, enabled=enabled)

    def _refuse_used(self, call: str, uuid: GpuUuid, gi_id: GiId) -> None:
        """Refuse an instance that somebody is on; one that is not there is the driver's answer."""
        reading = self._reader.read_gpu(uuid)
        if reading.instances is None:
            raise HardwareError(f"{call} was not called: the GPU's instances are not known")
        for one in reading.instances:
            if one.instance.gi_id == gi_id:
                self._refuse_instance(call, reading, one)

    def _refuse_instance(self, call: str, reading: GpuReading, one: InstanceReading) -> None:
        """Refuse an instance with a process, a holder, or neither known."""
        _refuse_listed(call, str(one.instance.spec), one.processes)
        alone = NodeReading(
            taken_at=self._clock.now(),
            taken_monotonic=self._clock.monotonic(),
            gpus=(replace(reading, instances=(one,)),),
        )
        try:
            table = self._read_host(True)
        except OSError as error:
            raise HardwareError(f"{call} was not called: {error.strerror}") from error
        found = self._scan.look(alone, table)
        if found.holders:
            first = found.holders[0]
            raise HeldByProcess(
                call,
                f"{one.instance.spec} is held by process {first.pid} ({first.name}, {first.trace})",
            )
        if found.problem is not None:
            raise HardwareError(f"{call} was not called: {found.problem}")


def _refuse_listed(call: str, what: str, processes: Processes) -> None:
    """Refuse what the driver lists a process on, or does not say whether there is one."""
    if processes is None:
        raise HardwareError(f"{call} was not called: the processes on {what} are not known")
    if processes:
        first = processes[0]
        raise HeldByProcess(call, f"process {first.pid} ({first.name}) is on {what}")
