"""Choose the best layout of every GPU."""

from fractions import Fraction

from migscaler.errors import ParseError, PlanningFailed
from migscaler.model.ids import GpuUuid
from migscaler.model.layout import Layout
from migscaler.model.plan import Level
from migscaler.planner.fleet import Fleet, free_capacity, make_fleet, unmet_by_segment
from migscaler.planner.options import OptionCache, unpack
from migscaler.planner.problem import Problem, Solution

AFTER_TIERS = ("churn", "touched", "fragmentation")


def solve(problem: Problem, cache: OptionCache | None = None) -> Solution:
    """Return the layouts of least unmet demand by tier, then churn, GPUs touched, fragmentation.

    Every layout is legal and contains the pinned instances; nothing is created that nobody wants;
    no GPU that has an instance ends empty. Staying is always possible, and is chosen unless unmet
    demand shrinks. The order of GPUs, keys and wants does not matter. Planning again after the
    plan was carried out changes nothing.

    Raises:
        PlanningFailed: the problem contradicts itself, or a fault of the solver. Hold.
    """
    try:
        fleet = make_fleet(problem, cache if cache is not None else OptionCache())
        stay = [[len(group.members), *(0 for _ in group.options[1:])] for group in fleet.classes]
        unmet = unmet_by_segment(fleet, _gained(fleet, stay))
        if all(short == 0 for _, short in unmet) or all(len(c) == 1 for c in stay):
            return _solution(problem, fleet, stay, None)
        return _solved(problem, fleet)
    except ParseError as error:
        raise PlanningFailed(f"a GPU's present layout is impossible: {error}") from error


def _solved(problem: Problem, fleet: Fleet) -> Solution:
    """Run the programme; the solver is imported here, so that a quiet node never loads it."""
    from migscaler.planner.levels import settle_levels
    from migscaler.planner.programme import make_columns

    columns = make_columns(fleet, len(problem.tiers), problem.max_touched)
    settled = settle_levels(columns, len(problem.tiers))
    chosen = settled.x.tolist()
    counts = []
    at = 0
    for group in fleet.classes:
        if len(group.options) == 1:
            counts.append([len(group.members)])
            continue
        counts.append(chosen[at : at + len(group.options)])
        at += len(group.options)
    return _solution(problem, fleet, counts, settled.bounds)


def _gained(fleet: Fleet, counts: list[list[int]]) -> dict[str, int]:
    """Return what a choice gives per demanded key, clipped per GPU at what is missing."""
    totals = [0] * len(fleet.clips)
    for group, numbers in zip(fleet.classes, counts, strict=True):
        for option, number in zip(group.options, numbers, strict=True):
            if number:
                for row, gain in enumerate(unpack(option.gains, len(totals))):
                    totals[row] += number * gain
    return {key: total for (key, _), total in zip(fleet.clips, totals, strict=True)}


def _solution(
    problem: Problem, fleet: Fleet, counts: list[list[int]], bounds: tuple[int, ...] | None
) -> Solution:
    """Hand the chosen options to GPUs by rising UUID and state every level exactly."""
    layouts: dict[GpuUuid, Layout] = {gpu.uuid: gpu.layout for gpu in fleet.unexplained}
    known: dict[tuple[int, int], Layout] = {}
    churn = touched = wasted = 0
    for group, numbers in zip(fleet.classes, counts, strict=True):
        order = [n for n, number in enumerate(numbers) for _ in range(number)]
        for (uuid, space, options), choice in zip(group.members, order, strict=True):
            option = options[choice]
            place = (id(space), option.bits)
            layout = known.get(place)
            if layout is None:
                layout = known[place] = space.layout(option.bits)
            layouts[uuid] = layout
            churn += option.churn
            touched += option.churn > 0
            wasted += option.fragmentation
    wasted += fleet.unexplained_fragmentation
    short = unmet_by_segment(fleet, _gained(fleet, counts))
    per_tier = [
        sum(segment.weight * n for segment, n in short if segment.tier == tier)
        for tier in range(len(problem.tiers))
    ]
    reached = (*per_tier, churn, touched, wasted)
    names = (*(tier.name for tier in problem.tiers), *AFTER_TIERS)
    unmet: dict[tuple[int, str], int] = {}
    for segment, n in short:
        if n:
            unmet[segment.tier, segment.key] = unmet.get((segment.tier, segment.key), 0) + n
    whole = free_capacity(fleet, layouts, problem)
    return Solution(
        layouts=tuple(sorted(layouts.items())),
        levels=tuple(
            Level(name=name, value=value, bound=bound, proved=value == bound)
            for name, value, bound in zip(names, reached, bounds or reached, strict=True)
        ),
        unmet=tuple((problem.tiers[t].name, key, n) for (t, key), n in sorted(unmet.items())),
        fragmentation=Fraction(wasted, whole) if whole else Fraction(0),
        used_solver=bounds is not None,
    )
