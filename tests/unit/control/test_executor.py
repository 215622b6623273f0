"""One GPU plan, carried out or dropped: what is called, journaled, fenced, told."""

from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest

from migscaler.model.decision import PauseRecord
from migscaler.model.gpu import Claim
from migscaler.model.ids import GpuUuid, PlanId
from migscaler.model.layout import Layout
from migscaler.model.plan import Direction, OutcomeKind, OutcomeReason
from migscaler.model.policy import Pace, Policy
from migscaler.model.status import Running
from migscaler.store.records import StepState
from tests.builders import NOW
from tests.simulation.acting import SHAPES, Desk, Shape, desk

SHAPE = SHAPES[0]
CALLS = [
    "destroy_ci 3g.20gb@0",
    "destroy_gi 3g.20gb@0",
    "create_gi 1g.5gb@0",
    "create_ci 1g.5gb@0",
    "create_gi 1g.5gb@1",
    "create_ci 1g.5gb@1",
    "create_gi 1g.5gb@2",
    "create_ci 1g.5gb@2",
    "create_gi 1g.5gb@3",
    "create_ci 1g.5gb@3",
]


def test_plan_is_carried_out_call_by_call_and_recorded() -> None:
    with desk(SHAPE) as made:
        outcome = made.execute()
        assert made.calls() == CALLS
        assert (outcome.kind, outcome.reason) == (OutcomeKind.DONE, OutcomeReason.COMPLETED)
        assert (outcome.layout, outcome.direction) == (made.after, Direction.FINER)
        assert (outcome.rolled_back, outcome.counts_as_failure) == (False, False)
        assert [step.kind for step in outcome.steps] == [call.split()[0] for call in CALLS]
        assert made.wrongs() == []
        assert [str(one.layout) for one in made.store.wanted()] == [str(made.after)]
        (past,) = made.store.past_plans(9)
        assert (past.kind, past.layout) == (OutcomeKind.DONE, made.after)
        steps = made.store.steps_of(past.seq)
        assert [f"{step.action.value} {step.spec}" for step in steps] == CALLS
        assert {step.state for step in steps} == {StepState.DONE}


def test_plan_that_only_creates_touches_nothing_else() -> None:
    shape = Shape(name="add", board="A30", before="2g@0", after="2g@0 1g@2 1g@3")
    with desk(shape) as made:
        made.execute()
        assert [call.split()[0] for call in made.calls()] == ["create_gi", "create_ci"] * 2


def test_plan_is_shown_running_before_anything_happens_and_not_after() -> None:
    with desk(SHAPE) as made:
        seen: list[tuple[bool, int, int]] = []

        def show(running: Running | None) -> None:
            seen.append((running is not None, len(made.calls()), len(made.scheduler.log)))

        state = made.state()
        made.executor().execute(PlanId("p1"), made.plan(), state, Policy(), show)
        assert seen[0] == (True, 0, 0)
        assert seen[-1] == (False, 10, 3)


def test_fence_covers_what_goes_and_is_lifted_after_the_scheduler_was_told() -> None:
    with desk(SHAPE) as made:
        made.scheduler.refresh_problems = 2
        made.execute()
        after = "refresh 1g.5gb@0 1g.5gb@1 1g.5gb@2 1g.5gb@3 3g.20gb@4"
        assert made.scheduler.log == ["fence 3g.20gb@0", after, after, after, "unfence"]


def test_hooks_are_told_the_new_layout_and_their_problems_are_reported() -> None:
    with desk(SHAPE) as made:
        told: list[tuple[GpuUuid, Layout]] = []

        def works(uuid: GpuUuid, layout: Layout) -> str | None:
            told.append((uuid, layout))
            return None

        def fails(uuid: GpuUuid, layout: Layout) -> str | None:
            return "dcgm-exporter did not answer"

        outcome = made.execute(after_change=(works, fails))
        assert told == [(made.uuid, made.after)]
        assert outcome.kind is OutcomeKind.DONE
        assert "dcgm-exporter did not answer" in outcome.explanation


