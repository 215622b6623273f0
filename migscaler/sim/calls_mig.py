"""NVML functions about MIG mode, GPU instances and their profiles."""

from migscaler.model.profile import Profile
from migscaler.sim.arguments import (
    Argument,
    Filled,
    give_field,
    give_handle,
    give_handles,
    give_placements,
    number,
    require_version,
    target,
)
from migscaler.sim.codes import Answered, Code
from migscaler.sim.gpu import profile_of_id, require_mig
from migscaler.sim.handles import Kind, pack
from migscaler.sim.incidents import MIG_EVENT, add_event
from migscaler.sim.rules import Rules
from migscaler.sim.session import Session
from migscaler.sim.state import GpuState
from migscaler.sim.symbols import Symbol

PROFILE_COUNT = 18  # NVML_GPU_INSTANCE_PROFILE_COUNT, nvml.h of API 13
# Profile queries work with MIG off from this branch (field 199; "on 535 they did not").
FIRST_BRANCH_WITH_INDEPENDENT_QUERY = 550
# An A30's driver reports a wrong instanceCount for some profiles, so mig-parted hard-codes A30.
# Which ones is in no source: this one is our choice, to make sure that callers trust the placement
# list.
_A30_WRONG_COUNT = {"2g.12gb": 3}


def mig_mode(session: Session, device: Argument, current: Argument, pending: Argument) -> int:
    """Answer nvmlDeviceGetMigMode."""
    gpu = session.device(device)
    target(current).value = gpu.mig_current
    target(pending).value = gpu.mig_pending
    return Code.SUCCESS


def set_mig_mode(session: Session, device: Argument, mode: Argument, status: Argument) -> int:
    """Answer nvmlDeviceSetMigMode: SUCCESS with a second status that may say "only pending"."""
    wanted = number(mode)
    out = target(status)
    with session.node.changing():
        session.require_admin()
        gpu = session.device(device)
        out.value = int(session.node.set_mode(gpu, wanted, session.actor))
    return Code.SUCCESS


def profile_info_v1(session: Session, device: Argument, profile: Argument, out: Argument) -> int:
    """Answer nvmlDeviceGetGpuInstanceProfileInfo: takes the enum."""
    _, rules, found = _by_enum(session, device, profile)
    _fill_profile(target(out), rules, found)
    return Code.SUCCESS


def profile_info_v(session: Session, device: Argument, profile: Argument, out: Argument) -> int:
    """Answer nvmlDeviceGetGpuInstanceProfileInfoV: takes the enum and a version 2 structure."""
    info = target(out)
    require_version(info, 2)
    _, rules, found = _by_enum(session, device, profile)
    _fill_profile(info, rules, found)
    info.name = _display_name(found).encode()
    return Code.SUCCESS


def profile_info_by_id(session: Session, device: Argument, profile: Argument, out: Argument) -> int:
    """Answer nvmlDeviceGetGpuInstanceProfileInfoByIdV: takes the id."""
    info = target(out)
    require_version(info, 2)
    gpu = session.device(device)
    rules = session.node.rules(gpu)
    _require_query(gpu, rules)
    found = profile_of_id(rules, number(profile))
    _fill_profile(info, rules, found)
    info.name = _display_name(found).encode()
    return Code.SUCCESS


def _display_name(profile: Profile) -> str:
    """Return the name as the v2 structure shows it: `MIG 1g.5gb`."""
    return f"MIG {profile.name}"


def _by_enum(
    session: Session, device: Argument, profile: Argument
) -> tuple[GpuState, Rules, Profile]:
    gpu = session.device(device)
    rules = session.node.rules(gpu)
    _require_query(gpu, rules)
    wanted = number(profile)
    if not 0 <= wanted < PROFILE_COUNT:
        raise Answered(Code.INVALID_ARGUMENT)
    found = rules.by_enum.get(wanted)
    if found is None:
        raise Answered(Code.NOT_SUPPORTED)
    return gpu, rules, found


def _require_query(gpu: GpuState, rules: Rules) -> None:
    """Older drivers answer profile queries only while MIG mode is on."""
    if rules.branch < FIRST_BRANCH_WITH_INDEPENDENT_QUERY:
        require_mig(gpu)


def _fill_profile(info: Filled, rules: Rules, profile: Profile) -> None:
    figures = rules.figures[profile.name]
    info.id = profile.profile_id
    info.isP2pSupported = 0
    info.sliceCount = profile.compute_slices
    info.instanceCount = _instance_count(rules, profile)
    info.multiprocessorCount = figures.sm_count
    info.copyEngineCount = figures.engines["copy"]
    info.decoderCount = figures.engines["decoder"]
    info.encoderCount = figures.engines["encoder"]
    info.jpegCount = figures.engines["jpeg"]
    info.ofaCount = figures.engines["ofa"]
    info.memorySizeMB = figures.memory_mib


def _instance_count(rules: Rules, profile: Profile) -> int:
    """Return how many instances NVML tells that there can be."""
    wrong = _A30_WRONG_COUNT if rules.board.memory_slices == 4 else {}
    return wrong.get(profile.name, profile.max_instances)


