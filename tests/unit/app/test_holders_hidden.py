"""Who holds an instance: everyone who scrapes learns that somebody does, trusted callers who."""

from pathlib import Path

from migscaler.metrics.exposition import Renderer
from tests.unit.app.nodes import RECOMMEND, NodeAtWork, node_at_work


def hold(here: NodeAtWork) -> None:
    """Let a process without CUDA context name the GPU's first instance in its environment."""
    snapshot = here.runtime.loop.sample()
    assert snapshot is not None
    one = (snapshot.gpus[0].instances or ())[0]
    uuid = one.reading.instance.mig_uuid
    here.host.process(50, "secret-project", environment=(f"CUDA_VISIBLE_DEVICES={uuid}",))
    here.watch(5)


def test_command_of_a_holder_is_in_no_metric(tmp_path: Path) -> None:
    with node_at_work(tmp_path, "3g@0", config=RECOMMEND) as here:
        hold(here)
        renderer = Renderer()
        renderer.publish(here.runtime.loop.status())

        text = renderer.render("text/plain").body.decode()

        assert "migscaler_instance_allocation_info{" in text
        assert 'holder="process"' in text
        assert "secret-project" not in text


def test_command_of_a_holder_is_told_to_trusted_callers(tmp_path: Path) -> None:
    with node_at_work(tmp_path, "3g@0", config=RECOMMEND) as here:
        hold(here)

        assert "process 50 (secret-project, in its environment)" in str(here.ask("status"))
