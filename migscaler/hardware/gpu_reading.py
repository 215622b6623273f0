"""Read one GPU: mode, model, instances, and who and what is on them."""

from dataclasses import dataclass

from migscaler.errors import (
    DriverGone,
    ForeignAnswer,
    GpuLost,
    HardwareError,
    NotSupported,
    NvmlError,
)
from migscaler.hardware.gpu_facts import GpuIdentity
from migscaler.hardware.instance_reading import GpuAccess, LiveInstance, read_instances
from migscaler.hardware.process_reading import (
    Processes,
    read_instance_processes,
    read_processes,
)
from migscaler.model.gpu import Gap, GpuReading, InstanceReading
from migscaler.model.ids import GiId
from migscaler.model.layout import GpuModel
from migscaler.model.ports import HostProcesses


@dataclass(frozen=True, slots=True, kw_only=True)
class _Contents:
    """What is on a GPU; `live` carries the handles of `instances`, both None where not known."""

    live: tuple[LiveInstance, ...] | None
    instances: tuple[InstanceReading, ...] | None
    processes: Processes | None = None
    gaps: tuple[Gap, ...] = ()


def read_gpu(
    gpu: GpuAccess, index: int, *, host: HostProcesses, branch: int | None
) -> tuple[GpuReading, tuple[LiveInstance, ...] | None]:
    """Return the GPU without gauges and activity, and its instances with their handles.

    What fails is a gap of its own; a value that is not there for such a GPU is None without one.

    Raises:
        GpuLost: the GPU does not answer any more.
        DriverGone: NVML as a whole does not.
        NvmlError: mode or name can't be read.
    """
    try:
        mig = gpu.calls.mig_mode(gpu.device)
    except NotSupported:
        mig = None
    gpu.facts.note_mode(gpu.uuid, enabled=mig[0] if mig else None)
    identity = gpu.facts.identity(gpu.calls, gpu.device, gpu.uuid)
    model, gaps = _read_model(gpu, branch) if mig else (None, ())
    if mig is None or not mig[0]:
        contents = _read_whole(gpu, identity, host)
    elif model is None:
        why = "the GPU's profiles are not known"
        contents = _Contents(live=None, instances=None, gaps=(Gap(what="instances", why=why),))
    else:
        contents = _read_mig(gpu, model, identity, host)
    reading = GpuReading(
        index=index,
        uuid=gpu.uuid,
        name=identity.name,
        pci_bus_id=identity.pci_bus_id,
        pci_device_id=identity.pci_device_id,
        foreign_owner=identity.foreign_owner,
        serial=identity.serial,
        minor=identity.minor,
        model=model,
        mig_enabled=mig[0] if mig else None,
        mig_pending=mig[1] if mig else None,
        mode_change_needs_reset=identity.mode_change_needs_reset if mig else None,
        gpm=gpu.facts.has_gpm(gpu.uuid),
        instances=contents.instances,
        processes=contents.processes,
        gaps=gaps + contents.gaps,
    )
    return reading, contents.live


def _read_model(gpu: GpuAccess, branch: int | None) -> tuple[GpuModel | None, tuple[Gap, ...]]:
    """Return what the GPU allows, or why that can't be read."""
    try:
        return gpu.facts.model(gpu.calls, gpu.device, gpu.uuid, branch), ()
    except (DriverGone, GpuLost):
        raise
    except HardwareError as error:
        return None, (Gap(what="model", why=str(error)),)


def _read_whole(gpu: GpuAccess, identity: GpuIdentity, host: HostProcesses) -> _Contents:
    """Read a GPU without MIG."""
    try:
        processes = read_processes(gpu, host, identity.memory_total_bytes)
    except (DriverGone, GpuLost):
        raise
    except HardwareError as error:
        gap = Gap(what="processes", why=str(error))
        return _Contents(live=(), instances=(), gaps=(gap,))
    return _Contents(live=(), instances=(), processes=processes)


def _read_mig(
    gpu: GpuAccess, model: GpuModel, identity: GpuIdentity, host: HostProcesses
) -> _Contents:
    """Read the instances, and who and what is on them."""
    try:
        live = read_instances(gpu, model)
    except (DriverGone, GpuLost):
        raise
    except HardwareError as error:
        _doubt(gpu, error)
        gap = Gap(what="instances", why=str(error))
        return _Contents(live=None, instances=None, gaps=(gap,))
    gaps: list[Gap] = []
    processes: dict[GiId, Processes | None] = {}
    try:
        processes = read_instance_processes(gpu, host, live, identity.memory_total_bytes)
    except ForeignAnswer as error:
        _doubt(gpu, error)
        gaps.append(Gap(what="processes", why=str(error)))
    readings = []
    for one in live:
        known = processes.get(one.instance.gi_id)
        try:
            readings.append(_with_figures(gpu, one, known))
        except (DriverGone, GpuLost):
            raise
        except NvmlError as error:
            gaps.append(Gap(what="memory", why=f"{one.instance.spec}: {error}"))
            readings.append(InstanceReading(instance=one.instance, processes=known))
    return _Contents(live=live, instances=tuple(readings), gaps=tuple(gaps))


def _doubt(gpu: GpuAccess, error: HardwareError) -> None:
    """Have the GPU's profiles asked for anew where what is there contradicts them.

    A driver that said once too often that it has no such profile hides that profile's instances.
    """
    if isinstance(error, ForeignAnswer):
        gpu.facts.doubt(gpu.uuid)


def _with_figures(
    gpu: GpuAccess, one: LiveInstance, processes: Processes | None
) -> InstanceReading:
    """Read memory and ECC errors of a GPU instance through one of its MIG devices.

    Memory belongs to the GPU instance: its compute instances all show the same.
    """
    if not one.devices:
        return InstanceReading(instance=one.instance, processes=processes)
    device = one.devices[0]
    memory = gpu.calls.memory(device)
    ecc = gpu.facts.offered(gpu.uuid, "instance ecc", lambda: gpu.calls.sram_ecc_errors(device))
    return InstanceReading(
        instance=one.instance,
        processes=processes,
        memory_total_bytes=memory.total_bytes,
        memory_used_bytes=memory.used_bytes,
        ecc_uncorrected=ecc,
    )
