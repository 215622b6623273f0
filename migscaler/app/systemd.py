"""Tells systemd how the service is doing: one datagram to the socket it names."""

import os
import socket


def notify(*lines: str) -> None:
    """Send lines such as READY=1, STATUS=..., WATCHDOG=1 (sd_notify(3)); nothing without systemd.

    A socket that can't be reached is ignored: telling is a courtesy, serving is the work.
    """
    address = os.environ.get("NOTIFY_SOCKET")
    if not address:
        return
    if address.startswith("@"):
        address = "\0" + address[1:]
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as link:
            link.connect(address)
            link.sendall("\n".join(lines).encode())
    except OSError:  # also where no descriptor is left
        return


def watchdog_seconds() -> float | None:
    """Return how often systemd is to be told: half its limit, None if it watches nothing.

    Half is what sd_watchdog_enabled(3) recommends; who calls must not halve it again.
    """
    raw = os.environ.get("WATCHDOG_USEC", "")
    return int(raw) / 2_000_000 if raw.isdigit() else None
