"""Benchmark of the planner against its bars and against how rivals plan; prints Markdown tables.

    python -m tests.benchmarks.planner_bench [--quick] [--gpus 1,8,64,1000,10000] [--seeds N]

Seeds are fixed; everything compared runs in this one process; building the options is included,
importing the solver is not. Times are CPU time of this one thread, which is wall time on an idle
machine.
"""

import argparse
import itertools
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field

from migscaler.planner.optimise import solve
from migscaler.planner.problem import Problem, Solution
from tests.benchmarks.planner_baselines import BASELINES, Outcome
from tests.benchmarks.planner_worlds import HISTORIES, KEYS, PRESSURES, World, make_world

SEEDS = {1: 10, 8: 4, 64: 2, 1_000: 1, 10_000: 1}
QUICK = {1: 1, 8: 1, 64: 1, 1_000: 1}
BASELINES_UP_TO = 1_000
BARS = {8: (0.020, 0.150), 1_000: (0.3, 1.0), 10_000: (1.0, 4.0)}


@dataclass(slots=True)
class Tally:
    """What one planner did over the worlds of one size."""

    worlds: int = 0
    optimal: int = 0
    regrets: list[float] = field(default_factory=list)
    churn: int = 0
    least_churn: int = 0
    seconds: list[float] = field(default_factory=list)

    def add(self, best: Solution, found: Outcome, seconds: float, wanted: int) -> None:
        """Compare with the proven optimum: regret in the first tier that differs, then churn."""
        self.worlds += 1
        self.seconds.append(seconds)
        unmet = tuple(level.value for level in best.levels[:-3])
        pairs = zip(unmet, found.unmet, strict=True)
        differing = next((theirs - ours for ours, theirs in pairs if theirs != ours), 0)
        self.regrets.append(100 * differing / max(1, wanted))
        if not differing:
            self.optimal += 1
            self.churn += found.churn
            self.least_churn += best.levels[-3].value


def worlds(gpus: int, seeds: int) -> Iterator[World]:
    """Yield every cell of the protocol for one size."""
    cells = itertools.product(range(seeds), HISTORIES, PRESSURES, KEYS, (False, True))
    for seed, history, (busy, tightness), keys, mixed in cells:
        yield World(
            gpus=gpus,
            history=history,
            busy=busy,
            tightness=tightness,
            keys=keys,
            mixed=mixed,
            seed=seed,
        )


def quantile(values: list[float], share: float) -> float:
    """Return a value that `share` of the values do not exceed."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


def timed(problem: Problem) -> tuple[Solution, float]:
    """Solve once, options included, nothing cached."""
    start = time.process_time()
    solution = solve(problem)
    return solution, time.process_time() - start


def measure(gpus: int, seeds: int) -> tuple[dict[str, Tally], dict[str, int]]:
    """Run all planners over the worlds of one size; also count what was proved."""
    tallies: dict[str, Tally] = {}
    proved = {"unmet and churn": 0, "touched": 0, "fragmentation": 0}
    for world in worlds(gpus, seeds):
        problem = make_world(world)
        wanted = sum(want.count for tier in problem.tiers for want in tier.wants)
        best, seconds = timed(problem)
        ours = Outcome(tuple(level.value for level in best.levels[:-3]), best.levels[-3].value)
        tallies.setdefault("migscaler", Tally()).add(best, ours, seconds, wanted)
        proved["unmet and churn"] += all(level.proved for level in best.levels[:-2])
        proved["touched"] += best.levels[-2].proved
        proved["fragmentation"] += best.levels[-1].proved
        if gpus <= BASELINES_UP_TO:
            for name, baseline in BASELINES.items():
                start = time.process_time()
                found = baseline(problem)
                took = time.process_time() - start
                tallies.setdefault(name, Tally()).add(best, found, took, wanted)
    return tallies, proved


def main(arguments: list[str]) -> int:
    """Print both tables; return 1 if a bar is missed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="one seed, up to 1,000 GPUs")
    parser.add_argument("--gpus", help="sizes, separated by commas")
    parser.add_argument("--seeds", type=int, help="seeds per cell")
    options = parser.parse_args(arguments)
    chosen = QUICK if options.quick else SEEDS
    if options.gpus:
        chosen = {int(size): chosen.get(int(size), 1) for size in options.gpus.split(",")}
    timed(make_world(next(iter(worlds(8, 1)))))  # the import of the solver
    print("| GPUs | planner | optimal unmet | regret mean / worst, % | churn | CPU ms p50 / p99 |")
    print("|---|---|---|---|---|---|")
    missed, notes = [], []
    for gpus, seeds in chosen.items():
        tallies, proved = measure(gpus, options.seeds or seeds)
        for name, tally in tallies.items():
            print(_row(gpus, name, tally), flush=True)
        ours = tallies["migscaler"]
        shares = ", ".join(f"{name} {count}/{ours.worlds}" for name, count in proved.items())
        notes.append(f"{gpus} GPUs, proved optimal: {shares}")
        p50, p99 = quantile(ours.seconds, 0.5), quantile(ours.seconds, 0.99)
        bar = BARS.get(gpus)
        if bar and (p50 > bar[0] or p99 > bar[1]):
            missed.append(f"{gpus} GPUs: {p50:.3f} / {p99:.3f} s, bar {bar[0]} / {bar[1]} s")
        if proved["unmet and churn"] < ours.worlds:
            missed.append(f"{gpus} GPUs: not always proved")
    print()
    for line in (*notes, *(f"MISSED {line}" for line in missed)):
        print(f"- {line}")
    return 1 if missed else 0


def _row(gpus: int, name: str, tally: Tally) -> str:
    """Return one line of the table."""
    churn = f"{tally.churn / tally.least_churn:.3f}" if tally.least_churn else "-"
    p50, p99 = (1000 * quantile(tally.seconds, share) for share in (0.5, 0.99))
    return (
        f"| {gpus:,} | {name} | {tally.optimal}/{tally.worlds} "
        f"| {sum(tally.regrets) / tally.worlds:.2f} / {max(tally.regrets):.1f} | {churn} "
        f"| {p50:.1f} / {p99:.1f} |"
    )


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
