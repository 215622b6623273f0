"""The journal of GPU plans and of every NVML call that changes a GPU.

A call is written as begun, durably, before it is made, in the transaction that also reads who
holds what: a lease taken before it stops the call, a lease asked for after it is refused. They
never both win.
"""

import json
import sqlite3
from datetime import datetime, timedelta

from migscaler.model.ids import CiId, GiId, GpuUuid, MigUuid, PlanId
from migscaler.model.plan import Direction, Outcome, OutcomeKind, OutcomeReason
from migscaler.store.concern import Concern
from migscaler.store.database import Row
from migscaler.store.holds import holder_of
from migscaler.store.memory import HistoryChange, change_history
from migscaler.store.records import (
    DESTROYS,
    DIED,
    KnownInstance,
    NvmlAction,
    PastPlan,
    PlanRecord,
    PlanState,
    Purpose,
    StepRecord,
    StepRequest,
    StepState,
    StepTicket,
)
from migscaler.store.standing import pause_in
from migscaler.store.text import (
    decodes,
    layout_text,
    parse_layout,
    parse_spec,
    parse_steps,
    parse_time,
    some_time,
    spec_text,
    steps_text,
    time_text,
)


class Journal(Concern):
    """Plans and steps; every method that writes is durable when it returns."""

    def begin_plan(self, record: PlanRecord) -> int:
        """Write a GPU plan as open, with the layout before, and return its number.

        Raises:
            StoreError: it is not written; nothing may be changed.
        """
        values = (
            record.plan_id,
            record.gpu_uuid,
            layout_text(record.before),
            layout_text(record.after),
            steps_text(record.steps),
            json.dumps([[i.gi_id, spec_text(i.spec), i.mig_uuid] for i in record.instances]),
            record.boot_id,
            time_text(record.begun_at),
        )
        with self._write() as (connection, _now):
            cursor = connection.execute(
                "INSERT INTO plans (plan_id, gpu_uuid, before, after, steps, instances, boot_id,"
                " begun_at, state) VALUES (?, ?, ?, ?, ?, ?, ?, ?, 'open')",
                values,
            )
            return int(cursor.lastrowid or 0)

    def begin_step(self, plan_seq: int, gpu_uuid: GpuUuid, request: StepRequest) -> StepTicket:
        """Write a call as begun unless somebody holds what it changes; all in one transaction.

        A destroy, and a create that leads forward, yields to a hold or lease on the instance or
        the GPU. What puts back the layout before does not wait for anybody to let go of the GPU,
        unless the request heeds it.

        Raises:
            StoreError: it is not written; the call must not be made.
        """
        with self._write() as (connection, now):
            refusal = _refusal(connection, gpu_uuid, request, now)
            if refusal is not None:
                return refusal
            cursor = connection.execute(
                "INSERT INTO steps (plan_seq, gpu_uuid, action, spec, purpose, gi_id, ci_id, state,"
                " begun_at) VALUES (?, ?, ?, ?, ?, ?, ?, 'begun', ?)",
                (
                    plan_seq,
                    gpu_uuid,
                    request.action.value,
                    spec_text(request.spec),
                    request.purpose.value,
                    request.gi_id,
                    request.ci_id,
                    time_text(now),
                ),
            )
            return StepTicket(step_id=int(cursor.lastrowid or 0))

    def end_step(
        self,
        step_id: int,
        state: StepState,
        *,
        gi_id: GiId | None = None,
        ci_id: CiId | None = None,
        note: str = "",
    ) -> None:
        """Write what became of a call, and the ids it was given.

        Raises:
            StoreError: it is not written; the step stays in doubt.
        """
        self._change(
            "UPDATE steps SET state = ?, ended_at = ?, note = ?, gi_id = coalesce(?, gi_id),"
            " ci_id = coalesce(?, ci_id) WHERE seq = ?",
            (state.value, time_text(self._clock.now()), note, gi_id, ci_id, step_id),
        )

    def verify_plan(self, plan_seq: int) -> None:
        """Write that the GPU was read back and is as wanted: from here on nothing is undone.

        Raises:
            StoreError: it is not written.
        """
        self._change("UPDATE plans SET state = 'verified' WHERE seq = ?", (plan_seq,))

    def end_plan(
        self, plan_seq: int, outcome: Outcome, change: HistoryChange | None = None
    ) -> None:
        """Close a plan with how it ended, and `change` its GPU's past by it, both or neither.

        Apart, a process that died between them would count a failure twice, or not at all.

        Raises:
            StoreError: it is not written; the plan stays open and is settled later.
        """
        timings = [[t.kind, t.seconds, t.nvml_seconds] for t in outcome.steps]
        sql = (
            "UPDATE plans SET state = 'closed', kind = ?, reason = ?, explanation = ?, layout = ?,"
            " ended_at = ?, duration_seconds = ?, rolled_back = ?, counts_as_failure = ?,"
            " direction = ?, timings = ? WHERE seq = ?"
        )
        values = (
            outcome.kind.value,
            outcome.reason.value,
            outcome.explanation,
            None if outcome.layout is None else layout_text(outcome.layout),
            time_text(outcome.started_at + outcome.duration),
            outcome.duration.total_seconds(),
            int(outcome.rolled_back),
            int(outcome.counts_as_failure),
            None if outcome.direction is None else outcome.direction.value,
            json.dumps(timings),
            plan_seq,
        )
        with self._write() as (connection, _now):
            connection.execute(sql, values)
            _change_past(connection, plan_seq, change)

    def leave_open(self, plan_seq: int, change: HistoryChange | None = None) -> None:
        """Write that a plan stays open although whoever carried it out came to his end.

        A closed plan has something in that column, one that was cut short nothing. A call that is
        in doubt then is no sign of a death. `change` as in `end_plan`.

        Raises:
            StoreError: it is not written; the plan will pass for one that was cut short.
        """
        with self._write() as (connection, _now):
            sql = "UPDATE plans SET counts_as_failure = 0 WHERE seq = ?"
            connection.execute(sql, (plan_seq,))
            _note_doubt(connection, plan_seq, "left in doubt")
            _change_past(connection, plan_seq, change)

    def note_death(self, plan_seq: int, change: HistoryChange | None = None) -> None:
        """Write that the process died in the call that an open plan has in doubt.

        `change` as in `end_plan`.

        Raises:
            StoreError: it is not written.
        """
        with self._write() as (connection, _now):
            _note_doubt(connection, plan_seq, DIED)
            _change_past(connection, plan_seq, change)

    def open_plans(self) -> tuple[PlanRecord, ...]:
        """Return the plans that are not closed, oldest first.

        Raises:
            StoreError: the file can't be read.
        """
        rows = self._db.rows("SELECT * FROM plans WHERE state <> 'closed' ORDER BY seq")
        return tuple(_plan(row) for row in rows)

    def steps_of(self, plan_seq: int) -> tuple[StepRecord, ...]:
        """Return the calls of a plan in the order in which they were begun.

        Raises:
            StoreError: the file can't be read.
        """
        rows = self._db.rows("SELECT * FROM steps WHERE plan_seq = ? ORDER BY seq", (plan_seq,))
        return tuple(_step(row) for row in rows)

    def past_plans(self, limit: int) -> tuple[PastPlan, ...]:
        """Return the newest GPU plans, newest first.

        Raises:
            StoreError: the file can't be read.
        """
        rows = self._db.rows("SELECT * FROM plans ORDER BY seq DESC LIMIT ?", (limit,))
        return tuple(_past(row) for row in rows)

    def past_plans_of(self, gpu_uuid: GpuUuid) -> tuple[PastPlan, ...]:
        """Return the newest plans of one GPU, newest first.

        Raises:
            StoreError: the file can't be read.
        """
        sql = "SELECT * FROM plans WHERE gpu_uuid = ? ORDER BY seq DESC LIMIT 20"
        return tuple(_past(row) for row in self._db.rows(sql, (gpu_uuid,)))

    def changes_since(self, moment: datetime) -> int:
        """Return how many GPU plans since then changed something; those put back count too.

        Restoring a layout after a reboot is no change of it and does not count.

        Raises:
            StoreError: the file can't be read.
        """
        moment -= self._timeline.ahead()
        rows = self._db.rows(
            "SELECT count(*) FROM plans WHERE begun_at >= ? AND plan_id NOT LIKE 'restore-%'"
            " AND EXISTS"
            " (SELECT 1 FROM steps WHERE plan_seq = plans.seq AND steps.state <> 'void')",
            (time_text(moment),),
        )
        return int(rows[0][0])

    def prune_plans(self, now: datetime, *, keep: int = 5_000) -> None:
        """Drop old closed plans beyond `keep`, but none of the last two days (budget).

        Raises:
            StoreError: the file can't be written.
        """
        self._change(
            "DELETE FROM plans WHERE state = 'closed' AND begun_at < ? AND seq <="
            " (SELECT coalesce(max(seq), 0) - ? FROM plans)",
            (time_text(now - timedelta(days=2)), keep),
        )