def test_generation_is_bumped_before_the_plan_closes() -> None:
    with desk(SHAPE) as made:
        made.execute()
        record = made.store.generation(made.uuid)
        assert record is not None
        assert (record.generation, record.layout) == (4, made.after)
        spec = made.after.specs[0]
        assert made.store.take_lease(made.uuid, spec, owner="ada", generation=3) is None


def test_layout_that_changed_since_the_decision_drops_the_plan() -> None:
    with desk(SHAPE) as made:
        state = made.state()
        made.node.foreign_destroy(0, made.gi_of("3g@0"))
        outcome = made.executor().execute(PlanId("p1"), made.plan(), state, Policy())
        assert (outcome.kind, outcome.reason) == (
            OutcomeKind.ABANDONED,
            OutcomeReason.CHANGED_UNDERNEATH,
        )
        assert made.calls() == []
        assert made.store.open_plans() == ()
        assert made.scheduler.fenced == set()


def test_instance_made_anew_at_the_same_place_drops_the_plan() -> None:
    with desk(SHAPE) as made:
        state = made.state()
        first = state.reading.instances[0] if state.reading.instances else None
        assert first is not None
        compute = replace(first.instance.compute_instances[0], mig_uuid=None)
        other = replace(first, instance=replace(first.instance, compute_instances=(compute,)))
        rest = (state.reading.instances or ())[1:]
        state = replace(state, reading=replace(state.reading, instances=(other, *rest)))
        outcome = made.executor().execute(PlanId("p1"), made.plan(), state, Policy())
        assert outcome.reason is OutcomeReason.CHANGED_UNDERNEATH
        assert made.calls() == []


@pytest.mark.parametrize("kind", [{"vgpu_guest": True}, {"confidential": True}], ids=str)
def test_owner_of_the_gpu_that_is_seen_only_now_drops_the_plan(kind: dict[str, bool]) -> None:
    """The answer that tells it may have been denied whenever the node was read before."""
    shape = Shape(name="owned", board="H100-80GB", before="3g@0 3g@4", after="1g@0 3g@4")
    with desk(shape) as made:
        state = made.state()
        made.node.set_node(**kind)
        made.reader.close()
        outcome = made.executor().execute(PlanId("p1"), made.plan(), state, Policy())
        assert (outcome.kind, outcome.reason) == (
            OutcomeKind.ABANDONED,
            OutcomeReason.GATE_CLOSED,
        )
        assert outcome.counts_as_failure is False
        assert made.calls() == []


def test_process_that_came_while_fencing_drops_the_plan() -> None:
    with desk(SHAPE) as made:

        def come() -> None:
            made.start_job("3g@0")

        made.scheduler.on_fence = come
        outcome = made.execute()
        assert outcome.reason is OutcomeReason.NO_LONGER_IDLE
        assert outcome.counts_as_failure is False
        assert made.calls() == []


def test_process_without_memory_that_came_while_fencing_drops_the_plan() -> None:
    with desk(SHAPE) as made:

        def come() -> None:
            made.node.start_job(0, made.gi_of("3g@0"), memory_mib=0)

        made.scheduler.on_fence = come
        outcome = made.execute()
        assert outcome.reason is OutcomeReason.NO_LONGER_IDLE
        assert "used by a process (pid " in outcome.explanation
        assert made.calls() == []


def test_memory_that_grew_without_a_process_drops_the_plan() -> None:
    with desk(SHAPE) as made:
        state = made.state()
        less = tuple(
            replace(one, memory_used_bytes=(one.memory_used_bytes or 0) - 70 * 1024 * 1024)
            for one in state.reading.instances or ()
        )
        state = replace(state, reading=replace(state.reading, instances=less))
        outcome = made.executor().execute(PlanId("p1"), made.plan(), state, Policy())
        assert outcome.reason is OutcomeReason.NO_LONGER_IDLE
        assert "bytes in use" in outcome.explanation
        assert made.calls() == []


def test_claim_that_came_while_fencing_drops_the_plan() -> None:
    with desk(SHAPE) as made:
        claim = Claim(gpu_uuid=made.uuid, mig_uuid=made.mig_uuid("3g@0"), owner="slurm job 7")
        made.scheduler.claims = (claim,)
        outcome = made.execute()
        assert outcome.reason is OutcomeReason.NO_LONGER_IDLE
        assert "slurm job 7" in outcome.explanation
        assert made.calls() == []


