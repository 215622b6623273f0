"""Somebody comes in between, calls fail, answers get lost: what stays, what is put back."""

import pytest

from migscaler.model.gpu import Claim
from migscaler.model.plan import OutcomeKind, OutcomeReason, StepFailure
from migscaler.sim.codes import Code
from migscaler.sim.faults import fails, loses_answer
from tests.simulation.acting import SHAPES, Desk, Shape, desk

IDS = [shape.name for shape in SHAPES]
CREATE_GI = "nvmlDeviceCreateGpuInstanceWithPlacement"
CREATE_CI = "nvmlGpuInstanceCreateComputeInstance"
DESTROY_CI = "nvmlComputeInstanceDestroy"
DESTROY_GI = "nvmlGpuInstanceDestroy"


def come_before(made: Desk, nth: int, *, let_pass: bool = False) -> list[int]:
    """Start a job on the instance right before the nth destroy of a compute instance.

    `let_pass`: the library does not notice it, as with a process still setting up its context; the
    job dies with its instance.
    """
    seen: list[int] = []
    jobs: list[int] = []

    def come(name: str, gi_id: int | None) -> None:
        if name == "destroy_ci" and gi_id is not None:
            seen.append(gi_id)
            if len(seen) == nth and not jobs:
                jobs.append(made.node.start_job(0, gi_id))
                if let_pass:
                    made.node.end_job(jobs[0])

    made.writer.before_call = come
    return jobs


@pytest.mark.parametrize("nth", [1, 2, 3])
@pytest.mark.parametrize("shape", SHAPES, ids=IDS)
def test_job_between_last_look_and_destroy_keeps_its_instance(shape: Shape, nth: int) -> None:
    with desk(shape) as made:
        births = made.births()
        jobs = come_before(made, nth)
        outcome = made.execute()
        if jobs:
            births |= made.births()
            assert outcome.kind is OutcomeKind.ABANDONED
            assert outcome.reason is OutcomeReason.NO_LONGER_IDLE
            assert outcome.counts_as_failure is False
            assert made.layout() == made.before
        else:
            assert outcome.kind is OutcomeKind.DONE
        assert made.wrongs(births) == []


@pytest.mark.parametrize("shape", SHAPES, ids=IDS)
def test_job_that_the_library_does_not_notice_is_not_known_to_us_either(shape: Shape) -> None:
    with desk(shape) as made:
        births = made.births()
        come_before(made, 1, let_pass=True)
        assert made.execute().kind is OutcomeKind.DONE
        assert made.wrongs(births) == []


def test_client_that_holds_a_handle_gets_its_compute_instance_back() -> None:
    with desk(SHAPES[0]) as made:
        made.node.hold_instance(0, made.gi_of("3g@0"))
        outcome = made.execute()
        assert (outcome.kind, outcome.reason) == (
            OutcomeKind.ABANDONED,
            OutcomeReason.HELD_BY_CLIENT,
        )
        assert outcome.counts_as_failure is False
        assert made.calls() == ["destroy_ci 3g.20gb@0", "create_ci 3g.20gb@0"]
        assert outcome.step_failures == (
            StepFailure(kind="destroy_gi", reason=OutcomeReason.HELD_BY_CLIENT),
        )
        assert made.wrongs() == []


def test_client_on_a_later_instance_undoes_the_earlier_ones() -> None:
    with desk(SHAPES[1]) as made:
        made.node.hold_instance(0, made.gi_of("1g@3"))
        outcome = made.execute()
        assert outcome.reason is OutcomeReason.HELD_BY_CLIENT
        assert (made.layout(), outcome.layout) == (made.before, made.before)
        assert made.wrongs() == []


@pytest.mark.parametrize("nth", [1, 2, 3])
@pytest.mark.parametrize("function", [CREATE_GI, CREATE_CI])
@pytest.mark.parametrize("shape", SHAPES, ids=IDS)
def test_create_that_fails_rebuilds_the_layout_before(
    shape: Shape, function: str, nth: int
) -> None:
    with desk(shape) as made:
        births = made.births()
        made.node.add_fault(fails(function, Code.INSUFFICIENT_RESOURCES, nth=nth))
        outcome = made.execute()
        if outcome.kind is OutcomeKind.DONE:  # it had fewer creates than that
            assert nth > len(made.after.without(made.before.specs))
            return
        assert outcome.kind is OutcomeKind.FAILED
        assert outcome.reason is OutcomeReason.INSUFFICIENT_RESOURCES
        assert outcome.counts_as_failure is True
        assert made.layout() == made.before
        assert made.wrongs(births) == []


