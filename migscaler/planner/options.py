"""What each GPU could become: legal layouts reduced to those that could be part of a best plan.

An option is what a layout gives (instances per key) and what it costs (churn, fragmentation). Of
layouts that give the same only the cheapest stays, and none that gives no more than another at no
less cost. Both reductions are exact: exchanging a dropped option for the one kept never worsens
any level.
"""

from dataclasses import dataclass, field
from typing import NamedTuple

from migscaler.model.layout import GpuModel
from migscaler.model.plan import Direction
from migscaler.planner.problem import BOTH_DIRECTIONS, PlanGpu
from migscaler.planner.space import Space, make_space

# Gains are packed into one integer, a field per key; the top bit of a field is free for comparing.
GAIN_BITS = 8
GAIN_MAX = (1 << (GAIN_BITS - 1)) - 1
# Options kept for later calls before the cache is emptied (some 50 MB).
CACHE_LIMIT = 200_000


class Option(NamedTuple):
    """One choice for a GPU; compares by cost, then by what it gives.

    `gains` packs instances per demanded key (clipped at what is missing), then kept idle instances
    per key with a floor. `bits` is the layout in the model's space.
    """

    churn: int
    fragmentation: int
    gains: int
    bits: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Scope:
    """What counts in a problem, the same for all its GPUs; `clips` and `kept_keys` are sorted.

    `clips`: (demanded key, instances beyond which more are of no use). `kept_keys`: those with a
    floor against destruction. `weights`: (key, weight) in the fragmentation, 1 where absent.
    """

    clips: tuple[tuple[str, int], ...]
    kept_keys: tuple[str, ...]
    no_create: frozenset[str]
    weights: tuple[tuple[str, int], ...]


class State(NamedTuple):
    """Everything about a GPU that its options depend on, sets as bits of the model's space."""

    pinned: int
    idle: int
    no_supply: int
    keys: tuple[tuple[str, str], ...]
    directions: frozenset[Direction]
    fixed: bool


Shelf = dict[State, tuple[Option, ...]]


@dataclass(slots=True)
class OptionCache:
    """Options already worked out; pass the same one to many `solve` calls to save time.

    Never changes an answer. Not thread-safe.
    """

    spaces: dict[GpuModel, Space] = field(default_factory=dict)
    shelves: dict[tuple[GpuModel, Scope], Shelf] = field(default_factory=dict)

    def space(self, model: GpuModel) -> Space:
        """Return the tables of a model."""
        found = self.spaces.get(model)
        if found is None:
            found = self.spaces[model] = make_space(model)
        return found

    def shelf(self, model: GpuModel, scope: Scope) -> Shelf:
        """Return the options known for a model in a scope, to be read and added to."""
        return self.shelves.setdefault((model, scope), {})

    def trim(self) -> None:
        """Forget everything once too much is kept; called at the start of a problem."""
        if sum(map(len, self.shelves.values())) > CACHE_LIMIT // 10:
            self.shelves.clear()


def state_of(gpu: PlanGpu, space: Space) -> State | None:
    """Return the state of a GPU; None if the model does not explain its present layout."""
    pinned, idle = space.bits(gpu.pinned), space.bits(gpu.idle)
    if pinned is None or idle is None or space.state(pinned | idle) is None:
        return None
    return State(
        pinned=pinned,
        idle=idle,
        no_supply=(space.bits(gpu.idle_not_supply) or 0) & idle,
        keys=gpu.keys if len(gpu.keys) < 2 else tuple(sorted(gpu.keys)),
        directions=gpu.directions,
        fixed=gpu.fixed,
    )


