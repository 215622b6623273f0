"""The privileged half of the split arrangement: one process for each connection, made and ended.

This process listens, and does nothing else: it opens no library and reads no request, so that it
can fork and nothing that a client sends reaches it.
"""

import logging
import os
import pwd
import select
import signal
import socket
import stat
import struct
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import FrameType

from migscaler.app.nvml_worker import Peer, Served, serve_peer
from migscaler.app.systemd import notify, watchdog_seconds
from migscaler.errors import AddressTaken, NotFound
from migscaler.model.bucket import Bucket
from migscaler.model.ports import Clock

_log = logging.getLogger("migscaler.nvml_server")

# struct ucred: pid, uid, gid (unix(7), SO_PEERCRED); of an accepted socket, those of who connected.
_CREDENTIALS = struct.Struct("3i")
# A daemon has one connection, and a second one while a change takes long; a command has one.
_MOST_WORKERS = 8
# Those hung up while their call hangs end with that call: a daemon leaves one for each GPU and two
# for the node, the daemon after it may leave as many again. With the others they stay below the
# unit's TasksMax=64: one that lives has two tasks, one that was killed its last.
_MOST_LEFT = 32
# Per second after a burst of so many: connections let in, and refusals told in the log.
_CONNECTIONS = 0.5, 30
_REFUSALS_TOLD = 0.2, 10
# A worker whose client has gone ends by itself within a second, else it is killed.
_GRACE_SECONDS = 2.0
# A change under way when the service is stopped may end: 60 s is the client's longest deadline.
_END_SECONDS = 60.0
_HEARTBEAT_MILLISECONDS = 500
# Out of descriptors accept fails at once, and the connection goes on waiting.
_REST_SECONDS = 0.5


@dataclass(slots=True, kw_only=True)
class _Worker:
    """A process that serves one connection; `pidfd` becomes readable when it has ended."""

    pid: int
    pidfd: int
    link: socket.socket
    hung_up_at: float | None = None


def account(name: str) -> int:
    """Return the uid of an account, given by name or number.

    Raises:
        NotFound: there is none of that name.
    """
    if name.isdigit():
        return int(name)
    try:
        return pwd.getpwnam(name).pw_uid
    except KeyError:
        raise NotFound(f"there is no account {name!r} on this machine") from None


