"""The whole way of docs/security.md: a real Prometheus scrapes a real daemon over TLS."""

import contextlib
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import bcrypt
import httpx
import pytest

from tests.e2e.processes import (
    ANSWER_SECONDS,
    Daemon,
    Prometheus,
    daemon,
    free_port,
    running,
    wait_until,
)
from tests.unit.web.certificates import CLIENTS, PAIR, Authority

ROOT = Path(__file__).parents[2]
PASSWORD = "correct horse"
USERS = f"""basic_auth_users:
  prometheus: {bcrypt.hashpw(PASSWORD.encode(), bcrypt.gensalt(10)).decode()}
"""
GPU = "1xA100-SXM4-40GB"
CONFIG = "mode: observe\nsampling: {{interval: 1s}}\nweb: {{config_file: {file}}}\n"


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    folder = tmp_path / "web"
    folder.mkdir()
    return Authority(folder)


def test_real_prometheus_scrapes_by_the_shipped_example(
    tmp_path: Path, authority: Authority
) -> None:
    """Certificate and password, then new ones of both, without a restart of either."""
    web = authority.folder / "web.yml"
    web.write_text(PAIR + CLIENTS + "  client_allowed_sans: [prometheus.example]\n" + USERS)
    authority.write("prometheus", "prometheus.example")
    folder = tmp_path / "prometheus"
    folder.mkdir()
    (folder / "migscaler-password").write_text(PASSWORD)
    for name in ("prometheus.crt", "prometheus.key"):
        (folder / name).write_bytes((authority.folder / name).read_bytes())
    (folder / "migscaler-ca.crt").write_bytes((authority.folder / "ca.crt").read_bytes())
    with daemon(tmp_path, GPU, CONFIG.format(file=web), over_tcp=False) as node:
        example = (ROOT / "deploy" / "prometheus" / "scrape-tls.yml").read_text()
        example = example.replace("# cert_file:", "cert_file:").replace("# key_file:", "key_file:")
        example = example.replace("gpu-node-1.example:9836", f"127.0.0.1:{node.port}")
        timing = "global: {scrape_interval: 1s, scrape_timeout: 1s}\n"
        (folder / "prometheus.yml").write_text(timing + example)
        with server(folder) as prometheus:
            wait_until("it is scraped", lambda: prometheus.value("up") == 1)
            wait_until("with its series", lambda: prometheus.value("migscaler_gpu_up") == 1)
            before = refused(prometheus)
            authority.renew()
            wait_until("the new pair is taken", lambda: loads(node) >= 2)
            seen = "sum_over_time(up[1h])"
            scrapes = prometheus.value(seen)
            assert scrapes is not None
            wait_until("five more scrapes", lambda: (prometheus.value(seen) or 0) >= scrapes + 5)
            assert refused(prometheus) == before
            web.write_text(web.read_text().replace("prometheus.example", "other.example"))
            wait_until("its name is shut out", lambda: prometheus.value("up") == 0)


def test_file_that_is_wrong_at_the_start_closes_tcp_and_says_so(
    tmp_path: Path, authority: Authority
) -> None:
    """Neither blind nor unprotected: socket and log tell, and a mended file opens TCP."""
    web = authority.folder / "web.yml"
    web.write_text(PAIR.replace("server.key", "missing.key") + USERS)
    with (
        daemon(tmp_path, GPU, CONFIG.format(file=web), over_tcp=False) as node,
        node.local() as local,
        httpx.Client(verify=authority.client(), timeout=ANSWER_SECONDS) as far,
    ):
        url = f"https://127.0.0.1:{node.port}/metrics"
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(("127.0.0.1", node.port), timeout=10)
        assert "event=tcp_closed" in node.log.read_text()
        wait_until("it shows", lambda: "config_valid 0.0" in local.get("/metrics").text)
        problems = local.get("/api/v1/status").json()["config"]["problems"]
        assert [p for p in problems if "tls_server_config.key_file" in p and "missing.key" in p]
        migscaler = str(Path(sys.executable).parent / "migscaler")
        command = [migscaler, "config", "check", str(tmp_path / "migscaler.yaml")]
        checked = subprocess.run(command, capture_output=True, check=False)
        assert checked.returncode == 1
        assert b"web.yml:3: error: tls_server_config.key_file" in checked.stdout

        web.write_text(PAIR + USERS)
        wait_until("TCP is open", lambda: far.get(url).status_code == 401)
        assert far.get(url, auth=("prometheus", PASSWORD)).status_code == 200
        wait_until("all is well", lambda: "config_valid 1.0" in local.get("/metrics").text)

        web.write_text("nonsense: true\n")
        wait_until("it shows again", lambda: "config_valid 0.0" in local.get("/metrics").text)
        assert far.get(url).status_code == 401
        assert far.get(url, auth=("prometheus", PASSWORD)).status_code == 200
        node.process.send_signal(signal.SIGHUP)
        wait_until("it is read again", lambda: "event=config_loaded" in node.log.read_text())
        assert "config_valid 0.0" in local.get("/metrics").text


@contextlib.contextmanager
def server(folder: Path) -> Iterator[Prometheus]:
    """Run the real Prometheus by the configuration in this folder."""
    port = free_port()
    command = [
        "prometheus",
        f"--config.file={folder}/prometheus.yml",
        f"--storage.tsdb.path={folder}/data",
        f"--web.listen-address=127.0.0.1:{port}",
    ]
    with running(command, folder / "prometheus.log") as process:
        url = f"http://127.0.0.1:{port}"
        wait_until("Prometheus is ready", lambda: httpx.get(f"{url}/-/ready").is_success)
        yield Prometheus(url=url, process=process)


def refused(prometheus: Prometheus) -> list[float]:
    """Return when a scrape failed that did not just come late, on a machine that was busy."""
    up, seconds = (
        dict(prometheus.samples(f"{series}[1h]")) for series in ("up", "scrape_duration_seconds")
    )
    return [at for at, value in up.items() if value == 0 and seconds[at] < 0.9]


def loads(node: Daemon) -> int:
    """Return how often the daemon took a web configuration."""
    return node.log.read_text().count("event=web_config_loaded")
