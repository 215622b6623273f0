"""What one simulated GPU does when its instances and its mode are changed: pure transitions.

Every function changes the `GpuState` it is given or raises `Answered` and changes nothing. Order of
the checks is that of the answers: permission and mode first, then arguments, then resources.
"""

from migscaler.model.catalog import ComputeProfile
from migscaler.model.profile import Profile
from migscaler.sim.codes import Answered, Code
from migscaler.sim.rules import Rules
from migscaler.sim.state import ComputeState, GpuState, InstanceState, Job, NodeState
from migscaler.sim.telemetry import settle, settle_instance

# The two 3g of an A100-40GB differ on R450: 20096 and 20224 MiB (MIG User Guide, Getting Started).
_LAST_BRANCH_WITH_UNEVEN_MEMORY = 450


def require_mig(gpu: GpuState) -> None:
    """Answer NOT_SUPPORTED while MIG mode is off."""
    if not gpu.mig_current:
        raise Answered(Code.NOT_SUPPORTED)


def require_own_layout(node: NodeState) -> None:
    """Answer NOT_SUPPORTED where the layout is somebody else's: a vGPU's guest can't repartition.

    Source: nvml.h, nvmlDeviceCreateGpuInstance and nvmlGpuInstanceDestroy. Under confidential
    computing nothing is documented; refusing is the cautious play. Compute instances are not meant
    here: a guest may remake those of its GPU instance (Virtual GPU Software User Guide, Modifying a
    MIG-Backed vGPU's Configuration).
    """
    if node.vgpu_guest or node.confidential:
        raise Answered(Code.NOT_SUPPORTED)


def profile_of_id(rules: Rules, profile_id: int) -> Profile:
    """Return the profile of a numeric id (not of an enum)."""
    profile = rules.by_id.get(profile_id)
    if profile is None:
        raise Answered(Code.INVALID_ARGUMENT)
    return profile


def create_instance(
    node: NodeState,
    gpu: GpuState,
    rules: Rules,
    profile_id: int,
    placement: tuple[int, int] | None,
    now: float,
) -> InstanceState:
    """Make a GPU instance, at the driver's choice of start without a placement."""
    require_own_layout(node)
    require_mig(gpu)
    profile = profile_of_id(rules, profile_id)
    if placement is not None and (
        placement[1] != profile.memory_slices or placement[0] not in profile.starts
    ):
        raise Answered(Code.INVALID_ARGUMENT)
    if gpu.holders and not gpu.instances:
        raise Answered(Code.IN_USE)
    present = gpu.instances.values()
    if placement is None:
        start = rules.default_start(present, profile)
    else:
        refused = rules.refusal(present, profile, placement[0])
        start = placement[0] if refused is None else None
    if start is None:
        raise Answered(Code.INSUFFICIENT_RESOURCES)
    node.born += 1
    made = _instance(gpu, rules, profile, start, node.born, now)
    gpu.instances[made.id] = made
    return made


def _instance(
    gpu: GpuState, rules: Rules, profile: Profile, start: int, born: int, now: float
) -> InstanceState:
    """Return a new instance; its id follows from the physical span it covers."""
    variant = gpu.variant if gpu.variant in rules.gi_ids else "normal"
    memory = rules.figures[profile.name].memory_mib
    if rules.branch <= _LAST_BRANCH_WITH_UNEVEN_MEMORY and profile.memory_slices == 4 and start:
        memory += 128
    return InstanceState(
        id=rules.gi_ids[variant][f"{start}:{profile.memory_slices}"],
        profile_id=profile.profile_id,
        profile=profile.name,
        start=start,
        size=profile.memory_slices,
        memory_mib=memory,
        # An empty instance shows a few MiB in use, more on larger ones, not twice the same.
        baseline_mib=6 + 3 * profile.memory_slices + (born * 7 + start) % 5,
        born=born,
        counted_at=now,
    )


def destroy_instance(node: NodeState, gpu: GpuState, gi: InstanceState) -> None:
    """Remove a GPU instance without compute instances, processes and clients."""
    require_own_layout(node)
    used = node.refuses_in_use and any(job.gi_id == gi.id for job in gpu.jobs)
    if gi.compute or gi.holders or used:
        raise Answered(Code.IN_USE)
    gpu.jobs = [job for job in gpu.jobs if job.gi_id != gi.id]
    del gpu.instances[gi.id]


def compute_profile(rules: Rules, gi: InstanceState, ci_profile: int) -> ComputeProfile:
    """Return the compute profile of an id; NOT_SUPPORTED where this GPU instance has none."""
    for row in rules.compute[gi.profile]:
        if row.ci_id == ci_profile:
            return row
    raise Answered(Code.NOT_SUPPORTED if 0 <= ci_profile < 9 else Code.INVALID_ARGUMENT)


def compute_starts(rules: Rules, gi: InstanceState, row: ComputeProfile) -> tuple[int, ...]:
    """Return the starts of a compute profile in compute slices of the GPU instance."""
    total = rules.by_id[gi.profile_id].compute_slices
    return tuple(range(0, total - row.slices + 1, row.slices))


