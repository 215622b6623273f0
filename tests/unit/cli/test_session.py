"""Who answers where no daemon does, and what is said of what is kept without one."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import pytest

from migscaler.app.local import LocalOptions
from migscaler.cli.local import WithoutDaemon
from migscaler.cli.session import Options, open_node
from migscaler.errors import CommandRefused
from migscaler.hardware.nvml_calls import install_library
from migscaler.sim.node import build_node
from migscaler.sim.nvml_library import NvmlLibrary
from tests.simulation.acting import QuietHost
from tests.unit.cli.conftest import Terminal
from tests.unit.schedulers.host_files import HostFiles


@contextmanager
def node_of(directory: Path, *, state_dir: Path) -> Iterator[WithoutDaemon]:
    """Open a simulated node as a command without a daemon does."""
    node = build_node("A100-SXM4-40GB", "580.65.06")
    (directory / "migscaler.yaml").write_text("mode: observe\n")
    (directory / "host").mkdir()
    options = LocalOptions(
        config=directory / "migscaler.yaml",
        state_dir=state_dir,
        prepare=lambda: install_library(NvmlLibrary(node, "migscaler")),
        make_host=QuietHost,
        boot_id=lambda: node.boot_id,
        roots=HostFiles(directory / "host").roots,
    )
    try:
        with ExitStack() as opened:
            yield WithoutDaemon(options, opened)
    finally:
        install_library(None)


def test_node_of_a_socket_that_does_not_answer_is_refused(tmp_path: Path) -> None:
    """`--socket /nosuch.sock pause` paused another state and said that it was in force."""
    named = Options(socket=tmp_path / "nosuch.sock", state_dir=tmp_path / "state")

    with (
        pytest.raises(CommandRefused, match=f"no daemon answers at {tmp_path}/nosuch.sock; start"),
        open_node(named, daemon_only=False),
    ):
        pass

    assert not (tmp_path / "state").exists()


def test_pause_without_a_daemon_says_for_which_state_it_is_in_force(terminal: Terminal) -> None:
    terminal.replies(pause={"paused": True, "until": None, "kept_in": "/var/lib/migscaler"})

    assert terminal.run("pause", "--why", "x").stdout == (
        "paused until `migscaler resume` (no daemon answers; in force for the state in"
        " /var/lib/migscaler)\n"
    )


def test_hold_without_a_daemon_says_for_which_state_it_is_in_force(terminal: Terminal) -> None:
    terminal.replies(hold={"hold_id": 1, "kept_in": "/var/lib/migscaler"})

    assert terminal.run("hold", "0", "--reason", "x").stdout.endswith(
        "release 1 (no daemon answers; in force for the state in /var/lib/migscaler)\n"
    )


def test_pause_that_can_only_be_kept_in_memory_is_refused(tmp_path: Path) -> None:
    """It ended with the command, which said that it was in force."""
    (tmp_path / "file").write_text("")
    with (
        node_of(tmp_path, state_dir=tmp_path / "file" / "state") as node,
        pytest.raises(CommandRefused, match=f"so nothing is in force: {tmp_path}/file/state"),
    ):
        node.execute("pause", {"why": "kernel"})


def test_demand_without_a_daemon_asks_the_sources_first(tmp_path: Path) -> None:
    """What had just been pushed was "unknown: not asked yet"."""
    with node_of(tmp_path, state_dir=tmp_path / "state") as node:
        answer = node.execute("demand", {})

    assert isinstance(answer["sources"], list)
    assert [(one["source"], one["known"]) for one in answer["sources"]] == [("scheduler", True)]


@pytest.mark.parametrize("name", ["holds", "leases", "history", "decision"])
def test_what_is_kept_is_not_told_where_it_can_not_be_read(tmp_path: Path, name: str) -> None:
    """`holds` said "nothing is held" of a damaged state file, with exit code 0."""
    state_dir = tmp_path / "state"
    state_dir.mkdir()
    (state_dir / "state.sqlite").write_text("garbage")

    with (
        node_of(tmp_path, state_dir=state_dir) as node,
        pytest.raises(CommandRefused, match=r"can't be read: .* is not a state file of migscaler"),
    ):
        node.execute(name, {"id": 1})


def test_what_is_kept_without_a_daemon_names_the_state_directory(tmp_path: Path) -> None:
    with node_of(tmp_path, state_dir=tmp_path / "state") as node:
        answer = node.execute("pause", {"why": "kernel"})

        assert answer["kept_in"] == str(tmp_path / "state")
        assert "kept_in" not in node.execute("holds", {})


def test_command_without_a_daemon_logs_nothing(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A raw `collector_turned collector=nvml ...` stood above the error that said the same."""
    config = tmp_path / "migscaler.yaml"
    config.write_text("mode: observe\n")
    unread = Options(config=config, state_dir=tmp_path / "state")

    with open_node(unread, daemon_only=False) as node, suppress(CommandRefused):
        node.execute("status", {})

    assert caplog.messages == []


def test_command_that_only_looks_leaves_no_state(tmp_path: Path) -> None:
    """Doctor and status made the state directory of a daemon that was never started."""
    state_dir = tmp_path / "state"
    with node_of(tmp_path, state_dir=state_dir) as node:
        node.execute("status", {})
        node.execute("holds", {})

        assert not state_dir.exists()
        node.execute("pause", {"why": "kernel"})
        assert node.execute("status", {})["pause"] is not None

    assert (state_dir / "state.sqlite").exists()


def test_command_that_only_looks_reads_the_state_that_is_there(tmp_path: Path) -> None:
    state_dir = tmp_path / "state"
    with node_of(tmp_path, state_dir=state_dir) as node:
        node.execute("pause", {"why": "kernel"})
    (tmp_path / "again").mkdir()
    with node_of(tmp_path / "again", state_dir=state_dir) as node:
        assert node.execute("status", {})["pause"] is not None


def test_pause_that_the_daemon_can_not_keep_says_so(terminal: Terminal) -> None:
    why = "/var/lib/migscaler can't be used: Permission denied"
    terminal.replies(pause={"paused": True, "until": None, "not_kept": why})

    assert terminal.run("pause", "--why", "x").stdout == (
        "paused until `migscaler resume` (only until the daemon ends, since it can't be kept:"
        f" {why})\n"
    )
