"""An exact answer to small planning problems, by code that shares nothing with the planner.

All legal layouts of a board by trying every instance with `GpuModel.violation`; then dynamic
programming over the vector of instances supplied. The truth in tests; too slow for anything else.
"""

from dataclasses import dataclass
from functools import cache

import numpy as np
from numpy.typing import NDArray

from migscaler.model.layout import GpuModel, Layout
from migscaler.model.plan import direction_between
from migscaler.model.profile import InstanceSpec
from migscaler.planner.problem import PlanGpu, Problem

Ints = NDArray[np.int64]
Cells = NDArray[np.int64]

# One number per plan: churn, then GPUs touched, then fragmentation.
CHURN, TOUCHED = 10**11, 10**8
IMPOSSIBLE = 10**17


@dataclass(frozen=True, slots=True)
class Board:
    """All legal layouts of a model as bit sets over `specs`."""

    model: GpuModel
    specs: tuple[InstanceSpec, ...]
    rows: Ints
    useless: dict[tuple[int, str], int]

    def bits(self, specs: tuple[InstanceSpec, ...]) -> int:
        """Return the bit set of some instances."""
        return sum(1 << self.specs.index(spec) for spec in specs)

    def of_profile(self, name: str) -> int:
        """Return the bit set of all placements of a profile."""
        return sum(1 << n for n, spec in enumerate(self.specs) if spec.profile == name)

    def wasted(self, row: int, name: str) -> int:
        """Return the free memory slices left over when a layout is filled with one profile."""
        found = self.useless.get((row, name))
        if found is None:
            added = self.rows & ~row
            fills = (self.rows & row == row) & (added & ~self.of_profile(name) == 0)
            most = int(np.bitwise_count(added[fills]).max())
            covered = sum(s.placement.size for n, s in enumerate(self.specs) if row >> n & 1)
            free = self.model.memory_slices - covered
            found = free - most * self.model.profile(name).memory_slices
            self.useless[row, name] = found
        return found


@cache
def board(model: GpuModel) -> Board:
    """Enumerate a model (about a second with 2,319 layouts)."""
    specs = tuple(InstanceSpec(place, p.name) for p in model.profiles for place in p.placements())
    rows: list[int] = []

    def extend(first: int, row: int, chosen: tuple[InstanceSpec, ...], covered: int) -> None:
        rows.append(row)
        for n in range(first, len(specs)):
            if specs[n].mask & covered:
                continue
            more = (*chosen, specs[n])
            if model.violation(Layout(more)) is None:
                extend(n + 1, row | 1 << n, more, covered | specs[n].mask)

    extend(0, 0, (), 0)
    return Board(model, specs, np.array(rows, dtype=np.int64), {})


def choices(problem: Problem, gpu: PlanGpu) -> list[Layout]:
    """Return every layout that the rules allow for a GPU."""
    known = board(gpu.model)
    today = known.bits((*gpu.pinned, *gpu.idle))
    return [
        Layout(tuple(spec for n, spec in enumerate(known.specs) if row >> n & 1))
        for row in _allowed_rows(problem, gpu, known, today)
    ]


def _allowed_rows(problem: Problem, gpu: PlanGpu, known: Board, today: int) -> list[int]:
    """Return the rows of the layouts allowed: pinned kept, nothing unwanted made, not emptied."""
    if gpu.fixed:
        return [today]
    demanded = {key for key, missing in missing_by_key(problem).items() if missing}
    creatable = 0
    for name, key in gpu.keys:
        if key in demanded and key not in problem.no_create:
            creatable |= known.of_profile(name)
    pinned = known.bits(gpu.pinned)
    rows = known.rows
    fine = (rows & pinned == pinned) & (rows & ~(today | creatable) == 0)
    if today:
        fine &= rows != 0
    found = [int(row) for row in rows[fine]]
    if len(gpu.directions) == 2:
        return found
    before = gpu.layout
    return [
        row
        for row in found
        if row == today
        or direction_between(
            before, Layout(tuple(s for n, s in enumerate(known.specs) if row >> n & 1))
        )
        in gpu.directions
    ]


def missing_by_key(problem: Problem) -> dict[str, int]:
    """Return what is wanted of each key beyond pinned instances that count."""
    total: dict[str, int] = {}
    for tier in problem.tiers:
        for want in tier.wants:
            total[want.key] = total.get(want.key, 0) + want.count
    for gpu in problem.gpus:
        for spec in gpu.supply_pinned:
            key = dict(gpu.keys).get(spec.profile)
            if key in total:
                total[key] -= 1
    return {key: max(0, count) for key, count in total.items()}


