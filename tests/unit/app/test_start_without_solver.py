"""Settling what a crash left waits for nothing that is only needed later, or only by some.

The solver takes 0.3 s to load, the client of Prometheus 0.13 s.
"""

import subprocess
import sys

_SCRIPT = """
import sys, tempfile
from pathlib import Path
from migscaler.model.ids import PlanId
from migscaler.store.records import NvmlAction, PlanRecord, Purpose, StepRequest
from tests.builders import NOW
from tests.unit.app.nodes import ENFORCE, node_at_work

RULES = "rules: [{name: small, size: 1g, min: 3}]\\npace: {raise_after: 0s}\\n"
with tempfile.TemporaryDirectory() as directory:
    config = ENFORCE + RULES
    with node_at_work(Path(directory), "3g@0", "3g@0", config=config, spec="2xA100") as here:
        model = here.reader.read_gpu(here.uuid()).model
        before, after = model.layout("3g@0 1g@4"), model.layout("3g@0")
        gi_id = here.node.foreign_create(0, "1g@4")
        here.node.foreign_destroy(0, gi_id)
        record = PlanRecord(
            plan_id=PlanId("cut"), gpu_uuid=here.uuid(), before=before, after=after, steps=(),
            instances=(), boot_id=here.node.boot_id, begun_at=NOW,
        )
        seq = here.store.begin_plan(record)
        gone = StepRequest(
            action=NvmlAction.DESTROY_GI, spec=model.spec("1g@4"), purpose=Purpose.FORWARD,
            gi_id=gi_id,
        )
        here.store.begin_step(seq, here.uuid(), gone)
        here.runtime.begin()
        assert here.layout() == "3g.20gb@0 1g.5gb@4", here.layout()
        assert here.store.open_plans() == ()
        assert "highspy" not in sys.modules and "numpy" not in sys.modules
        assert "httpx" not in sys.modules and "rich" not in sys.modules
        here.watch(60)
        here.runtime.tick()
        assert "highspy" in sys.modules
"""


def test_start_settles_before_the_solver_is_loaded() -> None:
    done = subprocess.run([sys.executable, "-c", _SCRIPT], capture_output=True, text=True)

    assert done.returncode == 0, done.stderr
