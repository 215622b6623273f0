"""Instances without compute instance are told, and removed only on a person's word."""

from pathlib import Path

import pytest

from migscaler.control.orphans import plan_removal
from migscaler.errors import CommandRefused
from migscaler.model.plan import OutcomeReason, Plan
from tests.builders import A100, spec
from tests.unit.app.nodes import ENFORCE, RECOMMEND, NodeAtWork, node_at_work


def with_orphan(here: NodeAtWork, spec: str = "3g@4", gpu: int = 0) -> None:
    """Let another tool leave a GPU instance behind, and watch the node for a minute."""
    here.runtime.begin()
    here.node.foreign_create(gpu, spec, compute=False)
    here.watch(90)


def listed(here: NodeAtWork) -> list[tuple[object, object, object]]:
    """What the command tells: instance, steps, what keeps it."""
    found = here.ask("orphans")["orphans"]
    assert isinstance(found, list)
    return [(one["instance"], one["steps"], one["kept"]) for one in found]


def outcome(here: NodeAtWork, instance: str = "3g.20gb@4") -> tuple[object, object]:
    """Remove one and say how the plan ended."""
    outcomes = here.ask("remove_orphan", gpu=0, instance=instance)["outcomes"]
    assert isinstance(outcomes, list)
    return outcomes[0]["outcome"], outcomes[0]["reason"]


def test_node_without_orphans_has_nothing_to_remove(tmp_path: Path) -> None:
    with node_at_work(tmp_path, "3g@0 3g@4") as here:
        here.runtime.begin()
        assert listed(here) == []
        with pytest.raises(CommandRefused, match=r"3g\.20gb@4 has a compute instance"):
            here.ask("remove_orphan", gpu=0, instance="3g@4")
        with pytest.raises(CommandRefused, match=r"GPU 0 has no 2g\.10gb@4"):
            here.ask("remove_orphan", gpu=0, instance="2g@4")


def test_orphan_is_removed_through_the_journal_and_nothing_else(tmp_path: Path) -> None:
    with node_at_work(tmp_path, "3g@0") as here:
        with_orphan(here)
        assert listed(here) == [("3g.20gb@4", ["destroy 3g.20gb@4"], None)]
        assert here.our_calls() == []

        assert outcome(here) == ("done", "completed")

        assert here.layout() == "3g.20gb@0"
        assert here.our_calls() == ["nvmlGpuInstanceDestroy"]
        (past,) = here.store.past_plans(5)
        assert str(past.after) == "3g.20gb@0"
        assert here.store.open_plans() == ()
        assert listed(here) == []


def test_daemon_in_enforce_never_removes_one_by_itself(tmp_path: Path) -> None:
    with node_at_work(tmp_path, "3g@0", config=ENFORCE) as here:
        with_orphan(here)
        for _ in range(5):
            here.watch(60)
            here.runtime.loop.tick()
        assert here.our_calls() == []


def test_orphan_that_is_all_there_is_gets_its_compute_instance(tmp_path: Path) -> None:
    with node_at_work(tmp_path, "") as here:
        with_orphan(here)
        steps = ["destroy 3g.20gb@4", "create 3g.20gb@4"]
        assert listed(here) == [("3g.20gb@4", steps, None)]

        assert outcome(here) == ("done", "completed")

        (gi,) = here.node.state.gpus[0].instances.values()
        assert (here.layout(), len(gi.compute)) == ("3g.20gb@4", 1)
        assert listed(here) == []


def test_job_beside_it_is_not_touched(tmp_path: Path) -> None:
    with node_at_work(tmp_path, "3g@0") as here:
        (gi_id,) = here.node.state.gpus[0].instances
        pid = here.node.start_job(0, gi_id)
        with_orphan(here)

        assert outcome(here) == ("done", "completed")

        assert [job.pid for job in here.node.state.gpus[0].jobs] == [pid]


