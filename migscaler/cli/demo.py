"""`migscaler demo`: the real daemon on a simulated node, under a day's load in minutes."""

import contextlib
import ctypes
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import timedelta
from importlib import resources
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING

import click

from migscaler.cli.output import Failed, show
from migscaler.cli.params import SECONDS
from migscaler.errors import AddressTaken

if TYPE_CHECKING:
    from migscaler.cli.demo_load import Load

NODE = "6xA100-SXM4-40GB,2xH100-80GB"
_HOST = "127.0.0.1"
_FIRST_PORT = 9836
_PORTS_TRIED = 20
_STEP_SECONDS = 0.5
_READY_SECONDS = 60.0
_END_SECONDS = 10.0
_START_HOUR = 6.5
# Have the kernel send a signal when the parent ends (linux/prctl.h).
_PR_SET_PDEATHSIG = 1


@click.command()
@click.option("--day", type=SECONDS, default="4m", show_default=True, help="Length of a day.")
@click.option("--for", "lasting", type=SECONDS, help="End after this long. [default: on Ctrl-C]")
@click.option(
    "--port", type=click.IntRange(1, 65535), help="Port of the page. [default: 9836 or next free]"
)
@click.option(
    "--directory",
    type=click.Path(path_type=Path, file_okay=False),
    help="Keep the node, journal and log here. [default: a temporary one, removed at the end]",
)
@click.option("--seed", type=int, default=1, show_default=True, help="Another seed, other jobs.")
def demo(
    day: timedelta, lasting: timedelta | None, port: int | None, directory: Path | None, seed: int
) -> None:
    """Watch migscaler reshape 6 A100 and 2 H100, simulated: finer by day, coarser by night.

    The daemon, its journal, page and metrics are the real ones; only the NVML library below is
    simulated. Jobs arrive, wait in a queue per size, run and leave. Needs no GPU, root or network.
    """
    for ending in (signal.SIGTERM, signal.SIGHUP):
        # Ignored under nohup, which means to outlive the terminal.
        if signal.getsignal(ending) is not signal.SIG_IGN:
            signal.signal(ending, _interrupt)
    try:
        with _place(directory) as root:
            _run(root, day, lasting, free_port() if port is None else _own_port(port), seed)
    except KeyboardInterrupt:
        show("", "The demo ended.")


def _run(root: Path, day: timedelta, lasting: timedelta | None, port: int, seed: int) -> None:
    """Build the node, start the daemon, and play the day."""
    from migscaler.app.clock import RealClock
    from migscaler.cli.demo_load import Load
    from migscaler.sim.node import build_node

    clock = RealClock()
    node = build_node(NODE, directory=root / "node", seed=seed)
    for gpu in node.state.gpus:
        # As the night left it; the morning's jobs are smaller.
        node.foreign_create(gpu.index, "7g@0", actor="demo")
    with _exporter(root) as (dcgm_port, dcgm_pid), contextlib.ExitStack() as ends:
        places = {"LISTEN": f"{_HOST}:{port}", "DCGM_PORT": dcgm_port, "DCGM_PID": dcgm_pid}
        child = ends.enter_context(_daemon(root, _write_config(root, places)))
        load = Load(root, node, seed, 86400 / day.total_seconds(), _START_HOUR)
        end = None if lasting is None else clock.monotonic() + lasting.total_seconds()
        give_up = clock.monotonic() + _READY_SECONDS
        announced = False
        with contextlib.suppress(KeyboardInterrupt):  # what it came to is worth telling
            while end is None or clock.monotonic() < end:
                if child.poll() is not None:
                    break
                answers = load.step(clock.monotonic())
                if answers and not announced and _is_ready(port):
                    _announce(root, port, day)
                    announced = True
                elif not announced and clock.monotonic() > give_up:
                    raise Failed(f"the daemon did not answer:\n{_last_lines(root)}")
                clock.sleep(_STEP_SECONDS)
        if child.poll() is not None:
            raise Failed(_ended(root, child.returncode))
        _summarize(load)


def _write_config(root: Path, places: Mapping[str, object]) -> Path:
    """Write the demo's configuration with these values in its places."""
    text = resources.files("migscaler.cli").joinpath("demo.yaml").read_text("utf-8")
    for name, value in places.items():
        text = text.replace(f"@{name}@", str(value))
    config = root / "demo.yaml"
    config.write_text(text, "utf-8")
    return config


def _announce(root: Path, port: int, day: timedelta) -> None:
    """Say where to look, and at what."""
    show(
        "",
        f"  page      http://{_HOST}:{port}/",
        f"  metrics   http://{_HOST}:{port}/metrics",
        f"  commands  {_own_name()} --state-dir {root / 'state'} status",
        "            (or explain, plan, history, layouts, hold, pause, lease, ...)",
        "",
        f"A day lasts {day.total_seconds():g} s and starts at 06:30: many small jobs by day, few "
        "large ones by night.",
        "Watch the strips on the page: shaded instances are in use and stay, idle ones change.",
        "Ctrl-C ends it.",
        "",
    )


