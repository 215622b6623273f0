"""How rivals plan, restated as plainly as is fair to them; they share the problem, not the planner.

Each returns the layouts it would leave and the instances it would destroy and create on the way.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from migscaler.model.ids import GpuUuid
from migscaler.model.layout import GpuModel, Layout
from migscaler.model.profile import InstanceSpec
from migscaler.planner.problem import PlanGpu, Problem
from migscaler.planner.space import Space, make_space
from tests.benchmarks.planner_worlds import SLICES, fixed_configurations
from tests.unit.planner.exact import tier_unmet


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a rival does: unmet by tier, and instances destroyed plus created."""

    unmet: tuple[int, ...]
    churn: int


Choices = Callable[[PlanGpu], Iterable[Layout]]


def fixed_with_wiping(problem: Problem) -> Outcome:
    """Give GPUs without a busy instance one of a few written layouts, wiping them (mig-parted)."""

    def choices(gpu: PlanGpu) -> Iterable[Layout]:
        return () if gpu.pinned else fixed_configurations(gpu.model)

    return _gpu_by_gpu(problem, choices)


def geometry_first_fit(problem: Problem) -> Outcome:
    """Give each GPU in turn the counts per profile that help most, re-creating what is idle (nos).

    Generous: the table of geometries is complete, and only those that placements allow are tried.
    """
    spaces: dict[GpuModel, Space] = {}
    memo: dict[tuple[str, tuple[InstanceSpec, ...]], tuple[Layout, ...]] = {}
    wanted = {want.key for tier in problem.tiers for want in tier.wants}

    def choices(gpu: PlanGpu) -> Iterable[Layout]:
        found = memo.get((gpu.model.name, gpu.pinned))
        if found is None:
            space = spaces.setdefault(gpu.model, make_space(gpu.model))
            names = {name for name, key in gpu.keys if key in wanted}
            free = sum(1 << n for n, spec in enumerate(space.specs) if spec.profile in names)
            by_counts: dict[tuple[tuple[str, int], ...], Layout] = {}
            for bits, _, _ in sorted(space.grow(space.bits(gpu.pinned) or 0, free)):
                layout = space.layout(bits)
                by_counts.setdefault(tuple(sorted(layout.profiles().items())), layout)
            found = memo[gpu.model.name, gpu.pinned] = tuple(by_counts.values())
        return found

    return _gpu_by_gpu(problem, choices)


def on_demand_first_fit(problem: Problem) -> Outcome:
    """Create each missing instance at the first place that is free; destroy nothing."""
    kept = [gpu.layout.specs for gpu in _sorted(problem)]
    return _instance_by_instance(problem, kept, [()] * len(kept))


def first_fit_decreasing(problem: Problem) -> Outcome:
    """As on demand, largest first within a tier; surplus idle instances may be dropped for it."""
    left: dict[str, int] = {}
    for tier in problem.tiers:
        for want in tier.wants:
            left[want.key] = left.get(want.key, 0) + want.count
    kept: list[tuple[InstanceSpec, ...]] = []
    surplus: list[tuple[InstanceSpec, ...]] = []
    for gpu in _sorted(problem):
        keys = dict(gpu.keys)
        stays = list(gpu.pinned)
        extra: list[InstanceSpec] = []
        for spec in gpu.idle:
            key = keys.get(spec.profile, "")
            (stays if left.get(key, 0) > 0 else extra).append(spec)
            left[key] = left.get(key, 0) - 1
        kept.append(tuple(stays))
        surplus.append(tuple(extra))
    return _instance_by_instance(problem, kept, surplus, largest_first=True)


BASELINES = {
    "fixed configurations, wiping": fixed_with_wiping,
    "geometry first fit, by counts": geometry_first_fit,
    "on demand, first fit": on_demand_first_fit,
    "first fit decreasing": first_fit_decreasing,
}


def _sorted(problem: Problem) -> list[PlanGpu]:
    return sorted(problem.gpus, key=lambda gpu: gpu.uuid)


