"""GPUs that are somebody else's to shape are measured and never called to change."""

from pathlib import Path

import pytest

from migscaler.errors import CommandRefused
from migscaler.model.plan import GateReason, Hold
from migscaler.sim import faults
from migscaler.sim.codes import Code
from tests.unit.app.nodes import NodeAtWork, node_at_work

ENFORCING = """
mode: enforce
gpus: [{model: "*", baseline: [1g]}]
idle: {after: 20s}
rules: [{name: r, size: 1g, min: 3, raise_after: 0s}]
"""
KINDS = [({"vgpu_guest": True}, "hypervisor"), ({"confidential": True}, "confidential computing")]
TOLD_BY = {
    "vgpu_guest": "nvmlDeviceGetVirtualizationMode",
    "confidential": "nvmlSystemGetConfComputeState",
}


def tried(here: NodeAtWork) -> list[str]:
    """Our changing calls, refused ones too."""
    return [c.function for c in here.node.call_log() if c.actor.startswith("migscaler")]


def laid_out(here: NodeAtWork) -> int:
    """Let the daemon make a layout while nobody else owns the GPU; return the calls it took."""
    here.runtime.begin()
    here.watch(30)
    here.runtime.loop.tick()
    assert here.layout() != ""
    return len(tried(here))


@pytest.mark.parametrize(("kind", "words"), KINDS)
def test_gpu_is_measured_and_left_alone(tmp_path: Path, kind: dict[str, bool], words: str) -> None:
    with node_at_work(tmp_path, "3g@0", config=ENFORCING, spec="H100-80GB") as here:
        here.node.set_node(**kind)
        here.restart()
        here.runtime.begin()
        for _ in range(4):
            here.watch(30)
            here.runtime.loop.tick()

        decision = here.runtime.loop.status().decision
        assert decision is not None
        assert isinstance(decision.outcome, Hold)
        assert decision.outcome.reason is GateReason.FOREIGN_OWNER
        assert words in decision.sentence
        snapshot = here.runtime.loop.status().snapshot
        assert snapshot is not None
        assert str(snapshot.gpus[0].layout) == "3g.40gb@0"
        with pytest.raises(CommandRefused, match=words):
            here.ask("apply", gpu=0, layout="1g@4 3g@0")
        with pytest.raises(CommandRefused, match=words):
            here.ask("mig_mode", gpus=["0"], enabled=False, dry_run=True)
        assert tried(here) == []


@pytest.mark.parametrize(("kind", "words"), KINDS)
def test_layout_lost_in_a_reboot_is_not_made_again_there(
    tmp_path: Path, kind: dict[str, bool], words: str
) -> None:
    with node_at_work(tmp_path, "", config=ENFORCING, spec="H100-80GB") as here:
        made = laid_out(here)

        here.node.reboot()
        here.node.set_node(**kind)
        here.restart()
        here.runtime.begin()
        here.watch(60)
        here.runtime.loop.tick()

        assert len(tried(here)) == made


@pytest.mark.parametrize(("kind", "words"), KINDS)
def test_owner_that_the_driver_denied_once_keeps_even_what_is_made_at_the_start_back(
    tmp_path: Path, kind: dict[str, bool], words: str
) -> None:
    """The answer was believed for the worker's life, and the layout was made again at the start."""
    with node_at_work(tmp_path, "", config=ENFORCING, spec="H100-80GB") as here:
        made = laid_out(here)

        here.node.reboot()
        here.node.set_node(**kind)
        here.node.add_fault(faults.fails(TOLD_BY[next(iter(kind))], Code.NOT_SUPPORTED))
        here.restart()
        here.runtime.begin()
        for _ in range(3):
            here.watch(30)
            here.runtime.loop.tick()

        assert tried(here)[made:] == []
        decision = here.runtime.loop.status().decision
        assert decision is not None
        assert words in decision.sentence


def test_layout_lost_in_a_reboot_is_not_made_again_where_an_owner_may_be_unseen(
    tmp_path: Path,
) -> None:
    """An LSF daemon whose lsf.conf can't be read: it may make instances as its jobs need them."""
    with node_at_work(tmp_path, "", config=ENFORCING) as here:
        here.runtime.begin()
        here.watch(30)
        here.runtime.loop.tick()
        made = here.layout()
        assert made != ""

        here.node.reboot()
        here.host.process(77, "lim")
        here.restart()
        here.runtime.begin()
        here.watch(30)
        here.runtime.loop.tick()
        assert here.layout() == ""
        snapshot = here.runtime.loop.status().snapshot
        assert snapshot is not None
        assert "whether it manages MIG can't be read" in str(snapshot.foreign_owner_unknown)

        (here.host.root / "etc" / "lsf.conf").write_text("LSF_MANAGE_MIG=N\n")
        here.restart()
        here.runtime.begin()
        assert here.layout() == made
