"""The fleet as arrays, and the linear or integer programme over any part of it."""

from dataclasses import dataclass

import numpy as np

from migscaler.planner.demand import Stack
from migscaler.planner.fleet import Fleet
from migscaler.planner.solver import Floats, Ints, Programme


@dataclass(frozen=True, slots=True, kw_only=True)
class Columns:
    """One column per class and option, then one per segment's shortfall.

    Of the options: `group` (class), `gains` (options x rows: demanded keys, then kept keys),
    `touched`. `counts`: GPUs per class. Of the segments: `segment_row`, `segment_length`.
    `needed`: right side of each row. `costs[level]` over all columns; `steps[level]` divides
    every value of the level. `fixed[level]` is what the level costs whatever is chosen.
    """

    group: Ints
    gains: Ints
    touched: Ints
    counts: Ints
    segment_row: Ints
    segment_length: Ints
    needed: Ints
    budget: int | None
    costs: tuple[Ints, ...]
    steps: tuple[int, ...]
    fixed: tuple[int, ...]

    @property
    def options(self) -> int:
        """Number of option columns."""
        return len(self.group)


def make_columns(
    targets: Stack, fleet: Fleet, tiers: int, budget: int | None, fixed_waste: int
) -> Columns:
    """Turn classes and segments into arrays; classes with one option move to the right side.

    `fixed_waste`: fragmentation of the GPUs that stand outside the classes.
    """
    keys = [key for key, _ in targets.missing]
    rows = len(keys) + len(fleet.floors)
    open_classes = [members for members in fleet.classes if len(members[0].options) > 1]
    options = [members[0].options for members in open_classes]
    churn = _joined([group.churn for group in options])
    wasted = _joined([group.fragmentation for group in options])
    needed = [count - fleet.apart.get(key, 0) for key, count in targets.missing]
    shut = [members for members in fleet.classes if len(members[0].options) == 1]
    given = sum(
        (len(members) * members[0].options.gains[0].astype(np.int64) for members in shut),
        start=np.zeros(rows, dtype=np.int64),
    )
    fixed_waste += sum(len(m) * int(m[0].options.fragmentation[0]) for m in shut)
    segments = [segment for segment in targets.segments if segment.key in keys]
    tier_of = np.array([segment.tier for segment in segments], dtype=np.int64)
    weight = np.array([segment.weight for segment in segments], dtype=np.int64)
    padding, nothing = np.zeros_like(weight), np.zeros_like(churn)
    per_tier = [np.where(tier_of == tier, weight, 0) for tier in range(tiers)]
    touched = (churn > 0).astype(np.int64)
    return Columns(
        group=np.repeat(np.arange(len(options)), [len(group) for group in options]),
        gains=np.concatenate([np.zeros((0, rows)), *(g.gains for g in options)]).astype(np.int64),
        touched=touched,
        counts=np.array([len(members) for members in open_classes], dtype=np.int64),
        segment_row=np.array([keys.index(s.key) for s in segments], dtype=np.int64),
        segment_length=np.array([s.length for s in segments], dtype=np.int64),
        needed=np.array([*needed, *(n for _, n in fleet.floors)], dtype=np.int64) - given,
        budget=budget,
        costs=(
            *(np.concatenate([nothing, costs]) for costs in per_tier),
            *(np.concatenate([costs, padding]) for costs in (churn, touched, wasted)),
        ),
        steps=(*(int(np.gcd.reduce(costs)) or 1 for costs in per_tier), 1, 1, 1),
        fixed=(*(0 for _ in range(tiers)), 0, 0, fixed_waste),
    )


def programme_for(columns: Columns, chosen: Ints, settled: Ints) -> Programme:
    """Return the programme over the `chosen` option columns, once `settled` GPUs are taken out.

    `settled`: GPUs per option column whose choice stands. Rows: classes, keys and floors, budget.
    """
    counts = columns.counts - np.bincount(
        columns.group, weights=settled, minlength=len(columns.counts)
    ).astype(np.int64)
    groups, group_row = np.unique(columns.group[chosen], return_inverse=True)
    rows = columns.gains.shape[1]
    width = len(chosen)
    segments = len(columns.segment_row)
    gain_column, gain_row = np.nonzero(columns.gains[chosen])
    entries = [
        (group_row, np.arange(width), np.ones(width)),
        (len(groups) + gain_row, gain_column, columns.gains[chosen][gain_column, gain_row]),
        (len(groups) + columns.segment_row, width + np.arange(segments), np.ones(segments)),
    ]
    lower = [counts[groups], columns.needed - columns.gains.T @ settled]
    upper = [counts[groups], np.full(rows, np.inf)]
    if columns.budget is not None:
        moved = np.flatnonzero(columns.touched[chosen])
        entries.append((np.full(len(moved), len(groups) + rows), moved, np.ones(len(moved))))
        lower.append(np.array([-np.inf]))
        upper.append(np.array([columns.budget - columns.touched @ settled]))
    row, column, value = (np.concatenate(parts) for parts in zip(*entries, strict=True))
    order = np.lexsort((row, column))
    start = np.zeros(width + segments + 1, dtype=np.int64)
    np.cumsum(np.bincount(column, minlength=width + segments), out=start[1:])
    return Programme(
        upper=np.concatenate([counts[groups][group_row], columns.segment_length]).astype(float),
        row_lower=np.concatenate(lower).astype(float),
        row_upper=np.concatenate(upper).astype(float),
        start=start,
        index=row[order],
        value=value[order].astype(float),
    )


def on(columns: Columns, level: int, chosen: Ints) -> Floats:
    """Return a level's costs over the chosen option columns and all segments."""
    costs = columns.costs[level]
    return np.concatenate([costs[chosen], costs[columns.options :]]).astype(float)


def values(columns: Columns, x: Ints) -> tuple[int, ...]:
    """Return the exact value of each level for a whole choice (GPUs per option column)."""
    short = np.maximum(columns.needed - columns.gains.T @ x, 0)
    unmet = np.zeros(len(columns.segment_row), dtype=np.int64)
    # Segments of a row are in order of importance, so a shortfall is taken from the last ones.
    for number in range(len(unmet) - 1, -1, -1):
        row = columns.segment_row[number]
        unmet[number] = min(short[row], columns.segment_length[number])
        short[row] -= unmet[number]
    point = np.concatenate([x, unmet])
    return tuple(
        int(costs @ point) + fixed
        for costs, fixed in zip(columns.costs, columns.fixed, strict=True)
    )


def feasible(columns: Columns, x: Ints) -> bool:
    """Say whether a choice is whole and keeps floors and budget."""
    sums = np.bincount(columns.group, weights=x, minlength=len(columns.counts))
    floors = columns.gains.shape[1] - len(set(columns.segment_row.tolist()))
    kept = (columns.needed - columns.gains.T @ x)[columns.gains.shape[1] - floors :]
    within = columns.budget is None or int(columns.touched @ x) <= columns.budget
    return bool((x >= 0).all() and (sums == columns.counts).all() and (kept <= 0).all() and within)


def _joined(parts: list[Ints]) -> Ints:
    """Return arrays one after the other."""
    return np.concatenate([np.zeros(0, dtype=np.int64), *parts])
