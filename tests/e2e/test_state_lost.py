"""A state file that is damaged under the running daemon: changes stop, the exporter goes on."""

import re
from pathlib import Path

from tests.e2e.processes import Daemon, daemon, wait_until

ENFORCING = """
mode: enforce
sampling: {interval: 1s}
tick: 1s
gpus: [{model: "*A100*"}]
rules: [{name: notebooks, size: 1g, min: 2, raise_after: 0s}]
"""


def instances(node: Daemon) -> float:
    """Return how many instances the metrics show."""
    found = re.findall(r"^migscaler_gpu_instances\{.*\} (.+)$", node.metrics(), flags=re.MULTILINE)
    return sum(map(float, found))


def test_exporter_outlives_its_state_file(tmp_path: Path) -> None:
    """The main thread read it once a second, and took the daemon with it."""
    with daemon(tmp_path, "1xA100-SXM4-40GB", ENFORCING) as node:
        wait_until("the floor is there", lambda: instances(node) == 2)
        for path in (tmp_path / "state").glob("state.sqlite*"):
            path.write_bytes(b"\xff" * max(8192, path.stat().st_size))
        wait_until("the damage is told", lambda: "migscaler_state_writable 0" in node.metrics())
        node.node.foreign_create(0, "1g@6")

        wait_until("new instances are still seen", lambda: instances(node) == 3)

        assert node.process.poll() is None
