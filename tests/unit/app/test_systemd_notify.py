"""What systemd is told: asked of a process with systemd's environment."""

import os
import socket
import subprocess
import sys
from pathlib import Path

CODE = """
from migscaler.app.systemd import notify, watchdog_seconds
notify("READY=1", "STATUS=serving")
print(watchdog_seconds())
"""
CODE_WITHOUT = """
from migscaler.app.systemd import notify, watchdog_seconds
from tests.unit.descriptors import no_more_descriptors
with no_more_descriptors():
    notify("WATCHDOG=1")
print(watchdog_seconds())
"""
ROOT = Path(__file__).parents[3]


def told(code: str = CODE, **environment: str) -> str:
    """Run a process that tells systemd it is ready; return what it prints."""
    kept = {k: v for k, v in os.environ.items() if k not in ("NOTIFY_SOCKET", "WATCHDOG_USEC")}
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**kept, **environment},
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=30,
        check=True,
    )
    return done.stdout.strip()


def listening(address: str) -> socket.socket:
    link = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    link.settimeout(10)
    link.bind(address)
    return link


def test_lines_go_to_the_socket_in_one_datagram(tmp_path: Path) -> None:
    path = str(tmp_path / "notify")
    with listening(path) as link:
        told(NOTIFY_SOCKET=path)

        assert link.recv(200) == b"READY=1\nSTATUS=serving"


def test_abstract_socket_is_reached_by_its_at_sign() -> None:
    name = f"migscaler-test-{os.getpid()}"
    with listening(f"\0{name}") as link:
        told(NOTIFY_SOCKET=f"@{name}")

        assert link.recv(200) == b"READY=1\nSTATUS=serving"


def test_socket_that_is_not_there_is_ignored_and_half_the_watchdogs_period_is_told(
    tmp_path: Path,
) -> None:
    assert told(NOTIFY_SOCKET=str(tmp_path / "none"), WATCHDOG_USEC="30000000") == "15.0"


def test_process_without_a_descriptor_left_goes_on(tmp_path: Path) -> None:
    """The next word to the watchdog ended it, and with it the changes under way."""
    path = str(tmp_path / "notify")
    with listening(path):
        assert told(CODE_WITHOUT, NOTIFY_SOCKET=path) == "None"


def test_without_systemd_nothing_is_told_and_nothing_watches() -> None:
    assert told() == "None"
