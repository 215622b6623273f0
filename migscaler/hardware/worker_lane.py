"""One worker process at a time, which answers requests in turn and is replaced when it fails."""

import threading
from collections.abc import Callable
from typing import NoReturn, TypeVar

from migscaler.errors import DeadlineExceeded, DriverGone, ForeignAnswer, HardwareError
from migscaler.hardware.worker_link import Worker
from migscaler.hardware.worker_messages import Request
from migscaler.hardware.worker_records import WorkerRecords

# A start that failed, or a pass that did not begin, is tried again with the next sample or so, and
# never much later: meanwhile no GPU is read at all.
_START_AGAIN_SECONDS = 5.0
_START_LATEST_SECONDS = 30.0

T = TypeVar("T")


class Lane:
    """Starts a process when it is first asked, and another one after one that was given up on.

    `lock` is held by who asks, for one request or for several. `node_key` stands for what is asked
    about no GPU.
    """

    def __init__(
        self,
        node_key: str,
        records: WorkerRecords,
        start: Callable[[], Worker],
        stop_seconds: float,
    ) -> None:
        """Nothing is started yet; what is to end may take `stop_seconds` for it."""
        self.lock = threading.RLock()
        self.node_key = node_key
        self.process: Worker | None = None
        self._records = records
        self._start = start
        self._stop_seconds = stop_seconds
        self._abandoned: list[Worker] = []

    def ask(self, key: str, name: str, *arguments: object, kind: type[T], seconds: float) -> T:
        """Have something done about `key`; `kind` is what the answer must be.

        Raises:
            DeadlineExceeded: it did not come back in time.
            HardwareError: anything else.
        """
        with self.lock:
            self._records.admit(key)
            process = self._started()
            try:
                reply = process.ask(Request(name=name, arguments=arguments), seconds)
            except DeadlineExceeded as error:
                self._give_up(key, str(error))
                raise
            except ConnectionError as error:
                self._give_up(key, str(error))
                raise HardwareError(str(error)) from error
            self._records.count(reply.stats)
            if isinstance(reply.error, DriverGone):
                self._driver_gone(key, reply.error)
            self._records.answered(key)
            if reply.error is not None:
                raise reply.error
            if not isinstance(reply.value, kind):
                raise ForeignAnswer(f"{name} answered {type(reply.value).__name__}")
            return reply.value

    def ready(self) -> None:
        """Have a process that can be asked, so that the next request takes no longer for its start.

        Raises:
            HardwareError: there is none.
        """
        with self.lock:
            self._started()

    def stop(self) -> None:
        """Let the process close NVML and end."""
        with self.lock:
            process, self.process = self.process, None
            if process is not None:
                process.stop(self._stop_seconds)
                self._abandoned.append(process)
                self.reap(0.0)

    def reap(self, seconds: float) -> None:
        """Wait that long for each process given up on."""
        with self.lock:
            self._abandoned = [old for old in self._abandoned if not old.is_gone(seconds)]

    def _driver_gone(self, key: str, error: DriverGone) -> NoReturn:
        """End the worker: a library loaded for another driver stays wrong while its process lives.

        Asked once more by another worker, a GPU that answers so again is the only one concerned:
        NVML as a whole began the pass. It is left alone then, or it would blind the others.
        """
        self.stop()
        self._records.note_replaced()
        if self._records.missed_driver(key) and key != self.node_key:
            self._records.leave_alone(key, str(error))
            raise HardwareError(str(error)) from error
        raise error

    def _started(self) -> Worker:
        """Return the worker, started if there is none.

        One that ended between two requests (its service was restarted, the kernel was short of
        memory) is replaced: that is no GPU's fault. Nor is a start that fails, as on a machine
        short of memory; whoever was to be asked waits for the next one, as all others do.

        Raises:
            HardwareError: it can't be started.
        """
        self.reap(0.0)
        if self.process is not None and self.process.has_ended():
            self._abandon(None)
        if self.process is None:
            self.process = self._new()
        return self.process

    def _new(self) -> Worker:
        key = f"start of {self.node_key}"
        self._records.admit(key)
        try:
            process = self._start()
        except (DeadlineExceeded, ConnectionError) as error:
            self._records.leave_alone(
                key, str(error), first=_START_AGAIN_SECONDS, longest=_START_LATEST_SECONDS
            )
            self._records.note_replaced()
            if isinstance(error, HardwareError):
                raise
            raise HardwareError(str(error)) from error
        self._records.answered(key)
        return process

    def _give_up(self, key: str, why: str) -> None:
        """Leave `key` alone, and the worker that it took.

        A pass that does not begin costs all GPUs, so it is tried again as soon as a start.
        """
        is_all = key == self.node_key
        first, longest = (_START_AGAIN_SECONDS, _START_LATEST_SECONDS) if is_all else (None, None)
        self._records.leave_alone(key, why, first, longest)
        self._abandon(key)

    def _abandon(self, key: str | None) -> None:
        """Give up on the worker over `key` without waiting for it."""
        process, self.process = self.process, None
        if process is not None:
            process.abandon()
            self._abandoned.append(process)
        self._records.note_replaced(key, process)
