"""NVML functions about what is in use: memory and processes, of GPUs and of MIG devices."""

import struct

from migscaler.sim.arguments import Argument, Filled, require_version, target
from migscaler.sim.codes import Answered, Code
from migscaler.sim.core import driver_tuple
from migscaler.sim.session import Session
from migscaler.sim.state import ComputeState, GpuState, InstanceState, Job
from migscaler.sim.symbols import Symbol
from migscaler.sim.telemetry import RESERVED_MIB, gpu_used_mib, instance_used_mib

MIB = 1024 * 1024
NOT_MIG = 0xFFFFFFFF  # gpuInstanceId of a process outside MIG
# The third name of the process lists: from 535.43 its structure had one field more without telling,
# from 535.98 it was gone for the rest of that branch, and later drivers have it with the old
# structure again (XuehaiPan/nvitop pull requests 79, 89 and 226).
_FIRST_GROWN = (535, 43)
_V3_ABSENT = ((535, 98), (536,))
_GROWN_ENTRY = struct.Struct("=IxxxxQIIQ")
_COMPUTE_MODE, _GRAPHICS_MODE = 0, 1  # NVML_PROCESS_MODE_*


def memory_v1(session: Session, handle: Argument, out: Argument) -> int:
    """Answer nvmlDeviceGetMemoryInfo: used includes what the driver keeps for itself."""
    total, reserved, used = _memory(session, handle)
    info = target(out)
    info.total = total * MIB
    info.used = (used + reserved) * MIB
    info.free = (total - used - reserved) * MIB
    return Code.SUCCESS


def memory_v2(session: Session, handle: Argument, out: Argument) -> int:
    """Answer nvmlDeviceGetMemoryInfo_v2: reserved apart from used."""
    info = target(out)
    require_version(info, 2)
    total, reserved, used = _memory(session, handle)
    info.total = total * MIB
    info.reserved = reserved * MIB
    info.used = used * MIB
    info.free = (total - used - reserved) * MIB
    return Code.SUCCESS


def _memory(session: Session, handle: Argument) -> tuple[int, int, int]:
    """Return total, reserved and used MiB; the parent's sum under MIG needs privilege."""
    gpu, gi, _ = session.any_device(handle)
    if gi is not None:
        return gi.memory_mib, 0, instance_used_mib(gpu, gi)
    if gpu.mig_current:
        session.require_privilege()
    return session.node.rules(gpu).memory_total_mib, RESERVED_MIB, gpu_used_mib(gpu)


def processes(session: Session, handle: Argument, count: Argument, array: Argument) -> int:
    """Answer nvmlDeviceGetComputeRunningProcesses_v2 and _v3: both fill the structure of v2."""
    return _list(session, handle, count, array, graphics=False)


def processes_v3(session: Session, handle: Argument, count: Argument, array: Argument) -> int:
    """Answer nvmlDeviceGetComputeRunningProcesses_v3, with the wider entries of early R535."""
    if not _FIRST_GROWN <= driver_tuple(session.driver) < _V3_ABSENT[0]:
        return _list(session, handle, count, array, graphics=False)
    gpu, gi, ci = session.any_device(handle)
    found = _jobs(session, gpu, gi, ci, graphics=False)
    counter = target(count)
    room, counter.value = counter.value, len(found)
    if not found:
        return Code.SUCCESS
    if array is None or room < len(found):
        return Code.INSUFFICIENT_SIZE
    memory = memoryview(target(array)).cast("B")
    for slot, job in enumerate(found):
        end = (slot + 1) * _GROWN_ENTRY.size
        if end > len(memory):  # a driver would write on; the caller's memory is not ours to break
            break
        ids = (NOT_MIG if one is None else one for one in (job.gi_id, job.ci_id))
        start = end - _GROWN_ENTRY.size
        _GROWN_ENTRY.pack_into(memory, start, job.pid, job.memory_mib * MIB, *ids, 0)
    return Code.SUCCESS


def graphics_processes(session: Session, handle: Argument, count: Argument, array: Argument) -> int:
    """Answer nvmlDeviceGetGraphicsRunningProcesses_v2 and _v3."""
    return _list(session, handle, count, array, graphics=True)


def mps_processes(session: Session, handle: Argument, count: Argument, array: Argument) -> int:
    """Answer nvmlDeviceGetMPSComputeRunningProcesses_v3: MPS is not simulated, so none."""
    session.any_device(handle)
    target(count).value = 0
    return Code.SUCCESS


def _list(
    session: Session, handle: Argument, count: Argument, array: Argument, *, graphics: bool
) -> int:
    gpu, gi, ci = session.any_device(handle)
    found = _jobs(session, gpu, gi, ci, graphics=graphics)
    counter = target(count)
    room, counter.value = counter.value, len(found)
    if not found:
        return Code.SUCCESS
    if array is None or room < len(found):
        return Code.INSUFFICIENT_SIZE
    filled = target(array)
    for slot, job in enumerate(found):
        _fill(filled[slot], job)
    return Code.SUCCESS


def _jobs(
    session: Session,
    gpu: GpuState,
    gi: InstanceState | None,
    ci: ComputeState | None,
    *,
    graphics: bool,
) -> list[Job]:
    if gi is None or ci is None:
        if gpu.mig_current:
            session.require_privilege()
        return [job for job in gpu.jobs if job.graphics == graphics]
    return [
        job
        for job in gpu.jobs
        if job.gi_id == gi.id and job.ci_id == ci.id and job.graphics == graphics
    ]


def _fill(entry: Filled, job: Job) -> None:
    entry.pid = job.pid
    entry.usedGpuMemory = job.memory_mib * MIB
    entry.gpuInstanceId = NOT_MIG if job.gi_id is None else job.gi_id
    entry.computeInstanceId = NOT_MIG if job.ci_id is None else job.ci_id


def process_details(session: Session, handle: Argument, out: Argument) -> int:
    """Answer nvmlDeviceGetRunningProcessDetailList: the list with confidential-computing memory."""
    info = target(out)
    require_version(info, 1)
    gpu, gi, ci = session.any_device(handle)
    if info.mode not in (_COMPUTE_MODE, _GRAPHICS_MODE):
        raise Answered(Code.INVALID_ARGUMENT)
    found = _jobs(session, gpu, gi, ci, graphics=info.mode == _GRAPHICS_MODE)
    room, info.numProcArrayEntries = info.numProcArrayEntries, len(found)
    if not found:
        return Code.SUCCESS
    if not info.procArray or room < len(found):
        return Code.INSUFFICIENT_SIZE
    for slot, job in enumerate(found):
        _fill(info.procArray[slot], job)
        info.procArray[slot].usedGpuCcProtectedMemory = 0
    return Code.SUCCESS


def symbols() -> dict[str, Symbol]:
    """Return the functions of this module by C name."""
    device = "nvmlDeviceGet"
    return {
        f"{device}MemoryInfo": Symbol(memory_v1),
        f"{device}MemoryInfo_v2": Symbol(memory_v2, since=510),
        f"{device}ComputeRunningProcesses_v2": Symbol(processes),
        f"{device}ComputeRunningProcesses_v3": Symbol(processes_v3, since=510, absent=_V3_ABSENT),
        f"{device}GraphicsRunningProcesses_v2": Symbol(graphics_processes),
        f"{device}GraphicsRunningProcesses_v3": Symbol(
            graphics_processes, since=510, absent=_V3_ABSENT
        ),
        f"{device}MPSComputeRunningProcesses_v3": Symbol(mps_processes, since=510),
        f"{device}RunningProcessDetailList": Symbol(process_details, since=545),
    }
