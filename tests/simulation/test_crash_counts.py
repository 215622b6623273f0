"""What a plan means for its GPU is counted once, wherever the process dies."""

from itertools import count
from pathlib import Path

import pytest

from migscaler.model.decision import GpuHistory
from migscaler.model.plan import Direction
from migscaler.sim.codes import Code
from migscaler.sim.faults import fails
from tests.simulation.acting import Crash, Death
from tests.simulation.crash_restore import MortalNode, mortal_node
from tests.unit.app.test_runtime_start import leave_open

A100 = "A100-SXM4-40GB"
CREATE = "nvmlDeviceCreateGpuInstanceWithPlacement"


def history(made: MortalNode) -> GpuHistory:
    (found,) = made.store.gpu_histories()
    return found


def apply(made: MortalNode, layout: str, die_at: int) -> bool:
    """Ask for a layout; False if the process died before it was answered."""
    made.death = Death(at=die_at)
    try:
        made.ask("apply", gpu=0, layout=layout)
    except Crash:
        return False
    made.death = Death()
    return True


def test_settling_that_is_cut_counts_its_plan_once(tmp_path: Path) -> None:
    """Cut between the GPU's history and the plan's end, it counted one failure for two."""
    for point in count(1):
        with mortal_node(tmp_path / f"{point}", "3g@0 3g@4", spec=A100) as made:
            leave_open(made)
            is_whole = made.start(die_at=point)
            made.start()
            kept = history(made)
            assert (kept.failures_in_row, kept.breaker_trips) == (1, 0), f"died at point {point}"
        if is_whole:
            break
    assert point > 8


@pytest.mark.parametrize("fault", [None, CREATE], ids=["done", "refused"])
def test_plan_that_is_cut_counts_once(tmp_path: Path, fault: str | None) -> None:
    """Cut between its end and the GPU's history, it counted as nothing: no rest, no direction."""
    for point in count(1):
        with mortal_node(tmp_path / f"{point}", "3g@0 3g@4", spec=A100) as made:
            made.watch(60)
            if fault is not None:
                made.node.add_fault(fails(fault, Code.UNKNOWN))
            is_whole = apply(made, "3g@0 2g@4", die_at=point)
            made.node.clear_faults()
            begun = made.store.past_plans(1)
            made.start()
            kept = history(made)
            is_done = made.layout() == "3g.20gb@0 2g.10gb@4"
            found = (kept.failures_in_row, kept.last_direction)
            expected = (0, Direction.COARSER) if is_done else (1 if begun else 0, None)
            assert found == expected, f"died at point {point}"
            assert (kept.rest_until is not None) is bool(begun), f"died at point {point}"
        if is_whole:
            break
    assert point > 15
