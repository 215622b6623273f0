"""Generations and births: what counts as another instance, by whose doing, and over restarts."""

from datetime import timedelta
from pathlib import Path

from migscaler.control.observe import Observer
from migscaler.model.gpu import ForeignOwners, GpuState, PinReason
from migscaler.model.policy import IdlePolicy, Policy
from tests.simulation.acting import QuietHost
from tests.unit.control.room import room, small_store


def births(gpu: GpuState) -> dict[str, int]:
    return {str(state.spec): state.born for state in gpu.instances or ()}


def test_first_look_is_generation_1_and_nobody_is_blamed() -> None:
    with room("3g@0 3g@4") as here:
        gpu = here.gpu()

        assert (gpu.generation, gpu.changed_at, gpu.foreign_change) == (1, None, False)
        assert births(gpu) == {"3g.20gb@0": 1, "3g.20gb@4": 1}


def test_unchanged_layout_keeps_its_generation() -> None:
    with room("3g@0 3g@4") as here:
        here.look()

        gpu = here.gpu()

        assert (gpu.generation, gpu.foreign_change) == (1, False)
        assert births(gpu) == {"3g.20gb@0": 1, "3g.20gb@4": 1}


def test_foreign_change_makes_every_instance_of_the_gpu_another_one() -> None:
    with room("3g@0 3g@4") as here:
        here.look()
        here.node.foreign_destroy(0, here.gi_of("3g.20gb@4"))
        here.node.foreign_create(0, "2g@4")

        gpu = here.gpu()

        assert (gpu.generation, gpu.foreign_change) == (2, True)
        assert gpu.changed_at == here.clock.now()
        assert births(gpu) == {"3g.20gb@0": 2, "2g.10gb@4": 2}


def test_foreign_change_is_reported_once() -> None:
    with room("3g@0") as here:
        here.look()
        here.node.foreign_create(0, "3g@4")
        here.look()

        gpu = here.gpu()

        assert (gpu.generation, gpu.foreign_change) == (2, False)


def test_foreign_change_of_one_gpu_leaves_the_other_alone() -> None:
    with room("3g@0", "3g@0", spec=f"2x{'A100-SXM4-40GB'}") as here:
        here.look()
        here.node.foreign_create(1, "3g@4")

        first, second = here.look().gpus

        assert (first.generation, first.foreign_change) == (1, False)
        assert (second.generation, second.foreign_change) == (2, True)
        assert (first.foreign_changes, second.foreign_changes) == (0, 1)
        assert here.look().gpus[1].foreign_changes == 1


def test_foreign_change_begins_idle_timers_anew() -> None:
    quick = Policy(idle=IdlePolicy(after=timedelta(seconds=20)))
    with room("3g@0") as here:
        for _ in range(5):
            here.look(quick)
        idle = here.look(quick).gpus[0]
        here.node.foreign_create(0, "3g@4")

        changed = here.look(quick).gpus[0]

        assert [state.pin for state in idle.instances or ()] == [None]
        assert [state.pin for state in changed.instances or ()] == [PinReason.SETTLING] * 2


def test_own_change_bumps_the_generation_and_keeps_births_of_what_stayed() -> None:
    with room("3g@0 3g@4") as here:
        before = here.gpu()
        model = before.reading.model
        assert model is not None
        here.observer.begin_change(here.uuid(), [model.spec("3g@4"), model.spec("2g@4")])
        here.node.foreign_destroy(0, here.gi_of("3g.20gb@4"))
        here.node.foreign_create(0, "2g@4")
        here.observer.end_change(here.uuid())

        gpu = here.gpu()

        assert (gpu.generation, gpu.foreign_change) == (2, False)
        assert births(gpu) == {"3g.20gb@0": 1, "2g.10gb@4": 2}


