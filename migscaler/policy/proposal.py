"""Plans for a survey and its targets: with every gate open, and with the closed ones in the way."""

from collections.abc import Mapping
from dataclasses import dataclass, replace

from migscaler.model.gpu import IN_USE_REASONS, PinReason
from migscaler.model.ids import GpuUuid
from migscaler.model.layout import Layout
from migscaler.model.plan import Direction, GpuPlan
from migscaler.planner.cache import OptionCache
from migscaler.planner.optimise import solve
from migscaler.planner.problem import PlanGpu, Problem, Solution
from migscaler.planner.steps import order_gpu_plans, order_steps
from migscaler.policy.baseline import baseline_layout, needs_baseline
from migscaler.policy.supply import ManagedGpu, Survey
from migscaler.policy.targets import RuleTarget, tiers_of


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What closed gates allow: GPUs that must stay, frozen directions, how many may change.

    `paced`: only what pace and known sources justify. The default is every gate open.
    """

    fixed: frozenset[GpuUuid] = frozenset()
    frozen: frozenset[Direction] = frozenset()
    budget: int | None = None
    paced: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Proposal:
    """A plan: GPU plans in order, and the layout of every plannable GPU after them."""

    gpu_plans: tuple[GpuPlan, ...]
    layouts: Mapping[GpuUuid, Layout]
    solution: Solution


def propose(
    found: Survey,
    targets: tuple[RuleTarget, ...],
    limits: Limits,
    cache: OptionCache,
    spoken_for: frozenset[GpuUuid] = frozenset(),
) -> Proposal:
    """Return the best plan within limits, baselines of empty GPUs included.

    A GPU that is `spoken_for` gets no baseline: something is wanted for it that a gate keeps back.

    Raises:
        PlanningFailed: the solver could not finish; hold.
    """
    problem = make_problem(found, targets, limits)
    solution = solve(problem, cache)
    plans = order_gpu_plans(problem, solution)
    left = None if limits.budget is None else limits.budget - len(plans)
    planned = spoken_for.union(plan.gpu_uuid for plan in plans)
    plans += _baselines(found, planned, limits, left)
    layouts = dict(solution.layouts)
    layouts.update((plan.gpu_uuid, plan.after) for plan in plans)
    return Proposal(gpu_plans=plans, layouts=layouts, solution=solution)


def unhindered(
    found: Survey, targets: tuple[RuleTarget, ...], cache: OptionCache
) -> Mapping[GpuUuid, Layout]:
    """Return the layouts that would be best if only instances in use kept their place.

    Raises:
        PlanningFailed: the solver could not finish; hold.
    """
    problem = make_problem(found, targets, Limits())
    freed = tuple(_freed(gpu, found.gpu(gpu.uuid)) for gpu in problem.gpus)
    return dict(solve(replace(problem, gpus=freed, kept=()), cache).layouts)


def make_problem(found: Survey, targets: tuple[RuleTarget, ...], limits: Limits) -> Problem:
    """Return the planner's question.

    What a silent source's rule has is kept in any case; that it may not create is a gate, hence
    only under pace.
    """
    return Problem(
        gpus=tuple(_plan_gpu(gpu, limits) for gpu in found.plannable),
        tiers=tiers_of(targets, paced=limits.paced),
        max_touched=limits.budget,
        kept=tuple((one.rule.name, one.hard_kept) for one in targets if one.hard_kept),
        no_create=frozenset(one.rule.name for one in targets if one.no_create and limits.paced),
    )


def _plan_gpu(gpu: ManagedGpu, limits: Limits) -> PlanGpu:
    """Return a GPU as the planner sees it."""
    assert gpu.model is not None  # noqa: S101  # plannable GPUs have one; tells mypy so
    return PlanGpu(
        uuid=gpu.uuid,
        model=gpu.model,
        pinned=gpu.specs(idle=False),
        idle=gpu.specs(idle=True),
        keys=tuple((profile, str(rule)) for profile, rule in gpu.keys),
        directions=frozenset(Direction) - limits.frozen,
        fixed=gpu.uuid in limits.fixed,
        supply_pinned=tuple(one.spec for one in gpu.instances if one.pin is PinReason.SETTLING),
    )


def _freed(asked: PlanGpu, gpu: ManagedGpu) -> PlanGpu:
    """Return a GPU on which only what is in use is pinned."""
    in_use = tuple(one.spec for one in gpu.instances if one.pin in IN_USE_REASONS)
    others = tuple(one.spec for one in gpu.instances if one.pin not in IN_USE_REASONS)
    return replace(asked, pinned=in_use, idle=others, supply_pinned=())


def _baselines(
    found: Survey, planned: frozenset[GpuUuid], limits: Limits, left: int | None
) -> tuple[GpuPlan, ...]:
    """Return plans that give empty GPUs their baseline, as far as limits allow."""
    plans: list[GpuPlan] = []
    for gpu in found.plannable:
        if gpu.uuid in planned or gpu.uuid in limits.fixed or not needs_baseline(gpu):
            continue
        after = baseline_layout(gpu)
        if after is None or gpu.model is None or Direction.FINER in limits.frozen:
            continue
        if left is None or len(plans) < left:
            steps = order_steps(gpu.model, Layout(), after)
            plans.append(GpuPlan(gpu_uuid=gpu.uuid, before=Layout(), after=after, steps=steps))
    return tuple(plans)
