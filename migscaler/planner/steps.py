"""From layouts to ordered steps, so that wanted instances are away little and briefly.

Per GPU: creates that already fit, then destroys, then the other creates. Every prefix is legal: any
part of a legal layout is, and only one of both is incomplete at a time. A key dips by what the node
has of it below min(before, after); what is kept small is the sum of dips over steps.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from migscaler.model.ids import GpuUuid
from migscaler.model.layout import GpuModel, Layout
from migscaler.model.plan import GpuPlan, Step, StepAction
from migscaler.model.profile import InstanceSpec
from migscaler.planner.problem import PlanGpu, Problem, Solution

# So many changing GPUs are ordered exactly (all subsets), more greedily, many by cost alone.
EXACT_GPUS = 6
GREEDY_GPUS = 64

Keyed = tuple[str | None, InstanceSpec]
Slack = dict[str, int]


def order_steps(
    model: GpuModel, before: Layout, after: Layout, wanted: Iterable[str] = ()
) -> tuple[Step, ...]:
    """Return the steps from one legal layout to another, every prefix of them legal.

    `wanted`: profiles that should be away as briefly as possible; what is lost for good is not
    missed.
    """
    keys = {name: name for name in wanted}
    change = _change(model, before, after, keys, frozenset())
    steps, _ = _ordered(change, {key: max(0, -n) for key, n in _net(change).items()})
    return steps


def order_gpu_plans(problem: Problem, solution: Solution) -> tuple[GpuPlan, ...]:
    """Return a plan per GPU whose layout changes, in the order that keeps wanted keys away least.

    Each GPU is finished before the next begins. Exact for few GPUs; ties go to the lowest UUID.
    """
    wanted = frozenset(want.key for tier in problem.tiers for want in tier.wants if want.count)
    after = dict(solution.layouts)
    gpus = sorted(problem.gpus, key=lambda gpu: gpu.uuid)
    changing = {gpu.uuid: gpu for gpu in gpus if after[gpu.uuid] != gpu.layout}
    changes = {
        uuid: _change(
            gpu.model,
            gpu.layout,
            after[uuid],
            {name: key for name, key in gpu.keys if key in wanted},
            gpu.idle_not_supply,
        )
        for uuid, gpu in changing.items()
    }
    lost: Slack = {}
    for change in changes.values():
        _add(lost, _net(change), sign=-1)
    slack = {key: max(0, count) for key, count in lost.items()}
    plans = []
    for uuid in _gpu_order(changes, slack):
        steps, _ = _ordered(changes[uuid], slack)
        _add(slack, _net(changes[uuid]))
        plans.append(_plan(changing[uuid], after[uuid], steps))
    return tuple(plans)


@dataclass(frozen=True, slots=True)
class _Change:
    """What one GPU does: creates that fit at once, destroys, later creates, each with its key."""

    early: tuple[Keyed, ...]
    gone: tuple[Keyed, ...]
    late: tuple[Keyed, ...]


def _change(
    model: GpuModel,
    before: Layout,
    after: Layout,
    keys: Mapping[str, str],
    mute: frozenset[InstanceSpec],
) -> _Change:
    """Split a change into its three phases; `mute` instances serve nobody."""
    come = [(keys.get(spec.profile), spec) for spec in after.specs if spec not in before]
    layout = before
    early, late = [], []
    # Wanted ones first: limits of the model may let only some of those that have room fit.
    for key, spec in sorted(come, key=lambda keyed: (keyed[0] is None, keyed[1])):
        more = None if spec.mask & layout.mask else layout.with_specs((spec,))
        if more is not None and model.violation(more) is None:
            layout = more
            early.append((key, spec))
        else:
            late.append((key, spec))
    return _Change(
        early=tuple(early),
        gone=tuple(
            (None if spec in mute else keys.get(spec.profile), spec)
            for spec in before.specs
            if spec not in after
        ),
        late=tuple(late),
    )


def _ordered(change: _Change, slack: Mapping[str, int]) -> tuple[tuple[Step, ...], int]:
    """Return the steps of a GPU in their best order, and the area of the dips during them.

    `slack`: instances of each wanted key that may go now without being missed; below 0 where some
    are missed already.
    """
    level = dict(slack)
    steps = []
    area = 0
    below = sum(max(0, -count) for count in level.values())
    for action, sign, part in (
        (StepAction.CREATE, 1, change.early),
        (StepAction.DESTROY, -1, change.gone),
        (StepAction.CREATE, 1, change.late),
    ):
        for key, spec in _ranked(part, level, sign):
            steps.append(Step(action=action, spec=spec))
            if key is not None:
                was = level.get(key, 0)
                level[key] = was + sign
                below += max(0, -level[key]) - max(0, -was)
            area += below
    return tuple(steps), area


def _ranked(part: tuple[Keyed, ...], level: Mapping[str, int], sign: int) -> list[Keyed]:
    """Order creates by how much they are missed, destroys the other way round.

    Each create of a missed key shortens a dip, each destroy beyond the slack begins one.
    """
    left = dict(level)
    ranked = []
    for key, spec in part:
        dips = key is not None and (left.get(key, 0) < 0 if sign > 0 else left.get(key, 0) <= 0)
        if key is not None:
            left[key] = left.get(key, 0) + sign
        ranked.append((-sign * dips, -sign * (key is not None), spec, key))
    return [(key, spec) for _, _, spec, key in sorted(ranked, key=lambda r: r[:3])]


def _gpu_order(changes: Mapping[GpuUuid, _Change], slack: Slack) -> list[GpuUuid]:
    """Return the order of GPUs; `changes` are sorted by UUID."""
    if len(changes) <= EXACT_GPUS:
        return _exact_order(changes, slack)
    if len(changes) > GREEDY_GPUS:
        return sorted(changes, key=lambda uuid: (_cost(changes[uuid], slack), uuid))
    level = dict(slack)
    left = list(changes)
    order = []
    while left:
        best = min(left, key=lambda uuid: (_cost(changes[uuid], level), uuid))
        left.remove(best)
        order.append(best)
        _add(level, _net(changes[best]))
    return order


def _exact_order(changes: Mapping[GpuUuid, _Change], slack: Slack) -> list[GpuUuid]:
    """Return the order of least area, by dynamic programming over sets of finished GPUs."""
    uuids = list(changes)
    best: dict[int, tuple[int, tuple[int, ...]]] = {0: (0, ())}
    for done in range(1 << len(uuids)):
        area, order = best[done]
        level = dict(slack)
        for number in order:
            _add(level, _net(changes[uuids[number]]))
        for number, uuid in enumerate(uuids):
            if not done >> number & 1:
                more = (area + _ordered(changes[uuid], level)[1], (*order, number))
                after = done | 1 << number
                best[after] = min(best.get(after, more), more)
    return [uuids[number] for number in best[(1 << len(uuids)) - 1][1]]


def _cost(change: _Change, slack: Slack) -> tuple[int, int]:
    """Return what doing a GPU next costs: area of the dips, then the net loss of wanted ones."""
    return _ordered(change, slack)[1], -sum(_net(change).values())


def _net(change: _Change) -> Slack:
    """Return by how much each wanted key changes."""
    total: Slack = {}
    for sign, part in ((1, change.early), (-1, change.gone), (1, change.late)):
        for key, _ in part:
            if key is not None:
                total[key] = total.get(key, 0) + sign
    return total


def _add(totals: Slack, change: Mapping[str, int], sign: int = 1) -> None:
    """Add a change of each key to the totals."""
    for key, count in change.items():
        totals[key] = totals.get(key, 0) + sign * count


def _plan(gpu: PlanGpu, after: Layout, steps: tuple[Step, ...]) -> GpuPlan:
    """Return the plan of one GPU."""
    return GpuPlan(gpu_uuid=gpu.uuid, before=gpu.layout, after=after, steps=steps)
