"""Device nodes and hooks follow what settling and restoring changed, as they follow a plan."""

from pathlib import Path

import pytest

from tests.unit.app.nodes import ENFORCE, NodeAtWork, node_at_work
from tests.unit.app.test_comeback import HALVES, empty, live, wanting
from tests.unit.app.test_runtime_start import leave_open

TWO = "2xA100-SXM4-40GB"


def hooked(directory: Path) -> str:
    """Return a configuration whose hook writes each layout that it is told to a file."""
    script = f'echo "$MIGSCALER_LAYOUT" >> "{directory}/told"'
    return ENFORCE + f"hooks: {{after_change: [[sh, -c, '{script}']]}}\n"


def told(directory: Path) -> list[str]:
    """Return what hooks were told."""
    path = directory / "told"
    return path.read_text().splitlines() if path.exists() else []


def lose_by_reboot(here: NodeAtWork) -> None:
    wanting(here)
    here.node.reboot()


@pytest.mark.parametrize("leave", [lose_by_reboot, leave_open], ids=["restore", "settle"])
def test_start_makes_nodes_before_it_is_ready_and_runs_hooks_after(
    tmp_path: Path, leave: object
) -> None:
    """A hook that restarts a service ordered after this one would wait for it to be ready."""
    assert callable(leave)
    with node_at_work(tmp_path, "3g@0 3g@4", config=hooked(tmp_path)) as here:
        leave(here)
        here.restart()

        here.runtime.begin()
        at_start = (list(here.nodes_made), told(tmp_path))
        live(here, 30)

        assert at_start == ([HALVES], [])
        assert (here.nodes_made, told(tmp_path)) == ([HALVES], [HALVES])


def test_gpu_restored_later_is_told_at_once(tmp_path: Path) -> None:
    with node_at_work(tmp_path, "3g@0 3g@4", config=hooked(tmp_path)) as here:
        wanting(here)
        live(here, 15)
        empty(here)

        live(here, 150)

        assert (here.nodes_made, told(tmp_path)) == ([HALVES], [HALVES])


@pytest.mark.parametrize("how", ["command", "housekeeping"])
def test_plan_settled_later_is_told_at_once(tmp_path: Path, how: str) -> None:
    with node_at_work(tmp_path, "3g@0 3g@4", config=hooked(tmp_path)) as here:
        leave_open(here)
        here.runtime.loop.sample()

        here.ask("settle") if how == "command" else here.runtime.housekeeping()

        assert (here.nodes_made, told(tmp_path)) == ([HALVES], [HALVES])


def test_plan_that_is_only_closed_tells_nobody(tmp_path: Path) -> None:
    with node_at_work(tmp_path, "3g@0 3g@4", config=hooked(tmp_path)) as here:
        leave_open(here)
        here.node.reboot()
        here.restart()

        here.runtime.begin()
        live(here, 30)

        assert here.store.open_plans() == ()
        assert (here.nodes_made, told(tmp_path)) == ([], [])


def test_nodes_of_several_gpus_are_made_by_one_run(tmp_path: Path) -> None:
    """Each run looks at all GPUs and may take 30 s, and a start waits for it."""
    with node_at_work(tmp_path, "3g@0 3g@4", "3g@0 3g@4", config=ENFORCE, spec=TWO) as here:
        lose_by_reboot(here)
        here.restart()

        here.runtime.begin()

        assert (here.layout(0), here.layout(1), here.nodes_made) == (HALVES, HALVES, [HALVES])
