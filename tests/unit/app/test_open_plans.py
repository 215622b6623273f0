"""Plans found open: closed, settled or left, by what is still there and who may be at work."""

import shutil
from pathlib import Path

import pytest

from migscaler.model.ids import GiId, PlanId
from migscaler.model.layout import Layout
from migscaler.model.plan import GateReason, Step, StepAction
from migscaler.store.records import NvmlAction, PlanRecord, StepRequest, StepState
from tests.unit.app.nodes import ENFORCE, NodeAtWork, node_at_work
from tests.unit.app.test_comeback import HALVES, empty, live, wanted, wanting
from tests.unit.app.test_runtime_start import leave_open

TWO = "2xA100-SXM4-40GB"
DEMANDING = ENFORCE + "rules: [{name: small, size: 1g, min: 10, raise_after: 0s}]\n"
ANOTHER = "GPU-00000000-1111-2222-3333-444444444444"


def work(here: NodeAtWork, minutes: int) -> None:
    """Ask the sources, sample, keep house and decide, for so long."""
    for _ in range(minutes):
        here.watch(60)
        here.runtime.housekeeping()
        here.runtime.tick()


def leave_creating(here: NodeAtWork, gi_id: GiId) -> None:
    """Let the process have died after it made 1g.5gb@0 on an empty GPU."""
    snapshot = here.runtime.loop.status().snapshot
    assert snapshot is not None
    model = snapshot.gpus[0].reading.model
    assert model is not None
    spec = model.spec("1g@0")
    seq = here.store.begin_plan(
        PlanRecord(
            plan_id=PlanId("p1"),
            gpu_uuid=here.uuid(),
            before=Layout(),
            after=Layout((spec,)),
            steps=(Step(action=StepAction.CREATE, spec=spec),),
            instances=(),
            boot_id=here.node.boot_id,
            begun_at=here.clock.now(),
        )
    )
    for action in (NvmlAction.CREATE_GI, NvmlAction.CREATE_CI):
        request = StepRequest(action=action, spec=spec, gi_id=gi_id)
        ticket = here.store.begin_step(seq, here.uuid(), request)
        assert ticket.step_id is not None
        here.store.end_step(ticket.step_id, StepState.DONE, gi_id=gi_id)


def swap_card(here: NodeAtWork) -> None:
    with here.node.changing() as state:
        state.gpus[0].uuid = ANOTHER


def observe_it(here: NodeAtWork) -> None:
    entries = f"[{{uuid: {here.uuid(0)}, mode: observe}}, {{uuid: {here.uuid(1)}}}]"
    here.config.write_text(DEMANDING.replace('[{model: "*"}]', entries))


@pytest.mark.parametrize("happens", [swap_card, observe_it])
def test_plan_of_another_boot_is_closed_whatever_became_of_its_gpu(
    tmp_path: Path, happens: object
) -> None:
    """It stayed open for ever, and the whole node was never changed again."""
    assert callable(happens)
    with node_at_work(tmp_path, "3g@0 3g@4", "3g@0", config=DEMANDING, spec=TWO) as here:
        leave_open(here)
        here.node.reboot()
        happens(here)
        before = len(here.our_calls())
        here.restart()

        here.runtime.begin()

        assert here.store.open_plans() == ()
        assert len(here.our_calls()) == before
        work(here, 5)
        assert "1g.5gb" in here.layout(1)


def test_lost_gpu_with_an_open_plan_keeps_no_other_from_changing(tmp_path: Path) -> None:
    """`apply --settle` can't reach it either."""
    with node_at_work(tmp_path, "3g@0 3g@4", "3g@0", config=DEMANDING, spec=TWO) as here:
        here.runtime.begin()
        leave_open(here)
        here.node.lose_gpu(0)
        work(here, 5)
        changed, still_open = here.layout(1), here.store.open_plans()

        here.node.lose_gpu(0, lost=False)
        here.runtime.sample()
        decision = here.runtime.loop.tick()
        here.clock.advance(60)
        here.runtime.housekeeping()

        assert "1g.5gb" in changed
        assert len(still_open) == 1
        assert decision is not None
        (gate,) = (gate for gate in decision.gates if gate.reason is GateReason.OPEN_PLAN)
        assert gate.explanation == (
            "a plan is still open: p1 on GPU 0; way out: migscaler apply --settle"
        )
        assert here.store.open_plans() == ()
        assert here.layout(0) == HALVES


def test_driver_loaded_anew_with_an_open_plan_brings_the_whole_layout_back(tmp_path: Path) -> None:
    """Only what the plan had destroyed was made again, and the GPU was then no longer empty."""
    with node_at_work(tmp_path, "3g@0 3g@4", config=ENFORCE) as here:
        wanting(here)
        leave_open(here)
        here.node.restart_driver()
        here.restart()

        here.runtime.begin()

        assert (here.layout(), wanted(here)) == (HALVES, [HALVES])
        assert here.store.open_plans() == ()


def test_layout_before_is_wanted_if_none_was_when_the_driver_was_loaded_anew(
    tmp_path: Path,
) -> None:
    with node_at_work(tmp_path, "3g@0 3g@4", config=ENFORCE) as here:
        leave_open(here)
        here.node.restart_driver()
        here.restart()

        here.runtime.begin()

        assert here.layout() == HALVES


def test_gpu_that_settling_empties_is_restored_at_once(tmp_path: Path) -> None:
    """Its plan began on the empty GPU, after a restore had failed."""
    with node_at_work(tmp_path, "3g@0 3g@4", config=ENFORCE) as here:
        wanting(here)
        empty(here)
        begun = here.node.foreign_create(0, "1g@0", actor="migscaler")
        leave_creating(here, GiId(begun))
        here.restart()

        here.runtime.begin()

        assert (here.layout(), wanted(here)) == (HALVES, [HALVES])


@pytest.mark.parametrize("when", ["start", "later"])
def test_plan_is_not_settled_beside_another_owner(tmp_path: Path, when: str) -> None:
    with node_at_work(tmp_path, "3g@0 3g@4", config=ENFORCE) as here:
        if when == "later":
            here.runtime.begin()
        leave_open(here)
        before = here.our_calls()
        process = here.host.process(77, "migagent")
        if when == "start":
            here.restart()
            here.runtime.begin()
        live(here, 60)
        here.runtime.housekeeping()
        beside = (here.our_calls(), len(here.store.open_plans()))

        shutil.rmtree(process)
        live(here, 30)
        here.runtime.housekeeping()

        assert beside == (before, 1)
        assert here.layout() == HALVES
