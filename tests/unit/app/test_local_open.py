"""A node opened for one command, and where a daemon of the same configuration would listen."""

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from migscaler.app.config.settings import SERVICE_SOCKET
from migscaler.app.local import LocalOptions, open_local, usual_sockets
from migscaler.app.runtime import Runtime
from migscaler.app.start import open_state
from migscaler.errors import NodeLocked
from migscaler.hardware.nvml_calls import install_library
from migscaler.model.gpu import PinReason
from migscaler.sim.node import SimNode, build_node
from migscaler.sim.nvml_library import NvmlLibrary
from tests.simulation.acting import QuietHost
from tests.unit.app.nodes import ENFORCE, ROOT
from tests.unit.schedulers.host_files import HostFiles
from tests.unit.store.fixed_clock import FixedClock
from tests.unit.web.sites import running


def config(directory: Path, text: str) -> Path:
    path = directory / "migscaler.yaml"
    path.write_text(text)
    return path


@contextmanager
def opened(directory: Path, text: str, node: SimNode) -> Iterator[Runtime]:
    """Open a simulated node as a command does."""
    host = directory / "host"
    host.mkdir()
    options = LocalOptions(
        config=config(directory, text),
        state_dir=directory / "state",
        prepare=lambda: install_library(NvmlLibrary(node, "migscaler")),
        make_host=QuietHost,
        boot_id=lambda: node.boot_id,
        roots=HostFiles(host).roots,
    )
    try:
        with open_local(options) as runtime:
            yield runtime
    finally:
        install_library(None)


def node_with(*specs: str) -> SimNode:
    node = build_node("A100-SXM4-40GB", "580.65.06")
    for text in specs:
        node.foreign_create(0, text)
    return node


def naming_a_socket(directory: Path) -> Path:
    return config(directory, f"mode: observe\nweb: {{unix_socket: {directory}/migscaler.sock}}\n")


def test_socket_that_the_file_names_comes_first(tmp_path: Path) -> None:
    assert usual_sockets(naming_a_socket(tmp_path), None) == (tmp_path / "migscaler.sock",)


def test_socket_of_the_file_is_not_that_of_a_state_directory_which_nobody_uses(
    tmp_path: Path,
) -> None:
    """`--state-dir OTHER pause` paused the daemon at the socket that the system's file names."""
    given = tmp_path / "given"
    with running(None, tmp_path):
        before = usual_sockets(naming_a_socket(tmp_path), given)
        given.mkdir()
        # A lock that nobody holds any more, of a process whose number another one has now.
        (given / "lock").write_text(f"migscaler process {os.getpid()}")

        assert before == usual_sockets(naming_a_socket(tmp_path), given) == ()


def test_socket_of_the_file_is_not_that_of_a_state_directory_which_another_process_uses(
    tmp_path: Path,
) -> None:
    """Two daemons of one file: the second finds the socket taken and works without."""
    given = tmp_path / "given"
    given.mkdir()
    hold = "import fcntl, sys; f = open(sys.argv[1], 'w'); fcntl.flock(f, fcntl.LOCK_EX)"
    hold += "; f.write('migscaler process 1'); f.flush(); print(flush=True); sys.stdin.read()"
    with (
        running(None, tmp_path),
        subprocess.Popen(
            [sys.executable, "-c", hold, str(given / "lock")],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        ) as other,
    ):
        assert other.stdout is not None
        other.stdout.readline()

        assert usual_sockets(naming_a_socket(tmp_path), given) == ()


def test_socket_of_the_file_is_that_of_the_state_directory_which_its_daemon_uses(
    tmp_path: Path,
) -> None:
    given = tmp_path / "given"
    state = open_state(given, FixedClock())
    with running(None, tmp_path):
        found = usual_sockets(naming_a_socket(tmp_path), given)
    state.close()

    assert found == (tmp_path / "migscaler.sock",)


def test_lock_that_holds_no_text_is_nobodys(tmp_path: Path) -> None:
    """The command ended in a traceback."""
    given = tmp_path / "given"
    given.mkdir()
    (given / "lock").write_bytes(b"migscaler process \xff")

    with running(None, tmp_path):
        assert usual_sockets(naming_a_socket(tmp_path), given) == ()