def test_allocations_that_became_unknown_drop_the_plan() -> None:
    with desk(SHAPE) as made:
        made.scheduler.known = False
        assert made.execute().reason is OutcomeReason.NO_LONGER_IDLE
        assert made.calls() == []


def test_lease_before_the_first_call_wins() -> None:
    with desk(SHAPE) as made:
        made.store.take_lease(made.uuid, made.model.spec("3g@0"), owner="ada")
        outcome = made.execute()
        assert (outcome.kind, outcome.reason) == (OutcomeKind.ABANDONED, OutcomeReason.HELD)
        assert "lease 1 of ada" in outcome.explanation
        assert made.calls() == []


def test_lease_on_an_instance_further_on_undoes_what_was_done() -> None:
    with desk(SHAPES[1]) as made:

        def lease(name: str, gi_id: int | None) -> None:
            if name == "destroy_gi":
                made.store.take_lease(made.uuid, made.model.spec("1g@2"), owner="ada")

        made.writer.before_call = lease
        births = made.births()
        outcome = made.execute()
        assert (outcome.kind, outcome.reason) == (OutcomeKind.ABANDONED, OutcomeReason.HELD)
        assert (outcome.rolled_back, outcome.layout) == (True, made.before)
        assert made.layout() == made.before
        assert not any("1g.5gb@2" in call for call in made.calls())
        assert made.wrongs(births) == []


def test_hold_between_compute_and_gpu_instance_puts_the_compute_instance_back() -> None:
    with desk(SHAPE) as made:

        def hold(name: str, gi_id: int | None) -> None:
            if name == "destroy_ci":
                made.store.add_hold(made.uuid, None, owner="ada", reason="exam")

        made.writer.before_call = hold
        outcome = made.execute()
        assert outcome.reason is OutcomeReason.HELD
        assert made.calls() == ["destroy_ci 3g.20gb@0", "create_ci 3g.20gb@0"]
        assert made.layout() == made.before
        assert made.wrongs() == []


def test_pause_stops_a_plan_that_changed_nothing_and_lets_a_begun_one_end() -> None:
    with desk(SHAPE) as made:
        pause = PauseRecord(who="ada", why="maintenance", since=NOW)
        made.store.write_pause(pause)
        outcome = made.execute()
        assert (outcome.kind, outcome.reason) == (OutcomeKind.ABANDONED, OutcomeReason.PAUSED)
        assert made.calls() == []
        made.store.write_pause(None)
        made.writer.before_call = lambda name, gi_id: made.store.write_pause(pause)
        assert made.execute().kind is OutcomeKind.DONE
        assert made.wrongs() == []


def test_stop_asked_for_before_the_first_call_is_heeded() -> None:
    with desk(SHAPE) as made:
        outcome = made.executor().execute(
            PlanId("p1"),
            made.plan(),
            made.state(),
            Policy(),
            should_stop=lambda: OutcomeReason.STOPPING,
        )
        assert outcome.reason is OutcomeReason.STOPPING
        assert (made.calls(), made.scheduler.log, made.store.past_plans(9)) == ([], [], ())


def test_fence_that_does_not_hold_in_time_drops_the_plan() -> None:
    with desk(SHAPE) as made:
        made.scheduler.fence_problem = "node still drains"
        pace = Pace(fence_max=timedelta(seconds=20))
        outcome = made.executor().execute(
            PlanId("p1"), made.plan(), made.state(), Policy(pace=pace)
        )
        assert outcome.reason is OutcomeReason.FENCE_TIMEOUT
        assert timedelta(seconds=20) <= outcome.duration <= timedelta(seconds=22)
        assert made.scheduler.log[-1] == "unfence"
        assert made.calls() == []


def test_plan_whose_fence_does_not_hold_ends_as_soon_as_it_is_to_stop() -> None:
    """SIGTERM waited for `fence_max`, and the plan after it was to be dropped all the same."""
    with desk(SHAPE) as made:
        made.scheduler.fence_problem = "node still drains"
        began = made.clock.monotonic()

        def why_stop() -> OutcomeReason | None:
            return OutcomeReason.STOPPING if made.clock.monotonic() - began >= 3.0 else None

        outcome = made.executor().execute(
            PlanId("p1"), made.plan(), made.state(), Policy(), should_stop=why_stop
        )
        assert outcome.reason is OutcomeReason.STOPPING
        assert outcome.duration <= timedelta(seconds=4)
        assert made.scheduler.log[-1] == "unfence"
        assert made.calls() == []


