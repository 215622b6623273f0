"""The state directory: locked for one process, and done without where it can't be used."""

import os
from pathlib import Path

import pytest

from migscaler.app.config.load import load_text
from migscaler.app.start import InForce, finding_text, open_state, with_state_problem
from migscaler.errors import Finding, NodeLocked
from migscaler.model.status import ConfigStatus
from tests.unit.store.fixed_clock import FixedClock


def test_state_is_kept_in_its_directory_for_our_eyes_only(tmp_path: Path) -> None:
    directory = tmp_path / "deep" / "state"

    state = open_state(directory, FixedClock())

    assert state.problem is None
    assert state.lock is not None
    assert state.store.path == directory / "state.sqlite"
    assert directory.stat().st_mode & 0o777 == 0o700
    state.store.close()
    state.lock.close()


def test_files_are_the_owners_alone_where_the_directory_is_not(tmp_path: Path) -> None:
    """They hold accounts and commands; and who may open the lock may hold it."""
    tmp_path.chmod(0o755)
    (tmp_path / "lock").touch(0o644)
    before = os.umask(0o022)
    try:
        for _ in range(2):  # new files, and those of an earlier version
            state = open_state(tmp_path, FixedClock())
            state.store.write_good_config("mode: observe\n", "0")
            modes = {one.name: one.stat().st_mode & 0o777 for one in tmp_path.iterdir()}
            state.close()
            assert set(modes) >= {"lock", "state.sqlite", "state.sqlite-wal"}
            assert set(modes.values()) == {0o600}
            (tmp_path / "state.sqlite").chmod(0o644)
    finally:
        os.umask(before)


def test_second_process_is_refused_with_the_holders_number(tmp_path: Path) -> None:
    first = open_state(tmp_path, FixedClock())

    with pytest.raises(NodeLocked) as refusal:
        open_state(tmp_path, FixedClock())

    assert str(refusal.value).startswith(
        f"migscaler process {os.getpid()} holds this node ({tmp_path / 'lock'}); stop it first"
    )
    first.store.close()
    assert first.lock is not None
    first.lock.close()


def test_lock_is_free_again_when_its_holder_ends(tmp_path: Path) -> None:
    first = open_state(tmp_path, FixedClock())
    first.store.close()
    assert first.lock is not None
    first.lock.close()

    second = open_state(tmp_path, FixedClock())

    assert second.problem is None
    second.store.close()
    assert second.lock is not None
    second.lock.close()


def test_directory_that_can_not_be_made_leaves_state_in_memory(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_text("")

    state = open_state(file / "state", FixedClock())

    assert state.problem == f"{file / 'state'} can't be used: Not a directory"
    assert (state.lock, state.store.path) == (None, None)
    assert state.store.check_writable() is None
    state.store.close()


def test_damaged_state_is_left_as_it_is_and_the_node_stays_locked(tmp_path: Path) -> None:
    damaged = tmp_path / "state.sqlite"
    damaged.write_bytes(b"this is no database at all, and was never one" * 10)
    before = damaged.read_bytes()

    state = open_state(tmp_path, FixedClock())

    assert state.problem is not None
    assert "state.sqlite" in state.problem
    assert state.store.path is None
    assert state.lock is not None
    assert damaged.read_bytes() == before
    with pytest.raises(NodeLocked):
        open_state(tmp_path, FixedClock())
    state.store.close()
    state.lock.close()


def test_without_durable_state_nothing_but_observing_is_in_force() -> None:
    good = InForce(loaded=load_text("mode: enforce\n", "test"), status=ConfigStatus())

    held = with_state_problem(good, "disk full")

    assert held.status.forced_observe == "no durable state: disk full; observing only"
    assert held.status.state_problem == "disk full"
    assert with_state_problem(good, None) is good


def test_bad_file_is_the_first_reason_to_observe() -> None:
    bad = InForce(
        loaded=load_text("mode: enforce\n", "test"),
        status=ConfigStatus(forced_observe="x.yaml has 1 problem(s)"),
    )

    assert with_state_problem(bad, "disk full").status.forced_observe == "x.yaml has 1 problem(s)"


def test_finding_is_one_line_with_place_problem_and_remedy() -> None:
    placed = Finding(where="rules[0].size", problem="'9q' is no size", remedy="write 1g", line=4)
    whole = Finding(where="(file)", problem="is empty", remedy="write mode: observe")

    assert finding_text(placed) == "line 4: rules[0].size: '9q' is no size; write 1g"
    assert finding_text(whole) == "(file): is empty; write mode: observe"
