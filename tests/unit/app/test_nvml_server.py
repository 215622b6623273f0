"""The privileged worker's listening process: who is let in beside whom, and what it outlives."""

import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from migscaler.app.nvml_server import NvmlServer, _Worker
from migscaler.app.nvml_worker import Served
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
