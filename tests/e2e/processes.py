"""Real processes for end-to-end tests: the daemon on a simulated node, Prometheus, a queue
exporter.
"""

import contextlib
import json
import os
import random
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx

from migscaler.app.config.settings import SOCKET_NAME
from migscaler.sim.node import DEFAULT_DRIVER, SimNode, build_node, open_node
from migscaler.web.unix_path import short_path

_BIN = Path(sys.executable).parent
_PORTS = range(20_000, 32_000)
# How long an answer may take where only its content is looked at.
ANSWER_SECONDS = 30.0


def heed_endings() -> None:
    """Undo what is inherited where the tests run as a background job, or under nohup: to ignore
    SIGINT or SIGHUP.
    """
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGHUP, signal.SIG_DFL)


def free_port() -> int:
    """Return a loopback port that nobody listens on, and that no other test will be given.

    A process may take seconds to listen on it, or listen again after it was killed. So it is none
    of those that the kernel gives to whoever asks for any (from 32768 on), and a name that only one
    process can have keeps others from it until the tests have ended.
    """
    for port in random.sample(_PORTS, len(_PORTS)):
        claim = socket.socket(socket.AF_UNIX)
        try:
            claim.bind(f"\0migscaler tests port {port}")
            with socket.socket() as probe:
                probe.bind(("127.0.0.1", port))
        except OSError:
            claim.close()
            continue
        claim.detach()  # open for as long as this process lives
        return port
    raise AssertionError("every port is taken")


def wait_until(what: str, holds: Callable[[], object], seconds: float = 60.0) -> float:
    """Wait until something holds and return how long it took; fail with its name if it never
    does.
    """
    began = time.monotonic()
    while time.monotonic() - began < seconds:
        with contextlib.suppress(httpx.HTTPError, OSError):
            if holds():
                return time.monotonic() - began
        time.sleep(0.1)
    raise AssertionError(f"not within {seconds:g} s: {what}")


@contextlib.contextmanager
def running(
    command: list[str], log: Path, environment: dict[str, str] | None = None
) -> Iterator[subprocess.Popen[bytes]]:
    """Run a process for one block; it is killed at the end if it still lives."""
    with log.open("ab") as output:
        process = subprocess.Popen(
            command,
            stdout=output,
            stderr=output,
            stdin=subprocess.DEVNULL,
            env={**os.environ, **(environment or {})},
        )
        try:
            yield process
        finally:
            if process.poll() is None:
                process.send_signal(signal.SIGTERM)
                try:
                    process.wait(60)
                except subprocess.TimeoutExpired:
                    process.kill()
                    process.wait()


def children(pid: int) -> list[int]:
    """Return the processes that a process started, by all of its threads that are there."""
    found: list[int] = []
    for task in Path(f"/proc/{pid}/task").iterdir():
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            found += map(int, (task / "children").read_text().split())
    return found


