"""Restoring at start: which GPUs get their layout back, and which are left alone."""

from dataclasses import replace
from pathlib import Path

import pytest

from migscaler.control.emptied import restore
from migscaler.model.ids import PlanId
from migscaler.model.plan import Outcome, OutcomeKind, OutcomeReason
from migscaler.model.policy import Policy
from migscaler.sim.codes import Code
from migscaler.sim.faults import fails
from migscaler.store.records import GenerationRecord
from tests.builders import NOW
from tests.simulation.acting import SHAPES, Crash, Desk, Shape, desk
from tests.simulation.clockwork import VirtualClock

AMPERE = Shape(name="a100", board="A100-SXM4-40GB", before="7g@0", after="3g@0 2g@4 1g@6")
HOPPER = Shape(name="h100", board="H100-80GB", before="7g@0", after="4g@0 3g@4")


def restored(made: Desk, layout: str = "restore", *, mode: bool = True) -> tuple[Outcome, ...]:
    return restore(
        made.site(),
        layout=layout,
        mig_mode=mode,
        act_on=frozenset({made.uuid}),
    )


def rebooted(made: Desk) -> None:
    """Carry the plan out, reboot the node, start again."""
    assert made.execute().kind is OutcomeKind.DONE
    made.node.reboot()
    made.restart()


def test_layout_comes_back_after_a_reboot(tmp_path: Path) -> None:
    with desk(AMPERE, tmp_path / "s.db") as made:
        rebooted(made)
        (outcome,) = restored(made)
        assert (outcome.kind, outcome.layout) == (OutcomeKind.DONE, made.after)
        assert made.layout() == made.after
        assert made.wrongs() == []
        assert restored(made) == ()
        assert [one.boot_id for one in made.store.wanted()] == [made.boot_id]
        assert made.store.changes_since(NOW) == 1


def test_mode_comes_first_where_a_reboot_loses_it(tmp_path: Path) -> None:
    with desk(HOPPER, tmp_path / "s.db") as made:
        rebooted(made)
        assert made.reader.read_gpu(made.uuid).mig_enabled is False
        (left,) = restored(made, mode=False)
        assert (left.kind, made.layout().specs) == (OutcomeKind.ABANDONED, ())
        (outcome,) = restored(made)
        assert outcome.kind is OutcomeKind.DONE
        assert made.layout() == made.after


def test_mode_that_an_operator_switched_off_stays_off(tmp_path: Path) -> None:
    with desk(HOPPER, tmp_path / "s.db") as made:
        rebooted(made)
        known = made.store.generation(made.uuid)
        assert known is not None
        made.store.write_generation(replace(known, mig_mode_wanted=False))
        (outcome,) = restored(made)
        assert outcome.kind is OutcomeKind.ABANDONED
        assert "MIG mode is off" in outcome.explanation


def test_mode_that_stays_pending_is_reported(tmp_path: Path) -> None:
    with desk(AMPERE, tmp_path / "s.db") as made:
        rebooted(made)
        made.node.hold_gpu(0, "nv-hostengine")
        with made.node.changing() as state:
            state.gpus[0].mig_current = state.gpus[0].mig_pending = 0
        (outcome,) = restored(made)
        assert outcome.kind is OutcomeKind.ABANDONED
        assert "pending on" in outcome.explanation
        assert made.layout().specs == ()


@pytest.mark.parametrize(("layout", "kept"), [("adopt", 0), ("report", 1)])
def test_what_is_not_to_be_restored_is_adopted_or_reported(
    layout: str, kept: int, tmp_path: Path
) -> None:
    with desk(AMPERE, tmp_path / "s.db") as made:
        rebooted(made)
        (outcome,) = restored(made, layout)
        assert outcome.kind is OutcomeKind.ABANDONED
        assert made.layout().specs == ()
        assert len(made.store.wanted()) == kept


def test_gpu_that_has_any_instance_is_left_alone() -> None:
    with desk(AMPERE) as made:
        made.execute()
        made.node.foreign_destroy(0, made.gi_of("3g@0"))
        calls = made.calls()
        assert restored(made) == ()
        assert made.calls() == calls


def test_layout_that_was_given_up_is_not_restored(tmp_path: Path) -> None:
    with desk(AMPERE, tmp_path / "s.db") as made:
        rebooted(made)
        made.store.forget_wanted(made.uuid)
        assert restored(made) == ()


def test_gpu_of_another_model_is_left_alone(tmp_path: Path) -> None:
    with desk(AMPERE, tmp_path / "s.db") as made:
        rebooted(made)
        made.store.write_generation(
            GenerationRecord(
                gpu_uuid=made.uuid,
                generation=5,
                layout=None,
                boot_id="earlier",
                changed_at=NOW,
                model_name="NVIDIA A30",
            )
        )
        (outcome,) = restored(made)
        assert outcome.reason is OutcomeReason.CHANGED_UNDERNEATH
        assert made.layout().specs == ()


def test_part_that_fits_is_restored_and_the_rest_reported(tmp_path: Path) -> None:
    with desk(AMPERE, tmp_path / "s.db") as made:
        rebooted(made)
        made.node.add_fault(
            fails("nvmlDeviceCreateGpuInstanceWithPlacement", Code.INSUFFICIENT_RESOURCES, nth=2)
        )
        (outcome,) = restored(made)
        assert (outcome.kind, outcome.counts_as_failure) == (OutcomeKind.FAILED, True)
        assert str(outcome.layout) == str(made.layout()) == "3g.20gb@0 1g.5gb@6"
        assert outcome.reason is OutcomeReason.INSUFFICIENT_RESOURCES
        assert "2g.10gb@4" in outcome.explanation
        assert len(made.store.open_plans()) == 1