def tier_unmet(problem: Problem, supply: dict[str, int]) -> tuple[int, ...]:
    """Return the weighted unmet of each tier, `supply` being all that counts."""
    left = dict(supply)
    result = []
    for tier in problem.tiers:
        unmet = 0
        for want in tier.wants:
            filled = min(want.count, left.get(want.key, 0))
            left[want.key] = left.get(want.key, 0) - filled
            unmet += want.weight * (want.count - filled)
        result.append(unmet)
    return tuple(result)


def optimum(problem: Problem) -> tuple[tuple[int, ...], int, int, int]:
    """Return (unmet by tier, churn, GPUs touched, fragmentation) of a best plan."""
    missing = missing_by_key(problem)
    keys = sorted(key for key, count in missing.items() if count)
    floors = _floors(problem)
    tops = [*(missing[key] for key in keys), *floors.values()]
    budget = problem.max_touched
    moves = len(problem.gpus) if budget is None else min(budget, len(problem.gpus))
    # cells[m, v]: least cost with at most m GPUs touched and at least v supplied.
    shape = (1 if budget is None else moves + 1, *(top + 1 for top in tops))
    cells = np.full(shape, IMPOSSIBLE, dtype=np.int64)
    cells.reshape(shape[0], -1)[:, 0] = 0
    for gpu in problem.gpus:
        cells = _with_gpu(cells, _gains(problem, gpu, keys, tuple(floors)), budget is not None)
    given = {
        key: sum(w.count for t in problem.tiers for w in t.wants if w.key == key) - missing[key]
        for key in missing
    }
    best: tuple[tuple[int, ...], int] | None = None
    plane = cells[-1]
    for top in reversed(floors.values()):
        plane = plane[..., top]
    for place in np.argwhere(plane < IMPOSSIBLE):
        supply = dict(given)
        for key, count in zip(keys, place, strict=True):
            supply[key] += int(count)
        found = (tier_unmet(problem, supply), int(plane[tuple(place)]))
        if best is None or found < best:
            best = found
    assert best is not None
    churn, rest = divmod(best[1], CHURN)
    return best[0], churn, *divmod(rest, TOUCHED)


def _floors(problem: Problem) -> dict[str, int]:
    """Return how many of today's idle instances of each key must stay."""
    floors = {}
    for key, n in problem.kept:
        present = sum(
            dict(gpu.keys).get(spec.profile) == key and spec not in gpu.idle_not_supply
            for gpu in problem.gpus
            for spec in gpu.idle
        )
        floors[key] = min(n, present)
    return {key: n for key, n in floors.items() if n}


def _gains(
    problem: Problem, gpu: PlanGpu, keys: list[str], kept: tuple[str, ...]
) -> dict[tuple[int, ...], int]:
    """Return the least cost of each (touched, what it supplies, what it keeps)."""
    known = board(gpu.model)
    today = known.bits((*gpu.pinned, *gpu.idle))
    mute = known.bits((*gpu.pinned, *gpu.idle_not_supply))
    profiles: dict[str, int] = {}
    for name, key in gpu.keys:
        profiles[key] = profiles.get(key, 0) | known.of_profile(name)
    masks = [profiles.get(key, 0) & ~mute for key in keys]
    masks += [profiles.get(key, 0) & ~mute & today for key in kept]
    weights = dict(problem.fragmentation_weights)
    found: dict[tuple[int, ...], int] = {}
    for row in _allowed_rows(problem, gpu, known, today):
        churn = (row ^ today).bit_count()
        touched = int(churn > 0)
        wasted = sum(weights.get(key, 1) * known.wasted(row, name) for name, key in gpu.keys)
        gain = (touched, *((row & mask).bit_count() for mask in masks))
        cost = churn * CHURN + touched * TOUCHED + wasted
        found[gain] = min(cost, found.get(gain, IMPOSSIBLE))
    return found


def _with_gpu(cells: Cells, gains: dict[tuple[int, ...], int], budgeted: bool) -> Cells:
    """Return the cells once one more GPU has chosen."""
    result = np.full_like(cells, IMPOSSIBLE)
    for (touched, *gain), cost in gains.items():
        source = cells[
            np.ix_(
                np.arange(cells.shape[0]),
                *(
                    np.maximum(np.arange(size) - n, 0)
                    for size, n in zip(cells.shape[1:], gain, strict=True)
                ),
            )
        ]
        if budgeted and touched:
            np.minimum(result[1:], source[:-1] + cost, out=result[1:])
        else:
            np.minimum(result, source + cost, out=result)
    return np.minimum(result, IMPOSSIBLE)
