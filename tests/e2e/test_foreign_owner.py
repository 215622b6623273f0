"""A real process that reshapes GPUs comes to the node of a daemon in enforce, and goes again."""

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.e2e.processes import Daemon, daemon, wait_until

ENFORCING = """
mode: enforce
sampling: {interval: 1s}
tick: 1s
gpus: [{model: "*A100*"}]
idle: {after: 10s}
rules: [{name: notebooks, size: 1g, min: 2, raise_after: 0s}]
"""


@contextmanager
def mig_manager(directory: Path, host: Path) -> Iterator[subprocess.Popen[bytes]]:
    """Run a program of mig-manager's name, in sight of the daemon's /proc until it has ended."""
    program = directory / "nvidia-mig-manager"
    shutil.copy("/bin/sleep", program)
    process = subprocess.Popen([str(program), "600"], stdin=subprocess.DEVNULL)
    seen = host / str(process.pid)
    # A link, so that what is read is the kernel's; it leads nowhere once the process is reaped.
    seen.symlink_to(f"/proc/{process.pid}")
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def shown(node: Daemon, series: str) -> float | None:
    """Return the value of a series as scraped."""
    found = re.findall(rf"^{re.escape(series)} (.+)$", node.metrics(), flags=re.MULTILINE)
    return float(found[0]) if found else None


def layout_owner(node: Daemon) -> tuple[int, str, str]:
    """Return the doctor's exit code, and what it says of the owner of the layouts."""
    migscaler = str(Path(sys.executable).parent / "migscaler")
    state = str(node.directory / "state")
    command = [migscaler, "--state-dir", state, "doctor", "--output", "json"]
    done = subprocess.run(command, capture_output=True, timeout=120, check=False)
    (check,) = (
        one for one in json.loads(done.stdout)["checks"] if one["subject"] == "layout owner"
    )
    return done.returncode, check["verdict"], f"{check['found']} {check['remedy']}"


def ours(node: Daemon) -> list[str]:
    """Return the daemon's changing calls."""
    return [call.function for call in node.node.call_log() if call.actor != "setup"]


def test_daemon_stands_down_and_takes_over_again(tmp_path: Path) -> None:
    host = tmp_path / "node/host/proc"
    host.mkdir(parents=True)
    with (
        mig_manager(tmp_path, host) as owner,
        daemon(tmp_path, "1xA100-SXM4-40GB", ENFORCING) as node,
    ):
        wait_until("it is seen", lambda: shown(node, "migscaler_foreign_owner") == 1)
        ticks = shown(node, "migscaler_ticks_total") or 0
        wait_until("it decided", lambda: (shown(node, "migscaler_ticks_total") or 0) > ticks + 2)

        assert ours(node) == []
        gate = 'migscaler_gate_closed{reason="foreign_owner"}'
        wait_until("and says why it does nothing", lambda: shown(node, gate) == 1)
        # Everything is exported all the same, and commands that look answer.
        wait_until("the GPU is counted", lambda: shown(node, "migscaler_gpus") == 1)
        wait_until("and measured", lambda: "migscaler_gpu_power_watts{" in node.metrics())
        assert "mig-manager" in json.dumps(node.cli("explain", "--output", "json"))
        code, verdict, words = layout_owner(node)
        assert (code, verdict) == (1, "problem")
        assert f"process {owner.pid}, nvidia-mig-mana" in words
        assert "nvidia.com/gpu.deploy.mig-manager=false" in words

        owner.terminate()
        owner.wait()

        wait_until("it takes over", lambda: len(node.node.state.gpus[0].instances) == 2)
        wait_until("it says so", lambda: shown(node, "migscaler_foreign_owner") == 0)
        assert layout_owner(node)[1] == "fine"