def options_of(state: State, space: Space, scope: Scope) -> tuple[Option, ...]:
    """Return the useful options of a state, cheapest first; the first is always to stay.

    Cost: linear in legal layouts (at most 2,319 on the 7-slice family, about 5 ms).
    """
    view = _View(state, space, scope)
    today = state.pinned | state.idle
    best: dict[int, tuple[int, list[tuple[int, int, int]]]] = {}
    for bits, mask, use in space.grow(state.pinned, 0 if state.fixed else view.candidates):
        if not view.allowed(bits):
            continue
        churn = (bits ^ today).bit_count()
        gains = view.gains(bits)
        known = best.get(gains)
        if known is None or churn < known[0]:
            best[gains] = (churn, [(bits, mask, use)])
        elif churn == known[0]:
            known[1].append((bits, mask, use))
    if state.fixed:
        found = space.state(today)
        best = {view.gains(today): (0, [(today, found[0], found[1])])} if found else {}
    cheapest = sorted(
        Option(churn, *min((view.fragmentation(*layout), gains, layout[0]) for layout in layouts))
        for gains, (churn, layouts) in best.items()
    )
    return undominated(cheapest, view.guard)


def undominated(options: list[Option], guard: int) -> tuple[Option, ...]:
    """Drop options that give no more than a cheaper one; `options` are sorted, cheapest first."""
    kept: list[Option] = []
    for option in options:
        gains = option.gains
        if not any(((better.gains | guard) - gains) & guard == guard for better in kept):
            kept.append(option)
    return tuple(kept)


class _View:
    """One state's masks in the terms of the scope; a layout then costs a few bit operations."""

    def __init__(self, state: State, space: Space, scope: Scope) -> None:
        self._space = space
        self._today = state.pinned | state.idle
        self._any_direction = state.directions == BOTH_DIRECTIONS
        self._directions = state.directions
        keys = dict(state.keys)
        items_by_key: dict[str, int] = {}
        for item, spec in enumerate(space.specs):
            key = keys.get(spec.profile)
            if key is not None:
                items_by_key[key] = items_by_key.get(key, 0) | 1 << item
        supply = ~state.pinned & ~state.no_supply
        fields = [(items_by_key.get(key, 0) & supply, clip) for key, clip in scope.clips]
        fields += [
            (items_by_key.get(key, 0) & state.idle & supply, GAIN_MAX) for key in scope.kept_keys
        ]
        self.guard = sum(1 << (GAIN_BITS * (n + 1) - 1) for n in range(len(fields)))
        self._fields = tuple(
            (mask, clip, GAIN_BITS * n) for n, (mask, clip) in enumerate(fields) if mask
        )
        creatable = 0
        for key, _ in scope.clips:
            if key not in scope.no_create:
                creatable |= items_by_key.get(key, 0)
        self.candidates = creatable | state.idle
        weight_of = dict(scope.weights)
        self._weights = tuple(
            weight_of.get(keys[p.name], 1) if p.name in keys else 0 for p in space.model.profiles
        )
        self._weight = sum(self._weights)
        self._sizes = tuple(
            weight * profile.memory_slices
            for weight, profile in zip(self._weights, space.model.profiles, strict=True)
        )

    def allowed(self, bits: int) -> bool:
        """Say whether a layout may be chosen: no GPU is emptied, the direction is open."""
        if not bits:
            return not self._today
        if self._any_direction or bits == self._today:
            return True
        finer = not self._today & ~bits or bits.bit_count() > self._today.bit_count()
        return (Direction.FINER if finer else Direction.COARSER) in self._directions

    def gains(self, bits: int) -> int:
        """Return what a layout gives, packed."""
        packed = 0
        for mask, clip, shift in self._fields:
            count = (bits & mask).bit_count()
            packed |= (count if count < clip else clip) << shift
        return packed

    def fragmentation(self, bits: int, mask: int, use: int) -> int:
        """Return the weighted free slices that could not be used beside a layout."""
        free = self._space.model.memory_slices - mask.bit_count()
        if not free or not self._weight:
            return 0
        counts = self._space.how_many(mask, use, bits)
        return free * self._weight - sum(map(int.__mul__, self._sizes, counts))


def unpack(gains: int, fields: int) -> tuple[int, ...]:
    """Return the counts that were packed."""
    return tuple((gains >> (GAIN_BITS * n)) & GAIN_MAX for n in range(fields))
