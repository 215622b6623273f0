"""What stands until somebody changes it: pause, pushed demand, the last good configuration."""

import json
import sqlite3
from dataclasses import replace
from datetime import datetime

from migscaler.errors import StoreError
from migscaler.model.decision import PauseRecord
from migscaler.model.demand import Counts, Reading, Want
from migscaler.store.concern import Concern
from migscaler.store.records import GoodConfig
from migscaler.store.text import decodes, parse_time, some_time, time_text
from migscaler.store.timeline import later

_PUT = "INSERT OR REPLACE INTO standing (name, value) VALUES (?, ?)"


class Standing(Concern):
    """Small values by name; every write is durable when it returns."""

    def write_pause(self, pause: PauseRecord | None) -> None:
        """Pause acting, or resume with None; it survives restarts.

        Raises:
            StoreError: it is not written.
        """
        if pause is None:
            self._change("DELETE FROM standing WHERE name = 'pause'")
            return
        value = {
            "who": pause.who,
            "why": pause.why,
            "since": time_text(pause.since),
            "until": time_text(pause.until),
            "driver_released": pause.driver_released,
        }
        self._change(_PUT, ("pause", json.dumps(value)))

    def pause(self) -> PauseRecord | None:
        """Return the pause in force now, None without one or when its time is over.

        Raises:
            StoreError: the file can't be read.
        """
        now, ahead = self._timeline.now(), self._timeline.ahead()
        rows = self._db.rows("SELECT value FROM standing WHERE name = 'pause'")
        pause = _current(_pause(rows[0]["value"]), now) if rows else None
        return None if pause is None else replace(pause, until=later(pause.until, ahead))

    def write_good_config(self, text: str, sha256: str) -> None:
        """Keep a configuration that loaded without error.

        Raises:
            StoreError: it is not written.
        """
        at = time_text(self._clock.now())
        self._change(_PUT, ("config", json.dumps({"text": text, "sha256": sha256, "at": at})))

    def good_config(self) -> GoodConfig | None:
        """Return the last configuration that loaded, None if there never was one.

        Raises:
            StoreError: the file can't be read.
        """
        rows = self._db.rows("SELECT value FROM standing WHERE name = 'config'")
        if not rows:
            return None
        return _config(rows[0]["value"])

    def push(self, source: str, reading: Reading) -> None:
        """Keep a pushed reading; it replaces the one before.

        Raises:
            StoreError: it is not written.
        """
        value = {
            "counts": reading.counts.value,
            "true_at": time_text(reading.true_at),
            "expires_at": time_text(reading.expires_at),
            "wants": [[want.size, want.count] for want in reading.wants],
            "absent_is_zero": reading.absent_is_zero,
            "overrides": reading.overrides,
        }
        self._change(
            "INSERT INTO pushed (source, reading) VALUES (?, ?)"
            " ON CONFLICT (source) DO UPDATE SET reading = excluded.reading",
            (source, json.dumps(value)),
        )

    def pushed(self, source: str) -> Reading | None:
        """Return the last reading pushed to a source, expired or not, None without one.

        Raises:
            StoreError: the file can't be read.
        """
        self._timeline.now()
        rows = self._db.rows("SELECT reading FROM pushed WHERE source = ?", (source,))
        return _reading(rows[0]["reading"]) if rows else None

    def all_pushed(self) -> tuple[tuple[str, Reading], ...]:
        """Return every pushed reading with its source, by source name.

        Raises:
            StoreError: the file can't be read.
        """
        self._timeline.now()
        rows = self._db.rows("SELECT source, reading FROM pushed ORDER BY source")
        return tuple((row["source"], _reading(row["reading"])) for row in rows)

    def clear_pushed(self, source: str) -> bool:
        """Forget what was pushed to a source; False if nothing was.

        Raises:
            StoreError: it is not written.
        """
        return bool(self._change("DELETE FROM pushed WHERE source = ?", (source,)))

    def check_writable(self) -> str | None:
        """Write for the sake of writing: None if it worked, else why changes must stop."""
        try:
            self._change(_PUT, ("probe", time_text(self._clock.now()) or ""))
        except StoreError as problem:
            return str(problem)
        return None


def pause_in(connection: sqlite3.Connection, now: datetime) -> PauseRecord | None:
    """Return the pause in force, read inside a transaction."""
    row = connection.execute("SELECT value FROM standing WHERE name = 'pause'").fetchone()
    return None if row is None else _current(_pause(row["value"]), now)


def _current(pause: PauseRecord, now: datetime) -> PauseRecord | None:
    """Return a pause, None when its time is over."""
    return None if pause.until is not None and pause.until <= now else pause


@decodes
def _pause(text: str) -> PauseRecord:
    """Decode a pause."""
    value = json.loads(text)
    return PauseRecord(
        who=value["who"],
        why=value["why"],
        since=some_time(value["since"]),
        until=parse_time(value["until"]),
        driver_released=value["driver_released"],
    )


@decodes
def _config(text: str) -> GoodConfig:
    """Decode a configuration."""
    value = json.loads(text)
    return GoodConfig(text=value["text"], sha256=value["sha256"], at=some_time(value["at"]))


@decodes
def _reading(text: str) -> Reading:
    """Decode a pushed reading."""
    value = json.loads(text)
    return Reading(
        counts=Counts(value["counts"]),
        true_at=some_time(value["true_at"]),
        expires_at=some_time(value["expires_at"]),
        wants=tuple(Want(size=size, count=count) for size, count in value["wants"]),
        absent_is_zero=value["absent_is_zero"],
        overrides=value["overrides"],
    )
