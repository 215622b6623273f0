"""MIG mode off at a start: lost with the boot or the driver, or switched off by a person."""

from pathlib import Path

from migscaler.model.plan import OutcomeKind
from tests.unit.app.nodes import ENFORCE, NodeAtWork, node_at_work

TWO = "2xH100-80GB"
HALVES = "3g.40gb@0 3g.40gb@4"


def wants_what_is_there(here: NodeAtWork) -> None:
    here.runtime.begin()
    snapshot = here.runtime.loop.status().snapshot
    for gpu in snapshot.gpus if snapshot else ():
        assert gpu.layout is not None
        here.store.write_wanted(gpu.uuid, gpu.layout, here.node.boot_id)


def switch_off(here: NodeAtWork, index: int) -> None:
    """Let a GPU be without instances and MIG mode."""
    for gi_id in list(here.node.state.gpus[index].instances):
        here.node.foreign_destroy(index, gi_id)
    with here.node.changing() as state:
        state.gpus[index].mig_current = state.gpus[index].mig_pending = 0


def modes(here: NodeAtWork) -> list[int]:
    return [gpu.mig_current for gpu in here.node.state.gpus]


def test_mode_that_a_person_switched_off_in_this_boot_stays_off(tmp_path: Path) -> None:
    """Done with nvidia-smi while the daemon was down, the next start switched it on again."""
    with node_at_work(tmp_path, "3g@0 3g@4", "7g@0", config=ENFORCE, spec=TWO) as here:
        wants_what_is_there(here)
        switch_off(here, 1)
        here.restart()

        here.runtime.begin()

        assert (modes(here), here.layout(0), here.layout(1)) == ([1, 0], HALVES, "")
        (outcome,) = here.runtime.loop.status().outcomes
        assert outcome.kind is OutcomeKind.ABANDONED
        assert outcome.explanation == (
            "7g.80gb@0 is not restored: MIG mode is switched off in this boot; "
            "`migscaler mig-mode on`"
        )


def test_mode_that_a_person_switched_off_on_ampere_stays_off(tmp_path: Path) -> None:
    with node_at_work(tmp_path, "3g@0 3g@4", config=ENFORCE) as here:
        wants_what_is_there(here)
        switch_off(here, 0)
        here.restart()

        here.runtime.begin()

        assert (modes(here), here.layout()) == ([0], "")


def test_mode_that_all_gpus_lost_with_the_driver_comes_back(tmp_path: Path) -> None:
    with node_at_work(tmp_path, "3g@0 3g@4", "7g@0", config=ENFORCE, spec=TWO) as here:
        wants_what_is_there(here)
        switch_off(here, 0)
        switch_off(here, 1)
        here.restart()

        here.runtime.begin()

        assert (modes(here), here.layout(0), here.layout(1)) == ([1, 1], HALVES, "7g.80gb@0")


def test_mode_that_was_switched_off_in_an_earlier_boot_comes_back(tmp_path: Path) -> None:
    with node_at_work(tmp_path, "3g@0 3g@4", "7g@0", config=ENFORCE, spec=TWO) as here:
        wants_what_is_there(here)
        here.node.reboot()
        here.restart()

        here.runtime.begin()

        assert (modes(here), here.layout(0), here.layout(1)) == ([1, 1], HALVES, "7g.80gb@0")
