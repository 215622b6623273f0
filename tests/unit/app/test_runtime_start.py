"""What a start does on a GPU that may be changed: settle, restore, and call it our own doing."""

from pathlib import Path

from migscaler.model.ids import GiId, PlanId
from migscaler.model.plan import OutcomeKind, OutcomeReason, Step, StepAction
from migscaler.store.records import NvmlAction, PlanRecord, StepRequest, StepState
from tests.unit.app.nodes import ENFORCE, RECOMMEND, NodeAtWork, node_at_work


def leave_open(here: NodeAtWork) -> None:
    """Let the process die after it destroyed 3g.20gb@4 to make 2g.10gb@4."""
    here.runtime.loop.sample()
    snapshot = here.runtime.loop.status().snapshot
    assert snapshot is not None
    model = snapshot.gpus[0].reading.model
    assert model is not None
    half, quarter = model.spec("3g@4"), model.spec("2g@4")
    seq = here.store.begin_plan(
        PlanRecord(
            plan_id=PlanId("p1"),
            gpu_uuid=here.uuid(),
            before=model.layout("3g@0 3g@4"),
            after=model.layout("3g@0 2g@4"),
            steps=(
                Step(action=StepAction.DESTROY, spec=half),
                Step(action=StepAction.CREATE, spec=quarter),
            ),
            instances=(),
            boot_id=here.node.boot_id,
            begun_at=here.clock.now(),
        )
    )
    gpu = here.node.state.gpus[0]
    gi_id = GiId(next(gi.id for gi in gpu.instances.values() if gi.start == 4))
    for action in (NvmlAction.DESTROY_CI, NvmlAction.DESTROY_GI):
        request = StepRequest(action=action, spec=half, gi_id=gi_id)
        ticket = here.store.begin_step(seq, here.uuid(), request)
        assert ticket.step_id is not None
        here.store.end_step(ticket.step_id, StepState.DONE, gi_id=gi_id)
    here.node.foreign_destroy(0, gi_id, actor="migscaler")


def test_start_puts_back_what_a_crash_left_half_done(tmp_path: Path) -> None:
    with node_at_work(tmp_path, "3g@0 3g@4", config=ENFORCE) as here:
        leave_open(here)
        here.restart()

        here.runtime.begin()

        (outcome,) = here.runtime.loop.status().outcomes
        assert (outcome.plan_id, outcome.kind, outcome.reason) == (
            "p1",
            OutcomeKind.ABANDONED,
            OutcomeReason.SETTLED,
        )
        assert outcome.rolled_back is True
        assert here.layout() == "3g.20gb@0 3g.20gb@4"
        assert here.store.open_plans() == ()


def test_what_settling_put_back_is_no_foreign_change(tmp_path: Path) -> None:
    with node_at_work(tmp_path, "3g@0 3g@4", config=ENFORCE) as here:
        leave_open(here)
        here.restart()

        here.runtime.begin()

        snapshot = here.runtime.loop.status().snapshot
        assert snapshot is not None
        assert snapshot.gpus[0].foreign_change is False


def test_start_in_recommend_only_reports_an_open_plan(tmp_path: Path) -> None:
    with node_at_work(tmp_path, "3g@0 3g@4", config=RECOMMEND) as here:
        leave_open(here)
        here.restart()

        here.runtime.begin()

        (outcome,) = here.runtime.loop.status().outcomes
        assert outcome.reason is OutcomeReason.PAUSED
        assert here.layout() == "3g.20gb@0"
        assert [plan.plan_id for plan in here.store.open_plans()] == ["p1"]


def test_layout_is_restored_after_every_reboot_not_only_the_first(tmp_path: Path) -> None:
    """Restoring was once taken for a foreign change, which made the layout no longer wanted."""
    with node_at_work(tmp_path, "3g@0 3g@4", config=ENFORCE) as here:
        here.runtime.begin()
        snapshot = here.runtime.loop.status().snapshot
        assert snapshot is not None
        layout = snapshot.gpus[0].layout
        assert layout is not None
        here.store.write_wanted(here.uuid(), layout, here.node.boot_id)
        found = []
        for _ in range(2):
            here.node.reboot()
            here.restart()
            here.runtime.begin()
            found.append(here.layout())

        assert found == ["3g.20gb@0 3g.20gb@4"] * 2
