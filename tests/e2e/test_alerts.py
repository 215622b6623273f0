"""From a failing driver to a page: real daemon, Prometheus, Alertmanager and a webhook.

Both shipped files are used, only faster: `_fast_rules` and `_fast_routes` copy them with shorter
durations. Expressions, labels, routes and inhibitions stay as they are.
"""

import contextlib
import json
import re
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx
import pytest

from migscaler.sim.codes import Code
from migscaler.sim.faults import fails
from tests.e2e.processes import ANSWER_SECONDS, daemon, free_port, running, wait_until

DEPLOY = Path(__file__).parents[2] / "deploy"
ALERTS = DEPLOY / "prometheus" / "migscaler.alerts.yml"
RULES = DEPLOY / "prometheus" / "migscaler.rules.yml"
ROUTES = DEPLOY / "alertmanager" / "alertmanager.example.yml"

CONFIG = """
mode: enforce
sampling: {interval: 1s}
tick: 1s
gpus: [{model: "NVIDIA A100*"}]
idle: {after: 10s}
sources: {desk: {type: push}}
rules: [{name: training, size: 7g, from: [desk]}]
pace: {raise_after: 0s, lower_after: 0s, rest: 0s, rest_after_failure: 10s, gpus_at_once: 2}
"""


def _fast_rules() -> str:
    """Return the alerts with `for` of five seconds at most, that stay long after their cause.

    What is said after a minute is said after a second. The others wait longer than a daemon that is
    paused misses scrapes.
    """

    def faster(found: re.Match[str]) -> str:
        minutes = int(found[2]) if found[3] == "m" else 5
        return f"{found[1]} {min(minutes, 5)}s"

    text = re.sub(r"^( +for:) (\d+)(\w)$", faster, ALERTS.read_text(), flags=re.MULTILINE)
    return re.sub(r"^( +keep_firing_for:) .*$", r"\1 10m", text, flags=re.MULTILINE)


def _fast_routes(port: int) -> str:
    """Return the routes without waiting, repeating every second, to a webhook on the port."""
    text = ROUTES.read_text().replace("127.0.0.1:9095", f"127.0.0.1:{port}")
    text = re.sub(r"group_wait: \w+", "group_wait: 0s", text)
    return re.sub(r"(group_interval|repeat_interval): \w+", r"\1: 1s", text)


@dataclass(slots=True)
class Webhook:
    """What Alertmanager sent: (path, firing alerts as name and node, time), oldest first."""

    port: int
    calls: list[tuple[str, frozenset[tuple[str, str]], float]] = field(default_factory=list)

    def times(self, path: str, alert: str, node: str) -> list[float]:
        """Return when (monotonic) a receiver was told that the alert fires."""
        return [at for to, firing, at in list(self.calls) if to == path and (alert, node) in firing]

    def told(self, path: str) -> set[str]:
        """Return all alerts that a receiver was told as firing."""
        return {name for to, firing, _ in list(self.calls) if to == path for name, _ in firing}


