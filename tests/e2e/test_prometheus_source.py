"""The prometheus source against a real Prometheus that scrapes a tiny exporter."""

import contextlib
import shutil
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import httpx
import pytest

from migscaler.app.clock import RealClock
from migscaler.model.demand import Counts, Fetched, Want
from migscaler.model.ids import SourceName
from migscaler.sources.prometheus import (
    PrometheusSettings,
    PrometheusSource,
    PrometheusVeto,
    VetoSettings,
)
from migscaler.sources.prometheus_api import Connection, ask, open_client
from tests.e2e.processes import free_port, wait_until

pytestmark = pytest.mark.xdist_group("prometheus_source")


@dataclass
class Exporter:
    """Serves the text it is given; silent while the text is None."""

    text: str | None = None
    port: int = 0


@dataclass(frozen=True, kw_only=True)
class Bench:
    """A Prometheus that runs, and the exporter that it scrapes every 0.2 s as job queue."""

    exporter: Exporter
    process: subprocess.Popen[bytes]
    settings: PrometheusSettings

    def fetch(self, **changes: object) -> Fetched:
        """Ask once with some settings changed."""
        settings = replace(self.settings, **changes)  # type: ignore[arg-type]  # names of settings
        with open_client(settings.connection) as client:
            source = PrometheusSource(settings=settings, client=client, clock=RealClock())
            return source.fetch()

    def veto(self, query: str) -> bool | None:
        """Return whether a veto stands."""
        settings = VetoSettings(
            name="veto",
            connection=self.settings.connection,
            query=query,
            interval=timedelta(seconds=1),
        )
        with open_client(settings.connection) as client:
            veto = PrometheusVeto(settings=settings, client=client, clock=RealClock())
            return veto.fetch_veto().active


