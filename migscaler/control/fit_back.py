"""What can be put back beside instances that must stay."""

from collections import Counter
from collections.abc import Iterable

from migscaler.model.layout import GpuModel, Layout
from migscaler.model.profile import InstanceSpec


def fits(model: GpuModel | None, there: Layout, more: Iterable[InstanceSpec]) -> bool:
    """Say whether instances can be added; without a model only overlaps are known."""
    together = there.mask
    added = tuple(more)
    for spec in added:
        if together & spec.mask:
            return False
        together |= spec.mask
    return model is None or model.violation(there.with_specs(added)) is None


def best_addition(
    model: GpuModel | None,
    there: Layout,
    first: list[InstanceSpec],
    second: list[InstanceSpec],
    short: Counter[str],
) -> tuple[InstanceSpec, ...]:
    """Return what to add beside what stays: least short of promise (b), then most of before.

    Cost: every combination that does not overlap, at most a few hundred; ties go to the first in
    order.
    """
    best: tuple[InstanceSpec, ...] = ()
    best_score = (-short.total(), 0, 0)

    def extend(chosen: tuple[InstanceSpec, ...], rest: list[InstanceSpec]) -> None:
        nonlocal best, best_score
        missing = short - Counter(spec.profile for spec in chosen)
        ours = sum(spec in first for spec in chosen)
        score = (-missing.total(), ours, -len(chosen))
        if score > best_score and fits(model, there, chosen):
            best, best_score = chosen, score
        for number, spec in enumerate(rest):
            if not any(spec.mask & one.mask for one in (*there.specs, *chosen)):
                extend((*chosen, spec), rest[number + 1 :])

    extend((), [*first, *second])
    return tuple(sorted(best))
