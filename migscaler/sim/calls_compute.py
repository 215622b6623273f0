"""NVML functions about compute instances and MIG devices (one GPU instance with one of them)."""

from migscaler.model.catalog import ComputeProfile
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
from migscaler.sim.codes import Code
from migscaler.sim.gpu import compute_maximum, compute_profile, compute_refused, compute_starts
from migscaler.sim.handles import Kind, pack
from migscaler.sim.incidents import MIG_EVENT, add_event
from migscaler.sim.rules import Rules
from migscaler.sim.session import Session
from migscaler.sim.state import InstanceState
from migscaler.sim.symbols import Symbol

COMPUTE_PROFILE_COUNT = 9  # NVML_COMPUTE_INSTANCE_PROFILE_COUNT, nvml.h of API 13


def profile_info_v1(
    session: Session, handle: Argument, profile: Argument, engine: Argument, out: Argument
) -> int:
    """Answer nvmlGpuInstanceGetComputeInstanceProfileInfo: takes the enum; engine profile 0."""
    return _profile_info(session, handle, profile, engine, target(out))


def profile_info_v(
    session: Session, handle: Argument, profile: Argument, engine: Argument, out: Argument
) -> int:
    """Answer nvmlGpuInstanceGetComputeInstanceProfileInfoV: version 2, with the name."""
    info = target(out)
    require_version(info, 2)
    code = _profile_info(session, handle, profile, engine, info)
    if code == Code.SUCCESS:
        _, gi = session.instance(handle)
        slices = info.sliceCount
        full = f"{slices}g." == gi.profile[:3]
        info.name = f"MIG {gi.profile if full else f'{slices}c.{gi.profile}'}".encode()
    return code


def _profile_info(
    session: Session, handle: Argument, profile: Argument, engine: Argument, info: Filled
) -> int:
    gpu, gi = session.instance(handle)
    wanted = number(profile)
    if not 0 <= wanted < COMPUTE_PROFILE_COUNT or number(engine) != 0:
        return Code.INVALID_ARGUMENT
    rules = session.node.rules(gpu)
    row = compute_profile(rules, gi, wanted)
    _fill(info, rules, gi, row)
    return Code.SUCCESS


def _fill(info: Filled, rules: Rules, gi: InstanceState, row: ComputeProfile) -> None:
    engines = rules.figures[gi.profile].engines
    info.id = row.ci_id
    info.sliceCount = row.slices
    info.instanceCount = compute_maximum(rules, gi, row)
    info.multiprocessorCount = row.sm_count or 0
    info.sharedCopyEngineCount = engines["copy"]
    info.sharedDecoderCount = engines["decoder"]
    info.sharedEncoderCount = engines["encoder"]
    info.sharedJpegCount = engines["jpeg"]
    info.sharedOfaCount = engines["ofa"]


def remaining(session: Session, handle: Argument, profile_id: Argument, out: Argument) -> int:
    """Answer nvmlGpuInstanceGetComputeInstanceRemainingCapacity."""
    session.require_privilege()
    gpu, gi = session.instance(handle)
    rules = session.node.rules(gpu)
    row = compute_profile(rules, gi, number(profile_id))
    free = [s for s in compute_starts(rules, gi, row) if not compute_refused(rules, gi, row, s)]
    same = sum(ci.profile_id == row.ci_id for ci in gi.compute.values())
    target(out).value = min(len(free), compute_maximum(rules, gi, row) - same)
    return Code.SUCCESS


def placements(
    session: Session, handle: Argument, profile_id: Argument, array: Argument, count: Argument
) -> int:
    """Answer nvmlGpuInstanceGetComputeInstancePossiblePlacements: in compute slices."""
    session.require_privilege()
    gpu, gi = session.instance(handle)
    rules = session.node.rules(gpu)
    row = compute_profile(rules, gi, number(profile_id))
    starts = compute_starts(rules, gi, row)
    give_placements(count, array, starts, row.slices)
    return Code.SUCCESS