def test_instance_made_again_at_its_place_by_a_rollback_is_another_one() -> None:
    """NVML shows the same id, span and MIG UUID: only who acted knows."""
    with room("3g@0 3g@4") as here:
        before = here.gpu()
        model = before.reading.model
        assert model is not None
        here.observer.begin_change(here.uuid(), [model.spec("3g@4")])
        here.remake("3g.20gb@4")
        here.observer.end_change(here.uuid())

        gpu = here.gpu()

        assert [s.reading.instance for s in gpu.instances or ()] == [
            s.reading.instance for s in before.instances or ()
        ]
        assert (gpu.generation, gpu.foreign_change) == (2, False)
        assert births(gpu) == {"3g.20gb@0": 1, "3g.20gb@4": 2}


def test_looks_in_the_middle_and_after_our_change_blame_nobody() -> None:
    with room("3g@0 3g@4") as here:
        model = here.gpu().reading.model
        assert model is not None
        here.observer.begin_change(here.uuid(), [model.spec("3g@4")])
        here.node.foreign_destroy(0, here.gi_of("3g.20gb@4"))
        middle = here.gpu()
        here.node.foreign_create(0, "3g@4")
        here.observer.end_change(here.uuid())
        after = here.gpu()
        here.node.foreign_destroy(0, here.gi_of("3g.20gb@4"))
        foreign = here.gpu()

        assert (middle.generation, middle.foreign_change) == (2, False)
        assert (after.generation, after.foreign_change) == (3, False)
        assert (foreign.generation, foreign.foreign_change) == (4, True)


def test_restart_goes_on_from_the_recorded_generation() -> None:
    with room("3g@0") as here:
        here.look()
        here.node.foreign_create(0, "3g@4")
        changed = here.gpu().changed_at
        here.restart()

        gpu = here.gpu()

        assert (gpu.generation, gpu.changed_at, gpu.foreign_change) == (2, changed, False)
        assert births(gpu) == {"3g.20gb@0": 2, "3g.20gb@4": 2}


def test_layout_changed_while_nobody_looked_bumps_the_recorded_generation() -> None:
    with room("3g@0") as here:
        here.look()
        here.restart()
        here.node.foreign_create(0, "3g@4")

        gpu = here.gpu()

        assert gpu.generation == 2
        assert gpu.changed_at == here.clock.now()


def test_lost_gpu_is_excluded_with_words_and_keeps_its_generation() -> None:
    with room("3g@0 3g@4") as here:
        here.look()
        here.node.lose_gpu(0)
        lost = here.gpu()
        here.node.lose_gpu(0, lost=False)

        # It is asked again only after a while.
        here.clock.advance(600)
        back = here.gpu()

        assert lost.instances is None
        assert lost.excluded is not None
        assert "GPU_IS_LOST" in lost.excluded
        assert lost.generation == 1
        assert (back.generation, back.excluded, back.foreign_change) == (1, None, False)


def test_wish_for_a_mig_mode_outlives_later_changes() -> None:
    with room("3g@0") as here:
        here.look()
        here.observer.record_mode(here.uuid(), wanted=True)
        here.node.foreign_create(0, "3g@4")
        here.look()

        record = here.store.generation(here.uuid())

        assert record is not None
        assert (record.generation, record.mig_mode_wanted) == (2, True)


def test_generation_that_can_not_be_written_is_still_counted(tmp_path: Path) -> None:
    with room("3g@0") as here:
        store = small_store(tmp_path / "state.sqlite", here.clock)
        observer = Observer(
            reader=here.reader,
            scheduler=here.scheduler,
            store=store,
            host=QuietHost(),
            boot_id=here.node.boot_id,
            find_owners=lambda: ForeignOwners(found="mig-manager", remedy="stop it"),
        )
        observer.observe(Policy(), ())
        here.node.foreign_create(0, "3g@4")

        snapshot = observer.observe(Policy(), ())

        assert snapshot.gpus[0].generation == 2
        assert (snapshot.foreign_owner, snapshot.foreign_owner_remedy) == (
            "mig-manager",
            "stop it",
        )
        assert store.generations() == ()
        store.close()
