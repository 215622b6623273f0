"""Who holds an instance: everyone who scrapes learns that somebody does, trusted callers who."""

import json
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from migscaler.app.hardware_lock import NOT_BACK
from migscaler.metrics.exposition import Renderer
from migscaler.model.gpu import Gap
from migscaler.model.status import Status
from migscaler.web.explanation import explanation_view, paragraphs_of
from migscaler.web.page import page
from migscaler.web.views import plan_view, status_view
from tests.builders import A100, gpu_state, snapshot
from tests.unit.app.nodes import RECOMMEND, NodeAtWork, node_at_work
from tests.unit.metrics.statuses import full_status


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


def shown_to_strangers(status: Status) -> str:
    """Return everything that page, API and metrics tell somebody without proof."""
    renderer = Renderer()
    renderer.publish(status)
    views = (
        status_view(status, trusted=False),
        plan_view(status, trusted=False),
        explanation_view(paragraphs_of(status, trusted=False)),
    )
    # Not what this process says of itself: its bytes and seconds may be any number.
    series = renderer.render("text/plain").body.decode().splitlines()
    ours = [line for line in series if "migscaler_" in line]
    return "\n".join((*map(str, views), page(status, trusted=False), *ours))


def unreadable(here: NodeAtWork) -> None:
    """Let a process be there whose environment can't be read, as with hidepid."""
    process = here.host.process(4242, "payroll-ml")
    (process / "environ").unlink()
    (process / "environ").mkdir()


def runtime(here: NodeAtWork) -> None:
    here.host.process(5151, "dockerd")


def beside(here: NodeAtWork) -> None:
    here.begin_beside("process 812 of uid 1007 may change these GPUs already")


@pytest.mark.parametrize(
    ("come", "secret", "reason"),
    [
        (unreadable, ("4242", "payroll"), "allocations unknown"),
        (runtime, ("5151", "dockerd"), "allocations unknown"),
        (beside, ("812", "1007"), "a process may change these GPUs already"),
    ],
)
def test_whoever_stands_in_the_way_is_named_to_trusted_callers_alone(
    tmp_path: Path, come: Callable[[NodeAtWork], None], secret: tuple[str, ...], reason: str
) -> None:
    with node_at_work(tmp_path, "3g@0", config=RECOMMEND) as here:
        come(here)
        here.watch(30)
        here.runtime.tick()
        status = here.runtime.loop.status()

        shown, trusted = shown_to_strangers(status), str(status_view(status, trusted=True))

        assert not [word for word in secret if re.search(rf"\b{word}\b", shown)]
        assert all(word in trusted for word in secret)
        assert reason in shown


def test_who_keeps_a_gpu_from_being_read_is_named_to_trusted_callers_alone() -> None:
    gpu = gpu_state(A100, "-", index=0)
    why = f"{NOT_BACK} (process 812 of uid 1007): it may still come through"
    reading = replace(gpu.reading, instances=None, gaps=(Gap(what="gpu", why=why),))
    gpu = replace(gpu, instances=None, reading=reading)
    status = replace(full_status(), snapshot=snapshot(gpu))

    shown = shown_to_strangers(status)

    assert "812" not in shown
    assert "1007" not in shown
    assert f"{NOT_BACK} (a process): it may still come through" in shown
    assert why in str(status_view(status, trusted=True))


def test_name_of_a_holder_can_not_order_a_terminal_about(tmp_path: Path) -> None:
    with node_at_work(tmp_path, "3g@0", config=RECOMMEND) as here:
        snapshot = here.runtime.loop.sample()
        assert snapshot is not None
        uuid = (snapshot.gpus[0].instances or ())[0].reading.instance.mig_uuid
        here.host.process(50, "\x1b[2Jpwn", environment=(f"CUDA_VISIBLE_DEVICES={uuid}",))
        here.watch(5)
        here.runtime.tick()

        told = json.dumps([here.ask("status"), here.ask("explain")])

        assert "\\u001b" not in told
        assert r"\\x1b[2Jpwn" in told
