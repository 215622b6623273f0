"""Accepts connections of one listening socket: whom there is no place for is sent away at once.

The loop's own server reads its TLS context once; here each connection gets the one of the moment,
so that certificates rotate, and an excess is refused before it costs a handshake or a task.
"""

import asyncio
import contextlib
import ipaddress
import logging
import socket
import ssl
import traceback
from asyncio import sslproto
from collections.abc import Callable

from migscaler.model.stats import Refused
from migscaler.web.places import Guest, Places
from migscaler.web.protection import Protection
from migscaler.web.protocol import PeerProtocol, peer_of
from migscaler.web.refusals import Refusals

_log = logging.getLogger("migscaler.web")

# Full, it drops a newcomer, who tries again after a second; the kernel allows no more than this.
_BACKLOG = 4096
# Between two looks at other connections; a refused one takes some 40 us of processor time.
_AT_ONCE = 128
_HANDSHAKE_SECONDS = 10.0
_SHUTDOWN_SECONDS = 5.0
_OUT_OF_DESCRIPTORS_SECONDS = 0.5
_REPORT_SECONDS = 60.0
# asyncio sets 256 KiB aside for each TLS connection (Python 3.11), also for one that never says a
# word; a record has 16 KiB at most (RFC 8446, 5.1), and what is longer is read in pieces anyway.
_TLS_BUFFER_BYTES = 16_384
_FULL = (
    b"HTTP/1.1 503 Service Unavailable\r\nretry-after: 1\r\nconnection: close\r\n"
    b"content-type: text/plain\r\ncontent-length: 9\r\n\r\ntoo busy\n"
)


class Door:
    """One listening socket; made in the running loop that it lives in."""

    def __init__(
        self,
        listening: socket.socket,
        places: Places,
        protection: Callable[[], Protection],
        make_protocol: Callable[[Guest, Protection], PeerProtocol],
        refusals: Refusals,
    ) -> None:
        """Take a bound socket; nobody can connect before `open`."""
        sslproto.SSLProtocol.max_size = _TLS_BUFFER_BYTES
        self._socket = listening
        self._places = places
        self._protection = protection
        self._make_protocol = make_protocol
        self._refusals = refusals
        self._loop = asyncio.get_running_loop()
        self._is_open = False
        self._entering: set[asyncio.Task[None]] = set()
        self._told = 0
        self._report: asyncio.TimerHandle | None = None

    def open(self) -> None:
        """Listen; again does nothing."""
        if not self._is_open:
            self._socket.setblocking(False)
            self._socket.listen(_BACKLOG)
            self._is_open = True
            self._loop.add_reader(self._socket, self._accept)

    def close(self) -> None:
        """Accept nobody any more; who is on the way in is cut off."""
        if self._is_open:
            self._is_open = False
            self._loop.remove_reader(self._socket)
        if self._report is not None:
            self._report.cancel()
        for task in self._entering:
            task.cancel()

    def _accept(self) -> None:
        """Let in, or send away, some of those who wait."""
        for _ in range(_AT_ONCE):
            try:
                connection, address = self._socket.accept()
            except (BlockingIOError, InterruptedError):
                return
            except ConnectionError:
                continue
            except OSError as error:
                self._rest(error)
                return
            self._receive(connection, address)

    def _rest(self, error: OSError) -> None:
        """Wait a moment where the process is out of descriptors; accept would fail in a loop."""
        _log.error("accept_failed error=%s", error.strerror)
        self._loop.remove_reader(self._socket)
        self._loop.call_later(_OUT_OF_DESCRIPTORS_SECONDS, self._resume)

    def _resume(self) -> None:
        if self._is_open:
            self._loop.add_reader(self._socket, self._accept)

    def _receive(self, connection: socket.socket, address: object) -> None:
        """Find a place for a connection, or refuse it."""
        protection = self._protection()
        guest = self._places.admit(peer_name(connection, address), self._loop.time())
        if guest is None:
            _refuse(connection, is_plain=protection.tls is None)
            self._refusals.add(Refused.CONNECTION)
            self._tell_later()
            return
        connection.setblocking(False)
        task = self._loop.create_task(self._enter(connection, guest, protection))

        def end() -> None:
            task.cancel()

        def entered(done: asyncio.Task[None]) -> None:
            self._entering.discard(done)
            if done.cancelled():  # also before its first step, when nobody else would close it
                self._places.leave(guest)
                connection.close()

        guest.end = end
        self._entering.add(task)
        task.add_done_callback(entered)

    async def _enter(self, connection: socket.socket, guest: Guest, protection: Protection) -> None:
        """Shake hands and hand the connection over to its protocol."""
        handshake = _HANDSHAKE_SECONDS if protection.tls is not None else None
        shutdown = _SHUTDOWN_SECONDS if protection.tls is not None else None
        try:
            await self._loop.connect_accepted_socket(
                lambda: self._make_protocol(guest, protection),
                connection,
                ssl=protection.tls,
                ssl_handshake_timeout=handshake,
                ssl_shutdown_timeout=shutdown,
            )
        except (OSError, ssl.SSLError) as error:
            _log.debug("connection_not_made error=%s", error)
            self._places.leave(guest)
            connection.close()
            _let_go(error)
        except asyncio.CancelledError as error:
            _let_go(error)
            raise

    def _tell_later(self) -> None:
        """Say at most once a minute that connections are refused."""
        if self._report is None:
            self._tell()
            self._report = self._loop.call_later(_REPORT_SECONDS, self._told_again)

    def _told_again(self) -> None:
        self._report = None
        if self._places.refused > self._told:
            self._tell()

    def _tell(self) -> None:
        refused, self._told = self._places.refused - self._told, self._places.refused
        _log.warning("connections_refused count=%d why=%s", refused, "too many, or too often")


def _let_go(error: BaseException) -> None:
    """Free what a connection that was not made held, at once.

    The error is kept by a future that its own frames know; until the collector comes, a flood
    would leave tens of MiB of TLS state behind.
    """
    traceback.clear_frames(error.__traceback__)


def _refuse(connection: socket.socket, *, is_plain: bool) -> None:
    """Answer 503 without waiting for anything, and close."""
    if is_plain:
        with contextlib.suppress(OSError):
            connection.send(_FULL, socket.MSG_DONTWAIT)
            # What lies unread would make the close a reset, which overtakes the answer.
            connection.recv(16_384, socket.MSG_DONTWAIT)
    connection.close()


def peer_name(connection: socket.socket, address: object) -> str:
    """Return whose budget a connection belongs to: account, address, or IPv6 network of 64 bits."""
    local = peer_of(connection)
    if local is not None:
        return local[0]
    host = str(address[0]) if isinstance(address, tuple) else ""
    if ":" not in host:
        return host
    try:
        parsed = ipaddress.IPv6Address(host.partition("%")[0])
    except ValueError:
        return host
    if parsed.ipv4_mapped is not None:
        return str(parsed.ipv4_mapped)
    return str(ipaddress.IPv6Network((int(parsed) >> 64 << 64, 64)))
