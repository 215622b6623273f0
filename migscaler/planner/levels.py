"""Minimise the levels in turn over a fleet's columns, with a proven bound for each.

First all levels as linear programmes, each held at its rounded-up value before the next: those
are bounds. The whole parts of the last point stand; the few GPUs left over go to one small
integer programme that must meet every bound. When it can't, the levels are settled one by one, in
the end by the full integer programme.
"""

from dataclasses import dataclass
from math import ceil

import numpy as np

from migscaler.errors import PlanningFailed
from migscaler.planner.programme import Columns, feasible, on, programme_for, values
from migscaler.planner.solver import Floats, Ints, LinearLevels, Optimum, minimise_integer

# Nodes of the search tree: for a few left-over GPUs, for the levels that must be exact, and for
# tie-breaks.
LEFTOVER_NODES = 2_000
EXACT_NODES = 20_000
TIE_BREAK_NODES = 200
# Above this many columns a tie-break level (touched, fragmentation) is not worth a full integer
# programme: its proof took up to 111 s at 10,000 GPUs.
TIE_BREAK_COLUMNS = 1_500
WHOLE = 1e-6


@dataclass(frozen=True, slots=True, kw_only=True)
class Settled:
    """GPUs per option column, and per level the value reached and a bound proven for it."""

    x: Ints
    values: tuple[int, ...]
    bounds: tuple[int, ...]


def settle_levels(columns: Columns, tiers: int) -> Settled:
    """Return the best choice, lexicographically over the levels; staying is always feasible."""
    stay = np.zeros(columns.options, dtype=np.int64)
    stay[np.unique(columns.group, return_index=True)[1]] = columns.counts
    relaxed = _relax(columns, tiers, stay)
    point = relaxed.point
    if point is None:
        return Settled(x=stay, values=relaxed.bounds, bounds=relaxed.bounds)
    x = _round(columns, point, list(relaxed.bounds), len(columns.costs) - 1)
    if x is not None:
        reached = values(columns, x)
        if reached[:-1] == relaxed.bounds[:-1]:
            return _with_last_level(columns, x, relaxed.bounds)
    return _one_by_one(columns, tiers, stay, relaxed)


def _with_last_level(columns: Columns, x: Ints, bounds: tuple[int, ...]) -> Settled:
    """Return a choice that is best in all levels but the last, which small fleets search."""
    reached = values(columns, x)
    if reached[-1] > bounds[-1] and columns.options <= TIE_BREAK_COLUMNS:
        last = len(reached) - 1
        chosen = np.arange(columns.options)
        x, proved = _search(columns, last, list(reached[:-1]), x, chosen, TIE_BREAK_NODES)
        bounds = (*bounds[:-1], values(columns, x)[-1] if proved else bounds[-1])
    return Settled(x=x, values=values(columns, x), bounds=bounds)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Relaxed:
    """Bounds of all levels, and the optimum behind each (None where a level costs nothing).

    No optima when staying meets every tier's bound.
    """

    bounds: tuple[int, ...]
    optima: tuple[Optimum | None, ...]
    linear: LinearLevels

    def again(self, columns: Columns, reached: list[int]) -> Optimum:
        """Minimise the next level anew, those before it held at what was really reached."""
        chosen = np.arange(columns.options)
        for level, fixed in enumerate(columns.fixed):
            if level < len(reached):
                self.linear.hold(level, on(columns, level, chosen), reached[level] - fixed)
            else:
                self.linear.release(level)
        return self.linear.minimise(on(columns, len(reached), chosen))

    @property
    def point(self) -> Floats | None:
        """The last point, which meets every bound."""
        return next((found.point for found in reversed(self.optima) if found is not None), None)


def _relax(columns: Columns, tiers: int, stay: Ints) -> _Relaxed:
    """Solve the levels as linear programmes, each held at its rounded-up value."""
    chosen = np.arange(columns.options)
    linear = LinearLevels(programme_for(columns, chosen, np.zeros_like(stay)))
    at_stay = values(columns, stay)
    bounds: list[int] = []
    optima: list[Optimum | None] = []
    for level in range(len(columns.costs)):
        if level == tiers and tuple(bounds) == at_stay[:tiers]:
            return _Relaxed(bounds=at_stay, optima=(), linear=linear)
        cost = on(columns, level, chosen)
        if not cost.any():
            bounds.append(columns.fixed[level])
            optima.append(None)
            continue
        optimum = linear.minimise(cost)
        optima.append(optimum)
        bounds.append(_bound(optimum.value, columns.steps[level]) + columns.fixed[level])
        linear.hold(level, cost, bounds[-1] - columns.fixed[level])
    return _Relaxed(bounds=tuple(bounds), optima=tuple(optima), linear=linear)


def _bound(least: float, step: int) -> int:
    """Round a linear optimum up to a value the level can have, allowing for solver tolerance."""
    return step * max(0, ceil((least - _tolerance(least)) / step))


