"""The loop while a plan is made, waits and ends: whose picture counts, and what is shown."""

from migscaler.errors import StoreError
from migscaler.model.decision import Decision, DecisionInput
from migscaler.model.gpu import PinReason
from migscaler.model.plan import GateReason, Hold, Outcome, OutcomeReason, Plan
from migscaler.model.status import Status
from tests.simulation.acting import Shape
from tests.unit.control.loop_desk import LoopDesk, loop_desk

IDLE_SECONDS = 400.0


def test_idle_half_is_cut_and_counts_as_our_own_change() -> None:
    with loop_desk() as made:
        made.watch(IDLE_SECONDS)
        decision = made.loop.tick()
        assert decision is not None
        assert isinstance(decision.outcome, Plan)
        assert len(made.desk.layout()) == 4
        assert made.desk.wrongs() == []
        (gpu,) = made.shown[-1].snapshot.gpus if made.shown[-1].snapshot else ()
        assert gpu.foreign_change is False
        assert [one.layout for one in made.desk.store.wanted()] == [made.desk.layout()]


def test_plan_whose_input_can_not_be_recorded_waits_until_it_can() -> None:
    """It was carried out with nothing to replay or explain, and never recorded later."""
    with loop_desk() as made:
        made.watch(IDLE_SECONDS)
        store = made.loop.parts.store
        write = store.record_decision

        def locked(inp: DecisionInput, decision: Decision) -> int:
            raise StoreError("database is locked")

        store.record_decision = locked  # type: ignore[method-assign]
        held = made.loop.tick()
        shown = made.shown[-1].decision
        store.record_decision = write  # type: ignore[method-assign]
        made.desk.clock.sleep(15.0)
        made.loop.sample()
        planned = made.loop.tick()

        assert held is not None
        assert planned is not None
        assert held == shown
        assert isinstance(held.outcome, Hold)
        assert held.outcome.reason is GateReason.JOURNAL_UNWRITABLE
        assert isinstance(planned.outcome, Plan)
        assert len(made.desk.layout()) == 4
        (record,) = store.decisions(5)
        assert str(made.shown[-1].outcomes[0].plan_id).endswith(f"-{record.seq}-1")


def test_plan_decided_again_goes_by_the_number_of_its_record() -> None:
    """Without one it passed for asked by a person, whom pace and freezes do not stop."""
    with loop_desk() as made:
        made.watch(IDLE_SECONDS)
        asked: list[int | None] = []

        def noted(plan: Plan, decision_id: int | None) -> tuple[Outcome, ...]:
            asked.append(decision_id)
            return ()

        made.loop.carry_out = noted  # type: ignore[method-assign]
        made.loop.tick()
        made.loop.tick()

        (record,) = made.loop.parts.store.decisions(5)
        assert asked == [record.seq, record.seq]


def test_instance_that_a_sample_saw_in_use_while_the_plan_was_made_is_kept() -> None:
    """Decided from one picture, checked against the memory of the next, it passed for empty."""
    with loop_desk() as made:
        made.watch(IDLE_SECONDS)

        def sampled_between(status: Status) -> None:
            if status.decision is not None:
                made.on_publish = lambda later: None
                for text in ("3g@0", "3g@4"):
                    made.hide_memory(text, 3000)
                made.desk.clock.sleep(5.0)
                made.loop.sample()

        made.on_publish = sampled_between
        decision = made.loop.tick()
        assert decision is not None
        assert isinstance(decision.outcome, Plan)
        assert made.desk.calls() == []
        (outcome,) = made.shown[-1].outcomes
        assert outcome.reason is OutcomeReason.NO_LONGER_IDLE


def test_instance_that_a_sample_saw_in_use_during_the_fence_is_kept() -> None:
    with loop_desk() as made:
        made.watch(IDLE_SECONDS)

        def taken_and_left() -> None:
            # A job that came and went: no reading of the executor's own shows it any more.
            pids = [made.desk.start_job(text) for text in ("3g@0", "3g@4")]
            made.loop.sample()
            for pid in pids:
                made.desk.node.end_job(pid)

        made.desk.scheduler.on_fence = taken_and_left
        made.loop.tick()
        assert made.desk.calls() == []
        assert made.shown[-1].outcomes[0].reason is OutcomeReason.NO_LONGER_IDLE


