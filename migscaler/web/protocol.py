"""Uvicorn's HTTP protocol, with the Unix socket's peer and a deadline for request heads added."""

import asyncio
import socket
import struct

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

PEER_PREFIX = "unix:uid="
"""Begins the client host of a connection over the Unix socket; the port is the peer's pid."""

# struct ucred of SO_PEERCRED: pid, uid, gid (unix(7)).
_UCRED = struct.Struct("iII")


class PeerProtocol(H11Protocol):
    """Puts peer credentials into the scope's client and closes connections that stay silent.

    Uvicorn itself waits for ever for the rest of a request head, so that silent clients could
    use up all connections.
    """

    head_seconds = 10.0
    """How long a request head may take: as long as Prometheus' own exporters wait."""

    _deadline: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override] # as Uvicorn has it
        """Note who it is, and start waiting for the first request."""
        super().connection_made(transport)
        peer = _peer(transport.get_extra_info("socket"))
        if peer is not None:
            self.client = peer
        self._await_head()

    def data_received(self, data: bytes) -> None:
        """Feed the parser; while a request head is incomplete, its deadline stands."""
        super().data_received(data)
        if self.conn.their_state is h11.IDLE and not self.transport.is_closing():
            self._await_head()
        else:
            self._stop_waiting()

    def connection_lost(self, exc: Exception | None) -> None:
        """Stop waiting."""
        self._stop_waiting()
        super().connection_lost(exc)

    def _await_head(self) -> None:
        if self._deadline is None:
            self._deadline = self.loop.call_later(self.head_seconds, self._give_up)

    def _stop_waiting(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None

    def _give_up(self) -> None:
        self._deadline = None
        if self.conn.their_state is h11.IDLE:
            self.transport.close()


def _peer(connection: socket.socket | None) -> tuple[str, int] | None:
    """Return (`unix:uid=N`, pid) of the process at the other end of a Unix socket."""
    if connection is None or connection.family != socket.AF_UNIX:
        return None
    raw = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _UCRED.size)
    pid, uid, _ = _UCRED.unpack(raw)
    return f"{PEER_PREFIX}{uid}", pid