def has_ended(pid: int) -> bool:
    """Say whether nothing is left of a process, but for what nobody has reaped."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] in "ZX"
    except (FileNotFoundError, ProcessLookupError):
        return True


@dataclass(frozen=True, slots=True, kw_only=True)
class Daemon:
    """A daemon under test and the node below it."""

    process: subprocess.Popen[bytes]
    port: int
    directory: Path
    log: Path

    @property
    def node(self) -> SimNode:
        """Return the simulated node as it is now."""
        return open_node(self.directory / "node")

    def local(self) -> httpx.Client:
        """Return a client of the Unix socket."""
        path = short_path(self.directory / "state" / SOCKET_NAME)
        transport = httpx.HTTPTransport(uds=path)
        return httpx.Client(transport=transport, base_url="http://node", timeout=ANSWER_SECONDS)

    def metrics(self) -> str:
        """Return what a scraper gets."""
        url = f"http://127.0.0.1:{self.port}/metrics"
        return httpx.get(url, timeout=ANSWER_SECONDS).text

    def cli(self, *arguments: str) -> dict[str, object]:
        """Run a command of the command line against the daemon and return its JSON."""
        done = subprocess.run(
            [str(_BIN / "migscaler"), "--state-dir", str(self.directory / "state"), *arguments],
            capture_output=True,
            timeout=120,
            check=False,
        )
        assert done.returncode in (0, 3), done.stderr.decode()
        answer = json.loads(done.stdout or b"{}")
        assert isinstance(answer, dict)
        return answer


def is_listening(path: Path) -> bool:
    """Say whether somebody listens on a Unix socket; httpx would leave its own open if nobody."""
    with socket.socket(socket.AF_UNIX) as probe:
        return probe.connect_ex(short_path(path)) == 0


@contextlib.contextmanager
def daemon(
    directory: Path,
    gpus: str,
    config: str,
    *,
    driver: str = DEFAULT_DRIVER,
    mig: bool | Sequence[bool] = True,
    over_tcp: bool = True,
) -> Iterator[Daemon]:
    """Run `migscaler sim run` on a new simulated node until the block ends.

    Whether it is ready is asked on its Unix socket where not everybody may ask `over_tcp`.
    """
    migscaler = str(_BIN / "migscaler")
    node, port, log = directory / "node", free_port(), directory / "daemon.log"
    build_node(gpus, driver, node, mig=mig)
    file = directory / "migscaler.yaml"
    file.write_text(config)
    command = [
        migscaler,
        "--config",
        str(file),
        "--state-dir",
        str(directory / "state"),
        "sim",
        "run",
        "--directory",
        str(node),
        "--listen",
        f"127.0.0.1:{port}",
    ]
    with running(command, log) as process:
        url = f"http://127.0.0.1:{port}/-/ready"
        made = Daemon(process=process, port=port, directory=directory, log=log)
        if over_tcp:
            wait_until("the daemon is ready", lambda: httpx.get(url).is_success)
        else:
            wait_until("somebody listens", lambda: is_listening(directory / "state" / SOCKET_NAME))
            with made.local() as local:
                wait_until("the daemon is ready", lambda: local.get("/-/ready").is_success)
        yield made


@dataclass(slots=True)
class Queue:
    """A queue of jobs as its exporter shows it: waiting jobs by profile.

    While it is `down`, its exporter answers with an error.
    """

    port: int
    waiting: dict[str, int] = field(default_factory=dict)
    down: bool = False

    def text(self) -> str:
        """Return the exposition."""
        lines = ["# TYPE jobs_waiting gauge"]
        lines += [f'jobs_waiting{{profile="{p}"}} {n}' for p, n in sorted(self.waiting.items())]
        return "\n".join(lines) + "\n"


@contextlib.contextmanager
def queue_exporter(**waiting: int) -> Iterator[Queue]:
    """Serve a queue's numbers; change `waiting` to change them."""
    queue = Queue(port=free_port(), waiting={f"{k[1:]}": v for k, v in waiting.items()})

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            body = queue.text().encode()
            self.send_response(503 if queue.down else 200)
            self.send_header("Content-Type", "text/plain; version=0.0.4")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_arguments: object) -> None:
            """Keep the test's output quiet."""

    server = ThreadingHTTPServer(("127.0.0.1", queue.port), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield queue
    finally:
        server.shutdown()
        server.server_close()
        thread.join(5)


@dataclass(frozen=True, slots=True, kw_only=True)
class Prometheus:
    """A real Prometheus server."""

    url: str
    process: subprocess.Popen[bytes]

    def query(self, expression: str) -> list[tuple[dict[str, str], float]]:
        """Return labels and value of every series of an instant query."""
        return [(row["metric"], float(row["value"][1])) for row in self._result(expression)]

    def samples(self, expression: str) -> list[tuple[float, float]]:
        """Return time and value of every sample of the one series of a range selector."""
        rows = self._result(expression)
        assert len(rows) <= 1
        return [(float(at), float(value)) for row in rows for at, value in row["values"]]

    def _result(self, expression: str) -> list[dict[str, Any]]:
        url, asked = f"{self.url}/api/v1/query", {"query": expression}
        answer = httpx.get(url, params=asked, timeout=ANSWER_SECONDS).json()
        assert answer["status"] == "success", answer
        found: list[dict[str, Any]] = answer["data"]["result"]
        return found

    def value(self, expression: str) -> float | None:
        """Return the one value of a query, None if there is none."""
        rows = self.query(expression)
        return rows[0][1] if rows else None


@contextlib.contextmanager
def prometheus(directory: Path, targets: dict[str, int], port: int) -> Iterator[Prometheus]:
    """Run Prometheus on a port, scraping these jobs (name to port) every second."""
    directory.mkdir(exist_ok=True)
    jobs = "".join(
        f'  - job_name: {name}\n    static_configs: [{{targets: ["127.0.0.1:{target}"]}}]\n'
        for name, target in targets.items()
    )
    file = directory / "prometheus.yml"
    file.write_text(f"global: {{scrape_interval: 1s, scrape_timeout: 1s}}\nscrape_configs:\n{jobs}")
    command = [
        "prometheus",
        f"--config.file={file}",
        f"--storage.tsdb.path={directory / 'data'}",
        f"--web.listen-address=127.0.0.1:{port}",
    ]
    with running(command, directory / "prometheus.log") as process:
        url = f"http://127.0.0.1:{port}"
        wait_until("Prometheus is ready", lambda: httpx.get(f"{url}/-/ready").is_success)
        yield Prometheus(url=url, process=process)
