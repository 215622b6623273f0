"""Plans and steps as written and read back."""

import threading
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

from migscaler.model.ids import CiId, GiId, MigUuid, PlanId
from migscaler.model.plan import (
    Direction,
    Outcome,
    OutcomeKind,
    OutcomeReason,
    Step,
    StepAction,
    StepTiming,
)
from migscaler.store.records import (
    KnownInstance,
    NvmlAction,
    PlanRecord,
    PlanState,
    Purpose,
    StepRequest,
    StepState,
)
from migscaler.store.store import Store
from tests.builders import A100, NOW, layout, spec, uuid
from tests.unit.store.fixed_clock import FixedClock

RECORD = PlanRecord(
    plan_id=PlanId("20260302-1"),
    gpu_uuid=uuid(),
    before=layout(A100, "3g@0 1g+me@4"),
    after=layout(A100, "1g@0 1g+me@4"),
    steps=(
        Step(action=StepAction.DESTROY, spec=spec(A100, "3g@0")),
        Step(action=StepAction.CREATE, spec=spec(A100, "1g@0")),
    ),
    instances=(
        KnownInstance(gi_id=GiId(1), spec=spec(A100, "3g@0"), mig_uuid=MigUuid("MIG-a")),
        KnownInstance(gi_id=GiId(11), spec=spec(A100, "1g+me@4"), mig_uuid=None),
    ),
    boot_id="boot",
    begun_at=NOW,
)


def outcome(kind: OutcomeKind = OutcomeKind.DONE) -> Outcome:
    return Outcome(
        plan_id=RECORD.plan_id,
        gpu_uuid=RECORD.gpu_uuid,
        kind=kind,
        reason=OutcomeReason.COMPLETED,
        explanation="as wanted",
        layout=RECORD.after,
        started_at=NOW,
        duration=timedelta(seconds=3),
        steps=(StepTiming(kind="destroy_ci", seconds=0.5, nvml_seconds=0.4),),
        direction=Direction.COARSER,
    )


def test_plan_reads_back_as_written() -> None:
    store = Store.open(None, FixedClock())
    seq = store.begin_plan(RECORD)
    (read,) = store.open_plans()
    assert read.seq == seq == 1
    assert read.state is PlanState.OPEN
    assert (read.before, read.after, read.steps) == (RECORD.before, RECORD.after, RECORD.steps)
    assert read.instances == RECORD.instances
    assert (read.boot_id, read.begun_at, read.plan_id) == ("boot", NOW, "20260302-1")


def test_plan_verified_stays_among_the_open_until_it_is_closed() -> None:
    store = Store.open(None, FixedClock())
    seq = store.begin_plan(RECORD)
    store.verify_plan(seq)
    assert [plan.state for plan in store.open_plans()] == [PlanState.VERIFIED]
    store.end_plan(seq, outcome())
    assert store.open_plans() == ()
    (past,) = store.past_plans(5)
    assert (past.kind, past.reason, past.direction) == (
        OutcomeKind.DONE,
        OutcomeReason.COMPLETED,
        Direction.COARSER,
    )
    assert str(past.layout) == "1g.5gb@0 1g.5gb+me@4"
    assert past.ended_at == NOW + timedelta(seconds=3)


def test_step_reads_back_with_the_ids_it_was_given() -> None:
    store = Store.open(None, FixedClock())
    seq = store.begin_plan(RECORD)
    request = StepRequest(action=NvmlAction.CREATE_GI, spec=spec(A100, "1g@0"))
    ticket = store.begin_step(seq, uuid(), request)
    assert ticket.step_id == 1
    assert store.steps_of(seq)[0].state is StepState.BEGUN
    store.end_step(1, StepState.DONE, gi_id=GiId(7), ci_id=CiId(0), note="made")
    (step,) = store.steps_of(seq)
    assert (step.state, step.gi_id, step.ci_id, step.note) == (StepState.DONE, 7, 0, "made")
    assert step.purpose is Purpose.FORWARD


