"""What is known across worker processes: who is left alone, who was given up on, which calls."""

import threading

from migscaler.errors import HardwareError
from migscaler.hardware.call_counter import CallCounter
from migscaler.hardware.exclusions import Exclusions
from migscaler.hardware.worker_link import Worker
from migscaler.model.stats import CallStats


class WorkerRecords:
    """Shared by the lanes. Safe for several threads; nothing here waits for a process."""

    def __init__(self, exclusions: Exclusions) -> None:
        self._mutex = threading.Lock()
        self._exclusions = exclusions
        self._counter = CallCounter()
        self._restarts = 0
        self._released = False
        self._given_up: dict[str, tuple[Worker, ...]] = {}
        self._gone_for: set[str] = set()

    def admit(self, key: str) -> None:
        """Refuse what is left alone for now, and everything while the driver is released.

        Also what a process given up on over it is still inside of: one in a driver call is not
        ended by SIGKILL before the call returns. That call may be a change which comes through yet;
        and each request more would leave one process more, until there is room for none.

        Raises:
            HardwareError: any of these.
        """
        with self._mutex:
            if self._released:
                raise HardwareError("the driver is released; `migscaler resume` takes it up again")
            self._exclusions.check(key)
            self._refuse_if_haunted(key)

    def release(self, *, released: bool) -> None:
        """Refuse requests from now on, or no longer."""
        with self._mutex:
            self._released = released

    def answered(self, key: str) -> None:
        """Note that asking about `key` came back."""
        with self._mutex:
            self._exclusions.clear(key)
            self._gone_for.discard(key)

    def leave_alone(
        self, key: str, why: str, first: float | None = None, longest: float | None = None
    ) -> None:
        """Have `key` left alone for a while, the first time and at most for so many seconds."""
        with self._mutex:
            self._exclusions.add(key, why, first, longest)

    def missed_driver(self, key: str) -> bool:
        """Note that the driver had gone for `key`; say whether that is the second time running."""
        with self._mutex:
            if key in self._gone_for:
                return True
            self._gone_for.add(key)
            return False

    def note_replaced(self, key: str | None = None, process: Worker | None = None) -> None:
        """Count a process that is no longer asked, and remember over which GPU it was given up."""
        with self._mutex:
            self._restarts += 1
            if key is not None and process is not None:
                # A GPU that hangs for weeks is perhaps never changed: who has ended is let go here.
                self._given_up[key] = (*self._still_there(key), process)

    def _refuse_if_haunted(self, key: str) -> None:
        left = self._still_there(key)
        if left:
            self._given_up[key] = left
            raise HardwareError(
                f"process {left[0].pid}, given up on when last asked, has not ended: "
                "its call may still come through"
            )

    def _still_there(self, key: str) -> tuple[Worker, ...]:
        """Take out who was given up on over `key`, and return those that have not ended."""
        return tuple(old for old in self._given_up.pop(key, ()) if not old.is_gone(0.0))

    def count(self, stats: CallStats) -> None:
        """Add the calls that an answer took."""
        with self._mutex:
            self._counter.add(stats)

    def stats(self) -> CallStats:
        """Return the counts of all processes so far."""
        with self._mutex:
            return self._counter.stats(worker_restarts=self._restarts)
