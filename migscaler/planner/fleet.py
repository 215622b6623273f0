"""GPUs merged into classes of equal options, and what is still missing of every key.

Two GPUs with different placements but the same list of gains and costs are one class, so that the
size of the programme grows with the variety of a fleet, not with its size.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import NamedTuple

from migscaler.model.ids import GpuUuid
from migscaler.model.layout import Layout
from migscaler.model.profile import InstanceSpec
from migscaler.planner.layouts import fragmentation
from migscaler.planner.options import (
    Option,
    OptionCache,
    Scope,
    Shelf,
    options_of,
    state_of,
    unpack,
)
from migscaler.planner.problem import PlanGpu, Problem
from migscaler.planner.space import Space


class Segment(NamedTuple):
    """Part of a key's target: `length` instances in one tier, each costing `weight` if unmet."""

    key: str
    tier: int
    weight: int
    length: int


@dataclass(frozen=True, slots=True, kw_only=True)
class GpuClass:
    """GPUs with equal options (churn, fragmentation, gains), cheapest first; the first is to stay.

    `members`: (UUID, the same options with that GPU's own layouts), sorted by UUID.
    """

    options: tuple[Option, ...]
    members: tuple[tuple[GpuUuid, Space, tuple[Option, ...]], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Fleet:
    """A problem with everything worked out that needs no solver.

    `segments` by key, within it most important first; `clips` what is missing of each demanded
    key before any GPU is counted; `given` the instances that count whatever is chosen. `floors`:
    kept key and how many of the classes' idle instances must stay. `unexplained`: GPUs that stay
    as they are.
    """

    segments: tuple[Segment, ...]
    given: dict[str, int]
    clips: tuple[tuple[str, int], ...]
    floors: tuple[tuple[str, int], ...]
    classes: tuple[GpuClass, ...]
    unexplained: tuple[PlanGpu, ...]
    unexplained_fragmentation: int


def make_fleet(problem: Problem, cache: OptionCache) -> Fleet:
    """Work out segments, options and classes."""
    cache.trim()
    gpus = sorted(problem.gpus, key=lambda gpu: gpu.uuid)
    segments = _segments(problem)
    given: dict[str, int] = {}
    for gpu in gpus:
        _count(given, gpu, gpu.supply_pinned)
    clips = _missing(segments, given)
    scope = Scope(
        clips=tuple((key, min(count, 127)) for key, count in clips),
        kept_keys=tuple(sorted({key for key, n in problem.kept if n > 0})),
        no_create=problem.no_create,
        weights=tuple(sorted(problem.fragmentation_weights)),
    )
    classes, unexplained = _classes(gpus, scope, cache)
    kept_apart: dict[str, int] = {}
    for gpu in unexplained:
        serving = tuple(spec for spec in gpu.idle if spec not in gpu.idle_not_supply)
        _count(given, gpu, serving)
        _count(kept_apart, gpu, serving)
    return Fleet(
        segments=segments,
        given=given,
        clips=clips,
        floors=_floors(problem, scope, classes, kept_apart),
        classes=classes,
        unexplained=unexplained,
        unexplained_fragmentation=sum(
            fragmentation(gpu.model, gpu.layout, _weights_by_profile(gpu, scope))[0]
            for gpu in unexplained
        ),
    )


def unmet_by_segment(fleet: Fleet, gained: dict[str, int]) -> list[tuple[Segment, int]]:
    """Return the shortfall of every segment: what there is fills the most important ones first."""
    left = {key: count + gained.get(key, 0) for key, count in fleet.given.items()}
    for key, count in gained.items():
        left.setdefault(key, count)
    short = []
    for segment in fleet.segments:
        filled = min(left.get(segment.key, 0), segment.length)
        left[segment.key] = left.get(segment.key, 0) - filled
        short.append((segment, segment.length - filled))
    return short


def free_capacity(fleet: Fleet, layouts: dict[GpuUuid, Layout], problem: Problem) -> int:
    """Return the fleet's weighted free memory slices, of which fragmentation is a part."""
    weights = dict(problem.fragmentation_weights)
    whole = 0
    per_keys: dict[tuple[int, tuple[tuple[str, str], ...]], int] = {}
    for gpu in problem.gpus:
        memo_key = (id(gpu.model), gpu.keys)
        weight = per_keys.get(memo_key)
        if weight is None:
            known = {profile.name for profile in gpu.model.profiles}
            weight = sum(
                weights.get(key, 1) for name, key in dict(gpu.keys).items() if name in known
            )
            per_keys[memo_key] = weight
        whole += weight * (gpu.model.memory_slices - layouts[gpu.uuid].mask.bit_count())
    return whole


def _segments(problem: Problem) -> tuple[Segment, ...]:
    """Stack the wants of each key: earlier tiers first, within a tier the dearest first."""
    found: dict[tuple[str, int, int], int] = {}
    for number, tier in enumerate(problem.tiers):
        for want in tier.wants:
            place = (want.key, number, -want.weight)
            found[place] = found.get(place, 0) + want.count
    return tuple(
        Segment(key, tier, -negated, length)
        for (key, tier, negated), length in sorted(found.items())
        if length
    )


def _missing(segments: Iterable[Segment], given: dict[str, int]) -> tuple[tuple[str, int], ...]:
    """Return (key, instances wanted beyond those given), keys sorted, only where some are."""
    total: dict[str, int] = {}
    for segment in segments:
        total[segment.key] = total.get(segment.key, 0) + segment.length
    missing = ((key, count - given.get(key, 0)) for key, count in sorted(total.items()))
    return tuple((key, count) for key, count in missing if count > 0)


def _classes(
    gpus: list[PlanGpu], scope: Scope, cache: OptionCache
) -> tuple[tuple[GpuClass, ...], tuple[PlanGpu, ...]]:
    """Group explained GPUs by signature; classes in order of signature."""
    groups: dict[
        tuple[tuple[int, int, int], ...], list[tuple[GpuUuid, Space, tuple[Option, ...]]]
    ] = {}
    signatures: dict[int, tuple[tuple[int, int, int], ...]] = {}
    tables: dict[int, tuple[Space, Shelf]] = {}
    unexplained = []
    for gpu in gpus:
        # Hashing a model walks all its profiles; one object usually serves a whole fleet.
        found = tables.get(id(gpu.model))
        if found is None:
            found = (cache.space(gpu.model), cache.shelf(gpu.model, scope))
            tables[id(gpu.model)] = found
        space, shelf = found
        state = state_of(gpu, space)
        if state is None:
            unexplained.append(gpu)
            continue
        options = shelf.get(state)
        if options is None:
            options = shelf[state] = options_of(state, space, scope)
        signature = signatures.get(id(options))
        if signature is None:
            signature = signatures[id(options)] = tuple(option[:3] for option in options)
        groups.setdefault(signature, []).append((gpu.uuid, space, options))
    classes = (
        GpuClass(options=members[0][2], members=tuple(members))
        for _, members in sorted(groups.items())
    )
    return tuple(classes), tuple(unexplained)


def _floors(
    problem: Problem, scope: Scope, classes: Iterable[GpuClass], apart: dict[str, int]
) -> tuple[tuple[str, int], ...]:
    """Return how many of the classes' idle instances must stay, per kept key."""
    wanted: dict[str, int] = {}
    for key, n in problem.kept:
        wanted[key] = max(n, wanted.get(key, 0))
    fields = len(scope.clips) + len(scope.kept_keys)
    present = dict.fromkeys(scope.kept_keys, 0)
    for group in classes:
        counts = unpack(group.options[0].gains, fields)[len(scope.clips) :]
        for key, count in zip(scope.kept_keys, counts, strict=True):
            present[key] += count * len(group.members)
    return tuple(
        (key, max(0, min(wanted[key] - apart.get(key, 0), present[key]))) for key in scope.kept_keys
    )


def _count(totals: dict[str, int], gpu: PlanGpu, specs: Iterable[InstanceSpec]) -> None:
    """Add instances to the totals of the keys that they serve."""
    keys = dict(gpu.keys)
    for spec in specs:
        key = keys.get(spec.profile)
        if key is not None:
            totals[key] = totals.get(key, 0) + 1


def _weights_by_profile(gpu: PlanGpu, scope: Scope) -> dict[str, int]:
    """Return the fragmentation weight of each profile that serves a key."""
    weights = dict(scope.weights)
    return {name: weights.get(key, 1) for name, key in gpu.keys}
