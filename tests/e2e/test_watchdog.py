"""What the running daemon tells systemd, and how often."""

import socket
import time
from pathlib import Path

import pytest

from tests.e2e.processes import daemon


def test_watchdog_is_told_every_half_of_its_limit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It was told twice as often: the half was halved again. A loaded machine only delays."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as link:
        link.bind(str(tmp_path / "notify"))
        link.settimeout(60)
        monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))
        monkeypatch.setenv("WATCHDOG_USEC", "6000000")
        with daemon(tmp_path, "A100-SXM4-40GB", "mode: observe\n"):
            first = told(link, b"READY=1")
            second = told(link, b"WATCHDOG=1")

    # The supervisor looks once a second.
    assert second - first > 2.5


def told(link: socket.socket, wanted: bytes) -> float:
    """Return when the daemon said so."""
    while wanted not in link.recv(4096).splitlines():
        pass
    return time.monotonic()
