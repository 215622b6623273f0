"""From layouts to ordered steps, so that wanted instances are away little and briefly.

Per GPU: creates that already fit, then destroys, then the other creates; every prefix is legal,
because a subset of a legal layout is legal and only one of both ends is being filled at a time. A
dip of a key is the number of instances below min(before, after) of the whole node; its area is
the sum over steps.
"""

from collections.abc import Iterable

from migscaler.model.layout import GpuModel, Layout
from migscaler.model.plan import GpuPlan, Step, StepAction
from migscaler.model.profile import InstanceSpec
from migscaler.planner.problem import PlanGpu, Problem, Solution

# A change of one key's count by one step: (key, +1 or -1); None for a step that concerns no
# wanted key.
Move = tuple[str, int] | None


def order_steps(
    model: GpuModel,
    before: Layout,
    after: Layout,
    wanted: Iterable[str] = (),
    surplus: dict[str, int] | None = None,
) -> tuple[Step, ...]:
    """Return the steps from one legal layout to another, every prefix of them legal.

    `wanted`: profiles that should be away as briefly as possible. `surplus`: how many instances
    of a profile may go without being missed (by default those that go for good). Both layouts
    must be legal on the model.
    """
    wanted_profiles = frozenset(wanted)
    gone = [spec for spec in before.specs if spec not in after]
    come = [spec for spec in after.specs if spec not in before]
    counts_before, counts_after = before.profiles(), after.profiles()
    spare = {
        name: max(0, counts_before[name] - counts_after[name])
        if surplus is None
        else surplus.get(name, 0)
        for name in wanted_profiles
    }
    early = _fitting(model, before, _most_wanted(come, wanted_profiles, {}))
    for spec in early:
        if spec.profile in spare:
            spare[spec.profile] += 1
    destroys = _least_missed(gone, spare)
    missing = {
        name: sum(spec.profile == name for spec in gone) - count for name, count in spare.items()
    }
    late = _most_wanted([spec for spec in come if spec not in early], wanted_profiles, missing)
    return (
        *(Step(action=StepAction.CREATE, spec=spec) for spec in early),
        *(Step(action=StepAction.DESTROY, spec=spec) for spec in destroys),
        *(Step(action=StepAction.CREATE, spec=spec) for spec in late),
    )


def order_gpu_plans(problem: Problem, solution: Solution) -> tuple[GpuPlan, ...]:
    """Return a plan per GPU whose layout changes, in the order that keeps wanted keys away least.

    At each turn the GPU whose steps dip least comes next, then the one that leaves most, then the
    lowest UUID. Cost: changed GPUs times different changes.
    """
    wanted = frozenset(want.key for tier in problem.tiers for want in tier.wants if want.count)
    after = dict(solution.layouts)
    changed = [gpu for gpu in problem.gpus if after[gpu.uuid] != gpu.layout]
    changed.sort(key=lambda gpu: gpu.uuid)
    pending: dict[tuple[Move, ...], list[GpuPlan]] = {}
    slack: dict[str, int] = {}
    for gpu in changed:
        plan, moves = _gpu_plan(gpu, after[gpu.uuid], wanted)
        pending.setdefault(moves, []).append(plan)
        for move in moves:
            if move is not None:
                slack[move[0]] = slack.get(move[0], 0) - move[1]
    # What may go without being missed: what the node loses for good. Gains add to it as they come.
    slack = {key: max(0, loss) for key, loss in slack.items()}
    ordered: list[GpuPlan] = []
    for plans in pending.values():
        plans.reverse()
    while pending:
        moves = min(pending, key=lambda m: (_cost(m, slack), pending[m][-1].gpu_uuid))
        ordered.append(pending[moves].pop())
        if not pending[moves]:
            del pending[moves]
        for move in moves:
            if move is not None:
                slack[move[0]] = slack.get(move[0], 0) + move[1]
    return tuple(ordered)


def _cost(moves: tuple[Move, ...], slack: dict[str, int]) -> tuple[int, int]:
    """Return (area of the dips during the moves, net loss of wanted instances after them)."""
    level = dict(slack)
    area = loss = 0
    below = sum(-n for n in level.values() if n < 0)
    for move in moves:
        if move is not None:
            key, change = move
            was = level.get(key, 0)
            level[key] = was + change
            below += max(0, -was - change) - max(0, -was)
            loss -= change
        area += below
    return area, loss


def _gpu_plan(
    gpu: PlanGpu, after: Layout, wanted: frozenset[str]
) -> tuple[GpuPlan, tuple[Move, ...]]:
    """Return the plan of one GPU, and what each of its steps changes."""
    key_of = {name: key for name, key in gpu.keys if key in wanted}
    before = gpu.layout
    steps = order_steps(gpu.model, before, after, key_of)
    moves: list[Move] = []
    for step in steps:
        key = key_of.get(step.spec.profile)
        created = step.action is StepAction.CREATE
        serves = key is not None and (created or step.spec not in gpu.idle_not_supply)
        moves.append((key, 1 if created else -1) if serves and key is not None else None)
    plan = GpuPlan(gpu_uuid=gpu.uuid, before=before, after=after, steps=steps)
    return plan, tuple(moves)


def _fitting(
    model: GpuModel, before: Layout, come: Iterable[InstanceSpec]
) -> tuple[InstanceSpec, ...]:
    """Return the new instances that fit beside the layout before, taken in order."""
    layout = before
    early = []
    for spec in come:
        if spec.mask & layout.mask:
            continue
        more = layout.with_specs((spec,))
        if model.violation(more) is None:
            layout = more
            early.append(spec)
    return tuple(early)


def _least_missed(gone: list[InstanceSpec], spare: dict[str, int]) -> list[InstanceSpec]:
    """Order destroys: what nobody wants, what is in surplus, and last what will be missed."""
    left = dict(spare)
    ranked = []
    for spec in gone:
        rank = 0
        if spec.profile in left:
            rank = 1 if left[spec.profile] > 0 else 2
            left[spec.profile] -= 1
        ranked.append((rank, spec))
    return [spec for _, spec in sorted(ranked)]


def _most_wanted(
    come: list[InstanceSpec], wanted: frozenset[str], missing: dict[str, int]
) -> list[InstanceSpec]:
    """Order creates: what is missed now, other wanted profiles, the rest."""
    left = dict(missing)
    ranked = []
    for spec in come:
        rank = 1 if spec.profile in wanted else 2
        if left.get(spec.profile, 0) > 0:
            rank = 0
            left[spec.profile] -= 1
        ranked.append((rank, spec))
    return [spec for _, spec in sorted(ranked)]