def test_executor_waits_one_period_of_the_scheduler() -> None:
    with desk(SHAPE) as made:
        made.scheduler.period = 7.0
        assert made.execute().duration == timedelta(seconds=7)


def test_fence_that_can_not_be_lifted_is_remembered_and_tried_again() -> None:
    with desk(SHAPE) as made:
        made.scheduler.unfence_problem = "controller is silent"
        executor = made.executor()
        outcome = executor.execute(PlanId("p1"), made.plan(), made.state(), Policy())
        assert outcome.kind is OutcomeKind.DONE
        assert "controller is silent" in outcome.explanation
        assert executor.fenced() == ((made.uuid, NOW),)
        executor.lift_fences()
        assert executor.fenced() == ((made.uuid, NOW),)
        made.scheduler.unfence_problem = None
        executor.lift_fences()
        assert executor.fenced() == ()


def test_journal_that_can_not_be_written_stops_before_any_call(tmp_path: Path) -> None:
    with desk(SHAPE, tmp_path / "s.db") as made:
        made.store._db.rows("PRAGMA query_only = ON")
        outcome = made.execute()
        assert (outcome.kind, outcome.reason) == (
            OutcomeKind.ABANDONED,
            OutcomeReason.JOURNAL_UNWRITABLE,
        )
        assert made.calls() == []


def break_journal(made: Desk, after_calls: int) -> None:
    """Make the journal unwritable after a number of NVML calls."""

    def stop(name: str, gi_id: int | None) -> None:
        if len(made.calls()) + 1 == after_calls:
            made.store._db.rows("PRAGMA query_only = ON")

    made.writer.before_call = stop


@pytest.mark.parametrize("calls", [1, 2, 3, 6])
def test_journal_lost_on_the_way_stops_and_is_settled_later(calls: int, tmp_path: Path) -> None:
    with desk(SHAPE, tmp_path / "s.db") as made:
        break_journal(made, calls)
        outcome = made.execute()
        assert (outcome.kind, outcome.reason) == (
            OutcomeKind.FAILED,
            OutcomeReason.JOURNAL_UNWRITABLE,
        )
        assert len(made.calls()) == calls
        assert made.scheduler.fenced == set()
        made.store._db.rows("PRAGMA query_only = OFF")
        made.writer.before_call = lambda name, gi_id: None
        made.settle()
        assert made.wrongs() == []
        assert made.layout() == made.before


def test_fence_is_lifted_in_time_also_when_the_layout_is_never_advertised() -> None:
    with desk(SHAPE) as made:
        made.scheduler.refresh_problems = 10_000
        pace = Pace(fence_max=timedelta(seconds=20))
        outcome = made.executor().execute(
            PlanId("p1"), made.plan(), made.state(), Policy(pace=pace)
        )
        assert outcome.kind is OutcomeKind.DONE
        assert outcome.duration <= timedelta(seconds=22)
        assert "not advertised: not yet" in outcome.explanation
        assert made.scheduler.log[-1] == "unfence"


def test_fence_of_a_plan_under_way_is_not_lifted_for_an_earlier_one() -> None:
    """Housekeeping tried an old fence again and so opened the GPU that was being changed."""
    with desk(SHAPE) as made:
        executor = made.executor()
        made.scheduler.unfence_problem = "controller is silent"
        executor.unfence(made.uuid, NOW)
        made.scheduler.unfence_problem = None
        seen = []

        def housekeeping() -> None:
            executor.lift_fences()
            seen.append(set(made.scheduler.fenced))

        made.scheduler.on_fence = housekeeping
        outcome = executor.execute(PlanId("p1"), made.plan(), made.state(), Policy())

        assert outcome.kind is OutcomeKind.DONE
        assert seen == [{made.uuid}]
        assert executor.fenced() == ()
        assert made.scheduler.fenced == set()