def _note_doubt(connection: sqlite3.Connection, plan_seq: int, note: str) -> None:
    """Write why it is not known what became of a plan's last call, once."""
    sql = "UPDATE steps SET note = ? WHERE plan_seq = ? AND state = 'begun' AND note = ''"
    connection.execute(sql, (note, plan_seq))


def _change_past(
    connection: sqlite3.Connection, plan_seq: int, change: HistoryChange | None
) -> None:
    """Change the past of a plan's GPU."""
    if change is not None:
        whose = "SELECT gpu_uuid FROM plans WHERE seq = ?"
        (gpu_uuid,) = connection.execute(whose, (plan_seq,)).fetchone()
        change_history(connection, GpuUuid(gpu_uuid), change)


def _refusal(
    connection: sqlite3.Connection, gpu_uuid: GpuUuid, request: StepRequest, now: datetime
) -> StepTicket | None:
    """Return who stands in the way of a call, None if nobody does."""
    if request.heed_pause:
        pause = pause_in(connection, now)
        if pause is not None:
            who = f"paused by {pause.who}: {pause.why}"
            return StepTicket(step_id=None, refused_by=who, reason=OutcomeReason.PAUSED)
    if request.action in DESTROYS or request.purpose is Purpose.FORWARD:
        holder = holder_of(connection, gpu_uuid, request.spec, now)
    else:
        holder = holder_of(connection, gpu_uuid, None, now) if request.heed_hold else None
    return None if holder is None else StepTicket(step_id=None, refused_by=holder)


