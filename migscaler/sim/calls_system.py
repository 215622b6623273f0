"""NVML functions about the system: start and end, versions, counts, handles, error texts."""

from migscaler.sim.arguments import (
    Argument,
    give_handle,
    give_text,
    number,
    require_version,
    target,
    text,
)
from migscaler.sim.codes import Answered, Code
from migscaler.sim.core import driver_branch
from migscaler.sim.handles import Kind, pack
from migscaler.sim.session import Session
from migscaler.sim.state import GpuState
from migscaler.sim.symbols import Symbol

# CUDA version that came with a driver branch (release notes of the CUDA toolkit), newest last.
_CUDA = (
    *((450, 11000), (460, 11020), (470, 11040), (510, 11060), (525, 12000), (535, 12020)),
    *((545, 12030), (550, 12040), (560, 12060), (570, 12080), (580, 13000), (590, 13010)),
)

_HOPPER = 9  # NVML_DEVICE_ARCH_HOPPER
_PRODUCTION = 2  # NVML_CC_SYSTEM_ENVIRONMENT_PROD


def init(session: Session, flags: Argument = 0) -> int:
    """Answer nvmlInit_v2, nvmlInitWithFlags."""
    number(flags)
    state = session.node.state
    session.check(state, initialised=False)
    if session.driver_session != state.session:
        session.references = 0
    session.driver_session = state.session
    session.references += 1
    return Code.SUCCESS


def shutdown(session: Session) -> int:
    """Answer nvmlShutdown: counted, as init is."""
    session.references -= 1
    return Code.SUCCESS


def driver_version(session: Session, buffer: Argument, length: Argument) -> int:
    """Answer nvmlSystemGetDriverVersion."""
    give_text(buffer, length, session.driver)
    return Code.SUCCESS


def system_branch(session: Session, info: Argument, length: Argument) -> int:
    """Answer nvmlSystemGetDriverBranch: `r550_00`."""
    found = target(info)
    require_version(found, 1)
    number(length)
    found.branch = f"r{driver_branch(session.driver)}_00".encode()
    return Code.SUCCESS


def nvml_version(session: Session, buffer: Argument, length: Argument) -> int:
    """Answer nvmlSystemGetNVMLVersion: CUDA major and driver version."""
    give_text(buffer, length, f"{_cuda(session) // 1000}.{session.driver}")
    return Code.SUCCESS


def cuda_version(session: Session, out: Argument) -> int:
    """Answer nvmlSystemGetCudaDriverVersion, _v2: 12040 is 12.4."""
    target(out).value = _cuda(session)
    return Code.SUCCESS


def _cuda(session: Session) -> int:
    branch = driver_branch(session.driver)
    return max(version for first, version in _CUDA if first <= max(branch, 450))


def confidential_state(session: Session, out: Argument) -> int:
    """Answer nvmlSystemGetConfComputeState: NOT_SUPPORTED where no GPU could have it.

    Hopper is the first generation with confidential computing.
    """
    node = session.node
    if not any(node.rules(gpu).board.nvml_arch >= _HOPPER for gpu in node.state.gpus):
        return Code.NOT_SUPPORTED
    state = target(out)
    state.environment = _PRODUCTION if node.state.confidential else 0
    state.ccFeature = int(node.state.confidential)
    state.devToolsMode = 0
    return Code.SUCCESS


def process_name(session: Session, pid: Argument, buffer: Argument, length: Argument) -> int:
    """Answer nvmlSystemGetProcessName: only of processes on the GPUs."""
    wanted = number(pid)
    for gpu in session.node.state.gpus:
        for job in gpu.jobs:
            if job.pid == wanted:
                give_text(buffer, length, job.name)
                return Code.SUCCESS
    return Code.NOT_FOUND


def count(session: Session, out: Argument) -> int:
    """Answer nvmlDeviceGetCount_v2: lost GPUs count."""
    target(out).value = len(session.node.state.gpus)
    return Code.SUCCESS


def handle_by_index(session: Session, index: Argument, out: Argument) -> int:
    """Answer nvmlDeviceGetHandleByIndex_v2."""
    wanted = number(index)
    gpus = session.node.state.gpus
    if not 0 <= wanted < len(gpus):
        return Code.INVALID_ARGUMENT
    return _give(gpus[wanted], out)


def handle_by_uuid(session: Session, uuid: Argument, out: Argument) -> int:
    """Answer nvmlDeviceGetHandleByUUID: of a GPU, or of a MIG device that exists now."""
    wanted = text(uuid)
    for gpu in session.node.state.gpus:
        if gpu.uuid == wanted:
            return _give(gpu, out)
    found = session.node.find_mig(wanted)
    if found is None:
        return Code.NOT_FOUND
    gpu, gi, ci = found
    if gpu.lost:
        return Code.GPU_IS_LOST
    give_handle(out, pack(Kind.MIG_DEVICE, gpu, gi.id, ci.id))
    return Code.SUCCESS


def handle_by_serial(session: Session, serial: Argument, out: Argument) -> int:
    """Answer nvmlDeviceGetHandleBySerial."""
    return _give(_find(session, "serial", text(serial)), out)


def handle_by_bus_id(session: Session, bus_id: Argument, out: Argument) -> int:
    """Answer nvmlDeviceGetHandleByPciBusId_v2: with a domain of 4 or 8 digits, in any case."""
    domain, _, rest = text(bus_id).partition(":")
    return _give(_find(session, "bus_id", f"{domain.rjust(8, '0')}:{rest}".upper()), out)


def _find(session: Session, field: str, wanted: str) -> GpuState:
    for gpu in session.node.state.gpus:
        if getattr(gpu, field) == wanted:
            return gpu
    raise Answered(Code.NOT_FOUND)


def _give(gpu: GpuState, out: Argument) -> int:
    if gpu.lost:
        return Code.GPU_IS_LOST
    give_handle(out, pack(Kind.DEVICE, gpu))
    return Code.SUCCESS


def symbols() -> dict[str, Symbol]:
    """Return the functions of this module by C name."""
    return {
        "nvmlInit_v2": Symbol(init, needs_init=False),
        "nvmlInitWithFlags": Symbol(init, needs_init=False),
        "nvmlShutdown": Symbol(shutdown),
        "nvmlSystemGetDriverVersion": Symbol(driver_version),
        "nvmlSystemGetDriverBranch": Symbol(system_branch, since=560),
        "nvmlSystemGetNVMLVersion": Symbol(nvml_version),
        "nvmlSystemGetCudaDriverVersion": Symbol(cuda_version),
        "nvmlSystemGetCudaDriverVersion_v2": Symbol(cuda_version),
        "nvmlSystemGetProcessName": Symbol(process_name),
        "nvmlSystemGetConfComputeState": Symbol(confidential_state, since=535),
        "nvmlDeviceGetCount_v2": Symbol(count),
        "nvmlDeviceGetHandleByIndex_v2": Symbol(handle_by_index),
        "nvmlDeviceGetHandleByUUID": Symbol(handle_by_uuid),
        "nvmlDeviceGetHandleBySerial": Symbol(handle_by_serial),
        "nvmlDeviceGetHandleByPciBusId_v2": Symbol(handle_by_bus_id),
    }