class NvmlServer:
    """Serves one account at a Unix socket."""

    def __init__(
        self, served: Served, path: Path, user: str, fork: Callable[[], int] = os.fork
    ) -> None:
        """Listen at `path`, for the account `user` alone; `fork` makes a process, as fork(2).

        The file is for our uid and gid; give the service the account's group.

        Raises:
            AddressTaken: somebody listens there already, or the file can't be made.
        """
        self._served = served
        self._clock: Clock = served.clock
        self._path = path
        self._user = user
        self._fork = fork
        self._listener = _listen(path)
        self._workers: dict[int, _Worker] = {}
        now = self._clock.monotonic()
        self._refused = Bucket(*_REFUSALS_TOLD, now)
        self._connections = Bucket(*_CONNECTIONS, now)
        self._accept_again_at = now
        self._stopping = False

    def run(self) -> int:
        """Serve until SIGTERM or SIGINT, let changes under way end; return the exit code."""
        signal.signal(signal.SIGTERM, self._stop)
        signal.signal(signal.SIGINT, self._stop)
        _log.info("nvml_worker_listening socket=%s user=%s", self._path, self._user)
        notify("READY=1", f"STATUS=serving {self._user} at {self._path}")
        watchdog = watchdog_seconds()
        told = self._clock.monotonic()
        while not self._stopping:
            self._turn(accepting=True)
            now = self._clock.monotonic()
            if watchdog is not None and now - told >= watchdog / 2:
                notify("WATCHDOG=1")
                told = now
        self._end()
        return 0

    def _stop(self, _number: int, _frame: FrameType | None) -> None:
        self._stopping = True

    def _turn(self, *, accepting: bool) -> None:
        """Wait for a client, a hang-up or an end for half a second at most."""
        poller = select.poll()
        accepting = accepting and self._clock.monotonic() >= self._accept_again_at
        if accepting:
            poller.register(self._listener, select.POLLIN)
        for worker in self._workers.values():
            poller.register(worker.pidfd, select.POLLIN)
            if worker.hung_up_at is None:
                poller.register(worker.link, 0)  # hang-up is always reported
        ready = {descriptor for descriptor, _ in poller.poll(_HEARTBEAT_MILLISECONDS)}
        now = self._clock.monotonic()
        for worker in tuple(self._workers.values()):
            if worker.link.fileno() in ready:
                worker.hung_up_at = now
            if worker.hung_up_at is not None and now - worker.hung_up_at > _GRACE_SECONDS:
                _kill(worker)
            if worker.pidfd in ready:
                self._reap(worker)
        if accepting and self._listener.fileno() in ready:
            self._accept()

    def _accept(self) -> None:
        """Take a connection, if it is the account's and there are not too many."""
        try:
            link, _ = self._listener.accept()
        except (BlockingIOError, InterruptedError, ConnectionError):
            return
        except OSError as error:
            self._rest(error)
            return
        found = link.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
        pid, uid, _gid = _CREDENTIALS.unpack(found)
        why = self._why_not(uid)
        if why is not None:
            if self._refused.take(self._clock.monotonic()):
                _log.warning("connection_refused pid=%s uid=%s why=%s", pid, uid, why)
            link.close()
            return
        self._start(Peer(pid=pid, uid=uid), link)

    def _rest(self, error: OSError) -> None:
        """Let nobody in for a moment; those who are in are served on."""
        now = self._clock.monotonic()
        self._accept_again_at = now + _REST_SECONDS
        if self._refused.take(now):
            _log.error("accept_failed error=%s", error.strerror)

    def _why_not(self, uid: int) -> str | None:
        """Say why this uid is not served now, None if it is."""
        try:
            if uid != account(self._user):
                return f"only {self._user} is served"
        except NotFound as error:
            return str(error)
        left = sum(worker.hung_up_at is not None for worker in self._workers.values())
        if len(self._workers) - left >= _MOST_WORKERS:
            return f"{len(self._workers) - left} connections are open"
        if left >= _MOST_LEFT:
            return f"{left} connections were hung up, and their calls have not come back"
        may_enter = self._connections.take(self._clock.monotonic())
        return None if may_enter else "too many connections in a short time"

    def _start(self, peer: Peer, link: socket.socket) -> None:
        """Make a process for the connection; hang up where there is no room for one.

        The others' changes go on then, and the client tries again.
        """
        server = os.getpid()
        pid = -1
        try:
            pid = self._fork()
            if pid == 0:
                self._serve(peer, link, server)
            pidfd = os.pidfd_open(pid)
        except OSError as error:
            _log.error("worker_not_made pid=%s uid=%s why=%s", peer.pid, peer.uid, error.strerror)
            link.close()
            if pid > 0:
                os.kill(pid, signal.SIGKILL)
                os.waitpid(pid, 0)  # it has asked the driver nothing yet
            return
        self._workers[pid] = _Worker(pid=pid, pidfd=pidfd, link=link)
        _log.info("connected pid=%s uid=%s worker=%s", peer.pid, peer.uid, pid)

    def _serve(self, peer: Peer, link: socket.socket, server: int) -> None:
        """Be the process for a connection, to its end."""
        code = 1
        try:
            self._listener.close()
            for other in self._workers.values():
                other.link.close()
                os.close(other.pidfd)
            serve_peer(self._served, peer, link.detach(), server)
            code = 0
        except BaseException:  # noqa: BLE001 - a process of its own: nobody is above to catch it
            _log.exception("worker_failed pid=%s", os.getpid())
        finally:
            os._exit(code)

    def _reap(self, worker: _Worker) -> None:
        """Forget a process that has ended; only now does its client see the end of the stream."""
        with suppress(ChildProcessError):
            os.waitpid(worker.pid, 0)
        os.close(worker.pidfd)
        worker.link.close()
        del self._workers[worker.pid]

    def _end(self) -> None:
        """Take no more requests, wait for those under way."""
        notify("STOPPING=1", f"EXTEND_TIMEOUT_USEC={int(_END_SECONDS * 1e6)}")
        self._listener.close()
        with suppress(OSError):
            self._path.unlink()
        for worker in self._workers.values():
            with suppress(OSError):
                worker.link.shutdown(socket.SHUT_RD)
        end = self._clock.monotonic() + _END_SECONDS
        while self._workers and self._clock.monotonic() < end:
            self._turn(accepting=False)
        for worker in self._workers.values():
            _log.error("worker_left pid=%s why=%s", worker.pid, "its call does not come back")
            _kill(worker)


def _kill(worker: _Worker) -> None:
    with suppress(ProcessLookupError):
        os.kill(worker.pid, signal.SIGKILL)


def _listen(path: Path) -> socket.socket:
    """Return a socket that listens at a path, in the place of a dead one's file."""
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    before = os.umask(0o117)  # for the account's group, nobody else
    try:
        if path.exists() and stat.S_ISSOCK(path.lstat().st_mode):
            _refuse_if_alive(path)
            path.unlink()
        listener.bind(str(path))
        listener.listen(_MOST_WORKERS)
        listener.setblocking(False)
    except OSError as error:
        listener.close()
        raise AddressTaken(f"can't listen at {path}: {error.strerror}") from error
    except AddressTaken:
        listener.close()
        raise
    finally:
        os.umask(before)
    return listener


def _refuse_if_alive(path: Path) -> None:
    """Refuse a path where somebody listens, also who is too busy to answer.

    Raises:
        AddressTaken: somebody does.
    """
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as asking:
        asking.setblocking(False)
        with suppress(BlockingIOError):  # more clients wait than it has room for
            try:
                asking.connect(str(path))
            except ConnectionRefusedError:
                return
    raise AddressTaken(f"somebody listens at {path} already")
