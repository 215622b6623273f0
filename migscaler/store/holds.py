"""Holds, leases and the waits for them.

A lease and a destroy of the same instance are decided by the order of their transactions: see
`Holds.take_lease` and `Journal.begin_step`.
"""

import sqlite3
from dataclasses import replace
from datetime import datetime

from migscaler.model.decision import HoldRecord
from migscaler.model.ids import GpuUuid
from migscaler.model.profile import InstanceSpec
from migscaler.store.concern import Concern
from migscaler.store.database import Row
from migscaler.store.records import LeaseWait
from migscaler.store.text import decodes, parse_spec, parse_time, some_time, spec_text, time_text
from migscaler.store.timeline import later

_LIVE = "(expires_at IS NULL OR expires_at > ?)"


class Holds(Concern):
    """Who keeps what; expired rows are never returned, `prune_holds` removes them."""

    def add_hold(
        self,
        gpu_uuid: GpuUuid,
        spec: InstanceSpec | None,
        *,
        owner: str,
        reason: str,
        expires_at: datetime | None = None,
        pid: int | None = None,
    ) -> HoldRecord:
        """Hold a GPU, or one instance of it, for a person. It binds every step begun after it.

        Raises:
            StoreError: it is not written; nothing is held.
        """
        hold = HoldRecord(
            hold_id=0,
            gpu_uuid=gpu_uuid,
            spec=spec,
            owner=owner,
            reason=reason,
            expires_at=expires_at,
            created_at=self._clock.now(),
            pid=pid,
        )
        with self._write() as (connection, _now):
            return _insert(connection, hold)

    def take_lease(
        self,
        gpu_uuid: GpuUuid,
        spec: InstanceSpec,
        *,
        owner: str,
        reason: str = "lease",
        expires_at: datetime | None = None,
        pid: int | None = None,
        generation: int | None = None,
    ) -> HoldRecord | None:
        """Lease one instance, or return None: held, leased, or begun to be taken by an open plan.

        With `generation` also None if the GPU's recorded layout moved on since the caller looked.
        The caller reads the GPU again afterwards, as only that shows that the instance is still
        there.

        Raises:
            StoreError: it is not written; nothing is leased.
        """
        with self._write() as (connection, now):
            lease = HoldRecord(
                hold_id=0,
                gpu_uuid=gpu_uuid,
                spec=spec,
                owner=owner,
                reason=reason,
                kind="lease",
                expires_at=expires_at,
                created_at=now,
                pid=pid,
            )
            if holder_of(connection, gpu_uuid, spec, now) is not None:
                return None
            if _being_changed(connection, gpu_uuid, spec):
                return None
            if generation is not None and _moved_on(connection, gpu_uuid, generation):
                return None
            return _insert(connection, lease)

    def renew_hold(self, hold_id: int, expires_at: datetime | None) -> bool:
        """Move the end of a hold or lease (its owner's heartbeat); False if it is gone or expired.

        Raises:
            StoreError: it is not written.
        """
        with self._write() as (connection, now):
            cursor = connection.execute(
                f"UPDATE holds SET expires_at = ? WHERE hold_id = ? AND {_LIVE}",  # noqa: S608 (constant)
                (time_text(expires_at), hold_id, time_text(now)),
            )
            return bool(cursor.rowcount)

    def release_hold(self, hold_id: int) -> bool:
        """End a hold or lease; False if there is none of that number.

        Raises:
            StoreError: it is not written.
        """
        return bool(self._change("DELETE FROM holds WHERE hold_id = ?", (hold_id,)))

    def holds(self, now: datetime) -> tuple[HoldRecord, ...]:
        """Return holds and leases that last at this moment, oldest first.

        Raises:
            StoreError: the file can't be read.
        """
        ahead = self._timeline.ahead()
        rows = self._db.rows(
            f"SELECT * FROM holds WHERE {_LIVE} ORDER BY hold_id",  # noqa: S608 (constant)
            (time_text(now - ahead),),
        )
        found = map(_hold, rows)
        return tuple(replace(hold, expires_at=later(hold.expires_at, ahead)) for hold in found)

    def add_lease_wait(
        self,
        size: str,
        owner: str,
        *,
        pid: int | None = None,
        expires_at: datetime | None = None,
    ) -> int:
        """Write that somebody waits for an instance of a size; his wait is demand.

        Raises:
            StoreError: it is not written.
        """
        with self._write() as (connection, _now):
            cursor = connection.execute(
                "INSERT INTO lease_waits (size, owner, pid, since, expires_at)"
                " VALUES (?, ?, ?, ?, ?)",
                (size, owner, pid, time_text(self._clock.now()), time_text(expires_at)),
            )
            return int(cursor.lastrowid or 0)

    def renew_lease_wait(self, wait_id: int, expires_at: datetime) -> bool:
        """Move the end of a wait (the waiter's heartbeat); False if it is gone.

        Raises:
            StoreError: it is not written.
        """
        return bool(
            self._change(
                "UPDATE lease_waits SET expires_at = ? WHERE wait_id = ?",
                (time_text(expires_at), wait_id),
            )
        )

    def remove_lease_wait(self, wait_id: int) -> bool:
        """End a wait; False if there is none of that number.

        Raises:
            StoreError: it is not written.
        """
        return bool(self._change("DELETE FROM lease_waits WHERE wait_id = ?", (wait_id,)))

    def lease_waits(self, now: datetime) -> tuple[LeaseWait, ...]:
        """Return the waits that last at this moment, oldest first.

        Raises:
            StoreError: the file can't be read.
        """
        now -= self._timeline.ahead()
        rows = self._db.rows(
            f"SELECT * FROM lease_waits WHERE {_LIVE} ORDER BY wait_id",  # noqa: S608 (constant)
            (time_text(now),),
        )
        return tuple(map(_wait, rows))

    def prune_holds(self, now: datetime) -> None:
        """Remove what expired.

        Raises:
            StoreError: the file can't be written.
        """
        with self._write() as (connection, kept):
            # Whoever read the clock right before it was set back must not end every hold.
            gone = (time_text(min(now, kept)),)
            connection.execute("DELETE FROM holds WHERE expires_at <= ?", gone)
            connection.execute("DELETE FROM lease_waits WHERE expires_at <= ?", gone)


