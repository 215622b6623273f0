"""The privileged worker's listening process: who is let in beside whom, and what it outlives."""

import contextlib
import errno
import os
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from migscaler.app.nvml_server import NvmlServer, _Worker
from migscaler.app.nvml_worker import Served
from migscaler.errors import AddressTaken
from tests.unit.busy_socket import busy_socket
from tests.unit.descriptors import no_more_descriptors
from tests.unit.store.fixed_clock import FixedClock


@pytest.fixture
def made(tmp_path: Path) -> Iterator[NvmlServer]:
    """A service for this account that nobody has asked yet."""
    served = Served(clock=FixedClock(), hardware="none", make_device_nodes=lambda: None)
    server = NvmlServer(served, tmp_path / "worker.sock", str(os.getuid()))
    yield server
    server._listener.close()
    for worker in server._workers.values():
        worker.link.close()


def with_workers(made: NvmlServer, *, open_: int, hung_up: int) -> None:
    """Give it processes: with a connection that is open, or hung up while their call hangs."""
    for pid in range(open_ + hung_up):
        hung_up_at = None if pid < open_ else 0.0
        made._workers[pid] = _Worker(pid=pid, pidfd=-1, link=socket.socket(), hung_up_at=hung_up_at)


@pytest.mark.parametrize(
    ("open_", "hung_up", "why"),
    [
        (7, 31, None),
        (8, 0, "8 connections are open"),
        (0, 32, "32 connections were hung up, and their calls have not come back"),
    ],
)
def test_processes_hung_up_take_no_place_from_those_that_are_asked(
    made: NvmlServer, open_: int, hung_up: int, why: str | None
) -> None:
    """Eight attempts at one GPU that hung kept the daemon out, and blinded the node."""
    with_workers(made, open_=open_, hung_up=hung_up)

    assert made._why_not(os.getuid()) == why


def test_socket_of_a_service_that_is_too_busy_to_answer_is_left_alone(tmp_path: Path) -> None:
    """Another one waited for it without end."""
    path = tmp_path / "busy.sock"
    with busy_socket(path):
        served = Served(clock=FixedClock(), hardware="none", make_device_nodes=lambda: None)

        with pytest.raises(AddressTaken, match="somebody listens at"):
            NvmlServer(served, path, str(os.getuid()))

        assert path.is_socket()


def no_task_left() -> int:
    raise BlockingIOError(errno.EAGAIN, "Resource temporarily unavailable")


def test_process_that_can_not_be_made_costs_that_connection_alone(
    made: NvmlServer, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """The service ended with it, and with it every other connection's change."""
    made._fork = no_task_left
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(str(tmp_path / "worker.sock"))
        made._turn(accepting=True)
        assert client.recv(1) == b""

    assert "why=Resource temporarily unavailable" in caplog.text
    assert made._workers == {}


def test_process_that_can_not_be_watched_is_ended_again(made: NvmlServer, tmp_path: Path) -> None:
    """No descriptor was left to see it end by."""
    children: list[subprocess.Popen[bytes]] = []
    with contextlib.ExitStack() as stack:

        def fork() -> int:
            children.append(subprocess.Popen(["sleep", "60"]))
            stack.enter_context(no_more_descriptors())
            return children[0].pid

        made._fork = fork
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(str(tmp_path / "worker.sock"))
            made._turn(accepting=True)
            assert client.recv(1) == b""

    assert made._workers == {}
    assert not Path(f"/proc/{children[0].pid}").exists()
    children[0].returncode = 0  # reaped already
