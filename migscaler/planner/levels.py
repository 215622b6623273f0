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
from migscaler.planner.solver import Floats, Ints, LinearLevels, minimise_integer

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
    if relaxed.point is None:
        at_stay = values(columns, stay)
        return Settled(x=stay, values=at_stay, bounds=at_stay)
    x = _round(columns, relaxed.point, list(relaxed.bounds), len(columns.costs) - 1)
    if x is not None:
        reached = values(columns, x)
        if reached[:-1] == relaxed.bounds[:-1]:
            return _with_last_level(columns, x, relaxed.bounds)
    return _one_by_one(columns, tiers, stay)


def _with_last_level(columns: Columns, x: Ints, bounds: tuple[int, ...]) -> Settled:
    """Return a choice that is best in all levels but perhaps the last, which small fleets search."""
    reached = values(columns, x)
    if reached[-1] > bounds[-1] and columns.options <= TIE_BREAK_COLUMNS:
        last = len(reached) - 1
        x, bound = _search(columns, last, list(reached[:-1]), bounds[-1], x, exact=False)
        bounds = (*bounds[:-1], bound)
    return Settled(x=x, values=values(columns, x), bounds=bounds)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Relaxed:
    """Bounds of all levels and the last point; no point when staying meets every tier's bound."""

    bounds: tuple[int, ...]
    point: Floats | None


def _relax(columns: Columns, tiers: int, stay: Ints) -> _Relaxed:
    """Solve the levels as linear programmes, each held at its rounded-up value."""
    chosen = np.arange(columns.options)
    linear = LinearLevels(programme_for(columns, chosen, np.zeros_like(stay)))
    at_stay = values(columns, stay)
    bounds: list[int] = []
    point: Floats | None = None
    for level in range(len(columns.costs)):
        if level == tiers and tuple(bounds) == at_stay[:tiers]:
            return _Relaxed(bounds=at_stay, point=None)
        cost = on(columns, level, chosen)
        if not cost.any():
            bounds.append(columns.fixed[level])
            continue
        least, point = linear.minimise(cost)
        bounds.append(_bound(least, columns.steps[level]) + columns.fixed[level])
        linear.hold(cost, bounds[-1] - columns.fixed[level])
    return _Relaxed(bounds=tuple(bounds), point=point)


def _bound(least: float, step: int) -> int:
    """Round a linear optimum up to a value the level can have, allowing for solver tolerance."""
    tolerance = 1e-4 + 1e-8 * abs(least)
    return step * max(0, ceil(least / step - tolerance))


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
    if answer is None:
        return None
    whole[chosen] += answer.x[: len(chosen)]
    return whole if feasible(columns, whole) else None


def _one_by_one(columns: Columns, tiers: int, stay: Ints) -> Settled:
    """Settle each level before the next; tiers and churn exactly, within node limits."""
    best = stay
    reached: list[int] = []
    bounds: list[int] = []
    chosen = np.arange(columns.options)
    linear = LinearLevels(programme_for(columns, chosen, np.zeros_like(stay)))
    for level in range(len(columns.costs)):
        cost = on(columns, level, chosen)
        fixed = columns.fixed[level]
        bound, point = fixed, None
        if cost.any():
            least, point = linear.minimise(cost)
            bound = _bound(least, columns.steps[level]) + fixed
        if point is not None and values(columns, best)[level] > bound:
            rounded = _round(columns, point, reached, level)
            if (
                rounded is not None
                and values(columns, rounded)[: level + 1] < values(columns, best)[: level + 1]
            ):
                best = rounded
        if values(columns, best)[level] > bound and (
            level <= tiers or columns.options <= TIE_BREAK_COLUMNS
        ):
            best, bound = _search(columns, level, reached, bound, best, exact=level <= tiers)
        reached.append(values(columns, best)[level])
        bounds.append(bound)
        linear.hold(cost, reached[-1] - fixed)
    return Settled(x=best, values=tuple(reached), bounds=tuple(bounds))


def _search(
    columns: Columns, level: int, reached: list[int], bound: int, best: Ints, *, exact: bool
) -> tuple[Ints, int]:
    """Search the whole programme for a better value of a level; return the choice and its bound."""
    chosen = np.arange(columns.options)
    held = [
        (on(columns, earlier, chosen), float(limit - columns.fixed[earlier]))
        for earlier, limit in enumerate(reached)
    ]
    answer = minimise_integer(
        programme_for(columns, chosen, np.zeros_like(best)),
        on(columns, level, chosen),
        held,
        nodes=EXACT_NODES if exact else TIE_BREAK_NODES,
        at_least=float(bound - columns.fixed[level]),
        start=_with_shortfall(columns, best),
    )
    if answer is None:
        return best, bound
    x = answer.x[: columns.options]
    if not feasible(columns, x):
        raise PlanningFailed("the solver answered with a plan that breaks the programme")
    found = values(columns, x)
    if found[: level + 1] < values(columns, best)[: level + 1]:
        best = x
    return best, values(columns, best)[level] if answer.proved else bound


def _with_shortfall(columns: Columns, x: Ints) -> Ints:
    """Return a point of the whole programme: the choice and the shortfall of every segment."""
    short = np.maximum(columns.needed - columns.gains.T @ x, 0)
    unmet = np.zeros(len(columns.segment_row), dtype=np.int64)
    for number in range(len(unmet) - 1, -1, -1):
        row = columns.segment_row[number]
        unmet[number] = min(short[row], columns.segment_length[number])
        short[row] -= unmet[number]
    return np.concatenate([x, unmet])