def create(session: Session, handle: Argument, profile_id: Argument, out: Argument) -> int:
    """Answer nvmlGpuInstanceCreateComputeInstance."""
    return _create(session, handle, profile_id, None, out)


def create_with_placement(
    session: Session, handle: Argument, profile_id: Argument, placement: Argument, out: Argument
) -> int:
    """Answer nvmlGpuInstanceCreateComputeInstanceWithPlacement."""
    wanted = target(placement)
    return _create(session, handle, profile_id, (wanted.start, wanted.size), out)


def _create(
    session: Session,
    handle: Argument,
    profile_id: Argument,
    placement: tuple[int, int] | None,
    out: Argument,
) -> int:
    target(out)
    with session.node.changing() as state:
        session.require_privilege()
        gpu, gi = session.instance(handle)
        node = session.node
        made = node.create_compute(gpu, gi, number(profile_id), placement, session.actor)
        add_event(state, gpu, MIG_EVENT, 0, gi.id)
        give_handle(out, pack(Kind.COMPUTE_INSTANCE, gpu, gi.id, made.id))
    return Code.SUCCESS


def destroy(session: Session, handle: Argument) -> int:
    """Answer nvmlComputeInstanceDestroy."""
    with session.node.changing() as state:
        session.require_privilege()
        gpu, gi, ci = session.compute(handle)
        session.node.destroy_compute(gpu, gi, ci, session.actor)
        add_event(state, gpu, MIG_EVENT, 0, gi.id)
    return Code.SUCCESS


def compute_instances(
    session: Session, handle: Argument, profile_id: Argument, array: Argument, count: Argument
) -> int:
    """Answer nvmlGpuInstanceGetComputeInstances: of one profile id."""
    session.require_privilege()
    gpu, gi = session.instance(handle)
    rules = session.node.rules(gpu)
    row = compute_profile(rules, gi, number(profile_id))
    found = [ci for ci in gi.compute.values() if ci.profile_id == row.ci_id]
    handles = [pack(Kind.COMPUTE_INSTANCE, gpu, gi.id, ci.id) for ci in found]
    give_handles(count, array, handles, told=compute_maximum(rules, gi, row))
    return Code.SUCCESS


def compute_by_id(session: Session, handle: Argument, ci_id: Argument, out: Argument) -> int:
    """Answer nvmlGpuInstanceGetComputeInstanceById."""
    session.require_privilege()
    gpu, gi = session.instance(handle)
    wanted = number(ci_id)
    if wanted not in gi.compute:
        return Code.NOT_FOUND
    give_handle(out, pack(Kind.COMPUTE_INSTANCE, gpu, gi.id, wanted))
    return Code.SUCCESS


def compute_info(session: Session, handle: Argument, out: Argument) -> int:
    """Answer nvmlComputeInstanceGetInfo_v2: `device` is the MIG device's handle."""
    gpu, gi, ci = session.compute(handle)
    info = target(out)
    give_field(info, "device", pack(Kind.MIG_DEVICE, gpu, gi.id, ci.id))
    give_field(info, "gpuInstance", pack(Kind.GPU_INSTANCE, gpu, gi.id))
    info.id = ci.id
    info.profileId = ci.profile_id
    info.placement.start = ci.start
    info.placement.size = ci.size
    return Code.SUCCESS


def is_mig_device(session: Session, handle: Argument, out: Argument) -> int:
    """Answer nvmlDeviceIsMigDeviceHandle."""
    _, gi, _ = session.any_device(handle)
    target(out).value = int(gi is not None)
    return Code.SUCCESS


def gpu_instance_id(session: Session, handle: Argument, out: Argument) -> int:
    """Answer nvmlDeviceGetGpuInstanceId: MIG device handles only."""
    _, gi, _ = session.any_device(handle)
    if gi is None:
        return Code.INVALID_ARGUMENT
    target(out).value = gi.id
    return Code.SUCCESS


def compute_instance_id(session: Session, handle: Argument, out: Argument) -> int:
    """Answer nvmlDeviceGetComputeInstanceId: MIG device handles only."""
    _, _, ci = session.any_device(handle)
    if ci is None:
        return Code.INVALID_ARGUMENT
    target(out).value = ci.id
    return Code.SUCCESS


