"""The last look before a change: is the GPU as assumed, is the instance still nobody's?"""

from migscaler.control.orphans import OrphanRemoval, why_kept
from migscaler.control.site import Site
from migscaler.control.steps_run import Stop, find_instance
from migscaler.model.gpu import GpuReading, GpuState, InstanceReading, NodeReading
from migscaler.model.ids import GiId
from migscaler.model.plan import GpuPlan, OutcomeReason, StepAction
from migscaler.model.profile import InstanceSpec

Identities = frozenset[tuple[GiId, InstanceSpec]]
"""Instances of a GPU by what NVML tells them apart by."""


def identities(reading: GpuReading) -> Identities:
    """Return the instances of a reading by identity."""
    return frozenset((one.instance.gi_id, one.instance.spec) for one in reading.instances or ())


def same_instances(reading: GpuReading, expected: Identities) -> Stop | None:
    """Say what differs from the instances expected, None if nothing does."""
    there = identities(reading)
    if there == expected:
        return None
    gone = ", ".join(f"{spec} (GI {gi})" for gi, spec in sorted(expected - there))
    new = ", ".join(f"{spec} (GI {gi})" for gi, spec in sorted(there - expected))
    words = [f"gone: {gone}"] * bool(gone) + [f"new: {new}"] * bool(new)
    return Stop(
        reason=OutcomeReason.CHANGED_UNDERNEATH,
        explanation=f"somebody changed the layout; {'; '.join(words)}",
    )


def same_uuids(reading: GpuReading, assumed: GpuReading) -> Stop | None:
    """Say which instance has another MIG device than assumed: somebody made it anew."""
    for one in assumed.instances or ():
        now = find_instance(reading, one.instance.gi_id, one.instance.spec)
        if now is not None and now.instance.mig_uuid != one.instance.mig_uuid:
            return Stop(
                reason=OutcomeReason.CHANGED_UNDERNEATH,
                explanation=f"{one.instance.spec} is another MIG device than assumed",
            )
    return None


def no_longer_judged_idle(plan: GpuPlan, newest: GpuState | None) -> OutcomeReason | None:
    """Say why a plan made from an earlier picture does not hold in the newest one; None: it does.

    Samples go on while a plan is made, waits for its turn and for the scheduler. Activity, memory
    and gaps that they saw since are in no reading that the executor takes.
    """
    if newest is None or newest.instances is None:
        return OutcomeReason.CHANGED_UNDERNEATH
    going = {step.spec for step in plan.steps if step.action is StepAction.DESTROY}
    if isinstance(plan, OrphanRemoval):
        pinned = any(one.spec in going and why_kept(one) is not None for one in newest.instances)
    else:
        pinned = any(one.spec in going and one.pin is not None for one in newest.instances)
    return OutcomeReason.NO_LONGER_IDLE if pinned else None


def still_free(
    site: Site, reading: GpuReading, one: InstanceReading, memory_limit_bytes: int | None
) -> Stop | None:
    """Say who has an instance now: process, memory beyond the limit, or claim; None if nobody.

    What can't be seen counts as in use. `memory_limit_bytes` None leaves memory out. Holds and
    leases are not looked at here: the journal's transaction does.
    """
    problem = _busy(one, memory_limit_bytes) or _claimed(site, reading, one)
    if problem is None:
        return None
    return Stop(reason=OutcomeReason.NO_LONGER_IDLE, explanation=f"{one.instance.spec}: {problem}")


def _busy(one: InstanceReading, memory_limit_bytes: int | None) -> str | None:
    """Say which signal of the instance itself is not quiet."""
    if one.processes is None:
        return "its processes can't be seen"
    if one.processes:
        return f"used by {', '.join(map(str, one.processes))}"
    if memory_limit_bytes is None:
        return None
    if one.memory_used_bytes is None:
        return "its memory can't be read"
    if one.memory_used_bytes > memory_limit_bytes:
        return f"{one.memory_used_bytes} bytes in use, more than {memory_limit_bytes} when empty"
    return None


def _claimed(site: Site, reading: GpuReading, one: InstanceReading) -> str | None:
    """Say to whom the scheduler gave the instance."""
    node = NodeReading(
        taken_at=site.clock.now(), taken_monotonic=site.clock.monotonic(), gpus=(reading,)
    )
    allocations = site.scheduler.allocations(node)
    if not allocations.known:
        return f"allocations are unknown: {allocations.why_unknown}"
    uuids = {ci.mig_uuid for ci in one.instance.compute_instances}
    for claim in allocations.claims:
        if claim.gpu_uuid == reading.uuid and claim.mig_uuid in uuids:
            return f"allocated to {claim.named}"
    return None