@contextlib.contextmanager
def webhook() -> Iterator[Webhook]:
    """Listen for Alertmanager's notifications until the block ends."""
    heard = Webhook(port=free_port())

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            firing = frozenset(
                (one["labels"]["alertname"], one["labels"].get("instance", ""))
                for one in body["alerts"]
                if one["status"] == "firing"
            )
            heard.calls.append((self.path, firing, time.monotonic()))
            self.send_response(200)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_arguments: object) -> None:
            """Keep the test's output quiet."""

    server = ThreadingHTTPServer(("127.0.0.1", heard.port), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield heard
    finally:
        server.shutdown()
        server.server_close()
        thread.join(5)


@dataclass(frozen=True, slots=True, kw_only=True)
class Alertmanager:
    """A real Alertmanager."""

    url: str

    def states(self) -> dict[str, str]:
        """Return name to state (active, suppressed) of every alert it knows."""
        return {row["labels"]["alertname"]: row["status"]["state"] for row in self.rows()}

    def rows(self) -> list[dict[str, Any]]:
        """Return every alert it knows, with its state as it is now."""
        found: list[dict[str, Any]] = httpx.get(
            f"{self.url}/api/v2/alerts", timeout=ANSWER_SECONDS
        ).json()
        return found

    def post(self, *alerts: dict[str, str]) -> None:
        """Tell it of firing alerts, by their labels."""
        began = datetime.now(UTC).isoformat()
        body = [{"labels": labels, "startsAt": began} for labels in alerts]
        url = f"{self.url}/api/v2/alerts"
        httpx.post(url, json=body, timeout=ANSWER_SECONDS).raise_for_status()


@contextlib.contextmanager
def alertmanager(directory: Path, hook: Webhook) -> Iterator[Alertmanager]:
    """Run Alertmanager with the shipped routes until the block ends."""
    port = free_port()
    file = directory / "alertmanager.yml"
    file.write_text(_fast_routes(hook.port))
    command = [
        "prometheus-alertmanager",
        f"--config.file={file}",
        f"--storage.path={directory / 'alertmanager'}",
        f"--web.listen-address=127.0.0.1:{port}",
        "--cluster.listen-address=",
    ]
    with running(command, directory / "alertmanager.log"):
        url = f"http://127.0.0.1:{port}"
        wait_until("Alertmanager is ready", lambda: httpx.get(f"{url}/-/ready").is_success)
        yield Alertmanager(url=url)


@contextlib.contextmanager
def prometheus(directory: Path, target: int, alerts_to: str) -> Iterator[str]:
    """Run Prometheus with the shipped rules until the block ends; gives its address."""
    fast = directory / "fast.alerts.yml"
    fast.write_text(_fast_rules())
    settings = {
        "global": {"scrape_interval": "1s", "scrape_timeout": "1s", "evaluation_interval": "1s"},
        "rule_files": [str(fast), str(RULES)],
        "alerting": {"alertmanagers": [{"static_configs": [{"targets": [alerts_to]}]}]},
        "scrape_configs": [
            {
                "job_name": "migscaler",
                "static_configs": [{"targets": [f"127.0.0.1:{target}"]}],
            }
        ],
    }
    file = directory / "prometheus.yml"
    file.write_text(json.dumps(settings))
    port = free_port()
    command = [
        "prometheus",
        f"--config.file={file}",
        f"--storage.tsdb.path={directory / 'data'}",
        f"--web.listen-address=127.0.0.1:{port}",
        # Alertmanager is found a few seconds after the first alert; by default it is told again
        # only after a minute. What it is not told again for four times as long is over.
        "--rules.alert.resend-delay=3s",
    ]
    with running(command, directory / "prometheus.log"):
        url = f"http://127.0.0.1:{port}"
        wait_until("Prometheus is ready", lambda: httpx.get(f"{url}/-/ready").is_success)
        yield url


def _firing(server: str) -> set[str]:
    """Return the alerts that Prometheus sees firing."""
    answer = httpx.get(f"{server}/api/v1/alerts", timeout=ANSWER_SECONDS)
    rows = answer.json()["data"]["alerts"]
    return {row["labels"]["alertname"] for row in rows if row["state"] == "firing"}


def test_breakers_that_open_page_somebody_and_a_node_that_is_down_silences_its_own_alerts(
    tmp_path: Path,
) -> None:
    with (
        webhook() as hook,
        alertmanager(tmp_path, hook) as manager,
        daemon(tmp_path, "2xA100-SXM4-40GB", CONFIG) as node,
        prometheus(tmp_path, node.port, manager.url.removeprefix("http://")) as server,
    ):
        instance = f"127.0.0.1:{node.port}"
        wait_until(
            "the watchdog is heard", lambda: hook.times("/watchdog", "MigscalerWatchdog", "")
        )
        create = "nvmlDeviceCreateGpuInstanceWithPlacement"
        node.node.add_fault(fails(create, Code.UNKNOWN, times=None))
        node.cli("demand", "push", "desk", "7g=2", "--ttl", "10m", "--output", "json")

        page = "MigscalerBreakersOpen"
        wait_until("the page", lambda: hook.times("/page", page, instance), 120)
        assert hook.told("/page") == {page}
        followers = ("MigscalerBreakerOpen", "MigscalerUnmetBlocked")
        wait_until("its followers fire", lambda: _firing(server).issuperset(followers))
        wait_until(
            "they are silenced",
            lambda: {manager.states().get(name) for name in followers} == {"suppressed"},
        )

        node.process.kill()
        down = "MigscalerDown"
        wait_until("the ticket", lambda: hook.times("/ticket", down, instance))
        wait_until("the page is silenced", lambda: manager.states().get(page) == "suppressed")
        silenced_at = time.monotonic()

        def tickets() -> int:
            return sum(at > silenced_at for at in hook.times("/ticket", down, instance))

        wait_until("four more tickets", lambda: tickets() >= 4)
        assert page in _firing(server)
        # One notification may have been on its way.
        assert sum(at > silenced_at for at in hook.times("/page", page, instance)) <= 1
        assert manager.states().get("MigscalerWatchdog") == "active"


NODE = {"job": "migscaler", "instance": "n1"}
GPU = {**NODE, "gpu": "0", "gpu_uuid": "GPU-0"}
OTHER = {"job": "migscaler", "instance": "n2", "gpu": "0", "gpu_uuid": "GPU-9"}
RULE = {**NODE, "rule": "training"}
_Alert = tuple[str, dict[str, str]]
INHIBITIONS: tuple[tuple[_Alert, tuple[_Alert, ...], tuple[_Alert, ...]], ...] = (
    # (name and labels of the cause, those that it silences, those that it must not)
    (
        ("MigscalerPaused", NODE),
        (("MigscalerUnmetBlocked", RULE), ("MigscalerDesiredNotActual", GPU)),
        (("MigscalerGpuLost", GPU), ("MigscalerUnmetBlocked", {**RULE, "instance": "n2"})),
    ),
    (
        ("MigscalerDown", NODE),
        (("MigscalerCapacityLost", GPU), ("MigscalerPaused", NODE)),
        (
            ("MigscalerWatchdog", {}),
            ("MigscalerSourceUnknown", {"job": "migscaler", "source": "queue"}),
            ("MigscalerCapacityLost", OTHER),
        ),
    ),
    (
        ("MigscalerDown", {}),
        (),
        (("MigscalerWatchdog", {}), ("MigscalerCapacityLost", GPU)),
    ),
    (
        ("MigscalerBreakersOpen", NODE),
        (("MigscalerBreakerOpen", GPU), ("MigscalerUnmetBlocked", RULE)),
        (("MigscalerBreakerOpen", OTHER), ("MigscalerCapacityLost", GPU)),
    ),
    (
        ("MigscalerGpuLost", GPU),
        (("MigscalerBreakerOpen", GPU), ("MigscalerCapacityLost", GPU)),
        (("MigscalerBreakerOpen", {**GPU, "gpu": "1", "gpu_uuid": "GPU-1"}),),
    ),
    (
        ("MigscalerBreakerOpen", GPU),
        (("MigscalerDesiredNotActual", GPU),),
        (("MigscalerUnmetBlocked", RULE),),
    ),
    (
        ("MigscalerStateNotWritable", NODE),
        (("MigscalerUnmetBlocked", RULE), ("MigscalerUnmetDemand", RULE)),
        (("MigscalerFenceStuck", GPU),),
    ),
    (
        ("MigscalerTickFailing", {**NODE, "task": "tick"}),
        (("MigscalerDesiredNotActual", GPU),),
        (("MigscalerFenceStuck", GPU),),
    ),
    (
        ("MigscalerUnmetBlocked", RULE),
        (("MigscalerUnmetDemand", RULE),),
        (("MigscalerUnmetDemand", {**RULE, "rule": "notebooks"}),),
    ),
)


@pytest.mark.parametrize("number", range(len(INHIBITIONS)), ids=lambda n: INHIBITIONS[n][0][0])
def test_inhibition_silences_what_follows_and_nothing_else(number: int, tmp_path: Path) -> None:
    cause, silenced, heard = INHIBITIONS[number]
    posted = [{"alertname": name, **labels} for name, labels in (cause, *silenced, *heard)]
    with webhook() as hook, alertmanager(tmp_path, hook) as manager:
        manager.post(*posted)
        wait_until("all alerts are known", lambda: len(manager.rows()) == len(posted))
        # The API computes inhibition when asked, from the causes that it has taken up by then.
        wait_until("what follows is silenced", lambda: states(manager, silenced) <= {"suppressed"})
        assert states(manager, heard) == {"active"}


def states(manager: Alertmanager, alerts: tuple[_Alert, ...]) -> set[str]:
    """Return the states that these alerts are in."""
    rows = manager.rows()
    found = [r for r in rows for n, more in alerts if r["labels"] == {"alertname": n, **more}]
    assert len(found) == len(alerts)
    return {str(row["status"]["state"]) for row in found}