@pytest.mark.parametrize("function", [CREATE_GI, CREATE_CI, DESTROY_CI, DESTROY_GI])
@pytest.mark.parametrize("code", [Code.UNKNOWN, Code.TIMEOUT])
def test_answer_that_got_lost_is_found_by_looking(function: str, code: Code) -> None:
    with desk(SHAPES[0]) as made:
        made.node.add_fault(loses_answer(function, code))
        assert made.execute().kind is OutcomeKind.DONE
        assert len(made.calls()) == 10
        assert made.wrongs() == []


def test_permission_that_is_missing_is_a_failure_without_change() -> None:
    with desk(SHAPES[0]) as made:
        made.node.add_fault(fails(DESTROY_CI, Code.NO_PERMISSION))
        outcome = made.execute()
        assert (outcome.kind, outcome.reason) == (OutcomeKind.FAILED, OutcomeReason.NO_PERMISSION)
        assert outcome.rolled_back is False
        assert made.calls() == []
        assert made.wrongs() == []


def test_rebuilding_that_fails_at_first_is_tried_again() -> None:
    with desk(SHAPES[0]) as made:
        made.node.add_fault(fails(CREATE_GI, Code.IN_USE, times=3))
        outcome = made.execute()
        assert outcome.reason is OutcomeReason.HELD_BY_CLIENT
        assert outcome.kind is OutcomeKind.ABANDONED
        assert made.layout() == made.before


def test_rebuilding_that_can_not_succeed_is_said_with_what_is_missing() -> None:
    with desk(SHAPES[0]) as made:
        made.node.add_fault(fails(CREATE_GI, Code.INSUFFICIENT_RESOURCES, times=None))
        outcome = made.execute()
        assert outcome.kind is OutcomeKind.FAILED
        assert outcome.reason is OutcomeReason.ROLLBACK_INCOMPLETE
        assert outcome.counts_as_failure is True
        assert "3g.20gb@0 could not be made again" in outcome.explanation
        assert outcome.layout == made.layout() == made.model.layout("3g@4")


@pytest.mark.parametrize("function", [CREATE_GI, CREATE_CI])
def test_rebuilding_that_could_not_succeed_is_done_once_the_driver_can(function: str) -> None:
    """A GPU whose create_ci kept failing was left empty, and nobody filled it again."""
    with desk(SHAPES[2]) as made:
        made.node.add_fault(fails(function, Code.UNKNOWN, times=None))
        assert made.execute().reason is OutcomeReason.ROLLBACK_INCOMPLETE
        assert len(made.layout()) == 0
        (still,) = made.settle()
        assert still.reason is OutcomeReason.ROLLBACK_INCOMPLETE
        assert "to be tried again" in still.explanation
        made.node.clear_faults()
        made.settle()
        assert made.layout() == made.before
        assert made.wrongs() == []


@pytest.mark.parametrize("seconds", [601.0, -3600.0])
def test_rebuilding_is_given_up_after_ten_minutes(seconds: float) -> None:
    """Else one broken GPU would keep the whole node from changing; a clock set back ends it too."""
    with desk(SHAPES[2]) as made:
        made.node.add_fault(fails(CREATE_CI, Code.UNKNOWN, times=None))
        made.execute()
        made.clock.sleep(seconds)
        (given_up,) = made.settle()
        assert given_up.reason is OutcomeReason.ROLLBACK_INCOMPLETE
        assert made.store.open_plans() == ()


def test_instance_cut_open_that_gets_no_compute_instance_is_not_called_put_back() -> None:
    """Its profile is not in the layout after, so nothing was promised, and nothing was said."""
    with desk(SHAPES[2]) as made:
        made.node.hold_instance(0, made.gi_of("7g@0"))
        fault = made.node.add_fault(fails(CREATE_CI, Code.UNKNOWN, times=None))
        outcome = made.execute()
        assert outcome.reason is OutcomeReason.ROLLBACK_INCOMPLETE
        assert "7g.40gb@0 could not be made again" in outcome.explanation
        made.node.clear_faults(fault)
        made.settle()
        assert made.wrongs() == []
        assert made.layout() == made.before


