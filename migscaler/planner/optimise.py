"""Choose the best layout of every GPU."""

from collections.abc import Iterable, Mapping
from fractions import Fraction
from typing import TYPE_CHECKING

from migscaler.errors import ParseError, PlanningFailed
from migscaler.model.ids import GpuUuid
from migscaler.model.layout import Layout
from migscaler.model.plan import Level
from migscaler.planner.cache import OptionCache
from migscaler.planner.demand import Stack, idle_supply, stack, supply, unmet
from migscaler.planner.layouts import fragmentation
from migscaler.planner.problem import PlanGpu, Problem, Solution
from migscaler.planner.space import Space

if TYPE_CHECKING:
    from migscaler.planner.fleet import Fleet

AFTER_TIERS = ("churn", "touched", "fragmentation")


def solve(problem: Problem, cache: OptionCache | None = None) -> Solution:
    """Return the layouts of least unmet demand by tier, then churn, GPUs touched, fragmentation.

    Every layout is legal and contains the pinned instances; nothing is created that nobody wants;
    no GPU that has an instance ends empty. Staying is always possible, and is chosen unless unmet
    demand shrinks. The order of GPUs, keys and wants does not matter. Planning again after the plan
    was carried out changes nothing.

    Raises:
        PlanningFailed: the problem contradicts itself, or a fault of the solver. Hold.
    """
    cache = cache if cache is not None else OptionCache()
    try:
        targets = stack(problem)
        today = supply((gpu, idle_supply(gpu)) for gpu in problem.gpus)
        if any(short for _, short in unmet(targets, today)):
            return _solved(problem, targets, cache)
        layouts = {gpu.uuid: gpu.layout for gpu in problem.gpus}
        reached = (*(0 for _ in problem.tiers), 0, 0, _wasted(problem, problem.gpus, cache))
        return _solution(problem, targets, today, layouts, reached, reached)
    except ParseError as error:
        raise PlanningFailed(f"a GPU's present layout is impossible: {error}") from error


def _solved(problem: Problem, targets: Stack, cache: OptionCache) -> Solution:
    """Run the programme.

    Solver and numpy are imported here (200 ms, 20 MB): a node that lacks nothing never loads them.
    """
    from migscaler.planner.fleet import make_fleet
    from migscaler.planner.levels import settle_levels
    from migscaler.planner.programme import make_columns

    fleet = make_fleet(problem, targets, cache)
    tiers = len(problem.tiers)
    wasted = _wasted(problem, fleet.unexplained, cache)
    columns = make_columns(targets, fleet, tiers, problem.max_touched, wasted)
    settled = settle_levels(columns, tiers)
    layouts = _handed_out(fleet, settled.x.tolist())
    layouts.update((gpu.uuid, gpu.layout) for gpu in fleet.unexplained)
    gained = (
        (gpu, tuple(spec for spec in layouts[gpu.uuid].specs if spec not in gone))
        for gpu in problem.gpus
        for gone in [{*gpu.pinned, *gpu.idle_not_supply}]
    )
    return _solution(problem, targets, supply(gained), layouts, settled.values, settled.bounds)


def _handed_out(fleet: "Fleet", chosen: list[int]) -> dict[GpuUuid, Layout]:
    """Hand the chosen options of each class to its GPUs by rising UUID, cheapest options first."""
    layouts: dict[GpuUuid, Layout] = {}
    known: dict[tuple[int, int], Layout] = {}
    at = 0
    for members in fleet.classes:
        options = len(members[0].options)
        numbers = [len(members)]
        if options > 1:
            numbers = chosen[at : at + options]
            at += options
        order = [choice for choice, number in enumerate(numbers) for _ in range(number)]
        for member, choice in zip(members, order, strict=True):
            place = (id(member.space), int(member.options.bits[choice]))
            layout = known.get(place)
            if layout is None:
                layout = known[place] = member.space.layout(place[1])
            layouts[member.uuid] = layout
    return layouts


def _solution(
    problem: Problem,
    targets: Stack,
    gained: Mapping[str, int],
    layouts: dict[GpuUuid, Layout],
    values: tuple[int, ...],
    bounds: tuple[int, ...],
) -> Solution:
    """State what was chosen.

    Raises:
        PlanningFailed: the layouts do not leave unmet what the programme says.
    """
    short: dict[tuple[int, str], int] = {}
    per_tier = [0 for _ in problem.tiers]
    for segment, count in unmet(targets, gained):
        per_tier[segment.tier] += segment.weight * count
        if count:
            short[segment.tier, segment.key] = short.get((segment.tier, segment.key), 0) + count
    if tuple(per_tier) != values[: len(per_tier)]:
        raise PlanningFailed(f"the layouts leave {per_tier} unmet, the programme said {values}")
    names = (*(tier.name for tier in problem.tiers), *AFTER_TIERS)
    whole = _free_capacity(problem, layouts)
    return Solution(
        layouts=tuple(sorted(layouts.items())),
        levels=tuple(
            Level(name=name, value=value, bound=bound, proved=value == bound)
            for name, value, bound in zip(names, values, bounds, strict=True)
        ),
        unmet=tuple((problem.tiers[t].name, key, n) for (t, key), n in sorted(short.items())),
        fragmentation=Fraction(values[-1], whole) if whole else Fraction(0),
    )


def _weights_of(problem: Problem, gpu: PlanGpu) -> dict[str, int]:
    """Return the fragmentation weight of each profile that serves a key."""
    weights = dict(problem.fragmentation_weights)
    return {name: weights.get(key, 1) for name, key in gpu.keys}


def _wasted(problem: Problem, gpus: Iterable[PlanGpu], cache: OptionCache) -> int:
    """Return the weighted free slices that could not be used beside today's layouts."""
    spaces: dict[int, Space] = {}
    wasted = 0
    for gpu in gpus:
        space = spaces.get(id(gpu.model))
        if space is None:
            space = spaces[id(gpu.model)] = cache.space(gpu.model)
        wasted += fragmentation(gpu.model, gpu.layout, _weights_of(problem, gpu), space=space)[0]
    return wasted


def _free_capacity(problem: Problem, layouts: Mapping[GpuUuid, Layout]) -> int:
    """Return the fleet's weighted free memory slices, of which fragmentation is a part."""
    whole = 0
    weight_of: dict[tuple[int, tuple[tuple[str, str], ...]], int] = {}
    for gpu in problem.gpus:
        place = (id(gpu.model), gpu.keys)
        weight = weight_of.get(place)
        if weight is None:
            known = {profile.name for profile in gpu.model.profiles}
            weights = _weights_of(problem, gpu)
            weight = weight_of[place] = sum(w for name, w in weights.items() if name in known)
        whole += weight * (gpu.model.memory_slices - layouts[gpu.uuid].mask.bit_count())
    return whole
