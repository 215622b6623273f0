"""Random days of a whole node: every promise judged from the simulated library's own books.

50 seeds of 400 minutes make the 20,000 simulated minutes; `make soak` draws more seeds for
MIGSCALER_SOAK_MINUTES real minutes.
"""

import json
import os
import tempfile
import time
from collections import Counter
from pathlib import Path

import pytest

from tests.simulation.scenarios import draw
from tests.simulation.world import Report, World

REGRESSIONS = Path(__file__).parent / "regressions"
BLOCKS = 10
PER_BLOCK = 5


def live(seed: int, *, lively: int = 300, quiet: int = 100) -> Report:
    """Run the day of a seed."""
    with tempfile.TemporaryDirectory() as directory:
        return World(draw(seed, lively=lively, quiet=quiet), Path(directory)).run()


def keep(report: Report) -> None:
    """Print a failing seed and save it, with what happened last."""
    print(f"seed {report.seed}:", *report.problems, sep="\n  ")
    REGRESSIONS.mkdir(exist_ok=True)
    found = {"seed": report.seed, "problems": report.problems[:20], "log": report.log[-40:]}
    (REGRESSIONS / f"{report.seed}.json").write_text(json.dumps(found, indent=1) + "\n")


@pytest.mark.parametrize("block", range(BLOCKS))
def test_random_days_keep_every_promise(block: int) -> None:
    counts: Counter[str] = Counter()
    failed = {}
    for seed in range(block * PER_BLOCK, (block + 1) * PER_BLOCK):
        report = live(seed)
        counts += report.counts
        if report.problems:
            keep(report)
            failed[seed] = report.problems[:5]
    assert not failed, failed
    # Days on which nothing happens would prove nothing.
    assert counts["plans"] >= 15
    assert counts["destroy calls"] >= 15
    assert counts["replays"] >= 40
    assert counts["scrapes"] >= 60
    assert counts["starts"] >= 10
    assert counts["quiet ends"] >= 1


def test_seeds_that_failed_once_keep_every_promise() -> None:
    saved = sorted(int(path.stem) for path in REGRESSIONS.glob("*.json"))
    assert {seed: live(seed).problems for seed in saved} == dict.fromkeys(saved, ())


@pytest.mark.soak
def test_random_days_for_a_long_time_keep_every_promise(worker_id: str) -> None:
    minutes = float(os.environ.get("MIGSCALER_SOAK_MINUTES", "10"))
    end = time.monotonic() + 60 * minutes
    worker = int(worker_id.removeprefix("gw")) if worker_id.startswith("gw") else 0
    seed, failed = 1_000_000 * (worker + 1) + int(time.time()) % 100_000 * 10, []
    while time.monotonic() < end:
        report = live(seed)
        if report.problems:
            keep(report)
            failed.append(seed)
        seed += 1
    assert not failed, failed
