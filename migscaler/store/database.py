"""The SQLite file: opening, bringing up its version, durable transactions, errors in our words.

Durability: a write transaction is on disk when it returns (WAL, `synchronous=FULL`; one fsync
each), as far as the disk tells the truth about its cache. Any number of processes may share the
file.
"""

import os
import sqlite3
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from migscaler.errors import NotFound, StoreDamaged, StoreError, StoreUnwritable
from migscaler.model.ports import Clock
from migscaler.store.schema import MIGRATIONS, VERSION

Row = sqlite3.Row
Value = str | int | float | bytes | None

# How long a transaction waits for another process's, in milliseconds; ours take a few.
_BUSY_MS = 5_000
# SQLite's own 2 MiB fill over hours of small writes, which a daemon's memory then shows as growth.
_CACHE_KIB = 256
_MAGIC = b"SQLite format 3\0"
# Place of `user_version` in the header (SQLite file format, section 1.3).
_VERSION_AT = 60
_DAMAGE_CODES = frozenset({sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_FORMAT})


class Database:
    """One connection shared by the threads of a process under one lock."""

    def __init__(self, connection: sqlite3.Connection, path: Path | None) -> None:
        """Take over an open connection; `open_database` makes them."""
        self._connection = connection
        self._lock = threading.RLock()
        self.path = path

    def rows(self, sql: str, values: Sequence[Value] = ()) -> list[Row]:
        """Return all rows of a query.

        Raises:
            StoreError: the file can't be read.
        """
        with self._lock, translated():
            return self._connection.execute(sql, values).fetchall()

    @contextmanager
    def write(self) -> Iterator[sqlite3.Connection]:
        """Run one write transaction: it sees and excludes all others, and is durable on return.

        Raises:
            StoreUnwritable: the disk is full, read-only, or another process held the lock too long.
            StoreDamaged: the file is corrupt.
        """
        with self._lock, translated():
            self._connection.execute("BEGIN IMMEDIATE")
            try:
                yield self._connection
                self._connection.execute("COMMIT")
            except BaseException:
                # A failed COMMIT may have rolled back by itself.
                if self._connection.in_transaction:
                    self._connection.execute("ROLLBACK")
                raise

    def change(self, sql: str, values: Sequence[Value] = ()) -> int:
        """Run one statement durably and return how many rows it changed.

        Raises:
            StoreError: as `write`.
        """
        with self.write() as connection:
            return connection.execute(sql, values).rowcount

    def close(self) -> None:
        """Close the connection; nothing is lost, all was durable."""
        with self._lock:
            self._connection.close()


@contextmanager
def translated() -> Iterator[None]:
    """Turn SQLite's errors into ours, chained."""
    try:
        yield
    except sqlite3.Error as problem:
        raise store_error(problem) from problem


def store_error(problem: sqlite3.Error) -> StoreError:
    """Return what an SQLite error means to us: damaged, or not writable now."""
    code = getattr(problem, "sqlite_errorcode", 0) & 0xFF
    if code in _DAMAGE_CODES or "malformed" in str(problem):
        return StoreDamaged(f"the state file is damaged: {problem}")
    return StoreUnwritable(f"the state file can't be used now: {problem}")


def open_database(path: Path | None, clock: Clock, *, read_only: bool = False) -> Database:
    """Open the file, make it if it is new, and bring its tables up to this version; None is memory.

    A damaged or newer file is left as it is.

    Raises:
        StoreDamaged: not an SQLite file, corrupt, or from a newer version.
        StoreUnwritable: it can't be opened or written.
        NotFound: `read_only` and there is no file.
    """
    if path is not None:
        _check_header(path, must_exist=read_only)
    with translated():
        connection = _connect(path, read_only=read_only)
        try:
            if not read_only:
                connection.execute("PRAGMA journal_mode = WAL").fetchall()
                connection.execute("PRAGMA synchronous = FULL")
                connection.execute("PRAGMA foreign_keys = ON")
            _check_whole(connection)
            if not read_only:
                _migrate(connection)
        except BaseException:
            connection.close()
            raise
    if path is not None and not read_only:
        _sync_directory(path)
    return Database(connection, path)


def _connect(path: Path | None, *, read_only: bool) -> sqlite3.Connection:
    """Open a connection without touching the file's content."""
    target = (
        ":memory:"
        if path is None
        else f"{path.resolve().as_uri()}?mode=rw{'' if read_only else 'c'}"
    )
    connection = sqlite3.connect(
        target, uri=path is not None, isolation_level=None, check_same_thread=False
    )
    connection.row_factory = sqlite3.Row
    connection.execute(f"PRAGMA busy_timeout = {_BUSY_MS}")
    connection.execute(f"PRAGMA cache_size = -{_CACHE_KIB}")
    if read_only:
        connection.execute("PRAGMA query_only = ON")
    return connection


def _check_header(path: Path, *, must_exist: bool) -> None:
    """Refuse a foreign or newer file by its first bytes, before SQLite could touch it."""
    try:
        with path.open("rb") as file:
            header = file.read(100)
    except FileNotFoundError as problem:
        if must_exist:
            raise NotFound(f"there is no state file {path}") from problem
        return
    except OSError as problem:
        raise StoreUnwritable(f"the state file can't be read: {problem}") from problem
    if header and not header.startswith(_MAGIC):
        raise StoreDamaged(f"{path} is not a state file of migscaler")
    version = int.from_bytes(header[_VERSION_AT : _VERSION_AT + 4], "big")
    if version > VERSION:
        raise _newer(version)


def _check_whole(connection: sqlite3.Connection) -> None:
    """Refuse a newer or corrupt file; the check reads every page (retention keeps them few)."""
    version = int(connection.execute("PRAGMA user_version").fetchone()[0])
    if version > VERSION:
        raise _newer(version)
    answer = connection.execute("PRAGMA quick_check(1)").fetchone()[0]
    if answer != "ok":
        raise StoreDamaged(f"the state file is damaged: {answer}")


def _newer(version: int) -> StoreDamaged:
    """Return the refusal of a newer file."""
    return StoreDamaged(
        f"the state file has version {version}, this program knows {VERSION}; "
        "use the newer program or another state directory"
    )


def _migrate(connection: sqlite3.Connection) -> None:
    """Bring the tables up, all or nothing, also when two processes start at once."""
    connection.execute("BEGIN IMMEDIATE")
    try:
        version = int(connection.execute("PRAGMA user_version").fetchone()[0])
        for script in MIGRATIONS[version:]:
            for statement in script.split(";"):
                if statement.strip():
                    connection.execute(statement)
        if version < VERSION:
            connection.execute(f"PRAGMA user_version = {VERSION}")
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise


def _sync_directory(path: Path) -> None:
    """Make the file's name durable: a new file's entry is lost with power otherwise."""
    try:
        descriptor = os.open(path.resolve().parent, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
    except OSError as problem:
        raise StoreUnwritable(f"the state directory can't be synced: {problem}") from problem
