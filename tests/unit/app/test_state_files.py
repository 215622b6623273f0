"""State files that can't be used: left as they are, and the reason is kept for everybody to see."""

import contextlib
import sqlite3
from collections.abc import Callable
from pathlib import Path

import pytest

from migscaler.app.start import open_state
from tests.unit.store.fixed_clock import FixedClock


def halved(path: Path) -> None:
    with path.open("r+b") as file:
        file.truncate(path.stat().st_size // 2 + 100)


def header_only(path: Path) -> None:
    with path.open("r+b") as file:
        file.truncate(100)


def newer(path: Path) -> None:
    with contextlib.closing(sqlite3.connect(path)) as file:
        file.execute("PRAGMA user_version = 99")
        file.commit()


def text(path: Path) -> None:
    path.write_text("restored from the wrong backup\n")


def without_tables(path: Path) -> None:
    """Nothing that SQLite could object to: a table is missing."""
    with contextlib.closing(sqlite3.connect(path)) as file:
        file.execute("DROP TABLE holds")
        file.commit()


def with_nonsense(path: Path) -> None:
    """The observer reads generations as it is made: the whole daemon ended."""
    with contextlib.closing(sqlite3.connect(path)) as file:
        file.execute("INSERT INTO generations VALUES ('GPU-0', 1, '@', 'b', 'now', '', 0)")
        file.commit()


def problem_of(directory: Path, harm: Callable[[Path], None]) -> str | None:
    """Make a state file, harm it, and say what the next start finds wrong with it."""
    for do in (lambda path: None, harm):
        do(directory / "state.sqlite")
        state = open_state(directory, FixedClock())
        assert state.lock is not None
        state.lock.close()
        if state.problem is not None:
            assert state.store.path is None
            return state.problem
        state.store.close()
    return None


@pytest.mark.parametrize("harm", [halved, header_only, newer, text])
def test_file_that_can_t_be_used_is_named_and_left_as_it_is(
    tmp_path: Path, harm: Callable[[Path], None]
) -> None:
    harmed: list[bytes] = []

    def and_look(path: Path) -> None:
        harm(path)
        harmed.append(path.read_bytes())

    problem = problem_of(tmp_path, and_look)

    assert problem is not None
    assert "state file" in problem
    assert [(tmp_path / "state.sqlite").read_bytes()] == harmed


@pytest.mark.parametrize("harm", [without_tables, with_nonsense])
def test_file_that_is_sound_and_makes_no_sense_is_not_used(
    tmp_path: Path, harm: Callable[[Path], None]
) -> None:
    problem = problem_of(tmp_path, harm)

    assert problem is not None
    assert "state file" in problem
