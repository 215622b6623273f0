"""One child process for NVML, from start to end, however it ends."""

import os
import select
import socket
import subprocess
import sys
from dataclasses import replace
from multiprocessing.connection import Connection

from migscaler.errors import DeadlineExceeded
from migscaler.hardware.roll_call import GpuAnswer
from migscaler.hardware.worker_messages import Reply, Request, SameModel, Setup
from migscaler.hardware.worker_wire import receive, send
from migscaler.model.ids import GpuUuid
from migscaler.model.layout import GpuModel

_MODULE = "migscaler.hardware.worker_child"


class WorkerProcess:
    """A started worker. Used from one thread at a time.

    A plain child, not one of multiprocessing: that would import the parent's main module into it,
    and with it everything the worker must not carry.
    """

    def __init__(self, setup: Setup, start_seconds: float) -> None:
        """Start it and wait until it is ready.

        Raises:
            DeadlineExceeded: it is not ready in time.
            ConnectionError: it ended while setting up.
        """
        ours, theirs = socket.socketpair()
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-P", "-m", _MODULE, str(theirs.fileno())],
                pass_fds=(theirs.fileno(),),
                stdin=subprocess.DEVNULL,
                start_new_session=True,
                env={
                    **os.environ,
                    "PYTHONPATH": os.pathsep.join(p or os.getcwd() for p in sys.path),
                },
            )
        self._models: dict[GpuUuid, GpuModel | None] = {}
        self._connection = Connection(ours.detach())
        # Connection.poll makes a selector each time it is asked.
        self._poller = select.poll()
        self._poller.register(self._connection, select.POLLIN)
        try:
            self._exchange(setup, "start", start_seconds)
        except (DeadlineExceeded, ConnectionError):
            self.abandon()
            raise

    @property
    def pid(self) -> int:
        """Return the process id."""
        return self._process.pid

    def ask(self, request: Request, seconds: float) -> Reply:
        """Return the answer to a request.

        Raises:
            DeadlineExceeded: none came in time; the worker is of no more use.
            ConnectionError: the process ended; the worker is of no more use.
        """
        reply = self._exchange(request, request.name, seconds)
        match reply.value:
            case GpuAnswer(reading=reading):
                self._models[reading.uuid] = reading.model
            case SameModel(answer=answer):
                return replace(reply, value=self._completed(answer))
            case _:
                pass
        return reply

    def _completed(self, answer: GpuAnswer) -> GpuAnswer:
        """Put the model back that the child has sent before."""
        model = self._models.get(answer.reading.uuid)
        return replace(answer, reading=replace(answer.reading, model=model))

    def _exchange(self, message: Setup | Request, name: str, seconds: float) -> Reply:
        try:
            send(self._connection, message)
            if not self._poller.poll(seconds * 1_000):
                raise DeadlineExceeded(name, seconds)
            reply = receive(self._connection)
        except (EOFError, OSError) as error:
            raise ConnectionError(f"the NVML worker ended during {name}") from error
        if not isinstance(reply, Reply):
            raise ConnectionError(f"the NVML worker answered nonsense to {name}")
        return reply

    def abandon(self) -> None:
        """Kill it and don't wait: a process inside a hung driver call can't be killed."""
        self._connection.close()
        self._process.kill()
        self.is_gone(0.0)

    def stop(self, seconds: float) -> None:
        """Let it close NVML and end; kill it when it takes longer."""
        self._connection.close()
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