def test_orphan_that_was_just_made_may_be_about_to_be_filled(tmp_path: Path) -> None:
    with node_at_work(tmp_path, "3g@0") as here:
        here.runtime.begin()
        here.watch(60)
        here.node.foreign_create(0, "3g@4", compute=False)
        here.watch(20)

        ((_, steps, kept),) = listed(here)
        assert steps == []
        assert str(kept).endswith("15 s ago; somebody may be at work there, wait 45 s")
        with pytest.raises(CommandRefused, match="somebody may be at work there"):
            here.ask("remove_orphan", gpu=0, instance="3g@4")

        here.watch(60)
        assert outcome(here) == ("done", "completed")


def test_held_orphan_stays(tmp_path: Path) -> None:
    with node_at_work(tmp_path, "3g@0") as here:
        with_orphan(here)
        here.ask("hold", gpu=0, reason="mine")
        here.watch(10)
        with pytest.raises(CommandRefused, match=r"held by .*mine"):
            here.ask("remove_orphan", gpu=0, instance="3g@4")
        assert here.our_calls() == []


def test_hold_after_the_last_sample_still_counts(tmp_path: Path) -> None:
    with node_at_work(tmp_path, "3g@0") as here:
        with_orphan(here)
        here.ask("hold", gpu=0, reason="mine")

        assert outcome(here) == ("abandoned", "held")
        assert here.layout() == "3g.20gb@0 3g.20gb@4"


def test_orphan_filled_after_the_last_sample_stays(tmp_path: Path) -> None:
    with node_at_work(tmp_path, "3g@0") as here:
        with_orphan(here)
        with here.node.changing() as state:
            gpu = here.node.gpu_of(state, 0)
            gi = next(one for one in gpu.instances.values() if one.start == 4)
            here.node.create_compute(gpu, gi, 2, None, "foreign")

        assert outcome(here)[0] == "abandoned"
        assert here.layout() == "3g.20gb@0 3g.20gb@4"
        assert here.our_calls() == []


def test_orphan_that_a_sample_saw_filled_is_not_even_begun(tmp_path: Path) -> None:
    """Its compute instance would go with it: the executor takes whole instances away."""
    with node_at_work(tmp_path, "3g@0") as here:
        with_orphan(here)
        snapshot = here.runtime.loop.status().snapshot
        assert snapshot is not None
        (gpu,) = snapshot.gpus
        plan = plan_removal(snapshot, gpu, spec(A100, "3g@4"))
        with here.node.changing() as state:
            found = here.node.gpu_of(state, 0)
            gi = next(one for one in found.instances.values() if one.start == 4)
            here.node.create_compute(found, gi, 2, None, "foreign")
        here.watch(60)

        (ended,) = here.runtime.loop.request(Plan(gpu_plans=(plan,)))

        assert (ended.reason, ended.explanation) == (OutcomeReason.NO_LONGER_IDLE, "not begun")
        assert here.our_calls() == []


def test_orphan_stays_beside_another_owner(tmp_path: Path) -> None:
    with node_at_work(tmp_path, "3g@0") as here:
        with_orphan(here)
        here.host.process(77, "nvidia-mig-mana")
        here.watch(10)
        with pytest.raises(CommandRefused, match="it may belong to the GPU operator's mig-manager"):
            here.ask("remove_orphan", gpu=0, instance="3g@4")


@pytest.mark.parametrize(
    "config",
    [
        'mode: recommend\ngpus: [{model: "*", mode: observe, reason: reserved}]\n',
        RECOMMEND + "\nfreeze: []\n",
    ],
    ids=["observed", "paused"],
)
def test_orphan_stays_where_nothing_may_change(tmp_path: Path, config: str) -> None:
    with node_at_work(tmp_path, "3g@0", config=config) as here:
        with_orphan(here)
        here.ask("pause", why="upgrade")
        with pytest.raises(CommandRefused, match=r"reserved|paused by"):
            here.ask("remove_orphan", gpu=0, instance="3g@4")
        assert here.our_calls() == []
