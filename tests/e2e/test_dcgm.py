"""The daemon beside a dcgm-exporter in a process of its own, and a real Prometheus between them."""

import contextlib
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import httpx
import pytest

from migscaler.app.clock import RealClock
from migscaler.model.ids import GpuUuid
from migscaler.sim.dcgm_exporter import DcgmExporter, ExporterServer
from migscaler.sim.node import build_node
from migscaler.sources.dcgm import DcgmFetch, DcgmSettings, DcgmSource
from migscaler.sources.prometheus_api import Connection
from tests.e2e.processes import Daemon, daemon, free_port, prometheus, running, wait_until

CONFIG = """
mode: enforce
sampling: {{interval: 1s}}
tick: 1s
gpus: [{{model: "NVIDIA A100*"}}]
idle: {{after: 10s}}
activity: {{dcgm: {{url: "http://127.0.0.1:{port}/metrics", interval: 1s, max_age: 3s}}}}
sources: {{queue: {{type: push}}}}
rules: [{{name: notebooks, size: 1g, from: [queue]}}]
pace: {{raise_after: 0s, lower_after: 0s, rest: 1s, rest_after_failure: 10s}}
hooks: {{after_change: [["sh", "-c", "kill -HUP $(cat {pid_file})"]]}}
"""
MIGSCALER = [sys.executable, "-m", "migscaler.cli.main"]


@contextlib.contextmanager
def exporter(directory: Path, port: int) -> Iterator[subprocess.Popen[bytes]]:
    """Run the simulated exporter on the daemon's node; its process id is in `pid`."""
    where = ["--directory", str(directory / "node"), "--port", str(port)]
    with running([*MIGSCALER, "sim", "dcgm", *where], directory / "dcgm.log") as process:
        (directory / "pid").write_text(str(process.pid))
        url = f"http://127.0.0.1:{port}/metrics"
        wait_until("the exporter answers", lambda: httpx.get(url).is_success)
        yield process


def series(metrics: str, name: str) -> list[tuple[str, float]]:
    """Return labels and value of every series of a family."""
    found = re.findall(rf"^migscaler_{name}\{{(.*)\}} (\S+)$", metrics, re.MULTILINE)
    return [(labels, float(value)) for labels, value in found]


def total(metrics: str, name: str) -> float:
    return sum(value for _, value in series(metrics, name))


def test_daemon_acts_on_dcgm_and_stops_when_it_dies(tmp_path: Path) -> None:
    port = free_port()
    config = CONFIG.format(port=port, pid_file=tmp_path / "pid")
    with daemon(tmp_path, "1xA100-SXM4-40GB", config) as node:
        node.node.foreign_create(0, "3g@0")
        node.node.foreign_create(0, "3g@4")
        with exporter(tmp_path, port) as process:
            metrics = first_with(node, "both are seen and idle", {"instance_idle": 2})
            shown = series(metrics, "instance_graphics_activity_ratio")
            assert [value for _, value in shown] == [0, 0]
            assert all('source="dcgm"' in labels for labels, _ in shown)

            # One of the two is cut, and the hook makes the exporter see the pieces.
            node.cli("demand", "push", "queue", "1g=3", "--ttl", "60s", "--output", "json")
            wait_until("the pieces are there and seen", lambda: all_four_seen(node.metrics()))
            node.cli("demand", "clear", "--source", "queue", "--output", "json")
            process.send_signal(signal.SIGKILL)
            metrics = first_with(node, "none is seen", {"dcgm_unseen_instances": 4})
        assert total(metrics, "instance_idle") == 0
        failed = ('collector="dcgm"', 0.0)
        wait_until("it is told", lambda: failed in series(node.metrics(), "collector_success"))
        done = len(node.node.call_log())
        node.cli("demand", "push", "queue", "1g=7", "--ttl", "60s", "--output", "json")
        ticks = total_ticks(node.metrics())
        wait_until("it has decided again", lambda: total_ticks(node.metrics()) >= ticks + 3)
        made = [call.function for call in node.node.call_log()[done:]]
        assert "nvmlGpuInstanceDestroy" not in made


def first_with(node: Daemon, what: str, totals: dict[str, float]) -> str:
    """Return the first exposition in which these families have these totals."""
    seen: list[str] = []

    def has_them() -> bool:
        seen.append(node.metrics())
        return all(total(seen[-1], name) == value for name, value in totals.items())

    wait_until(what, has_them)
    return seen[-1]


def all_four_seen(metrics: str) -> bool:
    """Say whether DCGM shows what every one of four instances does, and lacks none."""
    shown = series(metrics, "instance_graphics_activity_ratio")
    return (len(shown), total(metrics, "dcgm_unseen_instances")) == (4, 0)


def total_ticks(metrics: str) -> float:
    found = re.search(r"^migscaler_ticks_total (\S+)$", metrics, re.MULTILINE)
    return float(found[1]) if found else 0.0


@pytest.mark.parametrize("renamed", [False, True])
def test_real_prometheus_gives_the_same_figures_as_the_page(tmp_path: Path, renamed: bool) -> None:
    node = build_node("1xA100-SXM4-40GB", directory=tmp_path / "node")
    node.foreign_create(0, "3g@0")
    gi_id = next(iter(node.state.gpus[0].instances))
    node.start_job(0, gi_id, activity=0.5)
    server = ExporterServer(DcgmExporter(node, renamed=renamed), "127.0.0.1", 0)
    exporter_port = int(server.url.split(":")[2].split("/")[0])
    try:
        with prometheus(tmp_path / "prom", {"dcgm": exporter_port}, free_port()) as prom:
            client = httpx.Client(trust_env=False)

            def fetch(url: str, *, through_prometheus: bool) -> DcgmFetch:
                settings = DcgmSettings(
                    connection=Connection(url=url, timeout=timedelta(seconds=5)),
                    interval=timedelta(seconds=1),
                    max_age=timedelta(seconds=30),
                    through_prometheus=through_prometheus,
                    host="simulated",
                )
                source = DcgmSource(settings=settings, client=client, clock=RealClock())
                return source.fetch({GpuUuid(node.state.gpus[0].uuid)})

            wait_until("scraped", lambda: fetch(prom.url, through_prometheus=True).rows)
            asked = fetch(prom.url, through_prometheus=True)
            read = fetch(server.url, through_prometheus=False)
            client.close()
    finally:
        server.close()

    assert asked.problem is None
    assert [(row.key, row.values) for row in asked.rows] == [
        (row.key, row.values) for row in read.rows
    ]
    assert dict(asked.rows[0].values)["graphics"] == 0.5
    assert 0 <= asked.began - asked.rows[0].measured < 30
