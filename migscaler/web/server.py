"""Uvicorn in a thread of its own, listening on TCP and on a Unix socket."""

import asyncio
import contextlib
import errno
import os
import socket
import stat
import threading
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import uvicorn
from starlette.types import ASGIApp

from migscaler.errors import AddressTaken
from migscaler.web.door import Door
from migscaler.web.places import TCP_LIMITS, UNIX_LIMITS, Guest, Limits, Places
from migscaler.web.protection import Protection
from migscaler.web.protocol import PeerProtocol
from migscaler.web.refusals import Refusals
from migscaler.web.unix_path import let_go, short_path

_KEEP_ALIVE_SECONDS = 30
_HEAD_BYTES = 16_384
_START_SECONDS = 10.0
_STOP_SECONDS = 5
_ACCEPT_SECONDS = 0.05
_OPEN = Protection()


@dataclass(frozen=True, slots=True, kw_only=True)
class Deadlines:
    """How long a client may take for a request head, for a body, and to read an answer."""

    head_seconds: float = PeerProtocol.head_seconds
    body_seconds: float = PeerProtocol.body_seconds
    write_seconds: float = PeerProtocol.write_seconds


class WebServer:
    """Serves one application on `host:port` (port 0: any free one) and, if given, a Unix socket.

    `start` and `stop` are called once each, from one thread. The socket file belongs to the daemon:
    a left-over one is replaced, one that somebody still listens on is not. Without a protection
    the TCP address is reserved and nobody can connect to it, until `protect`. `lacking` says of
    each address that is not listened on why.
    """

    def __init__(
        self,
        app: ASGIApp,
        listen: str | None,
        unix_socket: Path | None = None,
        *,
        protection: Protection | None = _OPEN,
        limits: Limits = TCP_LIMITS,
        deadlines: Deadlines | None = None,
        refusals: Refusals | None = None,
    ) -> None:
        self._unix_socket = unix_socket
        self._missing: list[Callable[[], socket.socket]] = []
        if listen is not None:
            self._missing.append(partial(_tcp_socket, listen))
        if unix_socket is not None:
            self._missing.append(partial(_unix_socket, unix_socket))
        self._unbound: tuple[str, ...] = ()
        self._sockets: list[socket.socket] = []
        self._mutex = threading.Lock()
        self._has_ended = False
        self._started = threading.Event()
        config = uvicorn.Config(
            app,
            http=_protocol_with(deadlines or Deadlines()),
            ws="none",
            lifespan="off",
            loop="asyncio",
            log_config=None,
            access_log=False,
            proxy_headers=False,
            server_header=False,
            date_header=False,  # Uvicorn would wake ten times a second for it; see web.headers
            timeout_keep_alive=_KEEP_ALIVE_SECONDS,
            timeout_graceful_shutdown=_STOP_SECONDS,
            h11_max_incomplete_event_size=_HEAD_BYTES,
        )
        self._server = _Server(config, self._started, protection, limits, refusals or Refusals())
        self._thread = threading.Thread(target=self._run, name="web", daemon=True)

    @property
    def lacking(self) -> tuple[str, ...]:
        """Return why addresses are not listened on."""
        return self._unbound + self._server.unopened

    @property
    def address(self) -> tuple[str, int] | None:
        """Return the TCP address really listened on, None without one."""
        for one in self._sockets:
            if one.family != socket.AF_UNIX:
                host, port = one.getsockname()[:2]
                return str(host), int(port)
        return None

    def start(self, *, whole: bool = True) -> None:
        """Listen and serve; the addresses answer when it returns, all of them if `whole`.

        Raises:
            AddressTaken: an address is in use or not ours, and it was to be `whole`; nothing is
                listened on then.
        """
        made, self._unbound = self._bound()
        self._sockets += made
        if whole and self.lacking:
            self._close()
            raise AddressTaken(self.lacking[0])
        self._thread.start()
        if not self._started.wait(_START_SECONDS):
            raise AddressTaken("the HTTP server did not start in time")

    def try_again(self) -> None:
        """Listen on what is lacking, where that can be done now; called by one other thread.

        May take as long as a name server does, where the address is a name.
        """
        made, lacking = self._bound()
        for one in made:
            with self._mutex:
                if self._has_ended:
                    one.close()
                    continue
                self._sockets.append(one)
            self._done(partial(self._server.add, one))
        self._done(self._server.open_tcp)
        self._unbound = lacking  # last: whoever sees that nothing is missing finds it served

    def protect(self, protection: Protection) -> None:
        """Serve TCP under another protection once it returns; called from any other thread.

        Connections that would perhaps not come in any more end, after the answer under way.
        """
        self._done(partial(self._server.protect, protection))

    def stop(self) -> None:
        """Stop listening, let running answers end (at most 5 s), remove the socket file."""
        if self._thread.is_alive():
            self._server.ask_to_stop()
            self._thread.join(_STOP_SECONDS * 2)
        self._close()

    def _done(self, call: Callable[[], object]) -> None:
        """Have something done in the loop, and wait for it."""
        done = threading.Event()

        def work() -> None:
            call()
            done.set()

        if self._server.tell(work):
            done.wait(_STOP_SECONDS)

    def _bound(self) -> tuple[list[socket.socket], tuple[str, ...]]:
        """Bind what is missing; return the sockets, and why something still is."""
        made, missing, why = [], [], []
        for make in self._missing:
            try:
                made.append(make())
            except (AddressTaken, OSError) as error:  # also for want of descriptors
                missing.append(make)
                why.append(str(error))
        self._missing = missing
        return made, tuple(why)

    def _run(self) -> None:
        self._server.run(sockets=self._sockets)

    def _close(self) -> None:
        with self._mutex:
            self._has_ended = True
            for one in self._sockets:
                if one.family == socket.AF_UNIX and self._unix_socket is not None:
                    with contextlib.suppress(OSError):
                        self._unix_socket.unlink()
                one.close()
            self._sockets.clear()


