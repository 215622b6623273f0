"""The process dies at every journal write and around every NVML call; the next start settles it."""

from itertools import count
from pathlib import Path

import pytest

from migscaler.model.plan import OutcomeKind, OutcomeReason
from tests.simulation.acting import SHAPES, Crash, Desk, Shape, desk

IDS = [shape.name for shape in SHAPES]


def dies(made: Desk) -> bool:
    """Execute; say whether the process died on the way."""
    try:
        made.execute()
    except Crash:
        return True
    return False


@pytest.mark.parametrize("shape", SHAPES, ids=IDS)
def test_plan_cut_at_every_point_is_settled(shape: Shape, tmp_path: Path) -> None:
    for point in count(1):
        with desk(shape, tmp_path / f"{point}.db") as made:
            births = made.births()
            made.restart(die_at=point)
            if not dies(made):
                break
            made.restart()
            outcomes = made.settle()
            assert made.wrongs(births) == [], f"died at point {point}"
            assert made.layout() in (made.before, made.after), f"died at point {point}"
            assert all(one.kind is not OutcomeKind.FAILED for one in outcomes), outcomes
            assert made.settle() == ()
    assert point > 20


@pytest.mark.parametrize("shape", SHAPES[1:3], ids=IDS[1:3])
def test_settling_cut_short_is_finished_by_the_next_start(shape: Shape, tmp_path: Path) -> None:
    cuts = 0
    for point in range(6, 90, 13):
        for settle_point in range(1, 60, 5):
            with desk(shape, tmp_path / f"{point}-{settle_point}.db") as made:
                births = made.births()
                made.restart(die_at=point)
                if not dies(made):
                    break
                made.restart(die_at=settle_point)
                try:
                    made.settle()
                except Crash:
                    cuts += 1
                else:
                    break
                made.restart()
                made.settle()
                where = f"died at {point}, then at {settle_point} of settling"
                assert made.wrongs(births) == [], where
                assert made.layout() in (made.before, made.after), where
    assert cuts > 3


@pytest.mark.parametrize("shape", SHAPES[:3], ids=IDS[:3])
def test_jobs_that_start_on_new_instances_before_settling_keep_them(
    shape: Shape, tmp_path: Path
) -> None:
    kept = 0
    for point in range(1, 90, 3):
        with desk(shape, tmp_path / f"{point}.db") as made:
            made.restart(die_at=point)
            if not dies(made):
                break
            for spec in made.layout().specs:
                if (
                    spec not in made.before
                    and made.node.state.gpus[0].instances[made.gi_of(str(spec))].compute
                ):
                    made.start_job(str(spec))
                    kept += 1
            births = made.births()
            made.restart()
            made.settle()
            assert made.wrongs(births) == [], f"died at point {point}"
    assert kept > 5


def test_settling_leaves_alone_what_others_made_meanwhile(tmp_path: Path) -> None:
    shape = Shape(
        name="room beside", board="A100-SXM4-40GB", before="3g@0 1g@4", after="1g@0 1g@1 1g@4"
    )
    for point in range(1, 40, 2):
        with desk(shape, tmp_path / f"{point}.db") as made:
            made.restart(die_at=point)
            if not dies(made):
                break
            made.node.foreign_create(0, "1g@6")
            made.restart()
            made.settle()
            assert "1g.5gb@6" in str(made.layout())
            assert made.wrongs() == [], f"died at point {point}"


def test_plan_of_another_boot_is_closed_without_touching_anything(tmp_path: Path) -> None:
    with desk(SHAPES[0], tmp_path / "s.db") as made:
        made.restart(die_at=30)
        assert dies(made)
        before = made.calls()
        made.node.reboot()
        made.restart()
        (outcome,) = made.settle()
        assert outcome.reason is OutcomeReason.SETTLED
        assert "anew" in outcome.explanation
        assert made.calls() == before
        assert made.store.open_plans() == ()


def test_plan_found_open_is_only_reported_where_acting_is_off(tmp_path: Path) -> None:
    with desk(SHAPES[0], tmp_path / "s.db") as made:
        made.restart(die_at=30)
        assert dies(made)
        made.restart()
        before = made.calls()
        (outcome,) = made.settle(act=False)
        assert outcome.reason is OutcomeReason.PAUSED
        assert (made.calls(), len(made.store.open_plans())) == (before, 1)
        made.settle()
        assert made.wrongs() == []


def test_plan_verified_before_the_crash_is_kept(tmp_path: Path) -> None:
    with desk(SHAPES[0], tmp_path / "s.db") as made:
        made.restart(die_at=64)
        assert dies(made)
        made.restart()
        (outcome,) = made.settle()
        assert outcome.kind is OutcomeKind.DONE
        assert made.layout() == made.after
        assert [str(one.layout) for one in made.store.wanted()] == [str(made.after)]


def test_gpu_that_can_not_be_read_keeps_its_plan_open(tmp_path: Path) -> None:
    with desk(SHAPES[0], tmp_path / "s.db") as made:
        made.restart(die_at=30)
        assert dies(made)
        made.node.lose_gpu(0)
        made.restart()
        (outcome,) = made.settle()
        assert (outcome.kind, outcome.reason) == (OutcomeKind.FAILED, OutcomeReason.DRIVER_FAULT)
        assert len(made.store.open_plans()) == 1
        made.node.lose_gpu(0, lost=False)
        made.restart()
        made.settle()
        assert made.wrongs() == []


def test_held_instance_of_the_plan_is_not_destroyed_by_settling(tmp_path: Path) -> None:
    with desk(SHAPES[0], tmp_path / "s.db") as made:
        made.restart(die_at=40)
        assert dies(made)
        made.restart()
        new = made.layout().without(made.before.specs).specs[0]
        made.store.add_hold(made.uuid, new, owner="ada", reason="looking at it")
        made.settle()
        assert new in made.layout()
        assert made.wrongs() == []
