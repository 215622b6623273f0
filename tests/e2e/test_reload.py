"""What a reload may and may not change, as an operator sees it in the metrics."""

import os
import re
import signal
from pathlib import Path

import httpx

from tests.e2e.processes import Daemon, daemon, wait_until

ENFORCING = """
mode: enforce
sampling: {interval: 1s}
tick: 1s
gpus: [{model: "*A100*"}]
idle: {after: 10s}
rules: [{name: notebooks, size: 1g, min: 1, raise_after: 0s}]
"""


def shown(node: Daemon, family: str) -> float:
    """Return the one value of a family without labels."""
    found = re.findall(rf"^{family} (.+)$", node.metrics(), flags=re.MULTILINE)
    assert len(found) == 1, (family, found)
    return float(found[0])


def reload(node: Daemon, text: str, *, event: str) -> None:
    """Write the file, send SIGHUP, and wait until the log tells what came of it."""
    before = node.log.read_text().count(f"event={event}")
    (node.directory / "migscaler.yaml").write_text(text)
    os.kill(node.process.pid, signal.SIGHUP)
    wait_until(
        f"the log says {event}",
        lambda: node.log.read_text().count(f"event={event}") > before,
    )


def test_reload_never_lets_a_node_without_durable_state_act(tmp_path: Path) -> None:
    """A good file used to end the observing that the damaged state had begun."""
    (tmp_path / "state").mkdir()
    (tmp_path / "state" / "state.sqlite").write_text("this is no database" * 100)
    with daemon(tmp_path, "1xA100-SXM4-40GB", ENFORCING) as node:
        assert shown(node, "migscaler_config_forced_observe") == 1
        reload(node, ENFORCING.replace("min: 1", "min: 2"), event="config_loaded")
        ticks = shown(node, "migscaler_ticks_total")
        wait_until("it decided anew", lambda: shown(node, "migscaler_ticks_total") > ticks + 1)

        assert shown(node, "migscaler_config_forced_observe") == 1
        assert node.node.state.gpus[0].instances == {}


def test_file_that_can_t_be_taken_is_told_and_changes_nothing(tmp_path: Path) -> None:
    with daemon(tmp_path, "1xA100-SXM4-40GB", ENFORCING) as node:
        wait_until("the floor is there", lambda: node.node.state.gpus[0].instances)
        reload(node, ENFORCING + "rules: []\n", event="config_rejected")
        wait_until("the file is broken", lambda: told(node) == [0, 0])
        moved = ENFORCING + 'web: {listen: "127.0.0.1:1"}\n'
        reload(node, moved, event="config_rejected")
        wait_until("it is whole, and not taken", lambda: told(node) == [1, 0])
        reload(node, ENFORCING, event="config_loaded")
        wait_until("it is taken", lambda: told(node) == [1, 1])
        url = f"http://127.0.0.1:{node.port}/-/healthy"
        wait_until("all is well", lambda: httpx.get(url).status_code == 200)

    assert 'problem="web can\'t change while the daemon runs; restart it"' in node.log.read_text()


def told(node: Daemon) -> list[float]:
    """Return whether the file is valid, and whether it was taken."""
    return [shown(node, f"migscaler_config_{n}") for n in ("valid", "last_reload_successful")]
