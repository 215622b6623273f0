"""What every part of the store has: the file, and the clock that stamps its rows."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime
from sqlite3 import Connection

from migscaler.model.ports import Clock
from migscaler.store.database import Database, Value
from migscaler.store.timeline import Timeline


class Concern:
    """One subject of the store over the shared connection."""

    def __init__(self, database: Database, clock: Clock, boot_id: str | None = None) -> None:
        """Keep the connection; tables are there since it was opened.

        `boot_id` is the kernel's, for which `clock` counts seconds: with it a step of the clock is
        noticed also between two processes.
        """
        self._db = database
        self._clock = clock
        self._timeline = Timeline(database, clock, boot_id)

    @contextmanager
    def _write(self) -> Iterator[tuple[Connection, datetime]]:
        """Run one durable write transaction; gives it the time, to which all deadlines are kept.

        Raises:
            StoreError: it is not written.
        """
        with self._timeline.write() as opened:
            yield opened

    def _change(self, sql: str, values: Sequence[Value] = ()) -> int:
        """Run one statement durably and return how many rows it changed.

        Raises:
            StoreError: it is not written.
        """
        with self._write() as (connection, _now):
            return connection.execute(sql, values).rowcount
