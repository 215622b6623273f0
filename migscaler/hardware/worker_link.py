"""The asking side of a connection to an NVML worker, whoever started it."""

import select
import socket
import struct
from dataclasses import replace
from multiprocessing.connection import Connection
from typing import Protocol

from migscaler import __version__
from migscaler.errors import DeadlineExceeded, HardwareError
from migscaler.hardware.roll_call import GpuAnswer
from migscaler.hardware.worker_commands import encode_request
from migscaler.hardware.worker_messages import Reply, Request, SameModel, Setup
from migscaler.hardware.worker_wire import UnreadableAnswer, receive, send
from migscaler.model.ids import GpuUuid
from migscaler.model.layout import GpuModel

# struct timeval, which SO_RCVTIMEO takes (socket(7)). An answer of 8 x 7 instances has 14 kB; what
# the deadline of a request waits for is its first byte.
_TIMEVAL = struct.Struct("ll")
_REST_SECONDS = 5.0


class Worker(Protocol):
    """A worker from start to end, however it ends. Used from one thread at a time."""

    @property
    def pid(self) -> int:
        """Return its process id."""

    @property
    def inherited(self) -> tuple[int, ...]:
        """Return the descriptors of ours that it keeps open."""

    def ask(self, request: Request, seconds: float) -> Reply:
        """Return the answer to a request.

        Raises:
            DeadlineExceeded: none came in time; the worker is of no more use.
            ConnectionError: the process ended; the worker is of no more use.
        """

    def has_ended(self) -> bool:
        """Say whether it ended by itself since the last answer."""

    def abandon(self) -> None:
        """Give up on it without waiting: a process inside a hung driver call can't be killed."""

    def stop(self, seconds: float) -> None:
        """Let it close NVML and end; end it by force when it takes longer."""

    def is_gone(self, seconds: float) -> bool:
        """Say whether nothing is left of it, after waiting for that so long."""


class Link:
    """Requests go as checked JSON, answers come pickled: the worker is trusted, we need not be."""

    def __init__(self, link: socket.socket, rest_seconds: float = _REST_SECONDS) -> None:
        """Take over a connected socket; an answer that has begun may pause for `rest_seconds`."""
        whole = int(rest_seconds)
        pause = _TIMEVAL.pack(whole, int((rest_seconds - whole) * 1e6))
        link.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, pause)
        self._models: dict[GpuUuid, GpuModel | None] = {}
        self._connection = Connection(link.detach())
        # Connection.poll makes a selector each time it is asked.
        self._poller = select.poll()
        self._poller.register(self._connection, select.POLLIN)

    def set_up(self, setup: Setup) -> None:
        """Give our own child what it needs.

        Raises:
            ConnectionError: it has ended.
        """
        try:
            send(self._connection, setup)
        except OSError as error:
            raise ConnectionError("the NVML worker ended during start") from error

    def greeting(self, seconds: float) -> int:
        """Wait until the worker is ready; return its process id.

        Answers cross field by field, so another version's would be taken for something else. One is
        at work after an upgrade until the service is restarted, or this process.

        Raises:
            DeadlineExceeded: it is not ready in time.
            ConnectionError: it ended while setting up.
            HardwareError: it is of another version.
        """
        theirs = "another version"
        match self._answer("start", seconds).value:
            case (int() as pid, str() as version):
                if version == __version__:
                    return pid
                theirs = version
            case _:
                pass
        raise HardwareError(
            f"the NVML worker is {theirs}, this process {__version__}: "
            "restart both services of migscaler (one, if there is one)"
        )

    def ask(self, request: Request, seconds: float) -> Reply:
        """Return the answer to a request.

        Raises:
            DeadlineExceeded: none came in time.
            ConnectionError: the other end has gone.
        """
        try:
            self._connection.send_bytes(encode_request(request))
        except OSError as error:
            raise ConnectionError(f"the NVML worker ended during {request.name}") from error
        reply = self._answer(request.name, seconds)
        match reply.value:
            case GpuAnswer(reading=reading):
                self._models[reading.uuid] = reading.model
            case SameModel(answer=answer):
                return replace(reply, value=self._completed(answer))
            case _:
                pass
        return reply

    def has_ended(self) -> bool:
        """Say whether the other end has gone; between requests nothing else can be there."""
        return bool(self._poller.poll(0))

    def finish(self, seconds: float) -> bool:
        """Say that no more requests come, and whether the other end has gone in time."""
        with socket.socket(fileno=self._connection.fileno()) as link:
            try:
                link.shutdown(socket.SHUT_WR)
            except OSError:
                return True
            finally:
                link.detach()
        return bool(self._poller.poll(seconds * 1_000))

    def close(self) -> None:
        """Hang up."""
        self._connection.close()

    def _completed(self, answer: GpuAnswer) -> GpuAnswer:
        """Put the model back that the worker has sent before."""
        model = self._models.get(answer.reading.uuid)
        return replace(answer, reading=replace(answer.reading, model=model))

    def _answer(self, name: str, seconds: float) -> Reply:
        try:
            if not self._poller.poll(seconds * 1_000):
                raise DeadlineExceeded(name, seconds)
            reply = receive(self._connection)
        except (EOFError, OSError) as error:
            raise ConnectionError(f"the NVML worker ended during {name}") from error
        except UnreadableAnswer as error:
            raise ConnectionError(
                f"the NVML worker's answer to {name} can't be read ({error})"
            ) from error
        if not isinstance(reply, Reply):
            raise ConnectionError(f"the NVML worker answered nonsense to {name}")
        return reply
