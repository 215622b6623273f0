"""What each GPU could become: legal layouts reduced to those that could be part of a best plan.

An option is what a layout gives (instances per key) and what it costs (churn, fragmentation). Of
layouts that give the same only the cheapest stays, and none that gives no more than another at no
less cost. Both reductions are exact: exchanging a dropped option for the one kept never worsens any
level.
"""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from migscaler.errors import PlanningFailed
from migscaler.model.plan import Direction
from migscaler.planner.cache import Scope
from migscaler.planner.problem import BOTH_DIRECTIONS, PlanGpu
from migscaler.planner.space import Space

Ints = NDArray[np.int64]
Bytes = NDArray[np.uint8]

# A GPU holds far fewer instances of any key (12 slices at most so far); gains are kept in bytes.
GAIN_MAX = 127
# A layout is one 64-bit integer; the largest model so far has 30 placements.
MOST_PLACEMENTS = 62
# Cost of a layout that may not be chosen; real ones are below.
FORBIDDEN = 1 << 62


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """The choices of a GPU state, cheapest first; the first is always to stay.

    `gains`: one row per choice, instances per demanded key (clipped at what is missing), then kept
    idle instances per key with a floor. `bits`: the layouts in the model's space. `signature`:
    equal for states whose choices give and cost the same, whatever their layouts.
    """

    churn: Ints
    fragmentation: Ints
    gains: Bytes
    bits: Ints
    signature: bytes

    def __len__(self) -> int:
        """Return the number of choices."""
        return len(self.churn)


class State(NamedTuple):
    """Everything about a GPU that its options depend on, sets as bits of the model's space."""

    pinned: int
    idle: int
    no_supply: int
    keys: tuple[tuple[str, str], ...]
    directions: frozenset[Direction]
    fixed: bool


class Table(NamedTuple):
    """All legal layouts of some placements: bits (rising), memory masks and states of limits.

    `wasted`: their fragmentation by weights per profile.
    """

    bits: Ints
    masks: tuple[int, ...]
    uses: tuple[int, ...]
    wasted: dict[tuple[int, ...], Ints]


class _Ground(NamedTuple):
    """What can stand around some pinned instances, grouped by what it gives.

    Rows are in order of gains; group g is rows `starts[g]` to `starts[g + 1]`, all giving
    `gains[g]`.
    """

    bits: Ints
    fragmentation: Ints
    starts: Ints
    gains: Bytes


