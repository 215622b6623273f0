"""What a person asks for is refused where it could break what is being undone, held or unseen."""

from pathlib import Path

import pytest

from migscaler.errors import CommandRefused
from migscaler.model.layout import Layout
from migscaler.model.plan import GpuPlan, OutcomeKind, Plan, Step, StepAction
from migscaler.sim.codes import Code
from migscaler.sim.faults import fails
from tests.unit.app.nodes import ENFORCE, NodeAtWork, node_at_work
from tests.unit.app.test_runtime_start import leave_open

HALVES = "3g.20gb@0 3g.20gb@4"
LISTS = "nvmlDeviceGetComputeRunningProcesses_v3"


def test_layout_is_refused_where_a_plan_is_still_open(tmp_path: Path) -> None:
    """Settling would later have taken what `apply` made for what the plan had made."""
    with node_at_work(tmp_path, "3g@0 3g@4", config=ENFORCE) as here:
        leave_open(here)
        here.watch(60)
        calls = here.our_calls()
        with pytest.raises(CommandRefused, match="plan p1 is still open"):
            here.ask("apply", gpu=here.uuid(), layout="3g@0 2g@4")
        assert here.our_calls() == calls


def cleared(here: NodeAtWork) -> None:
    """Empty the GPU as switching MIG off begins."""
    here.runtime.begin()
    here.watch(60)
    snapshot = here.runtime.loop.status().snapshot
    assert snapshot is not None
    before = snapshot.gpus[0].layout
    assert before is not None
    steps = tuple(Step(action=StepAction.DESTROY, spec=spec) for spec in before.specs)
    plan = GpuPlan(gpu_uuid=here.uuid(), before=before, after=Layout(), steps=steps)
    (outcome,) = here.runtime.loop.request(Plan(gpu_plans=(plan,)))
    assert outcome.kind is OutcomeKind.DONE
    assert here.layout() == ""


def test_crash_between_emptying_a_gpu_and_switching_its_mode_leaves_it_whole(
    tmp_path: Path,
) -> None:
    """The emptying was complete and the switch never asked for: nothing was left to settle."""
    with node_at_work(tmp_path, "3g@0 3g@4", config=ENFORCE) as here:
        cleared(here)
        here.restart()
        here.runtime.begin()
        assert here.layout() == HALVES


def test_crash_right_after_emptying_was_verified_leaves_the_gpu_whole(tmp_path: Path) -> None:
    with node_at_work(tmp_path, "3g@0 3g@4", config=ENFORCE) as here:
        cleared(here)
        past = here.store.past_plans(1)[0]
        here.store.forget_wanted(here.uuid())
        here.store.verify_plan(past.seq)
        assert len(here.store.open_plans()) == 1
        here.restart()
        here.runtime.begin()
        assert (here.layout(), here.store.open_plans()) == (HALVES, ())


def test_mig_mode_of_a_held_gpu_stays(tmp_path: Path) -> None:
    with node_at_work(tmp_path, config=ENFORCE, mig=False) as here:
        here.runtime.begin()
        here.ask("hold", gpu=here.uuid(), reason="whole-GPU training")
        with pytest.raises(CommandRefused, match="held by root: whole-GPU training"):
            here.ask("mig_mode", gpus=[here.uuid()], enabled=True)


def test_mig_mode_of_a_gpu_whose_processes_cannot_be_seen_stays(tmp_path: Path) -> None:
    """A list that could not be read passed for an empty one."""
    with node_at_work(tmp_path, config=ENFORCE, mig=False) as here:
        here.runtime.begin()
        here.node.add_fault(fails(LISTS, Code.NO_PERMISSION, times=None))
        here.watch(5)
        with pytest.raises(CommandRefused, match="can't be seen"):
            here.ask("mig_mode", gpus=[here.uuid()], enabled=True)
        assert here.our_calls() == []


def test_mig_mode_looks_again_for_processes_that_came_since_the_last_sample(
    tmp_path: Path,
) -> None:
    with node_at_work(tmp_path, config=ENFORCE, mig=False) as here:
        here.runtime.begin()
        here.node.start_job(0)
        with pytest.raises(CommandRefused, match="in use by"):
            here.ask("mig_mode", gpus=[here.uuid()], enabled=True)