@decodes
def _plan(row: Row) -> PlanRecord:
    """Decode a row of `plans`."""
    return PlanRecord(
        seq=row["seq"],
        plan_id=PlanId(row["plan_id"]),
        gpu_uuid=GpuUuid(row["gpu_uuid"]),
        before=parse_layout(row["before"]),
        after=parse_layout(row["after"]),
        steps=parse_steps(row["steps"]),
        instances=tuple(
            KnownInstance(
                gi_id=GiId(gi_id),
                spec=parse_spec(spec),
                mig_uuid=None if mig_uuid is None else MigUuid(mig_uuid),
            )
            for gi_id, spec, mig_uuid in json.loads(row["instances"])
        ),
        boot_id=row["boot_id"],
        begun_at=some_time(row["begun_at"]),
        state=PlanState(row["state"]),
        left_open=row["counts_as_failure"] is not None,
    )


@decodes
def _step(row: Row) -> StepRecord:
    """Decode a row of `steps`."""
    return StepRecord(
        step_id=row["seq"],
        action=NvmlAction(row["action"]),
        spec=parse_spec(row["spec"]),
        purpose=Purpose(row["purpose"]),
        state=StepState(row["state"]),
        begun_at=some_time(row["begun_at"]),
        gi_id=row["gi_id"],
        ci_id=row["ci_id"],
        note=row["note"],
    )


@decodes
def _past(row: Row) -> PastPlan:
    """Decode a row of `plans` for people."""
    failure = row["counts_as_failure"]
    return PastPlan(
        seq=row["seq"],
        plan_id=PlanId(row["plan_id"]),
        gpu_uuid=GpuUuid(row["gpu_uuid"]),
        before=parse_layout(row["before"]),
        after=parse_layout(row["after"]),
        begun_at=some_time(row["begun_at"]),
        kind=None if row["kind"] is None else OutcomeKind(row["kind"]),
        reason=None if row["reason"] is None else OutcomeReason(row["reason"]),
        explanation=row["explanation"] or "",
        layout=None if row["layout"] is None else parse_layout(row["layout"]),
        ended_at=parse_time(row["ended_at"]),
        direction=None if row["direction"] is None else Direction(row["direction"]),
        rolled_back=bool(row["rolled_back"]),
        boot_id=row["boot_id"],
        counts_as_failure=None if failure is None else bool(failure),
    )