def _is_ready(port: int) -> bool:
    """Say whether the daemon has read its node: before, it answers, and its page shows no GPU."""
    import httpx

    try:
        return httpx.get(f"http://{_HOST}:{port}/-/ready").is_success
    except httpx.HTTPError:
        return False


def _own_name() -> str:
    """Return how this program was called, so that the commands shown can be copied."""
    called = Path(sys.argv[0])
    return str(called) if called.name == "migscaler" else "migscaler"


def _summarize(load: "Load") -> None:
    """Say what the day came to."""
    tally = load.workload.tally
    show(
        "",
        f"The demo ended: {load.changes} GPU plans done, {tally.started} jobs started, "
        f"{tally.finished} finished, {tally.lost} lost.",
    )


@contextmanager
def _place(directory: Path | None) -> Iterator[Path]:
    """Give the demo's directory; a temporary one is removed at the end."""
    if directory is not None:
        try:
            directory.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise Failed(f"{directory} can't be used: {error.strerror}") from error
        yield directory.resolve()
        return
    runtime = os.environ.get("XDG_RUNTIME_DIR")
    parent = runtime if runtime and os.access(runtime, os.W_OK) else None
    root = Path(tempfile.mkdtemp(prefix="migscaler-demo-", dir=parent))
    try:
        yield root
    finally:
        shutil.rmtree(root, ignore_errors=True)


@contextmanager
def _daemon(root: Path, config: Path) -> Iterator["subprocess.Popen[bytes]"]:
    """Run the daemon on the node while inside; its log goes to daemon.log."""
    (root / "state").mkdir(exist_ok=True)
    options = ["--config", str(config), "--state-dir", str(root / "state")]
    with _child(root / "daemon.log", *options, "sim", "run", "--directory", root / "node") as child:
        yield child


@contextmanager
def _exporter(root: Path) -> Iterator[tuple[int, int]]:
    """Run a simulated dcgm-exporter for the A100s while inside; gives its port and process id."""
    with socket.socket() as probe:
        probe.bind((_HOST, 0))
        port = int(probe.getsockname()[1])
    where = ["--directory", root / "node", "--port", port]
    with _child(root / "dcgm.log", "sim", "dcgm", *where) as child:
        yield port, child.pid


@contextmanager
def _child(log_file: Path, *arguments: object) -> Iterator["subprocess.Popen[bytes]"]:
    """Run migscaler with these arguments while inside; it ends with the demo, however that ends."""
    command = [sys.executable, "-m", "migscaler.cli.main", *map(str, arguments)]
    # Also when the demo is killed: the port would stay taken by a daemon that nobody knows of.
    kernel = ctypes.CDLL(None)
    with log_file.open("wb") as log:
        # In a session of its own: Ctrl-C comes to the demo, which then ends the child and waits.
        child = subprocess.Popen(
            command,
            stdout=log,
            stderr=log,
            stdin=subprocess.DEVNULL,
            start_new_session=True,
            preexec_fn=lambda: kernel.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM),
        )
    try:
        yield child
    finally:
        child.terminate()
        try:
            child.wait(_END_SECONDS)
        except subprocess.TimeoutExpired:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(child.pid, signal.SIGKILL)
            child.wait()


def free_port() -> int:
    """Return the first free port from 9836 on, any other if none of twenty is free."""
    for port in (*range(_FIRST_PORT, _FIRST_PORT + _PORTS_TRIED), 0):
        with contextlib.suppress(OSError):
            return _bound(port)
    raise Failed(f"no port of {_HOST} is free")


def _own_port(port: int) -> int:
    """Return the port that was asked for.

    Raises:
        AddressTaken: somebody listens there, or this account may not.
    """
    try:
        return _bound(port)
    except OSError as error:
        raise AddressTaken(
            f"cannot listen on {_HOST}:{port}: {error.strerror}; name another with --port, or none "
            f"for the first free one from {_FIRST_PORT} on"
        ) from error


def _bound(port: int) -> int:
    """Return the number of a port after trying it; 0 is any."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        probe.bind((_HOST, port))
        return int(probe.getsockname()[1])


def _ended(root: Path, code: int) -> str:
    """Say that the daemon ended too early, and its last words."""
    return f"the daemon ended with {code}:\n{_last_lines(root)}"


def _last_lines(root: Path) -> str:
    """Return the end of the daemon's log."""
    return "\n".join((root / "daemon.log").read_text("utf-8", "replace").splitlines()[-10:])


def _interrupt(_number: int, _frame: FrameType | None) -> None:
    """End by SIGTERM, or with the terminal, as by Ctrl-C."""
    raise KeyboardInterrupt
