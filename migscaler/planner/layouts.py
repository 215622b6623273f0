"""What fits on one GPU: all legal layouts, what may still be created, and what is wasted.

Each function builds the model's tables anew (0.1 ms) unless it is given them
(`space=make_space(model)`). A layout that the model does not explain (a profile or placement it
never offered) leaves room for nothing.
"""

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from fractions import Fraction

from migscaler.model.layout import GpuModel, Layout
from migscaler.model.profile import InstanceSpec
from migscaler.planner.space import Space, items_of, make_space


@dataclass(frozen=True, slots=True, kw_only=True)
class Stranded:
    """Free slices of a GPU that no profile can use beside its layout."""

    memory_slices: int
    compute_slices: int


def all_layouts(model: GpuModel, profiles: Collection[str] | None = None) -> tuple[Layout, ...]:
    """Return every legal layout of the named profiles (all by default), the empty one included.

    Sorted by their instances. A100 with all profiles: 2,319, in about 30 ms.
    """
    space = make_space(model)
    sets = (bits for bits, _, _ in space.grow(0, _candidates(space, profiles)))
    return tuple(sorted((space.layout(bits) for bits in sets), key=lambda layout: layout.specs))


def maximal_layouts(model: GpuModel, profiles: Collection[str] | None = None) -> tuple[Layout, ...]:
    """Return the legal layouts to which no further instance of the named profiles can be added."""
    space = make_space(model)
    candidates = _candidates(space, profiles)
    full = [
        bits
        for bits, mask, use in space.grow(0, candidates)
        if not any(True for _ in _placeable(space, bits, mask, use, candidates))
    ]
    return tuple(sorted((space.layout(bits) for bits in full), key=lambda layout: layout.specs))


def fits(model: GpuModel, layout: Layout, *, space: Space | None = None) -> dict[str, int]:
    """Return, per profile, how many more of it alone could be created beside the layout."""
    space = space or make_space(model)
    bits = space.bits(layout.specs)
    state = None if bits is None else space.state(bits)
    if bits is None or state is None:
        return dict.fromkeys((profile.name for profile in model.profiles), 0)
    counts = space.how_many(state[0], state[1], bits)
    return {profile.name: n for profile, n in zip(model.profiles, counts, strict=True)}


def creatable_if_dissolved(
    model: GpuModel, pinned: Iterable[InstanceSpec], *, space: Space | None = None
) -> dict[str, int]:
    """Return, per profile, how many of it alone would fit if only the pinned instances stayed."""
    return fits(model, Layout(tuple(pinned)), space=space)


def fragmentation(
    model: GpuModel,
    layout: Layout,
    weights: Mapping[str, int] | None = None,
    *,
    space: Space | None = None,
) -> tuple[int, int]:
    """Return (free capacity that could not be used, free capacity) in weighted memory slices.

    For each profile p of weight w_p (by name; 1 each by default): free slices that instances of p
    alone would leave over. Add both over GPUs before dividing. Source: Fragmentation Gradient
    Descent (USENIX ATC 2023), its idea applied to placements.
    """
    if weights is None:
        weights = dict.fromkeys((profile.name for profile in model.profiles), 1)
    free = model.memory_slices - layout.mask.bit_count()
    counts = fits(model, layout, space=space)
    wasted = whole = 0
    for profile in model.profiles:
        weight = weights.get(profile.name, 0)
        wasted += weight * (free - profile.memory_slices * counts[profile.name])
        whole += weight * free
    return wasted, whole


def fragmentation_ratio(parts: Iterable[tuple[int, int]]) -> Fraction:
    """Return the fragmentation in 0..1 of several GPUs, from what `fragmentation` gave for each."""
    wasted = whole = 0
    for part_wasted, part_whole in parts:
        wasted += part_wasted
        whole += part_whole
    return Fraction(wasted, whole) if whole else Fraction(0)


def stranded(model: GpuModel, layout: Layout, *, space: Space | None = None) -> Stranded:
    """Return the free slices that nothing can use beside the layout.

    Memory: free slices that no placement which still fits would cover. Compute: free slices that
    are left over whatever is added. 3g.20gb@0 3g.20gb@4 strands one compute slice, 7 x 1g.5gb one
    memory slice.
    """
    space = space or make_space(model)
    bits = space.bits(layout.specs)
    state = None if bits is None else space.state(bits)
    if bits is None or state is None:
        return Stranded(memory_slices=0, compute_slices=0)
    everything = (1 << len(space.specs)) - 1
    mask, use, _ = state
    covered = mask
    for item in _placeable(space, bits, mask, use, everything):
        covered |= space.memory[item]
    used = sum(space.compute[item] for item in items_of(bits))
    best = used
    for grown, _, _ in space.grow(bits, everything):
        best = max(best, used + sum(space.compute[i] for i in items_of(grown & ~bits)))
        if best == model.compute_slices:
            break
    return Stranded(
        memory_slices=model.memory_slices - covered.bit_count(),
        compute_slices=model.compute_slices - best,
    )


def _candidates(space: Space, profiles: Collection[str] | None) -> int:
    """Return the set of all placements of the named profiles."""
    return sum(
        1 << item
        for item, spec in enumerate(space.specs)
        if profiles is None or spec.profile in profiles
    )


def _placeable(space: Space, bits: int, mask: int, use: int, candidates: int) -> Iterable[int]:
    """Yield the candidates that can be added to a set."""
    banned = space.banned_profiles(bits)
    for item in items_of(candidates):
        if (
            not space.memory[item] & mask
            and not (use + space.uses[item]) & space.over
            and not banned >> space.profile_of[item] & 1
        ):
            yield item