def placements(
    session: Session, device: Argument, profile_id: Argument, array: Argument, count: Argument
) -> int:
    """Answer nvmlDeviceGetGpuInstancePossiblePlacements_v2: whatever is occupied."""
    session.require_privilege()
    gpu = session.device(device)
    rules = session.node.rules(gpu)
    _require_query(gpu, rules)
    profile = profile_of_id(rules, number(profile_id))
    give_placements(count, array, profile.starts, profile.memory_slices)
    return Code.SUCCESS


def remaining(session: Session, device: Argument, profile_id: Argument, out: Argument) -> int:
    """Answer nvmlDeviceGetGpuInstanceRemainingCapacity."""
    session.require_privilege()
    gpu = session.device(device)
    require_mig(gpu)
    rules = session.node.rules(gpu)
    profile = profile_of_id(rules, number(profile_id))
    target(out).value = rules.capacity(gpu.instances.values(), profile)
    return Code.SUCCESS


def create(session: Session, device: Argument, profile_id: Argument, out: Argument) -> int:
    """Answer nvmlDeviceCreateGpuInstance: the driver picks the start, greedily."""
    return _create(session, device, profile_id, None, out)


def create_with_placement(
    session: Session, device: Argument, profile_id: Argument, placement: Argument, out: Argument
) -> int:
    """Answer nvmlDeviceCreateGpuInstanceWithPlacement."""
    wanted = target(placement)
    return _create(session, device, profile_id, (wanted.start, wanted.size), out)


def _create(
    session: Session,
    device: Argument,
    profile_id: Argument,
    placement: tuple[int, int] | None,
    out: Argument,
) -> int:
    target(out)
    with session.node.changing() as state:
        session.require_privilege()
        gpu = session.device(device)
        made = session.node.create_instance(gpu, number(profile_id), placement, session.actor)
        add_event(state, gpu, MIG_EVENT, 0, made.id)
        give_handle(out, pack(Kind.GPU_INSTANCE, gpu, made.id))
    return Code.SUCCESS


def destroy(session: Session, handle: Argument) -> int:
    """Answer nvmlGpuInstanceDestroy."""
    with session.node.changing() as state:
        session.require_privilege()
        gpu, gi = session.instance(handle)
        session.node.destroy_instance(gpu, gi, session.actor)
        add_event(state, gpu, MIG_EVENT, 0, gi.id)
    return Code.SUCCESS


def instances(
    session: Session, device: Argument, profile_id: Argument, array: Argument, count: Argument
) -> int:
    """Answer nvmlDeviceGetGpuInstances: of one id; the array must hold its instanceCount."""
    session.require_privilege()
    gpu = session.device(device)
    require_mig(gpu)
    rules = session.node.rules(gpu)
    profile = profile_of_id(rules, number(profile_id))
    found = [gi for gi in gpu.instances.values() if gi.profile_id == profile.profile_id]
    handles = [pack(Kind.GPU_INSTANCE, gpu, gi.id) for gi in found]
    give_handles(count, array, handles, told=_instance_count(rules, profile))
    return Code.SUCCESS


def instance_by_id(session: Session, device: Argument, gi_id: Argument, out: Argument) -> int:
    """Answer nvmlDeviceGetGpuInstanceById."""
    session.require_privilege()
    gpu = session.device(device)
    require_mig(gpu)
    wanted = number(gi_id)
    if wanted not in gpu.instances:
        return Code.NOT_FOUND
    give_handle(out, pack(Kind.GPU_INSTANCE, gpu, wanted))
    return Code.SUCCESS


def instance_info(session: Session, handle: Argument, out: Argument) -> int:
    """Answer nvmlGpuInstanceGetInfo."""
    gpu, gi = session.instance(handle)
    info = target(out)
    give_field(info, "device", pack(Kind.DEVICE, gpu))
    info.id = gi.id
    info.profileId = gi.profile_id
    info.placement.start = gi.start
    info.placement.size = gi.size
    return Code.SUCCESS


def symbols() -> dict[str, Symbol]:
    """Return the functions of this module by C name."""
    return {
        "nvmlDeviceGetMigMode": Symbol(mig_mode),
        "nvmlDeviceSetMigMode": Symbol(set_mig_mode),
        "nvmlDeviceGetGpuInstanceProfileInfo": Symbol(profile_info_v1),
        "nvmlDeviceGetGpuInstanceProfileInfoV": Symbol(profile_info_v, since=510),
        "nvmlDeviceGetGpuInstanceProfileInfoByIdV": Symbol(profile_info_by_id, since=580),
        "nvmlDeviceGetGpuInstancePossiblePlacements_v2": Symbol(placements, since=470),
        "nvmlDeviceGetGpuInstanceRemainingCapacity": Symbol(remaining),
        "nvmlDeviceCreateGpuInstance": Symbol(create),
        "nvmlDeviceCreateGpuInstanceWithPlacement": Symbol(create_with_placement, since=470),
        "nvmlGpuInstanceDestroy": Symbol(destroy),
        "nvmlDeviceGetGpuInstances": Symbol(instances),
        "nvmlDeviceGetGpuInstanceById": Symbol(instance_by_id),
        "nvmlGpuInstanceGetInfo": Symbol(instance_info),
    }
