"""What is remembered of each GPU: generation, the layout last wanted, past changes."""

import sqlite3
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime

from migscaler.model.decision import GpuHistory
from migscaler.model.ids import GpuUuid
from migscaler.model.layout import Layout
from migscaler.model.plan import Direction
from migscaler.store.concern import Concern
from migscaler.store.database import Row
from migscaler.store.records import GenerationRecord, WantedRecord
from migscaler.store.text import (
    decodes,
    layout_text,
    parse_layout,
    parse_time,
    some_time,
    time_text,
)
from migscaler.store.timeline import later

HistoryChange = Callable[[GpuHistory], GpuHistory]


class GpuMemory(Concern):
    """One row per GPU UUID and subject; every write is durable when it returns."""

    def write_generation(self, record: GenerationRecord, *, moved_on: bool = False) -> int:
        """Keep a GPU's generation and layout; return the number that is kept.

        It never goes back, and `moved_on` makes it one more than any known: the sampler and the
        thread that acts count the same changes, and a lease is only granted to who knows the number
        kept. A model's name or a wish that the record leaves out stays.

        Raises:
            StoreError: it is not written.
        """
        mode = record.mig_mode_wanted
        with self._write() as (connection, _now):
            known = connection.execute(
                "SELECT generation FROM generations WHERE gpu_uuid = ?", (record.gpu_uuid,)
            ).fetchone()
            number = max(record.generation, 0 if known is None else int(known["generation"]))
            number += moved_on
            connection.execute(
                "INSERT INTO generations (gpu_uuid, generation, layout, boot_id, changed_at,"
                " model_name, mig_mode_wanted) VALUES (?, ?, ?, ?, ?, ?, ?)"
                " ON CONFLICT (gpu_uuid) DO UPDATE SET generation = excluded.generation,"
                " layout = excluded.layout, boot_id = excluded.boot_id,"
                " changed_at = excluded.changed_at,"
                " model_name = coalesce(excluded.model_name, model_name),"
                " mig_mode_wanted = coalesce(excluded.mig_mode_wanted, mig_mode_wanted)",
                (
                    record.gpu_uuid,
                    number,
                    None if record.layout is None else layout_text(record.layout),
                    record.boot_id,
                    time_text(record.changed_at),
                    record.model_name,
                    None if mode is None else int(mode),
                ),
            )
        return number

    def generation(self, gpu_uuid: GpuUuid) -> GenerationRecord | None:
        """Return what was last known of a GPU, None if it was never seen.

        Raises:
            StoreError: the file can't be read.
        """
        rows = self._db.rows("SELECT * FROM generations WHERE gpu_uuid = ?", (gpu_uuid,))
        return _generation(rows[0]) if rows else None

    def generations(self) -> tuple[GenerationRecord, ...]:
        """Return what was last known of every GPU ever seen, by UUID.

        Raises:
            StoreError: the file can't be read.
        """
        rows = self._db.rows("SELECT * FROM generations ORDER BY gpu_uuid")
        return tuple(_generation(row) for row in rows)

    def write_wanted(
        self, gpu_uuid: GpuUuid, layout: Layout, boot_id: str, at: datetime | None = None
    ) -> None:
        """Keep the layout that was decided for a GPU and carried out (`at` None: now).

        Raises:
            StoreError: it is not written.
        """
        self._change(
            "INSERT OR REPLACE INTO wanted (gpu_uuid, layout, boot_id, at) VALUES (?, ?, ?, ?)",
            (gpu_uuid, layout_text(layout), boot_id, time_text(at or self._clock.now())),
        )

    def forget_wanted(self, gpu_uuid: GpuUuid) -> bool:
        """Adopt whatever a GPU has: nothing is wanted for it any more; False if nothing was.

        Raises:
            StoreError: it is not written.
        """
        return bool(self._change("DELETE FROM wanted WHERE gpu_uuid = ?", (gpu_uuid,)))

    def wanted(self) -> tuple[WantedRecord, ...]:
        """Return the layouts last wanted, by GPU UUID.

        Raises:
            StoreError: the file can't be read.
        """
        return tuple(map(_wanted, self._db.rows("SELECT * FROM wanted ORDER BY gpu_uuid")))

    def update_gpu_history(self, gpu_uuid: GpuUuid, change: HistoryChange) -> GpuHistory:
        """Change a GPU's past in one transaction; returns what it was before.

        A plan that ends, a foreign change and `breaker reset` come from different threads: reading
        and writing apart, the later one would undo the other's part. `change` gets an empty past
        for a GPU without one, and must not be slow: it holds everybody else off. One that leaves
        `wanted` None forgets the wanted layout: what is there is adopted. A layout is written by
        `write_wanted`, with the boot it was made in.

        Raises:
            StoreError: it is not written.
        """
        with self._write() as (connection, _now):
            return change_history(connection, gpu_uuid, change)

    def gpu_histories(self) -> tuple[GpuHistory, ...]:
        """Return the past of every GPU that has one, or a wanted layout, by UUID.

        Raises:
            StoreError: the file can't be read.
        """
        ahead = self._timeline.ahead()
        return tuple(
            replace(
                past,
                rest_until=later(past.rest_until, ahead),
                breaker_open_until=later(past.breaker_open_until, ahead),
                held_by_client_until=later(past.held_by_client_until, ahead),
            )
            for past in self._histories()
        )

    def _histories(self) -> tuple[GpuHistory, ...]:
        """Return the pasts as they are in the file."""
        wanted = {record.gpu_uuid: record.layout for record in self.wanted()}
        rows = self._db.rows("SELECT * FROM gpu_histories")
        found = {
            GpuUuid(row["gpu_uuid"]): _history((row, wanted.get(GpuUuid(row["gpu_uuid"]))))
            for row in rows
        }
        for gpu_uuid, layout in wanted.items():
            found.setdefault(gpu_uuid, GpuHistory(gpu_uuid=gpu_uuid, wanted=layout))
        return tuple(found[gpu_uuid] for gpu_uuid in sorted(found))


