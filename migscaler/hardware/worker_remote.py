"""One connection to the NVML worker that another account runs, from start to end."""

import errno
import os
import select
import socket
import struct
import threading
from pathlib import Path

from migscaler.errors import DeadlineExceeded, HardwareError
from migscaler.hardware.worker_link import Link
from migscaler.hardware.worker_messages import Reply, Request

# struct ucred: pid, uid, gid (unix(7), SO_PEERCRED); of a connected socket, those of who listens.
_CREDENTIALS = struct.Struct("3i")
_CONNECT_SECONDS = 5.0


class RemoteWorker:
    """A worker process of its own behind a Unix socket (see `worker_link.Worker`).

    Whoever listens makes one process for this connection and ends it with the connection. That it
    has ended is the kernel's word (pidfd_open(2), for which no right is needed): its number may be
    another program's by then, and a call it is inside of may outlast the connection by hours.
    """

    def __init__(self, path: Path, start_seconds: float) -> None:
        """Connect and wait until it is ready.

        Raises:
            HardwareError: nobody listens there, or not somebody to be trusted, or we are refused,
                or it is of another version, or there is no room to watch it.
        """
        try:
            link = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        except OSError as error:
            raise HardwareError(f"the NVML worker can't be asked: {error.strerror}") from error
        try:
            link.settimeout(_CONNECT_SECONDS)
            link.connect(str(path))
            check_listener(link, path, trusted=(0, os.geteuid()))
            link.settimeout(None)
        except OSError as error:
            link.close()
            raise HardwareError(
                f"no NVML worker answers at {path} ({error.strerror or error}); is "
                "`migscaler nvml-worker` running, and may this account reach its socket?"
            ) from error
        except HardwareError:
            link.close()
            raise
        self._link = Link(link)
        try:
            self._pid = self._link.greeting(start_seconds)
        except (DeadlineExceeded, ConnectionError) as error:
            self._link.close()
            raise HardwareError(
                f"the NVML worker at {path} did not take us ({error}); its log says why"
            ) from error
        except HardwareError:
            self._link.close()
            raise
        self._looking = threading.Lock()
        try:
            self._pidfd = _watched(self._pid)
        except OSError as error:
            self._link.close()
            raise HardwareError(f"the NVML worker can't be watched: {error.strerror}") from error

    @property
    def pid(self) -> int:
        """Return the process id, as the worker sees it."""
        return self._pid

    @property
    def inherited(self) -> tuple[int, ...]:
        """Return none: it is not our child."""
        return ()

    def ask(self, request: Request, seconds: float) -> Reply:
        """Return the answer to a request, as `Worker.ask`."""
        return self._link.ask(request, seconds)

    def has_ended(self) -> bool:
        """Say whether it ended by itself since the last answer."""
        return self._link.has_ended()

    def abandon(self) -> None:
        """Hang up; whoever listens there kills the process."""
        self._link.close()

    def stop(self, seconds: float) -> None:
        """Let it close NVML and end, and wait for that; hang up when it takes longer."""
        self._link.finish(seconds)
        self._link.close()

    def is_gone(self, seconds: float) -> bool:
        """Say whether the process has ended, after waiting for it that long.

        From any thread: who asked it and who keeps books of it look on their own.
        """
        with self._looking:
            if self._pidfd is None:
                return True
            poller = select.poll()
            poller.register(self._pidfd, select.POLLIN)
            if not poller.poll(seconds * 1_000):
                return False
            os.close(self._pidfd)
            self._pidfd = None
            return True


def _watched(pid: int) -> int | None:
    """Return what tells the end of a process; None if it has ended, or can't be seen from here.

    Raises:
        OSError: there is no room; taken for ended, its call could come through unnoticed.
    """
    try:
        return os.pidfd_open(pid)
    except OSError as error:
        if error.errno in (errno.EMFILE, errno.ENFILE, errno.ENOMEM):
            raise
        return None


def check_listener(link: socket.socket, path: Path, trusted: tuple[int, ...]) -> None:
    """Refuse a listener whose uid is not trusted: its answers are believed, and unpickled.

    Raises:
        HardwareError: somebody else listens.
    """
    found = link.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
    _pid, uid, _gid = _CREDENTIALS.unpack(found)
    if uid not in trusted:
        raise HardwareError(f"uid {uid} listens at {path}, which is neither root nor this account")
