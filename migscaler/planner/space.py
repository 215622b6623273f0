"""The placements of one GPU model as bitmasks, and all legal sets of them.

Every limit that adds up (compute slices, instance maxima, engines) is a field of one integer
whose top bit is set exactly when the limit is exceeded, so that one addition and one `&` check
them all.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field

from migscaler.model.layout import GpuModel, Layout
from migscaler.model.profile import InstanceSpec, Profile

# A field holds twice any sum of a layout: at most 16 instances of at most 127 engines (H100: 8
# copy engines).
FIELD_BITS = 12
_TOP = 1 << (FIELD_BITS - 1)


@dataclass(frozen=True, slots=True, kw_only=True)
class Space:
    """All placements ("items") of a model, in order of start, size and profile name.

    Bit i of a set stands for item i. `uses[i]` is what item i adds to a state of limits,
    `start_use` the state of an empty GPU, `over` the bits that mean "too much". `conflicts[i]`:
    items that exclude item i by driver. `memory[i]`, `compute[i]`: its slices (memory as a mask).
    `profile_of[i]`: index in `model.profiles`.
    """

    model: GpuModel
    specs: tuple[InstanceSpec, ...]
    memory: tuple[int, ...]
    compute: tuple[int, ...]
    profile_of: tuple[int, ...]
    uses: tuple[int, ...]
    start_use: int
    over: int
    conflicts: tuple[int, ...]
    index: dict[InstanceSpec, int] = field(repr=False)
    fit_memo: dict[tuple[int, int, int], tuple[int, ...]] = field(default_factory=dict, repr=False)

    def bits(self, specs: Iterable[InstanceSpec]) -> int | None:
        """Return the set of the given instances; None if the model does not know one of them."""
        found = 0
        for spec in specs:
            item = self.index.get(spec)
            if item is None:
                return None
            found |= 1 << item
        return found

    def layout(self, bits: int) -> Layout:
        """Return the layout that a set stands for."""
        return Layout(tuple(self.specs[item] for item in items_of(bits)))

    def state(self, bits: int) -> tuple[int, int, int] | None:
        """Return (memory mask, limits, items banned by pairs) of a set; None if it is illegal."""
        mask, use, banned = 0, self.start_use, 0
        for item in items_of(bits):
            if mask & self.memory[item]:
                return None
            mask |= self.memory[item]
            use += self.uses[item]
            banned |= self.conflicts[item]
        if use & self.over or banned & bits:
            return None
        return mask, use, banned

    def grow(self, base: int, candidates: int) -> Iterator[tuple[int, int, int]]:
        """Yield (set, memory mask, limits) of each legal set of `base` and candidates, base first.

        `base` must be legal. Cost: one step per set and candidate that may follow.
        """
        state = self.state(base)
        if state is None:
            return
        mask, use, banned = state
        yield base, mask, use
        free = [
            item
            for item in items_of(candidates & ~base & ~banned)
            if not self.memory[item] & mask and not (use + self.uses[item]) & self.over
        ]
        memory, uses, over, conflicts = self.memory, self.uses, self.over, self.conflicts
        starts = [self.specs[item].placement.start for item in free]
        # Items are sorted by start: the next one of a set begins where this one ends, or later.
        following = [
            next((n for n, s in enumerate(starts) if s >= self.specs[i].placement.end), len(free))
            for i in free
        ]
        pairs = any(conflicts[item] for item in free)
        stack = [(0, base, mask, use, banned)]
        while stack:
            first, bits, mask, use, banned = stack.pop()
            for position in range(first, len(free)):
                item = free[position]
                more = use + uses[item]
                if more & over or (pairs and banned >> item & 1):
                    continue
                grown = (bits | 1 << item, mask | memory[item], more)
                yield grown
                follow = following[position]
                if follow < len(free):
                    stack.append((follow, *grown, banned | conflicts[item]))

    def how_many(self, mask: int, use: int, bits: int) -> tuple[int, ...]:
        """Return, per profile, how many instances of it alone still fit beside a state."""
        banned = self.banned_profiles(bits)
        memo_key = (mask, use, banned)
        found = self.fit_memo.get(memo_key)
        if found is None:
            found = tuple(
                0 if banned >> number & 1 else self._alone(number, mask, use)
                for number in range(len(self.model.profiles))
            )
            self.fit_memo[memo_key] = found
        return found

    def banned_profiles(self, bits: int) -> int:
        """Return the profiles that may not stand beside a set, as a set of profile indexes."""
        if not self.model.exclusive_pairs:
            return 0
        banned = 0
        for item in items_of(bits):
            for other in items_of(self.conflicts[item]):
                banned |= 1 << self.profile_of[other]
        return banned

    def _alone(self, number: int, mask: int, use: int) -> int:
        """Count how many of one profile fit; of equal lengths, the first that fits is best."""
        count = 0
        for item, profile in enumerate(self.profile_of):
            if profile != number or mask & self.memory[item]:
                continue
            use += self.uses[item]
            if use & self.over:
                break
            mask |= self.memory[item]
            count += 1
        return count


def make_space(model: GpuModel) -> Space:
    """Build the tables of a model (some 0.1 ms)."""
    placed = sorted(
        (InstanceSpec(placement, profile.name), number)
        for number, profile in enumerate(model.profiles)
        for placement in profile.placements()
        if placement.end <= model.memory_slices
    )
    amounts, limits = _limits(model)
    shifts = [FIELD_BITS * n for n in range(len(limits))]
    use_of = [
        sum(amount << shift for amount, shift in zip(row, shifts, strict=True)) for row in amounts
    ]
    names = [profile.name for profile in model.profiles]
    rivals = {(a, b) for a, b in model.exclusive_pairs} | {(b, a) for a, b in model.exclusive_pairs}
    return Space(
        model=model,
        specs=tuple(spec for spec, _ in placed),
        memory=tuple(spec.mask for spec, _ in placed),
        compute=tuple(model.profiles[number].compute_slices for _, number in placed),
        profile_of=tuple(number for _, number in placed),
        uses=tuple(use_of[number] for _, number in placed),
        start_use=sum((_TOP - 1 - limit) << s for limit, s in zip(limits, shifts, strict=True)),
        over=sum(_TOP << shift for shift in shifts),
        conflicts=tuple(
            sum(1 << j for j, (_, other) in enumerate(placed) if (names[n], names[other]) in rivals)
            for _, n in placed
        ),
        index={spec: item for item, (spec, _) in enumerate(placed)},
    )


def _limits(model: GpuModel) -> tuple[list[list[int]], list[int]]:
    """Return what each profile uses of every limit, and the limits."""
    counted: list[tuple[Callable[[Profile], int], int]] = [
        (lambda p: p.compute_slices, model.compute_slices)
    ]
    for engine, total in model.engine_totals:
        counted.append((lambda p, e=engine: dict(p.engines.counts())[e] or 0, total))  # type: ignore[misc]
    amounts = [
        [
            *(use(profile) for use, _ in counted),
            *(int(other is profile) for other in model.profiles),
        ]
        for profile in model.profiles
    ]
    limits = [
        *(limit for _, limit in counted),
        *(profile.max_instances for profile in model.profiles),
    ]
    return amounts, limits


def items_of(bits: int) -> Iterator[int]:
    """Yield the items of a set in rising order."""
    while bits:
        lowest = bits & -bits
        yield lowest.bit_length() - 1
        bits ^= lowest