def holder_of(
    connection: sqlite3.Connection, gpu_uuid: GpuUuid, spec: InstanceSpec | None, now: datetime
) -> str | None:
    """Say who holds or leases the instance or its GPU (`spec` None: the GPU), None if nobody."""
    row = connection.execute(
        "SELECT * FROM holds WHERE gpu_uuid = ? AND (spec IS NULL OR spec = ?)"
        " AND (expires_at IS NULL OR expires_at > ?) ORDER BY hold_id LIMIT 1",
        (gpu_uuid, None if spec is None else spec_text(spec), time_text(now)),
    ).fetchone()
    if row is None:
        return None
    what = "the GPU" if row["spec"] is None else str(spec)
    return f"{row['kind']} {row['hold_id']} of {row['owner']} on {what}: {row['reason']}"


def _being_changed(connection: sqlite3.Connection, gpu_uuid: GpuUuid, spec: InstanceSpec) -> bool:
    """Say whether an open plan's last call on the instance left it anything but whole.

    A call that did not happen (void) does not count; `create_ci` done is what makes an instance
    whole.
    """
    row = connection.execute(
        "SELECT steps.action, steps.state FROM steps JOIN plans ON plans.seq = steps.plan_seq"
        " WHERE plans.state <> 'closed' AND steps.gpu_uuid = ? AND steps.spec = ?"
        " AND steps.state <> 'void' ORDER BY steps.seq DESC LIMIT 1",
        (gpu_uuid, spec_text(spec)),
    ).fetchone()
    return row is not None and (row["action"], row["state"]) != ("create_ci", "done")


def _moved_on(connection: sqlite3.Connection, gpu_uuid: GpuUuid, generation: int) -> bool:
    """Say whether the recorded generation of a GPU is another one."""
    row = connection.execute(
        "SELECT generation FROM generations WHERE gpu_uuid = ?", (gpu_uuid,)
    ).fetchone()
    return row is not None and int(row["generation"]) != generation


def _insert(connection: sqlite3.Connection, hold: HoldRecord) -> HoldRecord:
    """Write a hold and return it with its number."""
    cursor = connection.execute(
        "INSERT INTO holds (gpu_uuid, spec, owner, reason, kind, expires_at, created_at, pid)"
        " VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
        (
            hold.gpu_uuid,
            None if hold.spec is None else spec_text(hold.spec),
            hold.owner,
            hold.reason,
            hold.kind,
            time_text(hold.expires_at),
            time_text(hold.created_at),
            hold.pid,
        ),
    )
    return HoldRecord(
        hold_id=int(cursor.lastrowid or 0),
        gpu_uuid=hold.gpu_uuid,
        spec=hold.spec,
        owner=hold.owner,
        reason=hold.reason,
        kind=hold.kind,
        expires_at=hold.expires_at,
        created_at=hold.created_at,
        pid=hold.pid,
    )


@decodes
def _wait(row: Row) -> LeaseWait:
    """Decode a row of `lease_waits`."""
    return LeaseWait(
        wait_id=row["wait_id"],
        size=row["size"],
        owner=row["owner"],
        since=some_time(row["since"]),
        pid=row["pid"],
        expires_at=parse_time(row["expires_at"]),
    )


@decodes
def _hold(row: Row) -> HoldRecord:
    """Decode a row of `holds`."""
    return HoldRecord(
        hold_id=row["hold_id"],
        gpu_uuid=GpuUuid(row["gpu_uuid"]),
        spec=None if row["spec"] is None else parse_spec(row["spec"]),
        owner=row["owner"],
        reason=row["reason"],
        kind=row["kind"],
        expires_at=parse_time(row["expires_at"]),
        created_at=parse_time(row["created_at"]),
        pid=row["pid"],
    )