def _tolerance(value: float) -> float:
    """Return how far off the solver's value of a level may be; its own tolerance is 1e-7 a row."""
    return 1e-4 + 1e-8 * abs(value)


def _round(columns: Columns, point: Floats, limits: list[int], level: int) -> Ints | None:
    """Let the whole parts of a point stand and settle the rest by a small integer programme.

    Minimises `level` with the levels before it within `limits`; None if that can't be.
    """
    whole = np.floor(point[: columns.options] + WHOLE).astype(np.int64)
    left = columns.counts - np.bincount(
        columns.group, weights=whole, minlength=len(columns.counts)
    ).astype(np.int64)
    if (left < 0).any():
        return None
    chosen = np.flatnonzero(left[columns.group] > 0)
    if not len(chosen):
        return whole if feasible(columns, whole) else None
    held = [
        (
            on(columns, earlier, chosen),
            float(
                limits[earlier]
                - columns.fixed[earlier]
                - columns.costs[earlier][: columns.options] @ whole
            ),
        )
        for earlier in range(level)
    ]
    answer = minimise_integer(
        programme_for(columns, chosen, whole),
        on(columns, level, chosen),
        held,
        nodes=LEFTOVER_NODES,
    )
    if answer.x is None:
        return None
    whole[chosen] += answer.x[: len(chosen)]
    return whole if feasible(columns, whole) else None


def _one_by_one(columns: Columns, tiers: int, stay: Ints, relaxed: _Relaxed) -> Settled:
    """Settle each level before the next; tiers and churn exactly, within node limits."""
    best = stay
    reached: list[int] = []
    bounds: list[int] = []
    for level, fixed in enumerate(columns.fixed):
        if tuple(reached) == relaxed.bounds[:level]:
            optimum, bound = relaxed.optima[level], relaxed.bounds[level]
        else:
            optimum = relaxed.again(columns, reached)
            bound = fixed + _bound(optimum.value, columns.steps[level])
        if optimum is not None:
            best = _nearest(columns, optimum, reached, bound, best)
            if values(columns, best)[level] > bound:
                best, bound = _exact(columns, optimum, reached, bound, best, exact=level <= tiers)
        reached.append(values(columns, best)[level])
        bounds.append(bound)
    return Settled(x=best, values=tuple(reached), bounds=tuple(bounds))


def _nearest(
    columns: Columns, optimum: Optimum, reached: list[int], bound: int, best: Ints
) -> Ints:
    """Return the better of the best choice so far and the one next to a linear optimum."""
    level = len(reached)
    if values(columns, best)[level] > bound:
        rounded = _round(columns, optimum.point, reached, level)
        if rounded is not None and _better(columns, rounded, best, level):
            return rounded
    return best


def _exact(
    columns: Columns, optimum: Optimum, reached: list[int], bound: int, best: Ints, *, exact: bool
) -> tuple[Ints, int]:
    """Search for choices better in a level until there is none; return the best and its bound.

    Only columns whose reduced cost leaves room for an improvement can be part of one: mostly a few
    hundred of tens of thousands.
    """
    level = len(reached)
    while True:
        value = values(columns, best)[level]
        target = value - columns.steps[level] - columns.fixed[level]
        room = target - optimum.value + _tolerance(optimum.value)
        chosen = np.flatnonzero(optimum.reduced[: columns.options] <= room)
        if not exact and len(chosen) > TIE_BREAK_COLUMNS:
            return best, bound
        nodes = EXACT_NODES if exact else TIE_BREAK_NODES
        best, proved = _search(columns, level, reached, best, chosen, nodes)
        if proved:
            return best, values(columns, best)[level]
        if values(columns, best)[level] == value:
            return best, bound


def _search(
    columns: Columns, level: int, reached: list[int], best: Ints, chosen: Ints, nodes: int
) -> tuple[Ints, bool]:
    """Search the chosen columns for a choice better in a level; say whether it is proven best."""
    limits = [*reached, values(columns, best)[level] - columns.steps[level]]
    held = [
        (on(columns, number, chosen), float(limit - columns.fixed[number]))
        for number, limit in enumerate(limits)
    ]
    answer = minimise_integer(
        programme_for(columns, chosen, np.zeros_like(best)),
        on(columns, level, chosen),
        held,
        nodes=nodes,
    )
    if answer.x is None:
        return best, answer.proved
    x = np.zeros_like(best)
    x[chosen] = answer.x[: len(chosen)]
    if not feasible(columns, x) or not _better(columns, x, best, level):
        raise PlanningFailed("the solver answered with a plan that breaks the programme")
    return x, answer.proved


def _better(columns: Columns, x: Ints, than: Ints, level: int) -> bool:
    """Say whether a choice is better in the levels up to one."""
    return values(columns, x)[: level + 1] < values(columns, than)[: level + 1]
