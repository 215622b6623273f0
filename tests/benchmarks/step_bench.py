"""Benchmark: what a step costs beside its NVML call, and how fast a plan cut short is settled.

    python -m tests.benchmarks.step_bench [--rounds 20]

The journal lies on disk with `synchronous=FULL`; every call is begun and ended durably, with a
fresh reading of the GPU before and after it. Time inside NVML (here: the simulated library) is
taken out by the reader's own counters. The scheduler answers at once. Prints a markdown table;
times in milliseconds.
"""

import argparse
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median, quantiles

from migscaler.app.clock import RealClock
from migscaler.model.plan import StepTiming
from tests.simulation.acting import SHAPES, Crash, Desk, Shape, desk

_KINDS = ("destroy_ci", "destroy_gi", "create_gi", "create_ci")
_TARGET_MS = 25.0


def measure(rounds: int, directory: Path) -> list[StepTiming]:
    """Return the timing of every step of every shape, `rounds` times."""
    found: list[StepTiming] = []
    for number in range(rounds):
        for place, shape in enumerate(SHAPES):
            path = directory / f"{number}-{place}.db"
            with desk(shape, path, RealClock()) as made:
                _durable(made)
                found += made.execute().steps
    return found


def settle_seconds(shape: Shape, directory: Path) -> list[float]:
    """Return how long settling takes for a plan cut at every tenth point."""
    found = []
    for point in range(5, 60, 10):
        with desk(shape, directory / f"settle-{point}.db", RealClock()) as made:
            made.restart(die_at=point)
            try:
                made.execute()
            except Crash:
                started = time.perf_counter()
                made.restart()
                _durable(made)
                made.settle()
                found.append(time.perf_counter() - started)
    return found


def import_seconds() -> float:
    """Return how long a fresh interpreter takes until it could settle."""
    code = "import migscaler.control.recovery, migscaler.hardware.nvml, migscaler.store.store"
    started = time.perf_counter()
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
    return time.perf_counter() - started


def table(timings: list[StepTiming]) -> str:
    """Return own time by kind of step as markdown."""
    rows = ["| step | count | p50 ms | p99 ms | target p50 |", "|---|---|---|---|---|"]
    for kind in (*_KINDS, "all"):
        own = [
            1_000 * (one.seconds - one.nvml_seconds) for one in timings if kind in (one.kind, "all")
        ]
        p99 = quantiles(own, n=100)[98]
        rows.append(f"| {kind} | {len(own)} | {median(own):.2f} | {p99:.2f} | {_TARGET_MS:.0f} |")
    return "\n".join(rows)


def _durable(made: Desk) -> None:
    """Sync as production does; the crash tests' desk does not."""
    made.store._db.rows("PRAGMA synchronous = FULL")


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=20)
    rounds = parser.parse_args().rounds
    with tempfile.TemporaryDirectory(dir=".") as directory:
        print("Own time per step, NVML excluded, durable journal included\n")
        print(table(measure(rounds, Path(directory))))
        settled = settle_seconds(SHAPES[1], Path(directory))
        imports = median(import_seconds() for _ in range(5))
        print("\n| settling a cut plan | ms |\n|---|---|")
        print(f"| interpreter and imports | {1_000 * imports:.0f} |")
        print(
            f"| open, settle and close, median of {len(settled)} | {1_000 * median(settled):.0f} |"
        )
        print(f"| the same, slowest | {1_000 * max(settled):.0f} |")


if __name__ == "__main__":
    main()