def test_socket_lies_in_the_state_directory_that_was_given(tmp_path: Path) -> None:
    plain = config(tmp_path, f"mode: observe\nstate_dir: {tmp_path}/file\n")

    given = tmp_path / "given"
    assert usual_sockets(plain, given) == (given / "migscaler.sock",)


def test_socket_lies_in_the_state_directory_that_the_file_names(tmp_path: Path) -> None:
    """A system-wide daemon's socket used to be taken for that of the file that was named."""
    plain = config(tmp_path, f"mode: observe\nstate_dir: {tmp_path}/file\n")

    first, second = usual_sockets(plain, None)

    assert (first, second) == (tmp_path / "file" / "migscaler.sock", SERVICE_SOCKET)


@pytest.mark.parametrize("is_its_own", [True, False])
def test_service_counts_for_a_file_with_another_state_directory_only_if_it_uses_that(
    tmp_path: Path, is_its_own: bool
) -> None:
    """`--config mine.yaml pause` paused the service, whose file is another one."""
    plain = config(tmp_path, f"mode: observe\nstate_dir: {tmp_path}/file\n")
    service = tmp_path / "migscaler.sock"
    state = open_state(tmp_path / ("file" if is_its_own else "service"), FixedClock())
    with running(None, tmp_path):
        found = usual_sockets(plain, None, service)
    state.close()

    usual = tmp_path / "file" / "migscaler.sock"
    assert found == ((usual, service) if is_its_own else (usual,))


def test_socket_is_found_even_with_a_broken_file(tmp_path: Path) -> None:
    broken = config(tmp_path, "mode: sometimes\n")

    assert usual_sockets(broken, tmp_path / "given") == (tmp_path / "given" / "migscaler.sock",)


def test_instances_are_seen_and_none_is_taken_for_idle(tmp_path: Path) -> None:
    with opened(tmp_path, ENFORCE, node_with("3g@0", "3g@4")) as runtime:
        snapshot = runtime.loop.status().snapshot

        assert snapshot is not None
        pins = [(str(one.spec), one.pin) for one in snapshot.gpus[0].instances or ()]
        assert [text for text, _ in pins] == ["3g.20gb@0", "3g.20gb@4"]
        assert None not in [pin for _, pin in pins]
        assert {pin for _, pin in pins} <= {PinReason.UNKNOWN, PinReason.SETTLING}


def test_named_layout_can_be_applied_without_a_daemon(tmp_path: Path) -> None:
    node = node_with()
    with opened(tmp_path, ENFORCE, node) as runtime:
        answer = runtime.commands.execute("apply", {"gpu": 0, "layout": "7g"}, ROOT)

    assert isinstance(answer["outcomes"], list)
    assert [one["outcome"] for one in answer["outcomes"]] == ["done"]
    assert [gi.profile for gi in node.state.gpus[0].instances.values()] == ["7g.40gb"]


def test_what_was_held_is_there_for_the_next_command(tmp_path: Path) -> None:
    node = node_with("3g@0")
    with opened(tmp_path, ENFORCE, node) as runtime:
        runtime.commands.execute("hold", {"gpu": 0, "reason": "measuring"}, ROOT)
    (tmp_path / "host").rename(tmp_path / "earlier")

    with opened(tmp_path, ENFORCE, node) as runtime:
        answer = runtime.commands.execute("holds", {}, ROOT)

    assert isinstance(answer["holds"], list)
    assert [one["reason"] for one in answer["holds"]] == ["measuring"]


def test_node_that_a_daemon_holds_is_refused(tmp_path: Path) -> None:
    daemon = open_state(tmp_path / "state", FixedClock())

    with (
        pytest.raises(NodeLocked, match="holds this node"),
        opened(tmp_path, ENFORCE, node_with()),
    ):
        pass

    daemon.store.close()
    assert daemon.lock is not None
    daemon.lock.close()