def _serving(gpu: PlanGpu, layout: Layout) -> dict[str, int]:
    """Count what a layout supplies beyond the pinned instances."""
    keys = dict(gpu.keys)
    counts: dict[str, int] = {}
    for spec in layout.specs:
        key = keys.get(spec.profile)
        if key is not None and spec not in gpu.pinned:
            counts[key] = counts.get(key, 0) + 1
    return counts


def _gpu_by_gpu(problem: Problem, choices: Choices) -> Outcome:
    """Let each GPU in turn take the choice that leaves least unmet; what changes is made anew."""
    total: dict[str, int] = {}
    for gpu in problem.gpus:
        for key, count in _serving(gpu, gpu.layout).items():
            total[key] = total.get(key, 0) + count
    churn = 0
    unmet = tier_unmet(problem, total)
    gains: dict[tuple[GpuUuid | str, Layout, tuple[InstanceSpec, ...]], dict[str, int]] = {}
    for gpu in _sorted(problem):
        if not any(unmet):
            break
        rest = dict(total)
        for key, count in _serving(gpu, gpu.layout).items():
            rest[key] -= count
        best, best_unmet, best_total = None, unmet, total
        for layout in choices(gpu):
            place = (gpu.model.name, layout, gpu.pinned)
            gain = gains.get(place)
            if gain is None:
                gain = gains[place] = _serving(gpu, layout)
            supply = {key: rest.get(key, 0) + gain.get(key, 0) for key in {*rest, *gain}}
            found = tier_unmet(problem, supply)
            if found < best_unmet:
                best, best_unmet, best_total = layout, found, supply
        if best is not None:
            churn += len(gpu.idle) + len(best) - len(gpu.pinned)
            unmet, total = best_unmet, best_total
    return Outcome(unmet, churn)


def _instance_by_instance(
    problem: Problem,
    kept: Sequence[tuple[InstanceSpec, ...]],
    surplus: Sequence[tuple[InstanceSpec, ...]],
    *,
    largest_first: bool = False,
) -> Outcome:
    """Create what is missing at the first place that fits beside `kept`."""
    gpus = _sorted(problem)
    spaces = {gpu.model.name: make_space(gpu.model) for gpu in gpus[:64]}
    states: list[tuple[Space, int, int]] = []
    for gpu, specs in zip(gpus, kept, strict=True):
        space = spaces.setdefault(gpu.model.name, make_space(gpu.model))
        state = space.state(space.bits(specs) or 0)
        assert state is not None
        states.append((space, state[0], state[1]))
    total: dict[str, int] = {}
    for gpu in gpus:
        for key, count in _serving(gpu, gpu.layout).items():
            total[key] = total.get(key, 0) + count
    left = dict(total)
    created = 0
    first: dict[str, int] = {}
    for tier in problem.tiers:
        order = sorted(tier.wants, key=lambda w: -SLICES[w.key] if largest_first else 0)
        for want in order:
            have = min(want.count, left.get(want.key, 0))
            left[want.key] = left.get(want.key, 0) - have
            for _ in range(want.count - have):
                at = _place(gpus, states, want.key, first.get(want.key, 0))
                first[want.key] = len(gpus) if at is None else at
                if at is None:
                    break
                created += 1
                total[want.key] = total.get(want.key, 0) + 1
    dropped = sum(
        bool(spec.mask & mask)
        for specs, (_, mask, _used) in zip(surplus, states, strict=True)
        for spec in specs
    )
    return Outcome(tier_unmet(problem, total), created + dropped)


def _place(
    gpus: list[PlanGpu], states: list[tuple[Space, int, int]], key: str, start: int
) -> int | None:
    """Take the first free place of a key from a GPU on; say on which GPU it was."""
    for number in range(start, len(gpus)):
        space, mask, use = states[number]
        names = {name for name, k in gpus[number].keys if k == key}
        for item, spec in enumerate(space.specs):
            if spec.profile not in names or space.memory[item] & mask:
                continue
            if not (use + space.uses[item]) & space.over:
                states[number] = (space, mask | space.memory[item], use + space.uses[item])
                return number
    return None
