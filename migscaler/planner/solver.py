"""The only place that speaks to HiGHS: linear programmes in levels, and small integer programmes.

One thread, a fixed seed, limits on nodes and iterations: the same programme has the same answer
on every machine. Imported by the modules that solve only when there is something to solve (100
ms, numpy included).
"""

from dataclasses import dataclass

import numpy as np
from highspy import (
    HighsLp,
    HighsModelStatus,
    HighsStatus,
    HighsVarType,
    MatrixFormat,
)

# The base class of `highspy.Highs`: the latter's constructor prints a banner on file descriptor 1
# (HiGHS 1.16, on its first callback registration), before any option can silence it.
from highspy._core import _Highs
from numpy.typing import NDArray

from migscaler.errors import PlanningFailed

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

# Simplex iterations of one linear programme; 10,000 GPUs need about 5,000.
ITERATION_LIMIT = 1_000_000
# HiGHS' number of the primal simplex among its strategies.
PRIMAL = 4
# Values are integers; the default relative gap of 1e-4 is not exact from 10,000 GPUs on.
GAP_BELOW_ONE = 0.99


@dataclass(frozen=True, slots=True, kw_only=True)
class Programme:
    """Minimise some cost over 0 <= x <= upper with row_lower <= A x <= row_upper.

    A is given by columns: entries `start[j]:start[j + 1]` of `index` (row) and `value`.
    """

    upper: Floats
    row_lower: Floats
    row_upper: Floats
    start: Ints
    index: Ints
    value: Floats


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """Best point of an integer programme, None if none was found.

    `proved`: it is an optimum, or there is no point at all; False if a limit ended the search.
    """

    x: Ints | None
    proved: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Optimum:
    """Least cost of a linear programme, a point that attains it, and each column's reduced cost.

    A point that uses n of a column that is 0 here costs at least `value` + n x its reduced cost.
    """

    value: float
    point: Floats
    reduced: Floats


class LinearLevels:
    """A linear programme minimised by one cost after another, each then held; starts warm."""

    def __init__(self, programme: Programme) -> None:
        """Load the programme."""
        self._highs = _loaded(programme, integer=False)
        self._highs.setOptionValue("simplex_iteration_limit", ITERATION_LIMIT)
        self._columns = np.arange(len(programme.upper), dtype=np.int32)
        self._rows: dict[int, int] = {}

    def minimise(self, cost: Floats) -> Optimum:
        """Return an optimum.

        Raises:
            PlanningFailed: the solver found no optimum; a fault, since staying is always feasible.
        """
        self._highs.changeColsCost(len(cost), self._columns, cost)
        self._highs.run()
        if self._highs.getModelStatus() != HighsModelStatus.kOptimal:
            # A warm basis can be numerically poor; the cold start is slower and safe.
            self._highs.clearSolver()
            self._highs.run()
        if self._highs.getModelStatus() != HighsModelStatus.kOptimal:
            status = self._highs.modelStatusToString(self._highs.getModelStatus())
            raise PlanningFailed(f"the solver ended a linear programme with {status!r}")
        solution = self._highs.getSolution()
        return Optimum(
            value=float(self._highs.getInfo().objective_function_value),
            point=np.array(solution.col_value),
            reduced=np.array(solution.col_dual),
        )

    def hold(self, level: int, cost: Floats, limit: float) -> None:
        """From now on allow only points of at most this cost; replaces the level's former limit."""
        row = self._rows.get(level)
        if row is None:
            used = np.flatnonzero(cost).astype(np.int32)
            self._rows[level] = self._highs.getNumRow()
            self._highs.addRow(-np.inf, limit, len(used), used, cost[used])
        else:
            self._highs.changeRowBounds(row, -np.inf, limit)
        # The last point still satisfies the rows, so the primal simplex goes on from there.
        self._highs.setOptionValue("simplex_strategy", PRIMAL)

    def release(self, level: int) -> None:
        """Allow any cost of a level again."""
        row = self._rows.get(level)
        if row is not None:
            self._highs.changeRowBounds(row, -np.inf, np.inf)


def minimise_integer(
    programme: Programme,
    cost: Floats,
    held: list[tuple[Floats, float]],
    *,
    nodes: int,
) -> Answer:
    """Return an integer point of least cost within the held levels.

    `nodes` limits the search tree.
    """
    highs = _loaded(programme, integer=True)
    highs.setOptionValue("mip_rel_gap", 0.0)
    highs.setOptionValue("mip_abs_gap", GAP_BELOW_ONE)
    highs.setOptionValue("mip_max_nodes", nodes)
    columns = np.arange(len(cost), dtype=np.int32)
    highs.changeColsCost(len(cost), columns, cost)
    for level, limit in held:
        used = np.flatnonzero(level).astype(np.int32)
        highs.addRow(-np.inf, limit, len(used), used, level[used])
    highs.run()
    status = highs.getModelStatus()
    solution = highs.getSolution()
    if status == HighsModelStatus.kInfeasible or not solution.value_valid:
        return Answer(x=None, proved=status == HighsModelStatus.kInfeasible)
    return Answer(
        x=np.rint(np.array(solution.col_value)).astype(np.int64),
        proved=status == HighsModelStatus.kOptimal,
    )


def _loaded(programme: Programme, *, integer: bool) -> _Highs:
    """Return a silent single-threaded solver holding the programme."""
    highs = _Highs()
    for name, value in (
        ("output_flag", False),
        ("threads", 1),
        ("parallel", "off"),
        ("random_seed", 0),
    ):
        highs.setOptionValue(name, value)
    columns = len(programme.upper)
    lp = HighsLp()
    lp.num_col_, lp.num_row_ = columns, len(programme.row_lower)
    lp.col_cost_ = np.zeros(columns)
    lp.col_lower_, lp.col_upper_ = np.zeros(columns), programme.upper
    lp.row_lower_, lp.row_upper_ = programme.row_lower, programme.row_upper
    lp.a_matrix_.format_ = MatrixFormat.kColwise
    lp.a_matrix_.start_ = programme.start
    lp.a_matrix_.index_ = programme.index
    lp.a_matrix_.value_ = programme.value
    if integer:
        lp.integrality_ = [HighsVarType.kInteger] * columns
    if highs.passModel(lp) != HighsStatus.kOk:
        raise PlanningFailed("the solver refused the programme")
    return highs
