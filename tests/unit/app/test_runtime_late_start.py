"""A start that finds no driver, a GPU that does not answer, or a pause, is finished later."""

from pathlib import Path

from migscaler.model.decision import PauseRecord
from migscaler.model.plan import OutcomeKind
from migscaler.sim.codes import Code
from migscaler.sim.faults import fails
from tests.unit.app.nodes import ENFORCE, NodeAtWork, node_at_work
from tests.unit.app.test_runtime_start import leave_open

HALVES = "3g.20gb@0 3g.20gb@4"


def rebooted(here: NodeAtWork) -> None:
    """Let the present layout be the wanted one, reboot, and start another process."""
    here.runtime.begin()
    snapshot = here.runtime.loop.status().snapshot
    for gpu in snapshot.gpus if snapshot else ():
        assert gpu.layout is not None
        here.store.write_wanted(gpu.uuid, gpu.layout, here.node.boot_id)
    here.node.reboot()
    here.restart()


def turn(here: NodeAtWork) -> None:
    """Do what the jobs of one period do."""
    here.watch(5)
    here.runtime.tick()


def test_layout_comes_back_when_the_driver_is_loaded_after_the_daemon(tmp_path: Path) -> None:
    """At boot the daemon was there before the driver, and nothing was ever restored."""
    with node_at_work(tmp_path, "3g@0 3g@4", config=ENFORCE) as here:
        rebooted(here)
        here.node.unload_driver()
        here.runtime.begin()
        turn(here)
        assert here.layout() == ""

        here.node.unload_driver(loaded=True)
        turn(here)

        assert here.layout() == HALVES


def test_open_plan_is_settled_when_the_driver_is_loaded_after_the_daemon(tmp_path: Path) -> None:
    with node_at_work(tmp_path, "3g@0 3g@4", config=ENFORCE) as here:
        leave_open(here)
        here.restart()
        here.node.add_fault(fails("nvmlDeviceGetCount_v2", Code.UNKNOWN, times=1))
        here.runtime.begin()
        assert here.layout() == "3g.20gb@0"

        turn(here)

        assert (here.layout(), here.store.open_plans()) == (HALVES, ())


def test_gpu_that_answers_only_later_gets_its_layout_then(tmp_path: Path) -> None:
    with node_at_work(
        tmp_path, "3g@0 3g@4", "7g@0", config=ENFORCE, spec="2xA100-SXM4-40GB"
    ) as here:
        rebooted(here)
        here.node.lose_gpu(1)
        here.runtime.begin()
        turn(here)
        assert (here.layout(0), here.layout(1)) == (HALVES, "")

        here.node.lose_gpu(1, lost=False)
        turn(here)

        assert (here.layout(0), here.layout(1)) == (HALVES, "7g.40gb@0")


def test_pause_puts_restoring_off_until_it_ends(tmp_path: Path) -> None:
    with node_at_work(tmp_path, "3g@0 3g@4", config=ENFORCE) as here:
        rebooted(here)
        here.store.write_pause(PauseRecord(who="ada", why="cabling", since=here.clock.now()))
        here.runtime.begin()
        turn(here)
        assert here.layout() == ""

        here.store.write_pause(None)
        turn(here)

        assert here.layout() == HALVES


def test_nothing_is_restored_where_somebody_else_owns_the_layouts(tmp_path: Path) -> None:
    with node_at_work(tmp_path, "3g@0 3g@4", config=ENFORCE) as here:
        rebooted(here)
        here.host.process(900, "nvidia-mig-mana")

        here.runtime.begin()

        assert here.layout() == ""
        (outcome,) = here.runtime.loop.status().outcomes
        assert outcome.kind is OutcomeKind.ABANDONED


def test_gpu_whose_plan_is_still_open_is_not_restored_beside_it(tmp_path: Path) -> None:
    with node_at_work(tmp_path, "3g@0 3g@4", config=ENFORCE) as here:
        here.runtime.begin()
        leave_open(here)
        snapshot = here.runtime.loop.status().snapshot
        assert snapshot is not None
        assert snapshot.gpus[0].layout is not None
        here.store.write_wanted(here.uuid(), snapshot.gpus[0].layout, here.node.boot_id)
        for gi_id in list(here.node.state.gpus[0].instances):
            here.node.foreign_destroy(0, gi_id)
        here.restart()
        # Settling can't look, restoring could.
        here.node.add_fault(fails("nvmlDeviceGetHandleByUUID", Code.UNKNOWN, times=3))
        here.runtime.begin()
        assert here.layout() == ""
        assert len(here.store.open_plans()) == 1
