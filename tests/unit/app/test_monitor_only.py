"""Started with the right to look and no other: less is shown, each lack is explained, nothing acts.

The simulated driver plays the three kinds of right: mig/monitor alone, mig/config, and both with
CAP_SYS_ADMIN, which a switch of the MIG mode takes.
"""

from pathlib import Path

import pytest

from migscaler.cli.checks import Verdict, gpu_checks
from migscaler.errors import CommandRefused, NoPermission
from migscaler.metrics.exposition import Renderer
from migscaler.model.plan import GateReason
from tests.unit.app.nodes import ENFORCE, NodeAtWork, node_at_work

WANTING = ENFORCE + "rules: [{name: halves, size: 3g, from: [pushed], min: 1}]\n"
WANTING += "sources: {pushed: {type: push, counts: total}}\n"


def look(here: NodeAtWork) -> str:
    """Watch for a minute without more than mig/monitor; return the exposition."""
    here.node.set_node(privileged=False)
    here.watch(60)
    renderer = Renderer()
    renderer.publish(here.runtime.loop.status())
    return renderer.render("text/plain").body.decode()


def test_what_it_can_read_is_shown_and_the_rest_is_absent_and_named(tmp_path: Path) -> None:
    with node_at_work(tmp_path, "3g@0", config=ENFORCE) as here:
        text = look(here)

    lines = [line for line in text.splitlines() if not line.startswith("#")]
    shown = {line.partition("{")[0].partition(" ")[0] for line in lines}
    assert {"migscaler_gpu_info", "migscaler_gpu_temperature_celsius"} <= shown
    assert "migscaler_gpu_mig_enabled" in shown
    assert {
        "migscaler_instance_info",
        "migscaler_instance_memory_used_bytes",
        "migscaler_gpu_memory_used_bytes",
        "migscaler_gpu_layout_info",
    }.isdisjoint(shown)
    supported = "migscaler_family_supported{family="
    assert f'{supported}"migscaler_gpu_memory_used_bytes"}} 0.0' in lines
    assert f'{supported}"migscaler_gpu_temperature_celsius"}} 1.0' in lines
    assert any(line.startswith("migscaler_gpu_gaps{") and line.endswith(" 3.0") for line in lines)
    assert not any(line.endswith("NaN") for line in lines)


def test_enforce_changes_nothing_and_says_what_is_not_allowed(tmp_path: Path) -> None:
    with node_at_work(tmp_path, "1g@0", config=WANTING) as here:
        look(here)
        decision = here.runtime.tick()
        said = here.ask("explain")

        assert decision is not None
        assert GateReason.DRIVER_FAULT in {gate.reason for gate in decision.gates}
        assert "nvmlDeviceGetGpuInstancePossiblePlacements answered NO_PERMISSION" in str(said)
        with pytest.raises(CommandRefused, match="NO_PERMISSION"):
            here.ask("apply", gpu="0", layout="3g 3g", dry_run=False)
        assert here.our_calls() == []
        assert here.layout() == "1g.5gb@0"


def test_doctor_names_what_is_missing_and_the_capability_that_helps(tmp_path: Path) -> None:
    with node_at_work(tmp_path, "3g@0", config=ENFORCE) as here:
        look(here)
        snapshot = here.runtime.loop.status().snapshot
    assert snapshot is not None

    found = list(gpu_checks(snapshot.gpus[0]))

    assert {check.verdict for check in found} == {Verdict.WARNING}
    assert any("NO_PERMISSION" in one.found and "mig/config" in one.remedy for one in found)
    assert any("its instances can't be read" in one.found for one in found)


def test_rights_that_come_later_are_taken_up_without_a_restart(tmp_path: Path) -> None:
    with node_at_work(tmp_path, "3g@0", config=ENFORCE) as here:
        look(here)
        here.node.set_node(privileged=True)
        here.watch(10)
        snapshot = here.runtime.loop.status().snapshot

    assert snapshot is not None
    assert str(snapshot.gpus[0].layout) == "3g.20gb@0"


def test_mig_config_alone_makes_instances_and_switches_no_mode(tmp_path: Path) -> None:
    with node_at_work(tmp_path, "3g@0", config=WANTING) as here:
        here.node.set_node(admin=False)
        here.watch(60)
        writer = here.assembly.ground.writer

        with pytest.raises(NoPermission):
            writer.set_mig_mode(here.uuid(), enabled=False)
        gpu = here.reader.read_gpu(here.uuid())
        assert gpu.model is not None
        writer.create_gpu_instance(here.uuid(), gpu.model.spec("1g@4"))
