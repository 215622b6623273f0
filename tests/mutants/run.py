"""Break each promise in a copy of the tree and see that its tests fail: `make mutants`.

    python -m tests.mutants.run [LETTERS]      e.g. `ab` for the mutations of two promises

First the tests named anywhere must pass on an unchanged copy. Ends with 1 if a mutation goes
unnoticed or its tests don't even run.
"""

import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from rich.console import Console

from tests.mutants.mutations import MUTATIONS, Mutation

_ROOT = Path(__file__).resolve().parents[2]
_LONGEST_SECONDS = 600
_AT_ONCE = 2
# What pytest answers: all passed, some failed. Anything else means that the tests did not run.
_PASSED, _FAILED = 0, 1
_LEFT_OUT = shutil.ignore_patterns(
    ".nspawn",
    ".git",
    ".venv*",
    "node_modules",
    "__pycache__",
    ".*_cache",
    ".hypothesis",
    "pictures",
)


def copied(directory: Path) -> Path:
    """Copy the tree, as it is now, below a directory."""
    place = directory / "tree"
    shutil.copytree(_ROOT, place, ignore=_LEFT_OUT, symlinks=True)
    return place


def mutated(text: str, mutation: Mutation) -> str:
    """Return a file's text with the mutation.

    Raises:
        ValueError: the piece to replace is not there exactly once.
    """
    found = text.count(mutation.old)
    if found != 1:
        raise ValueError(f"{mutation.path} has {found} times: {mutation.old.strip()}")
    return text.replace(mutation.old, mutation.new)


def answer(tree: Path, tests: tuple[str, ...]) -> tuple[int, str]:
    """Run tests in a tree and return pytest's exit code and its last lines."""
    words = [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", *tests]
    done = subprocess.run(
        words,
        cwd=tree,
        env={**os.environ, "PYTHONPATH": str(tree), "PYTHONDONTWRITEBYTECODE": "1"},
        capture_output=True,
        text=True,
        timeout=_LONGEST_SECONDS,
        check=False,
    )
    return done.returncode, done.stdout[-2_000:]


def in_a_copy(do: Callable[[Path], tuple[int, str]]) -> tuple[int, str]:
    """Do something in a copy of the tree that is thrown away afterwards."""
    with tempfile.TemporaryDirectory(prefix="mutant-") as directory:
        return do(copied(Path(directory)))


def try_one(mutation: Mutation) -> tuple[int, str]:
    """Break one promise and run its tests."""

    def do(tree: Path) -> tuple[int, str]:
        path = tree / mutation.path
        path.write_text(mutated(path.read_text(), mutation))
        return answer(tree, mutation.tests)

    return in_a_copy(do)


def main(letters: str) -> int:
    """Try the mutations of some promises; say of each whether it was noticed."""
    console = Console(highlight=False, soft_wrap=True)
    chosen = [one for one in MUTATIONS if one.promise in letters]
    began = time.monotonic()
    every = tuple(sorted({test for one in chosen for test in one.tests}))
    code, tail = in_a_copy(lambda tree: answer(tree, every))
    if code != _PASSED:
        console.print(f"the tests fail without any mutation:\n{tail}", markup=False)
        return 1
    missed = 0
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        for mutation, (code, tail) in zip(chosen, pool.map(try_one, chosen), strict=True):
            word = "noticed" if code == _FAILED else "MISSED" if code == _PASSED else "NOT RUN"
            console.print(f"{mutation.promise}  {word:8} {mutation.breaks}", markup=False)
            if code != _FAILED:
                missed += 1
                console.print(tail, markup=False)
    seconds = time.monotonic() - began
    console.print(f"{len(chosen)} mutations, {missed} not noticed, {seconds:.0f} s", markup=False)
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1] if len(sys.argv) > 1 else "abcdefg"))
