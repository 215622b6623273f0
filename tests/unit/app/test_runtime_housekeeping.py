"""What is put right between ticks."""

from datetime import timedelta
from pathlib import Path

from migscaler.model.plan import GateReason, OutcomeKind, OutcomeReason
from migscaler.sim.codes import Code
from migscaler.sim.faults import fails
from tests.unit.app.nodes import ENFORCE, NodeAtWork, node_at_work

CREATE = "nvmlDeviceCreateGpuInstanceWithPlacement"


def leave_open(here: NodeAtWork) -> None:
    """Let a GPU fall off the bus in the middle of a plan: nothing can be put back."""
    here.watch()

    # The create fails, and from then on the GPU answers nothing.
    here.node.add_fault(fails(CREATE, Code.GPU_IS_LOST, times=None))
    here.node.add_fault(fails("nvmlDeviceGetMigMode", Code.GPU_IS_LOST, nth=4, times=None))
    here.ask("apply", gpu=0, layout="2g@0 3g@4")


def open_plans(here: NodeAtWork) -> int:
    return len(here.store.open_plans())


def test_plan_left_open_is_settled_once_its_gpu_answers(tmp_path: Path) -> None:
    with node_at_work(tmp_path, "3g@0 3g@4", config=ENFORCE) as here:
        leave_open(here)
        left = open_plans(here)
        decision = here.runtime.loop.tick()
        here.node.clear_faults()
        here.clock.advance(60)

        here.runtime.housekeeping()

        assert left == 1
        assert decision is not None
        assert GateReason.DRIVER_FAULT in {gate.reason for gate in decision.gates}
        assert open_plans(here) == 0
        assert here.layout() == "3g.20gb@0 3g.20gb@4"
        settled = here.runtime.loop.status().outcomes[0]
        assert (settled.kind, settled.reason) == (OutcomeKind.ABANDONED, OutcomeReason.SETTLED)


def test_settling_is_no_foreign_change(tmp_path: Path) -> None:
    with node_at_work(tmp_path, "3g@0 3g@4", config=ENFORCE) as here:
        leave_open(here)
        here.node.clear_faults()
        here.clock.advance(600)
        here.runtime.housekeeping()

        here.watch(5)

        snapshot = here.runtime.loop.status().snapshot
        assert snapshot is not None
        assert snapshot.gpus[0].foreign_change is False


def test_gpu_that_is_still_silent_is_asked_again_only_after_a_while(tmp_path: Path) -> None:
    with node_at_work(tmp_path, "3g@0 3g@4", config=ENFORCE) as here:
        leave_open(here)
        here.clock.advance(60)
        here.runtime.housekeeping()
        here.node.clear_faults()
        here.clock.advance(20)
        here.runtime.housekeeping()
        too_soon = open_plans(here)
        here.clock.advance(10)

        here.runtime.housekeeping()

        assert (too_soon, open_plans(here)) == (1, 0)


def test_paused_node_leaves_an_open_plan_alone(tmp_path: Path) -> None:
    with node_at_work(tmp_path, "3g@0 3g@4", config=ENFORCE) as here:
        leave_open(here)
        here.node.clear_faults()
        here.ask("pause", why="looking")
        here.clock.advance(60)

        here.runtime.housekeeping()

        assert open_plans(here) == 1


def test_settle_by_command_ends_it_at_once(tmp_path: Path) -> None:
    with node_at_work(tmp_path, "3g@0 3g@4", config=ENFORCE) as here:
        leave_open(here)
        here.node.clear_faults()

        dry = here.ask("settle", dry_run=True)
        still = open_plans(here)
        answer = here.ask("settle")

        assert isinstance(dry["outcomes"], list)
        assert isinstance(answer["outcomes"], list)
        assert [one["reason"] for one in dry["outcomes"]] == ["paused"]
        assert still == 1
        assert [one["reason"] for one in answer["outcomes"]] == ["settled"]
        assert open_plans(here) == 0


def test_pruning_removes_what_expired(tmp_path: Path) -> None:
    with node_at_work(tmp_path, "3g@0") as here:
        here.watch(5)
        here.ask("hold", gpu=0, reason="short", ttl_seconds=60)
        here.clock.advance(61)

        here.runtime.prune()

        assert here.store.holds(here.clock.now() - timedelta(minutes=5)) == ()
