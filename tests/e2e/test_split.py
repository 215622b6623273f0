"""Both halves as real processes: a daemon without privileges, and the worker of another account.

As root the daemon runs under an account of its own; else both run under ours, which leaves out only
that the kernel tells the two apart.
"""

import contextlib
import os
import re
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest

from migscaler.sim.node import SimNode, build_node, open_node
from tests.e2e.processes import ANSWER_SECONDS, free_port, running, wait_until

pytestmark = pytest.mark.xdist_group("split")

MIGSCALER = str(Path(sys.executable).with_name("migscaler"))
NOBODY = 65534
CONFIG = """
mode: enforce
gpus: [{model: "*"}]
idle: {after: 10s, evidence: [process, allocation]}
sampling: {interval: 1s}
tick: 1s
pace: {raise_after: 1s, rest: 1s}
sources: {pushed: {type: push, counts: total}}
rules: [{name: halves, size: 3g, from: [pushed], max: 2}]
"""
# The interpreter may lie where only root looks; the daemon gets the right to read files for that,
# and with it none over processes or devices.
ONE_RIGHT = ("--inh-caps", "--ambient-caps", "--bounding-set")


def unprivileged(command: list[str]) -> list[str]:
    """Return the command for the account of the daemon."""
    if os.geteuid() != 0:
        return command
    rights = [word for option in ONE_RIGHT for word in (option, "-all,+dac_read_search")]
    ids = ["--reuid", str(NOBODY), "--regid", str(NOBODY), "--clear-groups"]
    return ["setpriv", *ids, *rights, *command]


@dataclass(frozen=True, slots=True, kw_only=True)
class Halves:
    """A running worker service and, within `daemon`, the daemon that uses it."""

    directory: Path
    port: int
    worker: subprocess.Popen[bytes]

    @property
    def node(self) -> SimNode:
        return open_node(self.directory / "node")

    @property
    def state(self) -> Path:
        return self.directory / "state"

    def layout(self) -> list[str]:
        found = self.node.state.gpus[0].instances.values()
        return sorted(f"{gi.profile}@{gi.start}" for gi in found)

    def metrics(self) -> str:
        url = f"http://127.0.0.1:{self.port}/metrics"
        return httpx.get(url, timeout=ANSWER_SECONDS).text

    def cli(self, *words: str) -> subprocess.CompletedProcess[str]:
        command = [MIGSCALER, "--state-dir", str(self.state), *words]
        return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)

    def workers(self) -> str:
        return Path(f"/proc/{self.worker.pid}/task/{self.worker.pid}/children").read_text()

    @contextlib.contextmanager
    def daemon(self) -> Iterator[subprocess.Popen[bytes]]:
        words = ["--config", str(self.directory / "migscaler.yaml"), "--state-dir", str(self.state)]
        words += ["sim", "run", "--directory", str(self.directory / "node")]
        words += ["--listen", f"127.0.0.1:{self.port}"]
        words += ["--nvml-socket", str(self.directory / "run" / "worker.sock")]
        command = unprivileged([MIGSCALER, *words])
        home = {"HOME": str(self.state)}
        with running(command, self.directory / "daemon.log", home) as process:
            ready = f"http://127.0.0.1:{self.port}/-/ready"
            wait_until("the daemon is ready", lambda: httpx.get(ready).is_success, 60)
            yield process


