"""A simulated node on which one daemon process after another lives and dies."""

import contextlib
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx

from migscaler.sim.core import CallRecord
from migscaler.sim.node import SimNode, build_node, open_node
from migscaler.sim.state import Fault
from tests.e2e.processes import ANSWER_SECONDS, free_port, running, wait_until

MIGSCALER = str(Path(sys.executable).parent / "migscaler")
RESHAPING = """
mode: enforce
sampling: {interval: 1s}
tick: 1s
gpus: [{model: "*"}]
idle: {after: 10s}
pace: {rest: 0s, rest_after_failure: 10s}
rules: [{name: small, size: 1g, min: 3, raise_after: 0s}]
"""
"""Three 1g instances are wanted; what is idle makes room for them after 10 s."""
RESTING = """
mode: enforce
sampling: {interval: 1s}
tick: 1s
gpus: [{model: "*"}]
"""
"""GPUs may be changed, but nothing is wanted."""


@dataclass
class Life:
    """One daemon process."""

    process: subprocess.Popen[bytes]
    port: int

    def get(self, path: str, seconds: float = ANSWER_SECONDS) -> httpx.Response:
        return httpx.get(f"http://127.0.0.1:{self.port}{path}", timeout=seconds)

    def shown(self, series: str) -> float | None:
        """Return the value of a series as a scrape writes it, None without it."""
        return value(self.get("/metrics").text, series)

    def shown_together(self, *series: str) -> tuple[float | None, ...]:
        """Return the values of several series of the same scrape."""
        text = self.get("/metrics").text
        return tuple(value(text, one) for one in series)

    def end(self, number: int) -> int:
        """Send a signal and return the exit code."""
        os.kill(self.process.pid, number)
        return self.process.wait(120)


def value(text: str, series: str) -> float | None:
    """Return the value of a series of an exposition, None without it."""
    found = re.search(rf"^{re.escape(series)} (\S+)$", text, re.MULTILINE)
    return None if found is None else float(found[1])


class Site:
    """A node directory with its state directory and configuration."""

    def __init__(self, directory: Path, gpus: str, config: str, layout: str = "") -> None:
        self.directory = directory
        self.state = directory / "state"
        self.log = directory / "daemon.log"
        self.config = directory / "migscaler.yaml"
        self.config.write_text(config)
        build_node(gpus, directory=directory / "node")
        for spec in layout.split():
            self.node.foreign_create(0, spec, actor="setup")

    @property
    def node(self) -> SimNode:
        return open_node(self.directory / "node")

    def command(self, *words: str) -> list[str]:
        options = ["--config", str(self.config), "--state-dir", str(self.state)]
        return [MIGSCALER, *options, *words]

    def cli(self, *words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(self.command(*words), capture_output=True, text=True, timeout=120)

    def run_words(self, port: int) -> list[str]:
        node = str(self.directory / "node")
        return ["sim", "run", "--directory", node, "--listen", f"127.0.0.1:{port}"]

    @contextlib.contextmanager
    def life(self) -> Iterator[Life]:
        """Run a daemon for one block, from serving on."""
        port = free_port()
        with running(self.command(*self.run_words(port)), self.log) as process:
            life = Life(process=process, port=port)
            wait_until("it is ready", lambda: life.get("/-/ready").is_success)
            yield life

    def add_fault(self, fault: Fault) -> None:
        self.node.add_fault(fault)

    def layout(self, gpu: int = 0) -> str:
        """Return what is usable on a GPU, by its own books; a `!` marks what is half made."""
        found = sorted(self.node.state.gpus[gpu].instances.values(), key=lambda gi: gi.start)
        return " ".join(
            f"{gi.profile}@{gi.start}{'' if len(gi.compute) == 1 else '!'}" for gi in found
        )

    def calls(self) -> list[CallRecord]:
        """Return migscaler's changing calls that worked."""
        return [c for c in self.node.call_log() if c.code == 0 and c.actor.startswith("nvml/")]

    def wait_for_plan(self) -> None:
        """Wait until the log says that a GPU plan began."""
        wait_until("a plan begins", lambda: "event=gpu_plan_start" in self.log.read_text())

    def wait_for_call(self, function: str, count: int = 1) -> None:
        """Wait until a call worked so many times."""
        wait_until(
            f"{count} {function}",
            lambda: sum(c.function == function for c in self.calls()) >= count,
        )


def kill(life: Life) -> None:
    """Kill a daemon without warning."""
    assert life.end(signal.SIGKILL) == -signal.SIGKILL