def max_mig_devices(session: Session, device: Argument, out: Argument) -> int:
    """Answer nvmlDeviceGetMaxMigDeviceCount: 0 with MIG off."""
    gpu = session.device(device)
    target(out).value = session.node.rules(gpu).max_mig_devices if gpu.mig_current else 0
    return Code.SUCCESS


def mig_device_by_index(session: Session, device: Argument, index: Argument, out: Argument) -> int:
    """Answer nvmlDeviceGetMigDeviceHandleByIndex: indices have holes; no CI, no index."""
    gpu = session.device(device)
    wanted = number(index)
    limit = session.node.rules(gpu).max_mig_devices if gpu.mig_current else 0
    if not 0 <= wanted < limit:
        return Code.INVALID_ARGUMENT
    for gi in gpu.instances.values():
        for ci in gi.compute.values():
            if ci.mig_index == wanted:
                give_handle(out, pack(Kind.MIG_DEVICE, gpu, gi.id, ci.id))
                return Code.SUCCESS
    return Code.NOT_FOUND


def parent(session: Session, handle: Argument, out: Argument) -> int:
    """Answer nvmlDeviceGetDeviceHandleFromMigDeviceHandle."""
    gpu, gi, _ = session.any_device(handle)
    if gi is None:
        return Code.INVALID_ARGUMENT
    give_handle(out, pack(Kind.DEVICE, gpu))
    return Code.SUCCESS


def attributes(session: Session, handle: Argument, out: Argument) -> int:
    """Answer nvmlDeviceGetAttributes_v2: MIG device handles only."""
    gpu, gi, ci = session.any_device(handle)
    if gi is None or ci is None:
        return Code.NOT_SUPPORTED
    rules = session.node.rules(gpu)
    engines = rules.figures[gi.profile].engines
    info = target(out)
    info.multiprocessorCount = ci.sm_count
    info.sharedCopyEngineCount = engines["copy"]
    info.sharedDecoderCount = engines["decoder"]
    info.sharedEncoderCount = engines["encoder"]
    info.sharedJpegCount = engines["jpeg"]
    info.sharedOfaCount = engines["ofa"]
    info.gpuInstanceSliceCount = rules.by_id[gi.profile_id].compute_slices
    info.computeInstanceSliceCount = ci.size
    info.memorySizeMB = gi.memory_mib
    return Code.SUCCESS


def symbols() -> dict[str, Symbol]:
    """Return the functions of this module by C name."""
    gi = "nvmlGpuInstance"
    return {
        f"{gi}GetComputeInstanceProfileInfo": Symbol(profile_info_v1),
        f"{gi}GetComputeInstanceProfileInfoV": Symbol(profile_info_v, since=510),
        f"{gi}GetComputeInstanceRemainingCapacity": Symbol(remaining),
        f"{gi}GetComputeInstancePossiblePlacements": Symbol(placements, since=525),
        f"{gi}CreateComputeInstance": Symbol(create),
        f"{gi}CreateComputeInstanceWithPlacement": Symbol(create_with_placement, since=525),
        "nvmlComputeInstanceDestroy": Symbol(destroy),
        f"{gi}GetComputeInstances": Symbol(compute_instances),
        f"{gi}GetComputeInstanceById": Symbol(compute_by_id),
        "nvmlComputeInstanceGetInfo_v2": Symbol(compute_info),
        "nvmlDeviceIsMigDeviceHandle": Symbol(is_mig_device),
        "nvmlDeviceGetGpuInstanceId": Symbol(gpu_instance_id),
        "nvmlDeviceGetComputeInstanceId": Symbol(compute_instance_id),
        "nvmlDeviceGetMaxMigDeviceCount": Symbol(max_mig_devices),
        "nvmlDeviceGetMigDeviceHandleByIndex": Symbol(mig_device_by_index),
        "nvmlDeviceGetDeviceHandleFromMigDeviceHandle": Symbol(parent),
        "nvmlDeviceGetAttributes_v2": Symbol(attributes),
    }