def test_new_instance_in_use_stays_and_what_is_promised_fits_around_it() -> None:
    """A new 3g in use covers both 2g of before; promise (b) still asks for one 2g somewhere."""
    with desk(SHAPES[6]) as made:
        started: list[int] = []

        def come(name: str, gi_id: int | None) -> None:
            if name == "create_gi" and "create_ci 3g.20gb@0" in made.calls() and not started:
                started.append(made.start_job("3g@0"))
                made.node.add_fault(fails(CREATE_GI, Code.INSUFFICIENT_RESOURCES))

        made.writer.before_call = come
        outcome = made.execute()
        assert started
        assert outcome.kind is OutcomeKind.FAILED
        assert outcome.reason is OutcomeReason.INSUFFICIENT_RESOURCES
        assert str(made.layout()) == "3g.20gb@0 2g.10gb@4"
        assert made.wrongs() == []


def test_gpu_lost_on_the_way_leaves_the_plan_open_to_be_settled() -> None:
    with desk(SHAPES[0]) as made:

        def lose(name: str, gi_id: int | None) -> None:
            if name == "create_gi":
                made.node.lose_gpu(0)

        made.writer.before_call = lose
        outcome = made.execute()
        assert (outcome.kind, outcome.reason) == (OutcomeKind.FAILED, OutcomeReason.DRIVER_FAULT)
        assert outcome.layout is None
        assert len(made.store.open_plans()) == 1
        made.node.lose_gpu(0, lost=False)
        made.writer.before_call = lambda name, gi_id: None
        (settled,) = made.settle()
        assert settled.kind is OutcomeKind.ABANDONED
        assert made.layout() == made.before
        assert made.wrongs() == []


def test_foreign_change_on_the_way_ends_the_plan_and_is_left_alone() -> None:
    shape = Shape(name="x", board="A100-SXM4-40GB", before="3g@0 1g@4", after="1g@0 1g@1 1g@4")
    with desk(shape) as made:
        done: list[int] = []

        def meddle(name: str, gi_id: int | None) -> None:
            if name == "create_gi" and not done:
                done.append(made.node.foreign_create(0, "1g@6"))

        made.writer.before_call = meddle
        outcome = made.execute()
        assert (outcome.kind, outcome.reason) == (
            OutcomeKind.ABANDONED,
            OutcomeReason.CHANGED_UNDERNEATH,
        )
        assert str(made.layout()) == "3g.20gb@0 1g.5gb@4 1g.5gb@6"
        assert made.wrongs() == []


def test_claim_that_comes_after_the_first_call_keeps_its_instance() -> None:
    with desk(SHAPES[1]) as made:

        def claim(name: str, gi_id: int | None) -> None:
            uuid = made.mig_uuid("1g@2")
            made.scheduler.claims = (Claim(gpu_uuid=made.uuid, mig_uuid=uuid, owner="job 9"),)
            made.writer.before_call = lambda name, gi_id: None

        made.writer.before_call = claim
        outcome = made.execute()
        assert (outcome.kind, outcome.reason) == (
            OutcomeKind.ABANDONED,
            OutcomeReason.NO_LONGER_IDLE,
        )
        assert "allocated to job 9" in outcome.explanation
        assert not any("1g.5gb@2" in call for call in made.calls())
        assert made.layout() == made.before
        assert made.wrongs() == []


def test_process_on_an_instance_further_on_is_seen_before_the_first_call() -> None:
    with desk(SHAPES[1]) as made:

        def come() -> None:
            made.start_job("1g@3")

        made.scheduler.on_fence = come
        assert made.execute().reason is OutcomeReason.NO_LONGER_IDLE
        assert made.calls() == []


def test_new_instance_that_was_allocated_meanwhile_is_not_undone() -> None:
    with desk(SHAPES[0]) as made:

        def allocate(name: str, gi_id: int | None) -> None:
            if name == "create_gi" and "create_ci 1g.5gb@0" in made.calls():
                uuid = made.mig_uuid("1g@0")
                made.scheduler.claims = (Claim(gpu_uuid=made.uuid, mig_uuid=uuid, owner="job 9"),)
                made.node.add_fault(fails(CREATE_GI, Code.INSUFFICIENT_RESOURCES))
                made.writer.before_call = lambda name, gi_id: None

        made.writer.before_call = allocate
        outcome = made.execute()
        assert outcome.rolled_back is True
        assert str(made.layout()) == "1g.5gb@0 3g.20gb@4"
        assert made.wrongs() == []
