"""kill -9 at random moments of plans and starts, while jobs come and go; `make chaos` for more.

A seed draws the same layouts and moments again, though not the same races.
"""

import json
import os
import random
import statistics
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.xdist_group("chaos")

_ROOT = Path(__file__).resolve().parents[2]
_SECONDS = 1_500


def campaigns(module: str, directory: Path, *, seed: int, count: int, parallel: int) -> "Counted":
    """Run campaigns of a module side by side, on a node each, and return what they counted."""
    started = []
    for number in range(parallel):
        place = directory / f"{module}-{number}"
        place.mkdir()
        words = [str(place), str(seed + number), str(count)]
        with (place / "stderr").open("wb") as errors:
            process = subprocess.Popen(
                [sys.executable, "-m", f"tests.e2e.{module}", *words],
                cwd=_ROOT,
                stdout=subprocess.PIPE,
                stderr=errors,
            )
        started.append((place, process))
    tallies = []
    for place, process in started:
        out, _ = process.communicate(timeout=_SECONDS)
        assert process.returncode == 0, (place / "stderr").read_text()
        tallies.append(json.loads(out))
    return Counted(seed, tallies)


class Counted:
    """What several campaigns counted together."""

    def __init__(self, seed: int, tallies: list[dict[str, int | list[str] | list[float]]]) -> None:
        self.wrongs: list[str] = []
        self.numbers: dict[str, int] = {"seed": seed}
        self.seconds: dict[str, list[float]] = {}
        for tally in tallies:
            for name, value in tally.items():
                if isinstance(value, int):
                    self.numbers[name] = self.numbers.get(name, 0) + value
                elif name == "wrongs":
                    self.wrongs += map(str, value)
                elif name.endswith("_seconds"):
                    self.seconds.setdefault(name, []).extend(map(float, value))

    def median(self, name: str) -> float:
        """Return the median of some durations."""
        return statistics.median(self.seconds[name])

    def show(self) -> None:
        """Write the figures, for `make chaos` and for a failed run."""
        lines = [f"{name}: {value}" for name, value in self.numbers.items()]
        lines += [
            f"{name}: {len(taken)} times, median {statistics.median(taken):.2f}, "
            f"longest {max(taken):.2f}"
            for name, taken in self.seconds.items()
            if taken
        ]
        sys.stdout.write("\n" + "\n".join(lines + self.wrongs) + "\n")


def a_seed() -> int:
    """Return CHAOS_SEED, or another one each time."""
    return int(os.environ.get("CHAOS_SEED") or random.SystemRandom().randrange(1 << 30))


def test_executor_killed_50_times_keeps_every_promise(tmp_path: Path) -> None:
    counted = campaigns("chaos_executor", tmp_path, seed=1123, count=50, parallel=1)

    counted.show()
    assert counted.wrongs == []
    assert counted.numbers["kills"] >= 50
    assert counted.numbers["with_open_plan"] >= 10  # else nothing was cut in the middle
    assert counted.median("settle_seconds") <= 2.0


def test_daemon_killed_10_times_keeps_every_promise(tmp_path: Path) -> None:
    counted = campaigns("chaos_daemon", tmp_path, seed=1123, count=1, parallel=4)

    counted.show()
    assert counted.wrongs == []
    assert counted.numbers["kills"] == 10
    assert counted.numbers["with_open_plan"] >= 1


@pytest.mark.chaos
def test_executor_killed_940_times_keeps_every_promise(tmp_path: Path) -> None:
    counted = campaigns("chaos_executor", tmp_path, seed=a_seed(), count=470, parallel=2)

    counted.show()
    assert counted.wrongs == []
    assert counted.numbers["kills"] >= 940
    assert counted.median("settle_seconds") <= 2.0


@pytest.mark.chaos
def test_daemon_killed_62_times_keeps_every_promise(tmp_path: Path) -> None:
    counted = campaigns("chaos_daemon", tmp_path, seed=a_seed(), count=20, parallel=2)

    counted.show()
    assert counted.wrongs == []
    assert counted.numbers["kills"] == 62
    assert counted.numbers["with_open_plan"] >= 10
