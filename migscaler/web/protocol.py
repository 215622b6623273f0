"""Uvicorn's HTTP protocol, with who is at the other end, and a deadline for all that it does."""

import asyncio
import contextlib
import socket
import struct
from collections.abc import Callable

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

from migscaler.web.places import Guest, Places
from migscaler.web.protection import Protection, names_of

PEER_PREFIX = "unix:uid="
"""Begins the client host of a connection over the Unix socket; the port is the peer's pid."""

# struct ucred of SO_PEERCRED: pid, uid, gid (unix(7)).
_UCRED = struct.Struct("iII")
# struct linger of socket(7): on, with no time; a close then sends a reset and forgets the rest.
_NO_LINGERING = struct.pack("ii", 1, 0)


class PeerProtocol(H11Protocol):
    """Puts into the scope who is there, and cuts off whoever takes too long.

    Uvicorn itself waits for ever for the rest of a request, and for a client that does not read
    its answer. `scope["state"]` gets `guest` (its place) and `names` (those of the verified client
    certificate, None without one).
    """

    head_seconds = 10.0
    """How long a request head may take: as long as Prometheus' own exporters wait."""
    body_seconds = 15.0
    """How long a body may take, also one that nobody reads."""
    write_seconds = 15.0
    """How long a client may take to read what was sent."""

    guest: Guest
    places: Places
    protection: Protection
    """What it came in under."""
    in_force: Callable[[], Protection]

    _head_late: float | None = None
    _body_late: float | None = None
    _write_late: float | None = None
    _closing = False
    _look_again: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override] # as Uvicorn has it
        """Note who it is, and start waiting for the first request."""
        super().connection_made(transport)
        self.guest.end = self._cut_off
        # The least is buffered, so that a client that does not read is noticed at once. Not 0:
        # asyncio's TLS pauses at "as much or more" (Python 3.11) and would begin paused.
        transport.set_write_buffer_limits(high=1, low=0)
        peer = peer_of(transport.get_extra_info("socket"))
        if peer is not None:
            self.client = peer
        certificate = transport.get_extra_info("peercert")
        names = names_of(certificate) if certificate else None
        self.app_state = {**self.app_state, "guest": self.guest, "names": names}
        self._head_late = self.loop.time() + self.head_seconds
        self._look()
        is_stranger = self.protection.client_sans and not self.protection.client_sans & (
            names or frozenset()
        )
        # A handshake may last from before a change to after it, and `end_after_answer` can't know.
        if is_stranger or not self.in_force().admits_like(self.protection):
            self._cut_off()

    def data_received(self, data: bytes) -> None:
        """Feed the parser; while a request is incomplete, its deadline stands."""
        super().data_received(data)
        now, state = self.loop.time(), self.conn.their_state
        if state is not h11.IDLE:
            self._head_late = None
        elif self._head_late is None:
            self._head_late = now + self.head_seconds
        if state is not h11.SEND_BODY:
            self._body_late = None
        elif self._body_late is None:
            self._body_late = now + self.body_seconds

    def pause_writing(self) -> None:
        """Give the client a time to read."""
        super().pause_writing()
        self._write_late = self.loop.time() + self.write_seconds

    def resume_writing(self) -> None:
        """Forget the deadline: all was read."""
        super().resume_writing()
        self._write_late = None

    def connection_lost(self, exc: Exception | None) -> None:
        """Give the place back."""
        if self._look_again is not None:
            self._look_again.cancel()
        self.places.leave(self.guest)
        super().connection_lost(exc)

    def end_after_answer(self) -> None:
        """End the connection, after the answer under way: what let it in has changed."""
        with contextlib.suppress(h11.LocalProtocolError):
            self.shutdown()

    @property
    def is_tcp(self) -> bool:
        """Say whether it came over TCP."""
        return self.client is None or not self.client[0].startswith(PEER_PREFIX)

    def _look(self) -> None:
        """Cut off what is late; looks again for as long as the connection lives."""
        now = self.loop.time()
        self._time_what_was_sent_ahead(now)
        deadlines = (self._head_late, self._body_late, self._write_late)
        is_late = any(late is not None and now > late for late in deadlines)
        # A close waits for the client to read what is left; that has its time too.
        if self.transport.is_closing() and not self._closing:
            self._closing = True
            self._write_late = self._write_late or now + self.write_seconds
        if is_late:
            self._cut_off()
            return
        self._look_again = self.loop.call_later(self.head_seconds / 4, self._look)

    def _time_what_was_sent_ahead(self, now: float) -> None:
        """Time what came behind a whole request: it is parsed after the answer, unseen."""
        state = self.conn.their_state
        if state is h11.IDLE and self._head_late is None and self.conn.trailing_data[0]:
            self._head_late = now + self.head_seconds
        if state is h11.SEND_BODY and self._body_late is None:
            self._body_late = now + self.body_seconds

    def _cut_off(self) -> None:
        """End the connection now, with what was not read yet: the kernel would keep it long."""
        connection = self.transport.get_extra_info("socket")
        if self._write_late is not None:
            with contextlib.suppress(OSError):
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _NO_LINGERING)
        self.transport.abort()


def peer_of(connection: socket.socket | None) -> tuple[str, int] | None:
    """Return (`unix:uid=N`, pid) of the process at the other end of a Unix socket."""
    if connection is None or connection.family != socket.AF_UNIX:
        return None
    raw = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _UCRED.size)
    pid, uid, _ = _UCRED.unpack(raw)
    return f"{PEER_PREFIX}{uid}", pid