class _Server(uvicorn.Server):
    """Uvicorn's server behind doors of our own, asleep while nobody asks.

    Uvicorn's own loop looks ten times a second whether it is to stop: a quarter of what the whole
    daemon cost at rest (measured at 5 s sampling).
    """

    def __init__(
        self,
        config: uvicorn.Config,
        started: threading.Event,
        protection: Protection | None,
        limits: Limits,
        refusals: Refusals,
    ) -> None:
        super().__init__(config)
        self._listening = started
        self._protection = protection
        self._limits = limits
        self._refusals = refusals
        self._loop: asyncio.AbstractEventLoop | None = None
        self._woken = asyncio.Event()
        self._tcp: list[Door] = []
        self.unopened: tuple[str, ...] = ()
        self._unix: list[Door] = []

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Open the doors, then say so."""
        self._loop = asyncio.get_running_loop()
        self.servers = []  # what Uvicorn's own shutdown would close; there are doors instead
        for one in sockets or ():
            self.add(one)
        self.started = True
        self._listening.set()

    def add(self, one: socket.socket) -> None:
        """Open a door at a bound socket, TCP only under a protection; runs in the loop."""
        if one.family == socket.AF_UNIX:
            self._unix.append(self._door(one, UNIX_LIMITS, lambda: _OPEN))
            self._unix[-1].open()
            return
        self._tcp.append(self._door(one, self._limits, lambda: self._protection or _OPEN))
        self.open_tcp()

    def open_tcp(self) -> None:
        """Listen, under a protection; whoever binds the same address may have listened first."""
        found = []
        for door in () if self._protection is None else self._tcp:
            try:
                door.open()
            except OSError as error:
                found.append(f"cannot listen: {error.strerror}; stop who listens at web.listen")
        self.unopened = tuple(found)

    async def main_loop(self) -> None:
        """Serve until asked to stop."""
        await self.on_tick(0)  # puts the headers of every answer in place
        while not self.should_exit:
            await self._woken.wait()
        for door in (*self._tcp, *self._unix):
            door.close()
        await asyncio.sleep(_ACCEPT_SECONDS)  # who is on the way in is told that it ends

    def protect(self, protection: Protection) -> None:
        """Take another protection; runs in the loop."""
        before, self._protection = self._protection or _OPEN, protection
        admits_like = protection.admits_like(before)
        for connection in () if admits_like else list(self.server_state.connections):
            if isinstance(connection, PeerProtocol) and connection.is_tcp:
                connection.end_after_answer()
        self.open_tcp()

    def ask_to_stop(self) -> None:
        """End `main_loop`; called from another thread, once `startup` has run."""
        self.should_exit = True
        self.tell(self._woken.set)

    def tell(self, call: Callable[[], object]) -> bool:
        """Have something done in the loop, said from another thread; False if it has ended."""
        if self._loop is None:
            return False
        try:
            self._loop.call_soon_threadsafe(call)
        except RuntimeError:  # its loop is closed already
            return False
        return True

    def _door(
        self, listening: socket.socket, limits: Limits, protection: Callable[[], Protection]
    ) -> Door:
        """Return a door with places of its own."""
        places = Places(limits)

        def make(guest: Guest, under: Protection) -> PeerProtocol:
            made: PeerProtocol = self.config.http_protocol_class(  # type: ignore[call-arg, assignment] # as Uvicorn calls it
                config=self.config,
                server_state=self.server_state,
                app_state=self.lifespan.state,
                _loop=self._loop,
            )
            made.guest, made.places, made.protection = guest, places, under
            made.in_force = protection
            return made

        return Door(listening, places, protection, make, self._refusals)


def _protocol_with(deadlines: Deadlines) -> type[PeerProtocol]:
    """Return the protocol with these deadlines."""
    own = {name: getattr(deadlines, name) for name in Deadlines.__slots__}
    return type("Protocol", (PeerProtocol,), own)


def _tcp_socket(listen: str) -> socket.socket:
    """Return a bound TCP socket of `host:port` or `[v6]:port`."""
    host, _, port = listen.rpartition(":")
    host = host.strip("[]")
    try:
        family = socket.getaddrinfo(host, int(port), type=socket.SOCK_STREAM)[0][0]
        # asyncio switches Nagle's algorithm off only where the protocol is named; with it, each
        # answer on a kept connection waits 40 ms for the client's delayed acknowledgment.
        made = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    except (OSError, ValueError) as error:
        raise AddressTaken(f"web.listen {listen!r} is no address to listen on: {error}") from error
    made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        made.bind((host, int(port)))
    except OSError as error:
        made.close()
        remedy = "change web.listen or stop the other"
        if error.errno == errno.EADDRNOTAVAIL:
            remedy = "change web.listen, or give this host the address"
        raise AddressTaken(f"cannot listen on {listen}: {error.strerror}; {remedy}") from error
    return made


def _unix_socket(path: Path) -> socket.socket:
    """Return a bound Unix socket that all may connect to; the peer's uid decides on rights."""
    _remove_left_over(path)
    made = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    short = ""
    try:
        short = short_path(path)
        made.bind(short)
        os.chmod(path, 0o666)  # noqa: S103 (who it is decides, not who may open the file)
    except OSError as error:
        made.close()
        let_go(short)
        raise AddressTaken(f"cannot listen on {path}: {error.strerror or error}") from error
    return made


def _remove_left_over(path: Path) -> None:
    """Remove a socket file that nobody listens on any more.

    Raises:
        AddressTaken: somebody does, also who is too busy to answer; or that can't be told.
    """
    try:
        is_socket = stat.S_ISSOCK(path.stat().st_mode)
    except FileNotFoundError:
        return
    except OSError as error:
        raise AddressTaken(f"cannot listen on {path}: {error.strerror}") from error
    if not is_socket:
        raise AddressTaken(f"cannot listen on {path}: it is a file of another kind")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as trial:
        trial.setblocking(False)
        short = ""
        try:
            short = short_path(path)
            trial.connect(short)
        except BlockingIOError:  # more clients wait than it has room for
            pass
        except (ConnectionRefusedError, FileNotFoundError):
            with contextlib.suppress(OSError):  # a file that stays is told by `bind`
                path.unlink()
            return
        except OSError as error:
            raise AddressTaken(f"cannot listen on {path}: {error.strerror}") from error
        finally:
            let_go(short)
    raise AddressTaken(f"cannot listen on {path}: another migscaler answers there")
