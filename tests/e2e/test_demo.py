"""`migscaler demo` shows a real daemon at work, and leaves nothing behind."""

import contextlib
import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from migscaler.sim import faults
from migscaler.sim.node import open_node
from tests.e2e.processes import (
    ANSWER_SECONDS,
    children,
    free_port,
    has_ended,
    heed_endings,
    wait_until,
)

pytestmark = pytest.mark.xdist_group("demo")

# A demo gives each of two children 10 s to end before it kills it.
ENDED_SECONDS = 60
DEMO = [sys.executable, "-m", "migscaler.cli.main", "demo"]


def environment(runtime: Path) -> dict[str, str]:
    return {**os.environ, "XDG_RUNTIME_DIR": str(runtime), "PYTHONUNBUFFERED": "1"}


def test_demo_ends_by_itself(tmp_path: Path) -> None:
    done = subprocess.run(
        [*DEMO, "--port", str(free_port()), "--for", "3"],
        capture_output=True,
        text=True,
        timeout=120,
        env=environment(tmp_path),
    )

    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stderr == ""
    assert re.search(r"The demo ended: \d+ GPU plans done", done.stdout)
    assert list(tmp_path.iterdir()) == []


def test_demo_reshapes_the_node_and_says_what_it_came_to(tmp_path: Path) -> None:
    change = re.compile(r"^\d\d:\d\d  GPU \d: 7g\.[48]0gb -> .*1g\.")
    with demo_running(tmp_path, "--day", "2m", "--for", "120") as demo:
        assert demo.stdout is not None
        assert any(map(change.match, demo.stdout))
        demo.send_signal(signal.SIGINT)
        said = demo.stdout.read()
        assert demo.wait(ENDED_SECONDS) == 0

    counted = re.search(r"The demo ended: (\d+) GPU plans done", said)
    assert counted is not None
    assert int(counted[1]) >= 1
    assert list(tmp_path.iterdir()) == []


def test_demo_on_a_port_that_is_taken_says_how_to_choose_another(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        done = subprocess.run(
            [*DEMO, "--port", str(port), "--for", "3"],
            capture_output=True,
            text=True,
            timeout=120,
            env=environment(tmp_path),
        )

    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == (
        f"migscaler: cannot listen on 127.0.0.1:{port}: Address already in use; name another with "
        "--port, or none for the first free one from 9836 on\n"
    )
    assert list(tmp_path.iterdir()) == []


def test_demo_names_its_page_once_that_shows_the_node_and_ends_on_ctrl_c(tmp_path: Path) -> None:
    """On a busy machine the page was named while the first reading was still under way."""
    with demo_begun(tmp_path) as demo:
        wait_until("the node is there", lambda: any(tmp_path.glob("*/node/state.json")))
        node = open_node(next(tmp_path.glob("*/node")))
        node.add_fault(faults.slow("nvmlDeviceGetCount_v2", 2.0))
        page = page_of(demo)
        first = metrics_of(page)
        node.clear_faults()
        wait_until("the node is shown", lambda: shows_all(metrics_of(page)))
        demo.send_signal(signal.SIGINT)
        assert demo.stdout is not None
        said = demo.stdout.read()
        assert demo.wait(ENDED_SECONDS) == 0

    # A reading that took so long may be too old to be shown a moment later.
    assert shows_all(first) or "migscaler_snapshot_stale 1" in first
    assert "The demo ended" in said
    assert list(tmp_path.iterdir()) == []


def metrics_of(page: str) -> str:
    return httpx.get(f"{page}metrics", timeout=ANSWER_SECONDS).text


def shows_all(metrics: str) -> bool:
    return metrics.count("migscaler_gpu_info{") == 8


@contextlib.contextmanager
def demo_begun(directory: Path, *words: str) -> Iterator[subprocess.Popen[str]]:
    """Run a demo until the block ends."""
    demo = subprocess.Popen(
        [*DEMO, "--port", str(free_port()), *words],
        stdout=subprocess.PIPE,
        text=True,
        env=environment(directory),
        preexec_fn=heed_endings,
    )
    assert demo.stdout is not None
    try:
        yield demo
    finally:
        demo.kill()
        demo.wait()
        demo.stdout.close()


def page_of(demo: subprocess.Popen[str]) -> str:
    """Wait until a demo names its page, and return the address."""
    assert demo.stdout is not None
    while line := demo.stdout.readline():
        if line.strip().startswith("page"):
            return line.split()[1]
    raise AssertionError("the demo ended before it said where its page is")


@contextlib.contextmanager
def demo_running(directory: Path, *words: str) -> Iterator[subprocess.Popen[str]]:
    """Run a demo that has named its page."""
    with demo_begun(directory, *words) as demo:
        page_of(demo)
        yield demo


@pytest.mark.parametrize("ending", [signal.SIGHUP, signal.SIGTERM])
def test_demo_leaves_nothing_behind_when_its_terminal_closes(
    tmp_path: Path, ending: signal.Signals
) -> None:
    """A lost ssh session left the daemon on its port, for ever."""
    with demo_running(tmp_path) as demo:
        started = children(demo.pid)
        demo.send_signal(ending)
        assert demo.wait(ENDED_SECONDS) == 0

    assert len(started) == 2
    assert all(map(has_ended, started))
    assert list(tmp_path.iterdir()) == []


def test_demo_that_is_killed_takes_its_daemon_with_it(tmp_path: Path) -> None:
    with demo_running(tmp_path) as demo:
        started = children(demo.pid)
        demo.kill()
        demo.wait(ENDED_SECONDS)

        assert len(started) == 2
        wait_until("both have ended", lambda: all(map(has_ended, started)))
