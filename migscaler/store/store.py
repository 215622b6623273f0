"""The node's state file as one object: all its concerns over one connection."""

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path

from migscaler.model.ports import Clock
from migscaler.store.database import open_database
from migscaler.store.decisions import Decisions
from migscaler.store.holds import Holds
from migscaler.store.journal import Journal
from migscaler.store.memory import GpuMemory
from migscaler.store.standing import Standing


class Store(Journal, Holds, Decisions, GpuMemory, Standing):
    """Everything that outlives the process; safe for use by several threads and processes."""

    @classmethod
    def open(
        cls,
        path: Path | None,
        clock: Clock,
        *,
        read_only: bool = False,
        boot_id: str | None = None,
    ) -> "Store":
        """Open the state file, make it if it is new; None keeps everything in memory.

        With the kernel's `boot_id` a step of the clock since the file was last written is noticed.

        Cost: about 5 ms for a new file; opening checks every page.

        Raises:
            StoreDamaged: corrupt, foreign, or from a newer version; the file is left as it is.
            StoreUnwritable: it can't be opened or written.
            NotFound: `read_only` and there is no file.
        """
        store = cls(open_database(path, clock, read_only=read_only), clock, boot_id)
        store._timeline.now()
        return store

    @property
    def path(self) -> Path | None:
        """Return where the file lies, None in memory."""
        return self._db.path

    def read_all(self) -> None:
        """Read whatever a start or a tick would read, for the sake of reading.

        Raises:
            StoreError: something is missing or makes no sense.
        """
        now = self._clock.now()
        for read in (self.holds, self.lease_waits):
            read(now)
        for about in (self.open_plans, self.gpu_histories, self.generations, self.wanted):
            about()
        for standing in (self.all_pushed, self.pause, self.good_config):
            standing()

    def prune(self, now: datetime) -> None:
        """Remove what expired and what retention gives up; housekeeping calls it, about hourly.

        Raises:
            StoreError: the file can't be written.
        """
        self.prune_holds(now)
        self.prune_plans(now)
        self.prune_decisions()

    def close(self) -> None:
        """Close the file; everything was durable already."""
        self._db.close()


@contextmanager
def opened(
    path: Path | None, clock: Clock, *, read_only: bool = False, boot_id: str | None = None
) -> Iterator[Store]:
    """Open the store for one block (commands).

    Raises:
        StoreError: as `Store.open`.
        NotFound: as `Store.open`.
    """
    store = Store.open(path, clock, read_only=read_only, boot_id=boot_id)
    try:
        yield store
    finally:
        store.close()