def change_history(
    connection: sqlite3.Connection, gpu_uuid: GpuUuid, change: HistoryChange
) -> GpuHistory:
    """Do what `update_gpu_history` does inside a transaction that writes something else too."""
    wanted, past = (
        connection.execute(sql, (gpu_uuid,)).fetchone()
        for sql in (
            "SELECT * FROM wanted WHERE gpu_uuid = ?",
            "SELECT * FROM gpu_histories WHERE gpu_uuid = ?",
        )
    )
    layout = None if wanted is None else _wanted(wanted).layout
    before = GpuHistory(gpu_uuid=gpu_uuid, wanted=layout)
    if past is not None:
        before = _history((past, layout))
    _put_history(connection, replace(change(before), gpu_uuid=gpu_uuid))
    return before


def _put_history(connection: sqlite3.Connection, history: GpuHistory) -> None:
    """Write a GPU's past inside a transaction."""
    direction = history.last_direction
    values = (
        history.gpu_uuid,
        time_text(history.last_change_at),
        None if direction is None else direction.value,
        time_text(history.rest_until),
        int(history.flapping),
        history.reversals,
        history.failures_in_row,
        time_text(history.breaker_open_until),
        history.breaker_trips,
        time_text(history.held_by_client_until),
    )
    connection.execute(
        "INSERT OR REPLACE INTO gpu_histories VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)", values
    )
    if history.wanted is None:
        connection.execute("DELETE FROM wanted WHERE gpu_uuid = ?", values[:1])


@decodes
def _wanted(row: Row) -> WantedRecord:
    """Decode a row of `wanted`."""
    return WantedRecord(
        gpu_uuid=GpuUuid(row["gpu_uuid"]),
        layout=parse_layout(row["layout"]),
        boot_id=row["boot_id"],
        at=some_time(row["at"]),
    )


@decodes
def _generation(row: Row) -> GenerationRecord:
    """Decode a row of `generations`."""
    mode = row["mig_mode_wanted"]
    return GenerationRecord(
        gpu_uuid=GpuUuid(row["gpu_uuid"]),
        generation=row["generation"],
        layout=None if row["layout"] is None else parse_layout(row["layout"]),
        boot_id=row["boot_id"],
        changed_at=some_time(row["changed_at"]),
        model_name=row["model_name"],
        mig_mode_wanted=None if mode is None else bool(mode),
    )


@decodes
def _history(found: tuple[Row, Layout | None]) -> GpuHistory:
    """Decode a row of `gpu_histories` with the layout wanted beside it."""
    row, wanted = found
    direction = row["last_direction"]
    return GpuHistory(
        gpu_uuid=GpuUuid(row["gpu_uuid"]),
        last_change_at=parse_time(row["last_change_at"]),
        last_direction=None if direction is None else Direction(direction),
        rest_until=parse_time(row["rest_until"]),
        flapping=bool(row["flapping"]),
        reversals=row["reversals"],
        failures_in_row=row["failures_in_row"],
        breaker_open_until=parse_time(row["breaker_open_until"]),
        breaker_trips=row["breaker_trips"],
        held_by_client_until=parse_time(row["held_by_client_until"]),
        wanted=wanted,
    )
