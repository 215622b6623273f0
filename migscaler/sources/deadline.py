"""A deadline for a whole HTTP exchange: httpx has one for each single read alone.

A server that sends one byte of its headers now and then keeps such a read content for ever.
"""

import contextlib
import socket
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field

Told = Mapping[str, object]


@dataclass(slots=True)
class Cut:
    """Ends the connections of one exchange; `is_late` once that was necessary."""

    is_late: bool = False
    _sockets: list[socket.socket] = field(default_factory=list)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def trace(self, event: str, told: Told) -> None:
        """Note a connection; to be given to httpx as the request's extension `trace`.

        A duplicate is kept: TLS takes the first socket away, and shutting down either ends both.
        """
        if event != "connection.connect_tcp.complete":
            return
        stream = told["return_value"]
        found = stream.get_extra_info("socket")  # type: ignore[attr-defined] # httpcore's stream
        with self._lock:
            if isinstance(found, socket.socket):
                self._sockets.append(found.dup())
            if self.is_late:
                self._end()

    def cut(self) -> None:
        """Make every read and write fail, also those under way and still to come."""
        with self._lock:
            self.is_late = True
            self._end()

    def close(self) -> None:
        """Let go of the connections."""
        with self._lock:
            for one in self._sockets:
                one.close()
            self._sockets.clear()

    def _end(self) -> None:
        for one in self._sockets:
            with contextlib.suppress(OSError):  # it has ended by itself
                one.shutdown(socket.SHUT_RDWR)


@contextmanager
def deadline(seconds: float) -> Iterator[Cut]:
    """Give what ends an exchange that takes longer than so many seconds."""
    cut = Cut()
    timer = threading.Timer(seconds, cut.cut)
    timer.daemon = True
    timer.start()
    try:
        yield cut
    finally:
        timer.cancel()
        cut.close()