@pytest.fixture
def halves() -> Iterator[Halves]:
    # pytest's own directories are closed to other accounts.
    with tempfile.TemporaryDirectory(prefix="migscaler-split-") as name:
        directory = Path(name)
        directory.chmod(0o755)
        node = build_node("1xA100-SXM4-40GB", directory=directory / "node")
        for spec in ("1g@0", "1g@1", "1g@2", "1g@3"):
            node.foreign_create(0, spec, actor="setup")
        (directory / "migscaler.yaml").write_text(CONFIG)
        (directory / "run").mkdir()
        (directory / "state").mkdir()
        user, group = os.getuid(), os.getgid()
        if user == 0:
            user, group = NOBODY, NOBODY
            os.chown(directory / "state", NOBODY, NOBODY)
        words = ["sim", "nvml-worker", "--directory", str(directory / "node")]
        words += ["--listen", str(directory / "run" / "worker.sock"), "--user", str(user)]
        with (directory / "worker.log").open("ab") as log:
            worker = subprocess.Popen(
                [MIGSCALER, *words],
                group=group if os.geteuid() == 0 else None,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        try:
            wait_until("the worker listens", (directory / "run" / "worker.sock").exists)
            yield Halves(directory=directory, port=free_port(), worker=worker)
        finally:
            open_node(directory / "node").clear_faults()
            worker.terminate()
            try:
                worker.wait(60)
            except subprocess.TimeoutExpired:
                worker.kill()
                worker.wait()


def test_unprivileged_daemon_measures_and_reshapes_through_the_worker(halves: Halves) -> None:
    job = halves.node.start_job(0, gi_of(halves, "1g.5gb@3"), name="train")
    with halves.daemon() as process:
        if os.geteuid() == 0:
            status = Path(f"/proc/{process.pid}/status").read_text()
            assert f"Uid:\t{NOBODY}\t{NOBODY}\t{NOBODY}\t{NOBODY}" in status
        wait_until("it shows instances", lambda: "migscaler_instance_info{" in halves.metrics())
        used = 'migscaler_instance_processes{gi_id="'
        wait_until("and what runs on them", lambda: used in halves.metrics())

        done = halves.cli("demand", "push", "pushed", "3g=1", "--ttl", "10m")
        assert done.returncode == 0, done.stderr
        wait_until("a 3g was made", lambda: "3g.20gb@4" in halves.layout(), 90)

        # One job runs on the other half: it keeps its instance whatever is asked.
        halves.cli("demand", "push", "pushed", "3g=2", "--ttl", "10m")
        halves.cli("apply", "--gpu", "0", "--layout", "3g 3g")
        assert "1g.5gb@3" in halves.layout()
        assert halves.node.end_job(job)
        process.send_signal(signal.SIGTERM)
        assert process.wait(120) == 0

    worker_log = (halves.directory / "worker.log").read_text()
    assert "event=nvml_change command=create_gpu_instance" in worker_log
    in_use = [call for call in halves.node.call_log() if call.in_use]
    assert in_use == []
    by = {call.actor for call in halves.node.call_log() if call.actor != "setup"}
    assert by
    assert f"nvml/{process.pid}" not in by
    assert "Traceback" not in (halves.directory / "daemon.log").read_text()


def test_exporter_serves_while_the_worker_is_away(halves: Halves) -> None:
    with halves.daemon() as process:
        wait_until("it reads", lambda: "migscaler_instance_info{" in halves.metrics())
        halves.worker.terminate()
        assert halves.worker.wait(120) == 0
        wait_until("nothing is shown", lambda: "migscaler_instance_info{" not in halves.metrics())
        log = halves.directory / "daemon.log"
        # What met the end of it is told: a connection that was to be made, or a request.
        why = "no NVML worker answers at|the NVML worker ended during"
        turned = re.compile(f'event=collector_turned collector=nvml problem="({why}) ')
        wait_until("it says so, and why", lambda: turned.search(log.read_text()))
        assert process.poll() is None


def test_released_driver_is_held_by_no_process(halves: Halves) -> None:
    with halves.daemon():
        wait_until("it reads", lambda: "migscaler_instance_info{" in halves.metrics())
        assert halves.workers() != ""
        done = halves.cli("pause", "--why", "test", "--release-driver")
        assert done.returncode == 0, done.stderr
        # It waits three seconds for the process to end, which may not do on a busy machine.
        wait_until("no process holds it", lambda: halves.workers() == "")
        assert halves.cli("resume").returncode == 0
        wait_until("it reads again", lambda: halves.workers() != "")


def gi_of(halves: Halves, spec: str) -> int:
    found = halves.node.state.gpus[0].instances.values()
    return next(gi.id for gi in found if f"{gi.profile}@{gi.start}" == spec)
