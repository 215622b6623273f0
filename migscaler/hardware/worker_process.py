"""One child process for NVML, from start to end, however it ends."""

import os
import socket
import subprocess
import sys

from migscaler.errors import HardwareError
from migscaler.hardware.worker_link import Link
from migscaler.hardware.worker_messages import Reply, Request, Setup

_MODULE = "migscaler.hardware.worker_child"


class WorkerProcess:
    """A started child (see `worker_link.Worker`). Used from one thread at a time.

    A plain child, not one of multiprocessing: that would import the parent's main module into it,
    and with it everything the worker must not carry.
    """

    def __init__(self, setup: Setup, start_seconds: float, inherited: tuple[int, ...] = ()) -> None:
        """Start it and wait until it is ready; it keeps the descriptors `inherited` open.

        Raises:
            DeadlineExceeded: it is not ready in time.
            ConnectionError: it ended while setting up.
            HardwareError: the machine has no room for another process, or the program was replaced
                by another version since this process began.
        """
        try:
            self._process, link = _start(inherited)
        except OSError as error:
            # Out of descriptors, of tasks or of memory: no GPU's fault, so none is left alone.
            why = error.strerror or error
            raise HardwareError(f"the NVML worker can't be started: {why}") from error
        self._link = Link(link)
        self._inherited = inherited
        try:
            self._link.set_up(setup)
            self._link.greeting(start_seconds)
        except (HardwareError, ConnectionError):
            self.abandon()
            raise

    @property
    def pid(self) -> int:
        """Return the process id."""
        return self._process.pid

    @property
    def inherited(self) -> tuple[int, ...]:
        """Return the descriptors of ours that it keeps open."""
        return self._inherited

    def ask(self, request: Request, seconds: float) -> Reply:
        """Return the answer to a request, as `Worker.ask`."""
        return self._link.ask(request, seconds)

    def has_ended(self) -> bool:
        """Say whether it ended by itself since the last answer."""
        return self._link.has_ended()

    def abandon(self) -> None:
        """Kill it and don't wait: a process inside a hung driver call can't be killed."""
        self._link.close()
        self._process.kill()
        self.is_gone(0.0)

    def stop(self, seconds: float) -> None:
        """Let it close NVML and end; kill it when it takes longer."""
        self._link.close()
        if not self.is_gone(seconds):
            self._process.kill()
            self.is_gone(seconds)

    def is_gone(self, seconds: float) -> bool:
        """Say whether the process has ended, after waiting for it that long; reaps it."""
        try:
            self._process.wait(seconds)
        except subprocess.TimeoutExpired:
            return False
        return True


def _start(inherited: tuple[int, ...]) -> tuple[subprocess.Popen[bytes], socket.socket]:
    """Return a new child and our end of the connection to it.

    Raises:
        OSError: there is none.
    """
    ours, theirs = socket.socketpair()
    with theirs:
        try:
            process = subprocess.Popen(
                [sys.executable, "-P", "-m", _MODULE, str(theirs.fileno())],
                pass_fds=(theirs.fileno(), *inherited),
                stdin=subprocess.DEVNULL,
                start_new_session=True,
                env={
                    **os.environ,
                    "PYTHONPATH": os.pathsep.join(p or os.getcwd() for p in sys.path),
                },
            )
        except OSError:
            ours.close()
            raise
    return process, ours