def test_sample_during_the_fence_does_not_stop_a_plan_whose_instances_stay_idle() -> None:
    shape = Shape(name="room", board="A100-SXM4-40GB", before="3g@0 2g@4", after="2g@4")
    with loop_desk(shape) as made:
        made.loop.sample()
        # The GPU's generation moves on, the instances' births don't.
        made.desk.node.foreign_create(0, "1g@6", actor="somebody")
        made.watch(IDLE_SECONDS)
        made.desk.scheduler.on_fence = lambda: made.watch(0.0)
        made.loop.tick()
        assert made.shown[-1].outcomes[0].reason is OutcomeReason.COMPLETED


def shows_what_is_gone(made: LoopDesk, status: Status) -> bool:
    """Say whether a status shows an instance that the GPU does not have."""
    if status.snapshot is None:
        return False
    there = made.desk.layout()
    return any(
        one.spec not in there
        for gpu in status.snapshot.gpus
        if gpu.uuid not in status.withheld
        for one in gpu.instances or ()
    )


def test_instances_that_our_plan_took_away_are_never_shown_again() -> None:
    """Between the end of a plan and the sample after it, the picture of before was shown."""
    with loop_desk() as made:
        made.watch(IDLE_SECONDS)
        wrong: list[Status] = []

        def judge(status: Status) -> None:
            if shows_what_is_gone(made, status):
                wrong.append(status)

        made.on_publish = judge
        made.loop.tick()
        assert len(made.desk.layout()) == 4
        assert wrong == []
        assert made.shown[-1].withheld == ()


def test_sample_begun_before_our_change_and_ended_after_it_makes_it_nobody_elses() -> None:
    """A slow pass had read the GPU before the plan, and was worked up after it."""
    with loop_desk() as made:
        made.watch(IDLE_SECONDS)
        reading = made.desk.reader.read_node()
        observer, plan = made.observer, made.desk.plan()
        observer.begin_change(made.desk.uuid, (step.spec for step in plan.steps))
        made.desk.execute()
        observer.end_change(made.desk.uuid, made.desk.clock.monotonic())
        (gpu,) = reading.gpus
        assert observer._follow(gpu, reading) is False
        snapshot = observer.observe(made.rules, ())
        assert snapshot.gpus[0].foreign_change is False


def test_plan_on_a_stale_picture_is_made_on_a_fresh_one_or_not_at_all() -> None:
    with loop_desk() as made:
        made.watch(IDLE_SECONDS)
        plan = Plan(gpu_plans=(made.desk.plan(),))
        made.desk.clock.sleep(600.0)
        (outcome,) = made.loop.request(plan)
        # After ten minutes unseen nothing is known to be idle.
        assert outcome.reason is OutcomeReason.NO_LONGER_IDLE
        assert made.desk.calls() == []
        decision = made.loop.tick()
        assert decision is not None
        assert isinstance(decision.outcome, Hold)
        assert decision.outcome.reason is GateReason.NOT_IDLE


def test_exporter_goes_on_when_the_state_file_can_no_longer_be_read() -> None:
    """Reading holds or the pause raised in every sample, and the page stood still for good."""
    with loop_desk() as made:
        made.desk.store.add_hold(
            made.desk.uuid, made.desk.model.spec("3g@0"), owner="ada", reason="measuring"
        )
        made.watch(IDLE_SECONDS)
        made.desk.store.close()
        made.desk.node.foreign_destroy(0, made.desk.gi_of("3g@4"))
        made.desk.clock.sleep(5.0)

        made.loop.sample()

        status = made.shown[-1]
        assert status.snapshot is not None
        (gpu,) = status.snapshot.gpus
        assert [str(one.spec) for one in gpu.instances or ()] == ["3g.20gb@0"]
        assert gpu.instances is not None
        assert gpu.instances[0].pin is PinReason.HELD
        assert [hold.owner for hold in status.holds] == ["ada"]
        assert (status.state_writable, status.snapshot_stale) == (False, False)
        decision = made.loop.tick()
        assert decision is not None
        assert isinstance(decision.outcome, Hold)
        assert decision.outcome.reason is GateReason.JOURNAL_UNWRITABLE
        assert made.desk.calls() == []