class OptionMaker:
    """Works out the options of GPUs of one model in one scope, and remembers them."""

    def __init__(self, space: Space, scope: Scope, tables: dict[int, Table]) -> None:
        """Prepare for a model, whose `tables` (by their placements) all its makers share.

        Raises:
            PlanningFailed: the model has more placements than a layout has bits.
        """
        if len(space.specs) > MOST_PLACEMENTS:
            raise PlanningFailed(f"{space.model.name} has over {MOST_PLACEMENTS} placements")
        self.space = space
        self._scope = scope
        self._known: dict[State, Options | None] = {}
        self._tables = tables
        self._grounds: dict[tuple[object, ...], _Ground] = {}
        self._items: dict[tuple[tuple[str, str], ...], dict[str, int]] = {}
        self._expected = 0

    @property
    def size(self) -> int:
        """Number of states remembered."""
        return len(self._known)

    def state(self, gpu: PlanGpu) -> State | None:
        """Return a GPU's state; None if the model does not know one of its instances.

        Call it for all GPUs before asking for options: one table of layouts then serves them all.
        """
        space = self.space
        pinned, idle = space.bits(gpu.pinned), space.bits(gpu.idle)
        if pinned is None or idle is None:
            return None
        self._expected |= pinned | idle
        no_supply = (space.bits(gpu.idle_not_supply) or 0) & idle if gpu.idle_not_supply else 0
        return State(pinned, idle, no_supply, gpu.keys, gpu.directions, gpu.fixed)

    def options(self, state: State) -> Options | None:
        """Return the options of a state; None if the model forbids its present layout."""
        if state in self._known:
            return self._known[state]
        explained = self.space.state(state.pinned | state.idle) is not None
        found = self._known[state] = self._worked_out(state) if explained else None
        return found

    def _worked_out(self, state: State) -> Options:
        """Choose, for each possible gain, the layout of least churn, then fragmentation."""
        today = state.pinned | state.idle
        ground = self._ground(state)
        churn = np.bitwise_count(ground.bits ^ today).astype(np.int64)
        spread = int(ground.fragmentation.max(initial=0)) + 1
        rank = len(ground.bits)
        cost = (churn * spread + ground.fragmentation) * rank + np.arange(rank)
        cost[self._barred(ground.bits, state)] = FORBIDDEN
        best = np.minimum.reduceat(cost, ground.starts)
        # Sorted by cost, then (the sort being stable) by gain: equal states list equal choices
        # alike.
        order = np.argsort(best // rank, kind="stable")
        order = order[best[order] < FORBIDDEN]
        gains = ground.gains[order]
        order = order[~_dominated(gains)]
        rows = best[order] % rank
        chosen_churn, chosen_frag = churn[rows], ground.fragmentation[rows]
        gains = ground.gains[order]
        return Options(
            churn=chosen_churn,
            fragmentation=chosen_frag,
            gains=gains,
            bits=ground.bits[rows],
            signature=b"".join((chosen_churn.tobytes(), chosen_frag.tobytes(), gains.tobytes())),
        )

    def _barred(self, bits: Ints, state: State) -> NDArray[np.bool_]:
        """Say which layouts may not be chosen: emptied GPUs, closed directions."""
        today = state.pinned | state.idle
        barred: NDArray[np.bool_] = np.asarray(bits == 0) & (today != 0)
        if state.directions != BOTH_DIRECTIONS:
            count = np.bitwise_count(bits)
            finer = (today & ~bits == 0) | (count > today.bit_count())
            if Direction.FINER not in state.directions:
                barred |= finer
            if Direction.COARSER not in state.directions:
                barred |= ~finer
            barred &= bits != today
        return barred

    def _ground(self, state: State) -> _Ground:
        """Return the layouts around the pinned instances, grouped by gains; states share it."""
        items = self._items_by_key(state.keys)
        supply = ~state.pinned & ~state.no_supply
        fields = [(items.get(key, 0) & supply, clip) for key, clip in self._scope.clips]
        fields += [
            (items.get(key, 0) & state.idle & supply, GAIN_MAX) for key in self._scope.kept_keys
        ]
        creatable = 0
        for key, _ in self._scope.clips:
            if key not in self._scope.no_create:
                creatable |= items.get(key, 0)
        today = state.pinned | state.idle
        free = 0 if state.fixed else creatable | state.idle
        memo_key = (state.pinned, free, tuple(fields), state.keys, today if state.fixed else 0)
        found = self._grounds.get(memo_key)
        if found is None:
            found = self._grounds[memo_key] = self._grouped(
                today if state.fixed else state.pinned, free, fields, creatable, state.keys
            )
        return found

    def _grouped(
        self,
        base: int,
        free: int,
        fields: list[tuple[int, int]],
        creatable: int,
        keys: tuple[tuple[str, str], ...],
    ) -> _Ground:
        """Select the layouts of `base` and some of `free`, and sort them by what they give."""
        # One table per model serves everything that stands on creatable placements alone.
        universe = creatable | base | free | self._expected
        table = self._table(universe)
        chosen = np.flatnonzero(
            (table.bits & base == base) & (table.bits & ~np.int64(base | free) == 0)
        )
        bits = table.bits[chosen]
        gains = np.zeros((len(bits), len(fields)), dtype=np.uint8)
        for number, (mask, clip) in enumerate(fields):
            gains[:, number] = np.minimum(np.bitwise_count(bits & mask), clip)
        order = np.lexsort(gains.T[::-1]) if fields else np.arange(len(bits))
        gains = gains[order]
        new = np.ones(len(bits), dtype=bool)
        new[1:] = (gains[1:] != gains[:-1]).any(axis=1)
        return _Ground(
            bits=bits[order],
            fragmentation=self._fragmentation_of(table, keys)[chosen][order],
            starts=np.flatnonzero(new),
            gains=gains[new],
        )

    def _table(self, universe: int) -> Table:
        """Return all legal layouts of some placements."""
        for known, table in self._tables.items():
            if universe & ~known == 0:
                return table
        rows = sorted(self.space.grow(0, universe))
        bits, masks, uses = zip(*rows, strict=True)
        table = self._tables[universe] = Table(np.array(bits, dtype=np.int64), masks, uses, {})
        return table

    def _fragmentation_of(self, table: Table, keys: tuple[tuple[str, str], ...]) -> Ints:
        """Return the weighted free slices that could not be used beside each layout of a table."""
        weight_of, key_of = dict(self._scope.weights), dict(keys)
        profiles = self.space.model.profiles
        weights = tuple(
            weight_of.get(key_of[p.name], 1) if p.name in key_of else 0 for p in profiles
        )
        found = table.wasted.get(weights)
        if found is None:
            sizes = [w * p.memory_slices for w, p in zip(weights, profiles, strict=True)]
            slices, whole = self.space.model.memory_slices, sum(weights)
            rows = zip(table.bits.tolist(), table.masks, table.uses, strict=True)
            found = table.wasted[weights] = np.array(
                [
                    (slices - mask.bit_count()) * whole
                    - sum(map(int.__mul__, sizes, self.space.how_many(mask, use, bits)))
                    for bits, mask, use in rows
                ],
                dtype=np.int64,
            )
        return found

    def _items_by_key(self, keys: tuple[tuple[str, str], ...]) -> dict[str, int]:
        """Return the placements that serve each key."""
        found = self._items.get(keys)
        if found is None:
            found = self._items[keys] = {}
            key_of = dict(keys)
            for item, spec in enumerate(self.space.specs):
                key = key_of.get(spec.profile)
                if key is not None:
                    found[key] = found.get(key, 0) | 1 << item
        return found


def _dominated(gains: Bytes) -> NDArray[np.bool_]:
    """Say which choices give no more than an earlier, hence no dearer, one."""
    covers = (gains[:, None, :] >= gains[None, :, :]).all(axis=2)
    return np.asarray(np.triu(covers, 1).any(axis=0))
