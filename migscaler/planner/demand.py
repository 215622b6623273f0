"""What is wanted, stacked into segments, and what of it a supply leaves unmet."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import NamedTuple

from migscaler.model.profile import InstanceSpec
from migscaler.planner.problem import PlanGpu, Problem


class Segment(NamedTuple):
    """Part of a key's target: `length` instances in one tier, each costing `weight` if unmet."""

    key: str
    tier: int
    weight: int
    length: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Stack:
    """The targets of all keys.

    `segments`: by key, within a key the most important first. `given`: pinned instances that count,
    by key. `missing`: (key, instances wanted beyond those), keys sorted, none zero.
    """

    segments: tuple[Segment, ...]
    given: Mapping[str, int]
    missing: tuple[tuple[str, int], ...]


def stack(problem: Problem) -> Stack:
    """Stack the wants of each key: earlier tiers first, within a tier the dearest first."""
    lengths: dict[tuple[str, int, int], int] = {}
    total: dict[str, int] = {}
    for number, tier in enumerate(problem.tiers):
        for want in tier.wants:
            place = (want.key, number, -want.weight)
            lengths[place] = lengths.get(place, 0) + want.count
            total[want.key] = total.get(want.key, 0) + want.count
    given = supply((gpu, gpu.supply_pinned) for gpu in problem.gpus if gpu.supply_pinned)
    missing = ((key, count - given.get(key, 0)) for key, count in sorted(total.items()))
    return Stack(
        segments=tuple(
            Segment(key, tier, -negated, length)
            for (key, tier, negated), length in sorted(lengths.items())
            if length
        ),
        given=given,
        missing=tuple((key, count) for key, count in missing if count > 0),
    )


def supply(parts: Iterable[tuple[PlanGpu, Iterable[InstanceSpec]]]) -> dict[str, int]:
    """Count instances by the key that they serve on their GPU."""
    totals: dict[str, int] = {}
    keys_of: dict[tuple[tuple[str, str], ...], dict[str, str]] = {}
    for gpu, specs in parts:
        keys = keys_of.get(gpu.keys)
        if keys is None:
            keys = keys_of[gpu.keys] = dict(gpu.keys)
        for spec in specs:
            key = keys.get(spec.profile)
            if key is not None:
                totals[key] = totals.get(key, 0) + 1
    return totals


def idle_supply(gpu: PlanGpu) -> tuple[InstanceSpec, ...]:
    """Return the idle instances of a GPU that may serve somebody."""
    if not gpu.idle_not_supply:
        return gpu.idle
    return tuple(spec for spec in gpu.idle if spec not in gpu.idle_not_supply)


def unmet(targets: Stack, gained: Mapping[str, int]) -> list[tuple[Segment, int]]:
    """Return the shortfall of every segment: what there is fills the most important ones first."""
    left = {
        key: targets.given.get(key, 0) + gained.get(key, 0) for key in (*targets.given, *gained)
    }
    short = []
    for segment in targets.segments:
        filled = min(left.get(segment.key, 0), segment.length)
        left[segment.key] = left.get(segment.key, 0) - filled
        short.append((segment, segment.length - filled))
    return short
