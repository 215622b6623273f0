"""Restores that fail, or may not be made yet, are made later; none begins what nobody knows of."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NoReturn

import pytest

from migscaler.errors import StoreUnwritable
from migscaler.model.ids import GiId, GpuUuid
from migscaler.model.plan import OutcomeKind, OutcomeReason
from migscaler.model.profile import InstanceSpec
from migscaler.sim.codes import Code
from migscaler.sim.faults import fails
from tests.unit.app.nodes import ENFORCE, RECOMMEND, NodeAtWork, node_at_work
from tests.unit.app.test_comeback import HALVES, HOPPER_HALVES, empty, live, missing, wanting

CREATE = "nvmlDeviceCreateGpuInstanceWithPlacement"
H100 = "H100-80GB"


def lose(here: NodeAtWork, by: str) -> None:
    """Take all instances away."""
    if by == "reboot":
        here.node.reboot()
    else:
        here.node.restart_driver()


def rebooted(here: NodeAtWork) -> None:
    """Let what is there be wanted, and start again after a reboot."""
    wanting(here)
    here.node.reboot()
    here.restart()


def keep_house(here: NodeAtWork, seconds: int) -> None:
    """Let time pass with samples, ticks and housekeeping, which settles what was left open."""
    for _ in range(seconds // 15):
        live(here, 15)
        here.runtime.housekeeping()


@pytest.mark.parametrize(("spec", "halves"), [("A100-SXM4-40GB", HALVES), (H100, HOPPER_HALVES)])
@pytest.mark.parametrize("lost_by", ["reboot", "reload"])
def test_driver_that_fails_at_the_start_is_asked_again(
    tmp_path: Path, spec: str, halves: str, lost_by: str
) -> None:
    """The GPU stayed empty for as long as the daemon ran."""
    with node_at_work(tmp_path, "3g@0 3g@4", config=ENFORCE, spec=spec) as here:
        wanting(here)
        lose(here, lost_by)
        here.restart()
        here.node.add_fault(fails(CREATE, Code.UNKNOWN, times=4))
        here.runtime.begin()
        (outcome,) = here.runtime.loop.status().outcomes
        lacking = missing(here)

        live(here, 300)

        assert lacking == 2
        assert (outcome.kind, outcome.reason) == (OutcomeKind.FAILED, OutcomeReason.DRIVER_FAULT)
        assert (here.layout(), missing(here)) == (halves, 0)


def test_gpu_whose_owner_is_seen_only_at_the_restore_is_left_alone(tmp_path: Path) -> None:
    """Its MIG mode was asked to change: the answer that tells of him had been denied before."""
    with node_at_work(tmp_path, "3g@0 3g@4", config=ENFORCE, spec=H100) as here:
        rebooted(here)
        here.node.set_node(confidential=True)
        here.node.add_fault(fails("nvmlSystemGetConfComputeState", Code.NOT_SUPPORTED, times=3))

        here.runtime.begin()

        (outcome,) = here.runtime.loop.status().outcomes
        assert (outcome.kind, outcome.reason) == (OutcomeKind.ABANDONED, OutcomeReason.GATE_CLOSED)
        assert "nvmlDeviceSetMigMode" not in [call.function for call in here.node.call_log()]


def test_driver_that_goes_on_failing_is_asked_less_and_less(tmp_path: Path) -> None:
    with node_at_work(tmp_path, "7g@0", config=ENFORCE) as here:
        rebooted(here)
        here.node.add_fault(fails(CREATE, Code.UNKNOWN, times=None))
        here.runtime.begin()

        for _ in range(124):
            here.clock.advance(60)
            here.runtime.sample()
            here.runtime.tick()

        # At once, after 1, 2, 4, 8, 16 and 32 minutes, then every hour.
        assert len(here.runtime.loop.status().outcomes) == 8
        assert here.layout() == ""


def test_hold_on_a_gpu_whose_restore_failed_is_heeded(tmp_path: Path) -> None:
    """Its holder may be mending it; before the failure a hold keeps nothing from coming back."""
    with node_at_work(tmp_path, "3g@0 3g@4", config=ENFORCE) as here:
        rebooted(here)
        here.node.add_fault(fails(CREATE, Code.UNKNOWN, times=4))
        here.runtime.begin()
        here.node.clear_faults()
        here.ask("hold", gpu=0, reason="looking at it")
        live(here, 300)
        held = here.layout()

        here.ask("release", hold_id=here.store.holds(here.clock.now())[0].hold_id)
        live(here, 15)

        assert (held, here.layout()) == ("", HALVES)


@pytest.mark.parametrize("who", ["migagent", "lim"])
def test_layout_comes_back_once_the_other_owner_has_gone(tmp_path: Path, who: str) -> None:
    """`lim`: an LSF daemon of which it is not known whether it shapes the GPUs."""
    with node_at_work(tmp_path, "3g@0 3g@4", config=ENFORCE) as here:
        rebooted(here)
        process = here.host.process(77, who)
        here.runtime.begin()
        (outcome,) = here.runtime.loop.status().outcomes
        live(here, 300)
        beside = here.our_calls()

        shutil.rmtree(process)
        live(here, 30)

        assert outcome.explanation == (
            "3g.20gb@0 3g.20gb@4 is gone; its layout is, or may be, somebody else's, not restored"
        )
        assert beside == []
        assert here.layout() == HALVES


def test_hold_that_keeps_a_gpu_empty_keeps_no_other_gpu(tmp_path: Path) -> None:
    layouts = ("3g@0 3g@4", "3g@0 3g@4")
    with node_at_work(tmp_path, *layouts, config=ENFORCE, spec="2xA100-SXM4-40GB") as here:
        wanting(here)
        here.ask("hold", gpu="0", reason="made by hand today")
        empty(here, 0)
        empty(here, 1)
        live(here, 150)

        assert (here.layout(0), here.layout(1)) == ("", HALVES)


def test_gpu_emptied_in_recommend_is_restored_once_it_may_be(tmp_path: Path) -> None:
    with node_at_work(tmp_path, "3g@0 3g@4", config=RECOMMEND) as here:
        rebooted(here)
        here.runtime.begin()
        live(here, 300)
        before = here.our_calls()
        here.config.write_text(ENFORCE)
        here.runtime.reload()

        live(here, 30)

        assert (before, here.layout()) == ([], HALVES)


@contextmanager
def full_disk(here: NodeAtWork) -> Iterator[None]:
    """Let every write to the state fail."""

    def write() -> NoReturn:
        raise StoreUnwritable("database or disk is full")

    here.store._db.write = write  # type: ignore[method-assign]
    try:
        yield
    finally:
        del here.store._db.write


def test_mode_is_not_switched_on_without_a_journal(tmp_path: Path) -> None:
    """It was, and then nothing could be made: on and empty, also when there was space again."""
    with node_at_work(tmp_path, "3g@0 3g@4", config=ENFORCE, spec=H100) as here:
        rebooted(here)
        with full_disk(here):
            here.runtime.begin()
            live(here, 60)
            calls, mode = here.our_calls(), here.node.state.gpus[0].mig_current
            (outcome, *_) = here.runtime.loop.status().outcomes

        live(here, 300)

        assert (calls, mode) == ([], 0)
        assert outcome.reason is OutcomeReason.JOURNAL_UNWRITABLE
        assert here.layout() == HOPPER_HALVES


@pytest.mark.parametrize("lost_by", ["reboot", "reload"])
def test_pause_in_the_middle_leaves_the_next_gpu_as_it_is(tmp_path: Path, lost_by: str) -> None:
    layouts = ("3g@0 3g@4", "3g@0 3g@4")
    with node_at_work(tmp_path, *layouts, config=ENFORCE, spec=f"2x{H100}") as here:
        wanting(here)
        lose(here, lost_by)
        here.restart()
        writer = here.assembly.ground.writer
        create = writer.create_gpu_instance

        def pause_and_create(uuid: GpuUuid, spec: InstanceSpec) -> GiId:
            if here.store.pause() is None:
                here.ask("pause", why="stop")
            return create(uuid, spec)

        writer.create_gpu_instance = pause_and_create  # type: ignore[method-assign]
        here.runtime.begin()
        modes = [gpu.mig_current for gpu in here.node.state.gpus]
        outcomes = {one.gpu_uuid: one for one in here.runtime.loop.status().outcomes}
        writer.create_gpu_instance = create  # type: ignore[method-assign]
        here.ask("resume")

        live(here, 30)

        assert modes == [1, 0]
        paused = outcomes[here.uuid(1)]
        assert (paused.kind, paused.reason) == (OutcomeKind.ABANDONED, OutcomeReason.PAUSED)
        assert (here.layout(0), here.layout(1)) == (HOPPER_HALVES, HOPPER_HALVES)


def test_gpu_emptied_by_hand_in_a_pause_rests_also_if_the_daemon_began_in_it(
    tmp_path: Path,
) -> None:
    """It passed for one that the start had found empty, and was filled as soon as it might be."""
    layouts = ("3g@0 3g@4", "3g@0")
    with node_at_work(tmp_path, *layouts, config=ENFORCE, spec="2xA100-SXM4-40GB") as here:
        wanting(here)
        here.ask("pause", why="work")
        here.restart()
        here.runtime.begin()
        live(here, 60)
        empty(here)
        live(here, 30)
        here.ask("resume")

        live(here, 15)
        resting = here.our_calls()
        live(here, 120)

        assert resting == []
        assert here.layout() == HALVES


@pytest.mark.parametrize("found", ["somebody else's", "what a person left", "all of it"])
def test_gpu_whose_instances_can_not_be_seen_is_not_restored_beside_them(
    tmp_path: Path, found: str
) -> None:
    """An empty restore plan stayed open, and was finished once the instances were seen."""
    with node_at_work(tmp_path, "3g@0 3g@4", config=ENFORCE) as here:
        wanting(here)
        if found == "somebody else's":
            here.node.reboot()
            here.node.foreign_create(0, "1g@0")
        elif found == "what a person left":
            here.node.foreign_destroy(0, min(here.node.state.gpus[0].instances))
        there = here.layout()
        here.restart()
        here.node.add_fault(fails("nvmlDeviceGetGpuInstances", Code.NO_PERMISSION, times=None))
        here.runtime.begin()
        left_open = here.store.open_plans()
        here.node.clear_faults()

        keep_house(here, 120)

        assert left_open == ()
        assert (here.layout(), here.our_calls()) == (there, [])


def test_instance_that_a_person_took_from_a_part_restored_gpu_stays_away(tmp_path: Path) -> None:
    """It was made again within half a minute, though the rest alone was to be made."""
    with node_at_work(tmp_path, "3g@0 2g@4 1g@6", config=ENFORCE) as here:
        rebooted(here)
        here.node.add_fault(fails(CREATE, Code.UNKNOWN, nth=3, times=None))
        here.runtime.begin()
        instances = here.node.state.gpus[0].instances
        here.node.foreign_destroy(0, next(i for i, gi in instances.items() if gi.start == 0))
        here.node.clear_faults()

        keep_house(here, 60)

        assert here.layout() == "2g.10gb@4 1g.5gb@6"
