"""Whatever a crash leaves of a plan of any shape is settled; `make crash-matrix` for all.

What is drawn and how is in `crash_matrix`; a failing case names all that it takes to see it again.
"""

import json
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from migscaler.planner.layouts import all_layouts
from tests.builders import model
from tests.simulation.crash_matrix import (
    BOARDS,
    Matrix,
    Tally,
    all_pairs,
    run,
    small,
    stratified,
    stratum,
)

_ROOT = Path(__file__).resolve().parents[2]
_SEED = 20261123


def show(tally: Tally) -> None:
    """Write the figures, for `make crash-matrix` and for a failed run."""
    numbers = {key: value for key, value in vars_of(tally).items() if key != "wrongs"}
    sys.stdout.write("\n" + "\n".join(f"{key}: {value}" for key, value in numbers.items()) + "\n")
    sys.stdout.write("\n".join(tally.wrongs[:20]) + "\n")


def vars_of(tally: Tally) -> dict[str, object]:
    """Return a tally's fields."""
    return {name: getattr(tally, name) for name in Tally.__slots__}


def test_pairs_and_shapes_are_as_many_as_the_layouts_give() -> None:
    assert {name: len(all_layouts(model(board))) for name, board in BOARDS.items()} == {
        "A100": 2319,
        "A30": 76,
        "H100": 2319,
    }
    assert len(all_pairs("A30")) == 76 * 75 - 75  # no plan empties a GPU
    shapes = {stratum(*pair) for pair in stratified("A100", _SEED, per_stratum=1, tries=4_000)}
    assert len(shapes) > 450


@pytest.mark.parametrize("number", range(3))
def test_sampled_plans_cut_at_every_state_are_settled(number: int) -> None:
    tally = run(small(_SEED, 6), Matrix(_SEED), number, 3)

    show(tally)
    assert tally.wrongs == []
    assert tally.crashes > 10 * tally.plans
    assert min(tally.crashes_while_settling, tally.with_new_job, tally.undone) > 5


@pytest.mark.chaos
def test_every_plan_shape_cut_at_every_state_is_settled() -> None:
    of = int(os.environ.get("WORKERS", "2"))
    seed = int(os.environ.get("CHAOS_SEED", _SEED))
    words = [sys.executable, "-m", "tests.simulation.crash_matrix", str(seed)]
    started = [
        subprocess.Popen([*words, str(share), str(of)], cwd=_ROOT, stdout=subprocess.PIPE)
        for share in range(of)
    ]
    total = Tally()
    for process in started:
        out, _ = process.communicate()
        assert process.returncode == 0
        for name, value in json.loads(out).items():
            known = getattr(total, name)
            added = Counter(known) + Counter(value) if name == "boards" else known + value
            setattr(total, name, added)

    show(total)
    assert total.wrongs == []
    assert total.plans > 7_000