def compute_maximum(rules: Rules, gi: InstanceState, row: ComputeProfile) -> int:
    """Return how many compute instances of a profile fit; derived where not listed."""
    if row.max_instances is not None:
        return row.max_instances
    return rules.by_id[gi.profile_id].compute_slices // row.slices


def compute_refused(rules: Rules, gi: InstanceState, row: ComputeProfile, start: int) -> bool:
    """Say whether a compute instance can't be made at a start."""
    span = range(start, start + row.slices)
    if any(
        ci.start in span or start in range(ci.start, ci.start + ci.size)
        for ci in gi.compute.values()
    ):
        return True
    same = sum(ci.profile_id == row.ci_id for ci in gi.compute.values())
    used = sum(ci.sm_count for ci in gi.compute.values())
    too_wide = used + (row.sm_count or 0) > rules.figures[gi.profile].sm_count
    return too_wide or same >= compute_maximum(rules, gi, row)


def create_compute(
    node: NodeState,
    gpu: GpuState,
    rules: Rules,
    gi: InstanceState,
    ci_profile: int,
    placement: tuple[int, int] | None,
) -> ComputeState:
    """Make a compute instance in a GPU instance."""
    if node.confidential:
        raise Answered(Code.NOT_SUPPORTED)
    row = compute_profile(rules, gi, ci_profile)
    starts = compute_starts(rules, gi, row)
    if placement is not None:
        if placement[1] != row.slices or placement[0] not in starts:
            raise Answered(Code.INVALID_ARGUMENT)
        starts = (placement[0],)
    start = next((s for s in starts if not compute_refused(rules, gi, row, s)), None)
    if start is None:
        raise Answered(Code.INSUFFICIENT_RESOURCES)
    taken = {ci.mig_index for other in gpu.instances.values() for ci in other.compute.values()}
    made = ComputeState(
        id=next(n for n in range(rules.max_mig_devices + 1) if n not in gi.compute),
        profile_id=ci_profile,
        start=start,
        size=row.slices,
        sm_count=row.sm_count or 0,
        mig_index=next(n for n in range(rules.max_mig_devices + 1) if n not in taken),
    )
    gi.compute[made.id] = made
    return made


def destroy_compute(node: NodeState, gpu: GpuState, gi: InstanceState, ci: ComputeState) -> None:
    """Remove a compute instance on which no process runs, or its processes with it."""
    if node.confidential:
        raise Answered(Code.NOT_SUPPORTED)
    staying = [job for job in gpu.jobs if (job.gi_id, job.ci_id) != (gi.id, ci.id)]
    if node.refuses_in_use and len(staying) < len(gpu.jobs):
        raise Answered(Code.IN_USE)
    gpu.jobs = staying
    del gi.compute[ci.id]


def set_mode(node: NodeState, gpu: GpuState, rules: Rules, mode: int, now: float) -> Code:
    """Switch MIG mode; return the second status, which says whether it is only pending.

    Ampere needs a reset, which the driver does itself only on bare metal with nobody attached.
    """
    require_own_layout(node)
    if mode not in (0, 1):
        raise Answered(Code.INVALID_ARGUMENT)
    if not mode and gpu.instances:
        raise Answered(Code.IN_USE)
    if mode == gpu.mig_current:
        gpu.mig_pending = mode
        return Code.SUCCESS
    attached = bool(gpu.jobs or gpu.holders)
    if not rules.board.mode_change_needs_reset:
        if attached:
            raise Answered(Code.IN_USE)
        gpu.mig_current = gpu.mig_pending = mode
        return Code.SUCCESS
    gpu.mig_pending = mode
    if attached:
        return Code.IN_USE
    if not node.bare_metal_reset:
        return Code.RESET_REQUIRED
    wipe(gpu, now)
    gpu.mig_current = mode
    return Code.SUCCESS


def wipe(gpu: GpuState, now: float) -> None:
    """Lose everything a reset loses: instances, processes, clients; old handles die."""
    settle(gpu, now)
    gpu.instances.clear()
    gpu.jobs.clear()
    gpu.holders.clear()
    gpu.epoch += 1


def start_job(gpu: GpuState, job: Job, now: float) -> str | None:
    """Put a process on the GPU; return why it can't start, or None."""
    settle(gpu, now)
    if job.gi_id is None:
        if gpu.mig_current:
            return "MIG mode is on: a process needs an instance"
        gpu.jobs.append(job)
        return None
    gi = gpu.instances.get(job.gi_id)
    if gi is None:
        return f"no GPU instance {job.gi_id}"
    if job.ci_id is None:
        job.ci_id = min(gi.compute, default=None)
    if job.ci_id is None or job.ci_id not in gi.compute:
        return f"GPU instance {gi.id} has no such compute instance"
    used = gi.baseline_mib + sum(j.memory_mib for j in gpu.jobs if j.gi_id == gi.id)
    if used + job.memory_mib > gi.memory_mib:
        return "out of memory"
    settle_instance(gpu, gi, now)
    gpu.jobs.append(job)
    return None
