"""`migscaler demo` shows a real daemon at work, and leaves nothing behind."""

import contextlib
import os
import re
import signal
import socket
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from migscaler.sim import faults
from migscaler.sim.node import open_node
from tests.e2e.processes import heed_endings, wait_until

pytestmark = pytest.mark.xdist_group("demo")

# A demo gives each of two children 10 s to end before it kills it.
ENDED_SECONDS = 60
DEMO = [sys.executable, "-m", "migscaler.cli.main", "demo"]


def environment(runtime: Path) -> dict[str, str]:
    return {**os.environ, "XDG_RUNTIME_DIR": str(runtime), "PYTHONUNBUFFERED": "1"}


def test_demo_reshapes_the_node_and_ends_by_itself(tmp_path: Path) -> None:
    done = subprocess.run(
        [*DEMO, "--for", "20", "--day", "2m"],
        capture_output=True,
        text=True,
        timeout=60,
        env=environment(tmp_path),
    )

    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stderr == ""
    changes = re.findall(r"^\d\d:\d\d  GPU \d: 7g\.[48]0gb -> .*1g\.", done.stdout, re.MULTILINE)
    assert changes, done.stdout
    counted = re.search(r"The demo ended: (\d+) GPU plans done", done.stdout)
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
            timeout=60,
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
    demo = subprocess.Popen(
        DEMO,
        stdout=subprocess.PIPE,
        text=True,
        env=environment(tmp_path),
        preexec_fn=heed_endings,
    )
    assert demo.stdout is not None
    try:
        wait_until("the node is there", lambda: any(tmp_path.glob("*/node/state.json")))
        node = open_node(next(tmp_path.glob("*/node")))
        node.add_fault(faults.slow("nvmlDeviceGetCount_v2", 2.0))
        page = ""
        while not page:
            line = demo.stdout.readline()
            assert line, "the demo ended before it said where its page is"
            page = line.split()[1] if line.strip().startswith("page") else ""
        with urllib.request.urlopen(f"{page}metrics", timeout=10) as answer:
            metrics = answer.read().decode()
        demo.send_signal(signal.SIGINT)
        said = demo.stdout.read()
        assert demo.wait(ENDED_SECONDS) == 0
    finally:
        demo.kill()
        demo.wait()
        demo.stdout.close()

    assert metrics.count("migscaler_gpu_info{") == 8
    assert "The demo ended" in said
    assert list(tmp_path.iterdir()) == []


@contextlib.contextmanager
def demo_running(directory: Path) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """Run a demo until it has named its page; gives it and the page's address."""
    demo = subprocess.Popen(
        DEMO, stdout=subprocess.PIPE, text=True, env=environment(directory), preexec_fn=heed_endings
    )
    assert demo.stdout is not None
    try:
        page = ""
        while not page:
            line = demo.stdout.readline()
            assert line, "the demo ended before it said where its page is"
            page = line.split()[1] if line.strip().startswith("page") else ""
        yield demo, page
    finally:
        demo.kill()
        demo.wait()
        demo.stdout.close()


def children_of(pid: int) -> list[int]:
    """The processes that this one started."""
    return list(map(int, Path(f"/proc/{pid}/task/{pid}/children").read_text().split()))


def all_gone(pids: list[int]) -> bool:
    return not any(Path(f"/proc/{pid}").exists() for pid in pids)


@pytest.mark.parametrize("ending", [signal.SIGHUP, signal.SIGTERM])
def test_demo_leaves_nothing_behind_when_its_terminal_closes(
    tmp_path: Path, ending: signal.Signals
) -> None:
    """A lost ssh session left the daemon on its port, for ever."""
    with demo_running(tmp_path) as (demo, _):
        children = children_of(demo.pid)
        demo.send_signal(ending)
        assert demo.wait(ENDED_SECONDS) == 0

    assert len(children) == 2
    assert all_gone(children)
    assert list(tmp_path.iterdir()) == []


def test_demo_that_is_killed_takes_its_daemon_with_it(tmp_path: Path) -> None:
    with demo_running(tmp_path) as (demo, _):
        children = children_of(demo.pid)
        demo.kill()
        demo.wait(20)

        assert len(children) == 2
        wait_until("both have ended", lambda: all_gone(children))
