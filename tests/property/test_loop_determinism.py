"""The same seed gives the same history, byte for byte: calls, answers, decisions in words."""

import os
import subprocess
import sys
import tempfile
from pathlib import Path

from tests.simulation.scenarios import draw
from tests.simulation.world import World

_PRINT_DIGEST = (
    "import sys; from tests.property.test_loop_determinism import digest; "
    "print(digest(int(sys.argv[1])))"
)


def digest(seed: int) -> str:
    """Return the fingerprint of a short day."""
    with tempfile.TemporaryDirectory() as directory:
        return World(draw(seed, lively=90, quiet=45), Path(directory)).run().digest


def test_same_seed_gives_the_same_history() -> None:
    assert digest(7_001) == digest(7_001) != digest(7_002)


def test_history_does_not_depend_on_the_order_of_sets() -> None:
    """Two processes hash texts differently, so that any set that leaks its order would show."""
    found = set()
    for hash_seed in ("1", "2"):
        done = subprocess.run(
            [sys.executable, "-c", _PRINT_DIGEST, "7003"],
            env={**os.environ, "PYTHONHASHSEED": hash_seed},
            cwd=Path(__file__).parents[2],
            capture_output=True,
            text=True,
            check=True,
            timeout=120,
        )
        found.add(done.stdout.strip())
    assert len(found) == 1
