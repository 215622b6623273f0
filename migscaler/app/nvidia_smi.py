"""A plan as the nvidia-smi commands that an operator knows (MIG User Guide, Getting Started)."""

import shlex

from migscaler.model.gpu import GpuState, NodeSnapshot
from migscaler.model.plan import Plan, Step, StepAction


def command_lines(plan: Plan, snapshot: NodeSnapshot) -> tuple[str, ...]:
    """Return the commands that carry the plan out, in its order.

    Placements are written out (`-cgi 9:4 -C`: profile id and start), so that the order does not
    matter to the driver. GPU instance ids are those of the snapshot.
    """
    lines: list[str] = []
    for gpu_plan in plan.gpu_plans:
        gpu = snapshot.gpu(gpu_plan.gpu_uuid)
        if gpu is not None:
            for step in gpu_plan.steps:
                lines.extend(_lines(gpu, step))
    return tuple(lines)


def _lines(gpu: GpuState, step: Step) -> list[str]:
    """Return the commands of one step."""
    target = ["nvidia-smi", "mig", "-i", str(gpu.reading.index)]
    if step.action is StepAction.CREATE:
        model = gpu.reading.model
        if model is None:
            return []
        profile = model.profile(step.spec.profile)
        start = step.spec.placement.start
        return [shlex.join([*target, "-cgi", f"{profile.profile_id}:{start}", "-C"])]
    lines: list[str] = []
    for state in gpu.instances or ():
        if state.spec != step.spec:
            continue
        instance = state.reading.instance
        gi = ["-gi", str(instance.gi_id)]
        lines.extend(
            shlex.join([*target, "-dci", "-ci", str(compute.ci_id), *gi])
            for compute in instance.compute_instances
        )
        lines.append(shlex.join([*target, "-dgi", *gi]))
    return lines
