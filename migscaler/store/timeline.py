"""Times in the file are moved with the node's clock when that is stepped.

What was promised for eight hours lasts eight hours: deadlines are compared with the wall clock, so
that a clock set to next year would end every hold at once, and one set back would keep demand for a
year. The file knows what the wall clock showed at one moment of which boot; seconds since boot pass
evenly for all processes of a boot, so each of them sees by how much the clock was stepped since,
and the first one that writes moves every deadline by as much (decision 0018).

Across boots nobody can tell how long the node was off: a clock that is ahead at the boot (a
hardware clock kept in local time) is set right only minutes later. What keeps changes back counts
the seconds of the new boot alone, so it lasts longer by the time off, and ends early by no clock
(decision 0021). Demand goes by the wall clock: it may end early, and an old number makes nothing.
The wall clock never runs backwards: one behind the last one written (a board without battery)
counts as standing still.
"""

import json
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta

from migscaler.errors import StoreError
from migscaler.model.ports import Clock, one_moment
from migscaler.store.database import Database
from migscaler.store.text import decodes, parse_time, some_time, time_text

# A clock is slewed by at most 500 ppm; what is further off than this was stepped.
TOLERATED = timedelta(seconds=2)
# How often the file is told what the clock shows, if it is written at all.
_TOLD_EVERY_SECONDS = 60.0
# Budgets look back a day; older plans keep the times at which they ran.
_RECENT = timedelta(days=2)
_PUT = "INSERT OR REPLACE INTO standing (name, value) VALUES (?, ?)"
# Table, condition, and the columns that are compared with the clock or shown as an age.
_COLUMNS: tuple[tuple[str, tuple[str, ...]], ...] = (
    ("holds", ("expires_at", "created_at")),
    ("lease_waits", ("since", "expires_at")),
    (
        "gpu_histories",
        ("last_change_at", "rest_until", "breaker_open_until", "held_by_client_until"),
    ),
    ("plans", ("begun_at", "ended_at")),
)
_JSON: tuple[tuple[str, str, tuple[str, ...]], ...] = (
    ("pushed", "reading", ("true_at", "expires_at")),
    ("standing WHERE name = 'pause'", "value", ("since", "until")),
)
# The ends of what keeps changes back.
_ENDS: tuple[tuple[str, tuple[str, ...]], ...] = (
    ("holds", ("expires_at",)),
    ("gpu_histories", ("rest_until", "breaker_open_until", "held_by_client_until")),
)
_JSON_ENDS: tuple[tuple[str, str, tuple[str, ...]], ...] = (
    ("standing WHERE name = 'pause'", "value", ("until",)),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Anchor:
    """What the wall clock showed at a moment of a boot."""

    boot_id: str | None
    wall: datetime
    boot_seconds: float

    def step_until(self, later: "Anchor") -> timedelta:
        """Return by how much the wall clock was stepped between two moments of a boot."""
        passed = timedelta(seconds=later.boot_seconds - self.boot_seconds)
        return later.wall - self.wall - passed


class Timeline:
    """The clock of the file; one per connection."""

    def __init__(self, database: Database, clock: Clock, boot_id: str | None) -> None:
        """Know nothing of the clock yet; without a boot id only steps of one process are seen."""
        self._db = database
        self._clock = clock
        self._boot_id = boot_id
        self._last: Anchor | None = None

    @contextmanager
    def write(self) -> Iterator[tuple[sqlite3.Connection, datetime]]:
        """Run one durable write transaction; gives it the time, to which all deadlines are kept.

        Raises:
            StoreError: it is not written.
        """
        with self._db.write() as connection:
            now = self._keep(connection)
            yield connection, now.wall
        # Not before it is durable: on a full disk COMMIT fails, the deadlines are where they were.
        self._last = now

    def _keep(self, connection: sqlite3.Connection) -> Anchor:
        """Return what the clock shows, after moving the deadlines if it was stepped.

        Before anything in the transaction is compared with the time.
        """
        now = self._look()
        known = self._told(connection)
        step, unsure = self._step(known, now), self._unsure(known, now)
        if abs(step) > TOLERATED:
            _move(connection, step, now.wall - step)
        if unsure > TOLERATED:
            _prolong(connection, unsure)
        age = None if known is None else now.boot_seconds - known.boot_seconds
        is_even = abs(step) <= TOLERATED and unsure <= TOLERATED
        if not is_even or self._last is None or age is None or age > _TOLD_EVERY_SECONDS:
            value = {"boot_id": now.boot_id, "wall": time_text(now.wall), "at": now.boot_seconds}
            connection.execute(_PUT, ("clock", json.dumps(value)))
        return now

    def now(self) -> datetime:
        """Return the time to compare deadlines with that are read.

        That is the wall clock, the deadlines being moved first where that is due; where they can't
        be (a full disk, a read-only connection), what the wall clock would show without the step
        and without the time off.
        """
        now = self._look()
        if self._last is not None and abs(self._last.step_until(now)) <= TOLERATED:
            return now.wall
        try:
            with self.write() as (_connection, moment):
                return moment
        except StoreError:
            known = self._known()
            return now.wall - self._step(known, now) - self._unsure(known, now)

    def ahead(self) -> timedelta:
        """Return by how much the wall clock is ahead of the deadlines in the file.

        Nothing where they could be moved; else what is read has to be shown, and compared with the
        clock, that much later.
        """
        before, shown, after = self._clock.now(), self.now(), self._clock.now()
        # A process that is paused in between must not show a hold as ending that much earlier.
        is_even = before - TOLERATED <= shown <= after + TOLERATED
        return timedelta() if is_even else after - shown

    def _look(self) -> Anchor:
        """Return both clocks of one moment."""
        wall, seconds = one_moment(self._clock)
        return Anchor(boot_id=self._boot_id, wall=wall, boot_seconds=seconds)

    def _step(self, known: Anchor | None, now: Anchor) -> timedelta:
        """Return by how much deadlines lag behind the clock."""
        none = timedelta()
        if known is None:
            return none
        if self._boot_id is None:
            return none if self._last is None else known.step_until(now)
        if known.boot_id == now.boot_id:
            return known.step_until(now)
        return min(now.wall - known.wall, none)

    def _unsure(self, known: Anchor | None, now: Anchor) -> timedelta:
        """Return how much of the time since the last boot nothing but the wall clock tells of.

        More than its own seconds may have passed since this boot began, but by the wall clock alone
        a hold of hours would end minutes after a boot with a clock that is ahead.
        """
        none = timedelta()
        if known is None or self._boot_id is None or known.boot_id == now.boot_id:
            return none
        return max(now.wall - known.wall - timedelta(seconds=now.boot_seconds), none)

    def _known(self) -> Anchor | None:
        """Return what the file says of the clock, as far as it can be read."""
        try:
            rows = self._db.rows("SELECT value FROM standing WHERE name = 'clock'")
        except StoreError:
            return self._last
        return _anchor(rows[0]["value"]) if rows else None

    @staticmethod
    def _told(connection: sqlite3.Connection) -> Anchor | None:
        """Return what the file says of the clock, inside a transaction."""
        row = connection.execute("SELECT value FROM standing WHERE name = 'clock'").fetchone()
        return None if row is None else _anchor(row["value"])


def _anchor(text: str) -> Anchor | None:
    """Decode an anchor; None for one that makes no sense: it is written anew."""
    try:
        value = json.loads(text)
        return Anchor(
            boot_id=value["boot_id"],
            wall=some_time(value["wall"]),
            boot_seconds=float(value["at"]),
        )
    except (ValueError, TypeError, KeyError):
        return None


def _move(connection: sqlite3.Connection, step: timedelta, before: datetime) -> None:
    """Move every deadline by a step; `before` is what the clock would show without it."""
    for table, columns in _COLUMNS:
        since = None
        if table == "plans":
            # A clock set back by a week must not find a week's plans ahead of it: they would count
            # as the last day's until it gets there.
            since = min(before - _RECENT, before + step)
        _move_rows(connection, table, columns, step, since)
    for table, column, keys in _JSON:
        _move_json(connection, table, column, keys, step)


def _prolong(connection: sqlite3.Connection, by: timedelta) -> None:
    """Let everything that keeps changes back end later."""
    for table, columns in _ENDS:
        _move_rows(connection, table, columns, by)
    for table, column, keys in _JSON_ENDS:
        _move_json(connection, table, column, keys, by)


def _move_rows(
    connection: sqlite3.Connection,
    table: str,
    columns: tuple[str, ...],
    step: timedelta,
    since: datetime | None = None,
) -> None:
    """Move times of a table, of plans only those begun `since` then."""
    named, changed = ", ".join(columns), ", ".join(f"{column} = ?" for column in columns)
    recent = "" if since is None else " WHERE begun_at >= ?"
    values = () if since is None else (time_text(since),)
    query = f"SELECT rowid AS number, {named} FROM {table}{recent}"  # noqa: S608 (constants)
    for row in connection.execute(query, values).fetchall():
        connection.execute(
            f"UPDATE {table} SET {changed} WHERE rowid = ?",  # noqa: S608 (constants)
            (*(moved(row[column], step) for column in columns), row["number"]),
        )


def _move_json(
    connection: sqlite3.Connection, table: str, column: str, keys: tuple[str, ...], step: timedelta
) -> None:
    """Move times in the records of a table's column."""
    query = f"SELECT rowid AS number, {column} FROM {table}"  # noqa: S608 (constants)
    for row in connection.execute(query).fetchall():
        connection.execute(
            f"UPDATE {table.split()[0]} SET {column} = ? WHERE rowid = ?",  # noqa: S608
            (_moved_json((row[column], keys, step)), row["number"]),
        )


@decodes
def _moved_json(given: tuple[str, tuple[str, ...], timedelta]) -> str:
    """Return a record with some of its times moved by a step."""
    text, keys, step = given
    value = json.loads(text)
    return json.dumps(value | {key: moved(value[key], step) for key in keys})


def moved(text: str | None, step: timedelta) -> str | None:
    """Return a time of the file moved by a step; one beyond the calendar stays where it was."""
    return time_text(later(parse_time(text), step))


def later(moment: datetime | None, by: timedelta) -> datetime | None:
    """Return a moment that much later; one beyond the calendar stays where it was."""
    try:
        return None if moment is None else moment + by
    except OverflowError:
        return moment