def test_changes_since_counts_plans_that_made_a_call() -> None:
    clock = FixedClock()
    store = Store.open(None, clock)
    for number in range(3):
        seq = store.begin_plan(RECORD)
        request = StepRequest(action=NvmlAction.CREATE_GI, spec=spec(A100, "1g@0"))
        if number:
            step = store.begin_step(seq, uuid(), request).step_id or 0
            store.end_step(step, StepState.VOID if number == 1 else StepState.DONE)
    assert store.changes_since(NOW - timedelta(days=1)) == 1
    assert store.changes_since(NOW + timedelta(seconds=1)) == 0


def test_prune_keeps_open_recent_and_the_newest_plans() -> None:
    store = Store.open(None, FixedClock())
    for number in range(4):
        seq = store.begin_plan(RECORD)
        step = StepRequest(action=NvmlAction.CREATE_GI, spec=spec(A100, "1g@0"))
        store.begin_step(seq, uuid(), step)
        if number:
            store.end_plan(seq, outcome())
    store.prune_plans(NOW + timedelta(days=1), keep=2)
    assert len(store.past_plans(9)) == 4
    store.prune_plans(NOW + timedelta(days=3), keep=2)
    assert [plan.seq for plan in store.past_plans(9)] == [4, 3, 1]
    assert store.steps_of(2) == ()


def test_lease_and_destroy_from_two_connections_never_both_win(tmp_path: Path) -> None:
    path = tmp_path / "state.db"
    daemon, client = Store.open(path, FixedClock()), Store.open(path, FixedClock())
    instance = spec(A100, "3g@0")
    request = StepRequest(action=NvmlAction.DESTROY_CI, spec=instance, gi_id=GiId(1))
    both, neither = 0, 0
    for _ in range(40):
        seq = daemon.begin_plan(RECORD)
        won: list[str] = []
        start = threading.Barrier(2)

        def lease(start: threading.Barrier = start, won: list[str] = won) -> None:
            start.wait()
            if client.take_lease(uuid(), instance, owner="ada") is not None:
                won.append("lease")

        other = threading.Thread(target=lease)
        other.start()
        start.wait()
        if daemon.begin_step(seq, uuid(), request).step_id is not None:
            won.append("destroy")
        other.join()
        both += len(won) == 2
        neither += not won
        for hold in daemon.holds(NOW):
            daemon.release_hold(hold.hold_id)
        daemon.end_plan(seq, outcome())
    assert (both, neither) == (0, 0)
    daemon.close()
    client.close()


def test_call_that_leads_back_waits_for_a_whole_hold_only_if_it_heeds_it() -> None:
    store = Store.open(None, FixedClock())
    seq = store.begin_plan(RECORD)
    store.add_hold(uuid(), spec(A100, "1g@0"), owner="ada", reason="hers")
    back = StepRequest(action=NvmlAction.CREATE_GI, spec=spec(A100, "1g@0"), purpose=Purpose.UNDO)
    heeding = replace(back, heed_hold=True)
    beside = store.begin_step(seq, uuid(), heeding)
    store.add_hold(uuid(), None, owner="bob", reason="mending it")

    blind, stopped = (store.begin_step(seq, uuid(), one) for one in (back, heeding))

    assert beside.step_id is not None
    assert blind.step_id is not None
    assert (stopped.step_id, stopped.reason) == (None, OutcomeReason.HELD)
    assert stopped.refused_by == "hold 2 of bob on the GPU: mending it"


def test_plan_that_was_left_open_is_told_from_one_that_was_cut_short() -> None:
    store = Store.open(None, FixedClock())
    cut, left = store.begin_plan(RECORD), store.begin_plan(RECORD)

    store.leave_open(left)

    assert [(one.seq, one.left_open) for one in store.open_plans()] == [
        (cut, False),
        (left, True),
    ]
