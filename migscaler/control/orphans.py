"""GPU instances without compute instance: nothing can run on them, so they are only in the way.

A creation that failed half-way leaves one, or another tool that is about to fill it. They are never
removed unasked. What keeps one is weighed here; the executor looks again before the call.
"""

import math
from dataclasses import dataclass
from datetime import timedelta

from migscaler.errors import CommandRefused
from migscaler.model.gpu import GpuState, InstanceState, NodeSnapshot, PinReason
from migscaler.model.plan import GpuPlan, Step, StepAction
from migscaler.model.profile import InstanceSpec

SETTLED = timedelta(minutes=1)
"""How long a GPU must have stayed as it is: nvidia-smi and others make the compute instance
seconds after the GPU instance."""


@dataclass(frozen=True, slots=True, kw_only=True)
class OrphanRemoval(GpuPlan):
    """A plan that a person asked for, whose destroyed instances have no compute instance."""


def is_orphan(state: InstanceState) -> bool:
    """Say whether nothing can run on the instance for want of a compute instance."""
    return not state.reading.instance.compute_instances


def why_kept(state: InstanceState) -> str | None:
    """Say why an instance may not be removed as an orphan, None where it may.

    That it is unknown whether it is idle keeps none: without a compute instance nothing can run.
    """
    if not is_orphan(state):
        return f"{state.spec} has a compute instance"
    if state.reading.processes is None:
        return f"the processes of {state.spec} can't be seen"
    others = [pin for pin in state.pins if pin is not PinReason.UNKNOWN]
    if state.reading.processes or others:
        return f"{state.spec} must stay: {state.explanation}"
    return None


def plan_removal(snapshot: NodeSnapshot, gpu: GpuState, spec: InstanceSpec) -> OrphanRemoval:
    """Return the plan that removes one orphan.

    Where nothing else is on the GPU it is made anew, with its compute instance: no GPU is left with
    MIG on and empty.

    Raises:
        CommandRefused: it is none, something keeps it, or somebody else may be at work there.
    """
    before = gpu.layout
    state = next((one for one in gpu.instances or () if one.spec == spec), None)
    if before is None or state is None:
        raise CommandRefused(f"GPU {gpu.reading.index} has no {spec}")
    problem = _nodes_problem(snapshot) or _gpus_problem(snapshot, gpu) or why_kept(state)
    if problem is not None:
        raise CommandRefused(problem)
    steps = [Step(action=StepAction.DESTROY, spec=spec)]
    after = before.without([spec])
    if not len(after):
        steps.append(Step(action=StepAction.CREATE, spec=spec))
        after = before
    return OrphanRemoval(gpu_uuid=gpu.uuid, before=before, after=after, steps=tuple(steps))


def _nodes_problem(snapshot: NodeSnapshot) -> str | None:
    """Say what on the node keeps every orphan."""
    if snapshot.foreign_owner is not None:
        return f"it may belong to {snapshot.foreign_owner}"
    if snapshot.foreign_owner_unknown is not None:
        return f"it is not known who else shapes the GPUs: {snapshot.foreign_owner_unknown}"
    if not snapshot.allocations_known:
        return f"it is not known who was given what: {snapshot.allocations_why}"
    return None


def _gpus_problem(snapshot: NodeSnapshot, gpu: GpuState) -> str | None:
    """Say what on the GPU keeps its orphans."""
    owner = gpu.reading.foreign_owner
    if owner is not None:
        return f"GPU {gpu.reading.index} is left alone: {owner.words}"
    if gpu.changed_at is None:
        return None
    age = snapshot.taken_at - gpu.changed_at
    if age < SETTLED:
        return (
            f"the layout of GPU {gpu.reading.index} changed {age.total_seconds():.0f} s ago; "
            f"somebody may be at work there, wait {math.ceil((SETTLED - age).total_seconds())} s"
        )
    return None
