"""Read who runs on a GPU and its instances; an answer that makes no sense is no answer."""

from migscaler.errors import DriverGone, ForeignAnswer, GpuLost, NotSupported, NvmlError
from migscaler.hardware.instance_reading import GpuAccess, LiveInstance
from migscaler.hardware.nvml_answers import Device, ProcessRow
from migscaler.model.gpu import GpuProcess
from migscaler.model.ids import GiId
from migscaler.model.ports import HostProcesses
from migscaler.model.process import HostProcess

_COMPUTE = "Compute"
# Kinds a GPU or driver may lack; then nothing of that kind can run.
_OTHER_KINDS = ("Graphics", "MPSCompute")
_PID_LIMIT = 4 * 1024 * 1024  # PID_MAX_LIMIT of 64-bit Linux

Processes = tuple[GpuProcess, ...]


def read_processes(gpu: GpuAccess, host: HostProcesses, total_bytes: int | None) -> Processes:
    """Return the processes of a GPU without MIG, by pid.

    Raises:
        NvmlError: they can't be listed.
        ForeignAnswer: the list makes no sense.
    """
    return _named(_list(gpu, gpu.device, host, total_bytes), host)


def read_instance_processes(
    gpu: GpuAccess,
    host: HostProcesses,
    live: tuple[LiveInstance, ...],
    total_bytes: int | None,
) -> dict[GiId, Processes | None]:
    """Return the processes of each instance, None where not known.

    The parent lists all with their instance, to the privileged. Where it does not, each MIG device
    is asked; an instance without one stays unknown then. What the parent lists must be found again.

    Raises:
        ForeignAnswer: the list makes no sense.
    """
    try:
        rows = _list(gpu, gpu.device, host, total_bytes)
    except (DriverGone, GpuLost):
        raise
    except NvmlError:
        rows = None
    if rows is None or any(row.gi_id is None for row in rows):
        found = {one.instance.gi_id: _of_devices(gpu, host, one, total_bytes) for one in live}
        _check_placed(rows or [], live, found)
        return found
    known = [one.instance.gi_id for one in live]
    strangers = {row.gi_id for row in rows if row.gi_id is not None}.difference(known)
    if strangers:
        raise ForeignAnswer(f"processes on GPU instances that are not there: {sorted(strangers)}")
    return {gi_id: _named([r for r in rows if r.gi_id == gi_id], host) for gi_id in known}


def _check_placed(
    rows: list[ProcessRow],
    live: tuple[LiveInstance, ...],
    found: dict[GiId, Processes | None],
) -> None:
    """Refuse lists that lose a process: the GPU shows it, and no instance owns up to it.

    It may be on an instance that did not say; one without MIG device can have none.
    """
    if any(one.devices and found[one.instance.gi_id] is None for one in live):
        return
    placed = {process.pid for processes in found.values() for process in processes or ()}
    lost = sorted({row.pid for row in rows} - placed)
    if lost:
        raise ForeignAnswer(f"processes on the GPU but on none of its instances: {lost}")


def _of_devices(
    gpu: GpuAccess, host: HostProcesses, one: LiveInstance, total_bytes: int | None
) -> Processes | None:
    """Return the processes of an instance's MIG devices, None where one does not say."""
    if not one.devices:
        return None
    rows: list[ProcessRow] = []
    try:
        for device in one.devices:
            rows += _list(gpu, device, host, total_bytes)
    except (DriverGone, GpuLost):
        raise
    except NvmlError:
        return None
    return _named(rows, host)


def _list(
    gpu: GpuAccess, device: Device, host: HostProcesses, total_bytes: int | None
) -> list[ProcessRow]:
    """Return the entries of every kind, checked."""
    rows = list(gpu.calls.processes(device, _COMPUTE))
    for kind in _OTHER_KINDS:
        rows += _of_kind(gpu, device, kind)
    for row in rows:
        _check(row, host, total_bytes)
    return rows


def _of_kind(gpu: GpuAccess, device: Device, kind: str) -> tuple[ProcessRow, ...]:
    if device is gpu.device:
        found = gpu.facts.offered_now(gpu.uuid, kind, lambda: gpu.calls.processes(device, kind))
        return found or ()
    try:
        return gpu.calls.processes(device, kind)
    except NotSupported:
        return ()


def _check(row: ProcessRow, host: HostProcesses, total_bytes: int | None) -> None:
    """Refuse an entry that can't be: a structure of another driver version swaps pid and memory.

    The entry's layout changed without a new name in 535.43 and back later (nvitop PR #79, #226). A
    process that ended a moment ago is refused too; unknown for one pass is the safe reading.
    """
    if not 0 < row.pid <= _PID_LIMIT:
        raise ForeignAnswer(f"the driver lists a process with pid {row.pid}")
    if total_bytes is not None and (row.used_memory_bytes or 0) > total_bytes:
        raise ForeignAnswer(f"the driver lists pid {row.pid} with more memory than the GPU has")
    if host.visible() and not host.exists(row.pid):
        raise ForeignAnswer(f"the driver lists pid {row.pid}, which does not exist")


def _named(rows: list[ProcessRow], host: HostProcesses) -> Processes:
    """Name the processes, one entry per pid, by pid; memory of a pid's entries is the largest.

    Without the host's PID namespace nobody is named: the same number may be somebody else's here.
    """
    merged: dict[int, int | None] = {}
    for row in rows:
        largest = merged.get(row.pid)
        used = row.used_memory_bytes
        merged[row.pid] = largest if used is None else max(largest or 0, used)
    sees_host = bool(merged) and host.visible()
    found = []
    for pid, used in sorted(merged.items()):
        known = host.process(pid) if sees_host else HostProcess()
        found.append(
            GpuProcess(
                pid=pid,
                used_memory_bytes=used,
                name=known.name,
                user=known.user,
                container=known.container,
            )
        )
    return tuple(found)
