"""A lease is of an instance that is there and free when it is granted, not when last looked at."""

from pathlib import Path

from tests.unit.app.nodes import ENFORCE, NodeAtWork, node_at_work


def begun(here: NodeAtWork) -> None:
    here.runtime.begin()
    here.watch(30)


def generation(here: NodeAtWork) -> int:
    kept = here.store.generation(here.uuid())
    assert kept is not None
    return kept.generation


def test_instance_that_went_since_the_last_sample_is_not_leased(tmp_path: Path) -> None:
    with node_at_work(tmp_path, "3g@0", config=ENFORCE) as here:
        begun(here)
        (gi_id,) = here.node.state.gpus[0].instances
        here.node.foreign_destroy(0, gi_id)
        here.clock.advance(1)
        answer = here.ask("lease_take", size="3g", ttl_seconds=60)
        assert answer["granted"] is False
        assert here.store.holds(here.clock.now()) == ()


def test_instance_on_which_a_process_came_since_the_last_sample_is_not_leased(
    tmp_path: Path,
) -> None:
    with node_at_work(tmp_path, "3g@0", config=ENFORCE) as here:
        begun(here)
        (gi_id,) = here.node.state.gpus[0].instances
        here.node.start_job(0, gi_id)
        here.clock.advance(1)
        answer = here.ask("lease_take", size="3g", ttl_seconds=60)
        assert answer["granted"] is False
        assert here.store.holds(here.clock.now()) == ()


def test_free_instance_is_leased(tmp_path: Path) -> None:
    with node_at_work(tmp_path, "3g@0", config=ENFORCE) as here:
        begun(here)
        here.clock.advance(1)
        answer = here.ask("lease_take", size="3g", ttl_seconds=60)
        assert answer["granted"] is True
        (lease,) = here.store.holds(here.clock.now())
        assert lease.kind == "lease"


def test_instance_made_by_a_change_that_a_sample_saw_before_its_end_is_leased(
    tmp_path: Path,
) -> None:
    """Hooks take seconds. Sampler and executor each counted such a change, and by the sampler's
    number no lease was granted on that GPU until its next change or a restart.
    """
    with node_at_work(tmp_path, "3g@0 3g@4", config=ENFORCE) as here:
        here.after_change = here.runtime.loop.sample
        begun(here)
        here.ask("apply", gpu=0, layout="3g@0 2g@4 1g@6")
        here.watch(10)
        answers = [
            here.ask("lease_take", size=size, ttl_seconds=60)["granted"]
            for size in ("3g", "2g", "1g")
        ]
        snapshot = here.runtime.loop.status().snapshot
        assert answers == [True, True, True]
        assert snapshot is not None
        assert snapshot.gpus[0].generation == generation(here)


def test_instance_is_leased_though_the_change_before_could_not_be_recorded(tmp_path: Path) -> None:
    """A disk full for a moment: the number on it stayed behind for good, and no lease fitted it."""
    with node_at_work(tmp_path, "3g@0 3g@4", config=ENFORCE) as here:
        begun(here)
        here.store._db.rows("PRAGMA query_only = ON")
        here.node.foreign_destroy(0, max(here.node.state.gpus[0].instances))
        here.watch(10)
        here.store._db.rows("PRAGMA query_only = OFF")
        behind = generation(here)
        here.watch(5)
        answer = here.ask("lease_take", size="3g", ttl_seconds=60)
        assert (behind, generation(here)) == (1, 2)
        assert answer["granted"] is True


def test_sizes_that_name_the_same_instances_are_one_queue(tmp_path: Path) -> None:
    """Told apart by their text, who came last with the other name was served first."""
    with node_at_work(tmp_path, "1g@0", config=ENFORCE) as here:
        begun(here)
        waits = [
            here.ask("lease_take", size=size, ttl_seconds=60, wait=True)["wait_id"]
            for size in ("3g", "3g.20gb")
        ]
        here.node.foreign_create(0, "3g@4")
        here.watch(5)
        late, early = (
            here.ask("lease_poll", wait_id=number, ttl_seconds=60) for number in reversed(waits)
        )
        assert (late["granted"], early["granted"]) == (False, True)