def test_rest_of_a_restore_is_made_by_settling(tmp_path: Path) -> None:
    """What the driver refused once was never tried again, as the GPU was not empty."""
    with desk(AMPERE, tmp_path / "s.db") as made:
        rebooted(made)
        made.node.add_fault(fails("nvmlDeviceCreateGpuInstanceWithPlacement", Code.UNKNOWN, nth=2))
        (outcome,) = restored(made)
        (settled,) = made.settle()
        assert outcome.reason is OutcomeReason.DRIVER_FAULT
        assert (settled.kind, settled.rolled_back) == (OutcomeKind.ABANDONED, False)
        assert settled.explanation == "found open; restored 3g.20gb@0 2g.10gb@4 1g.5gb@6"
        assert made.wrongs() == []
        assert made.layout() == made.after
        assert [one.boot_id for one in made.store.wanted()] == [made.boot_id]


def test_rest_that_the_driver_refuses_is_given_up_after_ten_minutes(tmp_path: Path) -> None:
    clock = VirtualClock(NOW)
    with desk(AMPERE, tmp_path / "s.db", clock) as made:
        rebooted(made)
        create = fails("nvmlDeviceCreateGpuInstanceWithPlacement", Code.UNKNOWN, times=None)
        create.skip = 1
        made.node.add_fault(create)
        restored(made)
        (tried,) = made.settle()
        left_open = len(made.store.open_plans())
        clock.advance(601)
        (given_up,) = made.settle()
        assert tried.explanation.endswith("left open, to be tried again")
        assert left_open == 1
        assert (given_up.kind, made.store.open_plans()) == (OutcomeKind.FAILED, ())
        assert str(made.layout()) == "3g.20gb@0"


def test_rest_of_a_restore_is_made_beside_what_somebody_else_made(tmp_path: Path) -> None:
    with desk(AMPERE, tmp_path / "s.db") as made:
        rebooted(made)
        create = fails("nvmlDeviceCreateGpuInstanceWithPlacement", Code.UNKNOWN, times=None)
        create.skip = 1
        made.node.add_fault(create)
        restored(made)
        made.node.clear_faults()
        made.node.foreign_create(0, "1g@4")
        (settled,) = made.settle()
        assert str(made.layout()) == "3g.20gb@0 1g.5gb@4 1g.5gb@6"
        assert "1 x 2g.10gb fewer than promised" in settled.explanation
        assert made.store.open_plans() == ()


def test_mode_is_not_asked_for_again_while_it_is_pending(tmp_path: Path) -> None:
    """Switched on whenever nothing ran for a moment, it would surprise who uses the card whole."""
    with desk(AMPERE, tmp_path / "s.db") as made:
        rebooted(made)
        with made.node.changing() as state:
            state.gpus[0].mig_current, state.gpus[0].mig_pending = 0, 1
        before = len(made.node.call_log())
        (outcome,) = restored(made)
        assert outcome.reason is OutcomeReason.NOT_VERIFIED
        assert len(made.node.call_log()) == before


def test_instance_that_stays_half_made_is_not_restored(tmp_path: Path) -> None:
    """What kept it from being taken away again (a lease, the driver) let it count as restored."""
    with desk(AMPERE, tmp_path / "s.db") as made:
        rebooted(made)
        (before,) = made.store.wanted()
        create = fails("nvmlGpuInstanceCreateComputeInstance", Code.UNKNOWN, times=None)
        create.skip = 1
        made.node.add_fault(create)
        made.node.add_fault(fails("nvmlGpuInstanceDestroy", Code.NO_PERMISSION, times=None))
        (outcome,) = restored(made)
        assert made.layout() == made.after
        assert (outcome.kind, outcome.counts_as_failure) == (OutcomeKind.FAILED, True)
        assert "restored 3g.20gb@0; create_ci 2g.10gb@4" in outcome.explanation
        assert made.store.wanted() == (before,)


def test_restoring_cut_at_every_point_is_finished_by_the_next_start(tmp_path: Path) -> None:
    point = 0
    while True:
        point += 1
        with desk(AMPERE, tmp_path / f"{point}.db") as made:
            made.execute()
            made.node.reboot()
            made.restart(die_at=point)
            try:
                restored(made)
            except Crash:
                pass
            else:
                break
            made.restart()
            made.settle()
            restored(made)
            assert made.layout() == made.after, f"died at point {point}"
            assert made.wrongs() == [], f"died at point {point}"
    assert point > 20


def test_plan_whose_gpu_is_not_to_be_acted_on_is_reported(tmp_path: Path) -> None:
    with desk(SHAPES[0], tmp_path / "s.db") as made:
        state = made.state()
        made.restart(die_at=20)
        with pytest.raises(Crash):
            made.executor().execute(PlanId("p1"), made.plan(), state, Policy())
        made.restart()
        made.writer.before_call = lambda name, gi_id: pytest.fail("nothing may be called")
        (outcome,) = made.settle(act=False)
        assert outcome.reason is OutcomeReason.PAUSED
