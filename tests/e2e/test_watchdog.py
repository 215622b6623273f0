"""What the running daemon tells systemd, and how often."""

import socket
import struct
from pathlib import Path

import pytest

from tests.e2e.processes import daemon

# Have the kernel say when each datagram was sent (socket(7)), as a struct timeval.
SO_TIMESTAMP = 29
TIMEVAL = struct.Struct("ll")


def test_watchdog_is_told_every_half_of_its_limit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It was told twice as often: the half was halved again. A loaded machine only delays."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as link:
        link.bind(str(tmp_path / "notify"))
        link.settimeout(60)
        link.setsockopt(socket.SOL_SOCKET, SO_TIMESTAMP, 1)
        monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))
        monkeypatch.setenv("WATCHDOG_USEC", "6000000")
        with daemon(tmp_path, "A100-SXM4-40GB", "mode: observe\n"):
            first = told(link, b"READY=1")
            second = told(link, b"WATCHDOG=1")

    # The supervisor looks once a second.
    assert second - first > 2.5


def told(link: socket.socket, wanted: bytes) -> float:
    """Return when the daemon said so, in seconds since 1970: not when we came to hear of it."""
    while True:
        said, stamps, _, _ = link.recvmsg(4096, socket.CMSG_SPACE(TIMEVAL.size))
        if wanted in said.splitlines():
            seconds, microseconds = TIMEVAL.unpack(stamps[0][2])
            return float(seconds + microseconds / 1e6)
