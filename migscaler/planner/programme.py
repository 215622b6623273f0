"""The fleet as arrays, and the linear or integer programme over any part of it."""

from dataclasses import dataclass

import numpy as np

from migscaler.planner.fleet import Fleet
from migscaler.planner.options import GAIN_BITS
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


def make_columns(fleet: Fleet, tiers: int, budget: int | None) -> Columns:
    """Turn classes and segments into arrays; classes with one option move to the right side."""
    keys = [key for key, _ in fleet.clips]
    rows = len(keys) + len(fleet.floors)
    open_classes = [group for group in fleet.classes if len(group.options) > 1]
    shut = [group for group in fleet.classes if len(group.options) == 1]
    options = [option for group in open_classes for option in group.options]
    gains = _unpacked([option.gains for option in options], rows)
    given = _unpacked([group.options[0].gains for group in shut], rows)
    sizes = np.array([len(group.members) for group in shut], dtype=np.int64)
    needed = np.array([n for _, n in (*_missing(fleet), *fleet.floors)], dtype=np.int64)
    churn = np.array([option.churn for option in options], dtype=np.int64)
    frag = np.array([option.fragmentation for option in options], dtype=np.int64)
    touched = (churn > 0).astype(np.int64)
    segments = [s for s in fleet.segments if s.key in set(keys)]
    unmet = np.array([[s.tier, s.weight] for s in segments], dtype=np.int64).reshape(-1, 2)
    padding = np.zeros(len(segments), dtype=np.int64)
    nothing = np.zeros(len(options), dtype=np.int64)
    per_tier = [np.where(unmet[:, 0] == tier, unmet[:, 1], 0) for tier in range(tiers)]
    shut_frag = sum(group.options[0].fragmentation * len(group.members) for group in shut)
    return Columns(
        group=np.repeat(
            np.arange(len(open_classes), dtype=np.int64),
            [len(group.options) for group in open_classes],
        ),
        gains=gains,
        touched=touched,
        counts=np.array([len(group.members) for group in open_classes], dtype=np.int64),
        segment_row=np.array([keys.index(s.key) for s in segments], dtype=np.int64),
        segment_length=np.array([s.length for s in segments], dtype=np.int64),
        needed=needed - (given * sizes[:, None]).sum(axis=0),
        budget=budget,
        costs=(
            *(np.concatenate([nothing, costs]) for costs in per_tier),
            *(np.concatenate([costs, padding]) for costs in (churn, touched, frag)),
        ),
        steps=(*(int(np.gcd.reduce(costs)) or 1 for costs in per_tier), 1, 1, 1),
        fixed=(*(0 for _ in range(tiers)), 0, 0, shut_frag + fleet.unexplained_fragmentation),
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


def _missing(fleet: Fleet) -> list[tuple[str, int]]:
    """Return what is missing of each demanded key once unexplained GPUs are counted too."""
    total = dict.fromkeys((key for key, _ in fleet.clips), 0)
    for segment in fleet.segments:
        if segment.key in total:
            total[segment.key] += segment.length
    return [(key, count - fleet.given.get(key, 0)) for key, count in total.items()]


def _unpacked(packed: list[int], rows: int) -> Ints:
    """Return packed gains as a matrix, one row each; a field of GAIN_BITS is one byte."""
    assert GAIN_BITS == 8  # noqa: S101 # the layout of the bytes below
    raw = b"".join(gains.to_bytes(rows, "little") for gains in packed)
    return np.frombuffer(raw, dtype=np.uint8).reshape(len(packed), rows).astype(np.int64)