@contextlib.contextmanager
def exporter() -> Iterator[Exporter]:
    state = Exporter()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            body = (state.text or "").encode()
            self.send_response(200 if state.text is not None else 503)
            self.send_header("Content-Type", "text/plain; version=0.0.4")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            """Keep the test's output quiet."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    state.port = server.server_port
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield state
    finally:
        server.shutdown()
        server.server_close()
        thread.join(5)


def is_ready(url: str) -> bool:
    with contextlib.suppress(httpx.HTTPError):
        return httpx.get(f"{url}/-/ready", trust_env=False).is_success
    return False


@contextlib.contextmanager
def prometheus(directory: Path, scraped: Exporter, more: str = "") -> Iterator[Bench]:
    binary = shutil.which("prometheus")
    assert binary, "prometheus is missing: apt-get install --no-install-recommends prometheus"
    url = f"http://127.0.0.1:{free_port()}"
    config = directory / "prometheus.yml"
    config.write_text(
        "global: {scrape_interval: 200ms, scrape_timeout: 200ms}\n"
        "scrape_configs:\n  - job_name: queue\n"
        f"    static_configs: [{{targets: ['127.0.0.1:{scraped.port}']}}]\n{more}"
    )
    command = [
        binary,
        f"--config.file={config}",
        f"--storage.tsdb.path={directory / 'data'}",
        f"--web.listen-address={url.removeprefix('http://')}",
    ]
    with (directory / "log").open("wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log)
        try:
            wait_until("Prometheus is ready", lambda: is_ready(url))
            settings = PrometheusSettings(
                name=SourceName("queue"),
                connection=Connection(url=url, timeout=timedelta(seconds=5)),
                query="sum by (profile) (jobs_waiting)",
                label="profile",
                counts=Counts.WAITING,
                interval=timedelta(seconds=15),
                max_age=timedelta(seconds=30),
                alive='min(up{job="queue"}) == 1',
            )
            yield Bench(exporter=scraped, process=process, settings=settings)
        finally:
            process.kill()
            process.wait()


def answered(bench: Bench, **changes: object) -> Fetched:
    """Return the first answer with a reading: a scrape that came late leaves none for a moment."""
    found: list[Fetched] = []

    def has_reading() -> bool:
        found.append(bench.fetch(**changes))
        return found[-1].reading is not None

    wait_until("it is answered", has_reading)
    return found[-1]


def wants(fetched: Fetched) -> tuple[Want, ...] | None:
    return fetched.reading.wants if fetched.reading else None


def test_source_follows_a_real_prometheus_and_doubts_it_when_it_must(tmp_path: Path) -> None:
    with exporter() as queue, prometheus(tmp_path, queue) as bench:
        # Before the first scrape there is nothing to believe.
        queue.text = 'jobs_waiting{profile="1g"} 2.5\njobs_waiting{profile="7g"} 1\nmaintenance 0\n'
        expected = (Want(size="1g", count=3), Want(size="7g", count=1))
        wait_until("the demand is seen", lambda: wants(bench.fetch()) == expected)
        first = answered(bench)
        assert first.reading is not None
        assert first.reading.absent_is_zero is True
        assert [(row.labels, row.value) for row in first.rows] == [
            ('{profile="1g"}', "2.5"),
            ('{profile="7g"}', "1"),
        ]

        # The age of the samples can be asked for, and an answer without a label needs a size.
        timed = answered(bench, true_at="max(timestamp(jobs_waiting))").reading
        assert timed is not None
        assert timed.true_at <= RealClock().now()
        assert wants(bench.fetch(query="sum(jobs_waiting)")) is None
        four = (Want(size="2g", count=4),)
        assert wants(answered(bench, query="sum(jobs_waiting)", size="2g")) == four
        assert wants(answered(bench, query="scalar(sum(jobs_waiting))", size="2g")) == four
        assert wants(bench.fetch(query="jobs_waiting / 0")) is None
        assert "parse error" in str(bench.fetch(query="sum by (").problem)
        assert "matrix" in str(bench.fetch(query="jobs_waiting[1m]").problem)
        wait_until("there is no veto", lambda: bench.veto("max(maintenance) > 0") is False)
        assert bench.veto("max(maintenance_of_nobody) > 0") is None

        # An exporter that is up and shows no queue means 0; without alive it means nothing.
        queue.text = "maintenance 1\n"
        wait_until("the empty queue is seen", lambda: wants(bench.fetch()) == ())
        assert wants(bench.fetch(alive=None)) is None
        wait_until("the veto is seen", lambda: bench.veto("max(maintenance) > 0") is True)

        # An exporter that is down means nothing either, though the query still answers emptily.
        queue.text = None
        wait_until("the exporter's end is seen", lambda: wants(bench.fetch()) is None)
        assert bench.fetch().problem == "alive gives nothing: what is measured may be gone"

        queue.text = 'jobs_waiting{profile="1g"} 1\n'
        wait_until(
            "its return is seen", lambda: wants(bench.fetch()) == (Want(size="1g", count=1),)
        )

        bench.process.kill()
        bench.process.wait()
        gone = bench.fetch()
        assert gone.reading is None
        assert "did not answer" in str(gone.problem)
        assert bench.veto("max(maintenance) > 0") is None


def test_answer_that_prometheus_itself_doubts_is_unknown(tmp_path: Path) -> None:
    # A remote read that fails: Prometheus answers with what it has, and a warning.
    remote = (
        f"remote_read:\n  - {{url: 'http://127.0.0.1:{free_port()}/read', read_recent: true}}\n"
    )
    with exporter() as queue, prometheus(tmp_path, queue, remote) as bench:
        queue.text = 'jobs_waiting{profile="1g"} 2\n'
        wait_until("the demand is stored", lambda: bool(bench.fetch(alive=None).rows))

        seen: list[Fetched] = []

        def has_rows() -> bool:  # a scrape that came late leaves none for a moment
            seen.append(bench.fetch(alive=None))
            return bool(seen[-1].rows)

        wait_until("it is answered", has_rows)
        assert [one.reading for one in seen] == [None] * len(seen)
        assert "Prometheus warns" in str(seen[-1].problem)
        assert seen[-1].rows[0].value == "2"


def test_server_that_drips_its_headers_is_given_up_at_the_deadline() -> None:
    """httpx has a deadline for each read alone: such a veto said its last "no" for ever."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        ended = threading.Event()

        def drip() -> None:
            connection, _ = listener.accept()
            with connection, contextlib.suppress(OSError):
                connection.sendall(b"HTTP/1.1 200 OK\r\nX-Slow: ")
                while not ended.wait(0.1):
                    connection.sendall(b"a")

        thread = threading.Thread(target=drip)
        thread.start()
        url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        connection = Connection(url=url, timeout=timedelta(seconds=0.5))
        began = time.monotonic()
        with open_client(connection) as client:
            answer = ask(connection, client, RealClock(), "up")
        took = time.monotonic() - began
        ended.set()
        thread.join()

    # Both deadlines are over at once where this process is paused.
    words = f"{url} did not answer: "
    assert answer.problem in (f"{words}not complete within 0.5 s", f"{words}timed out")
    assert took < 30.0
