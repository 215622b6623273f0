"""Three simulated nodes under real daemons, scraped by a real Prometheus, and their story.

The nodes: A100s with a dcgm-exporter, H100s, and one that mixes an A100, an A30 and an H100 without
MIG. The story: demand comes and moves, jobs run, one instance is leased, a driver refuses to create
instances until the breaker opens, an XID and a memory error are reported, demand turns around.
"""

import contextlib
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import httpx

from migscaler.sim.codes import Code
from migscaler.sim.faults import fails
from tests.e2e.processes import Daemon, Prometheus, daemon, free_port, running, wait_until

_CREATE = "nvmlDeviceCreateGpuInstanceWithPlacement"
_CONFIG = """
mode: enforce
sampling: {{interval: 1s}}
tick: 1s
gpus: [{gpus}]
idle: {{after: 10s}}
sources: {{desk: {{type: push}}}}
rules:
  - {{name: training, size: 7g, from: [desk]}}
  - {{name: batch, size: 3g, from: [desk]}}
  - {{name: notebooks, size: 1g, from: [desk], spare: 1}}
pace: {{raise_after: 0s, lower_after: 0s, rest: 1s, rest_after_failure: 10s, gpus_at_once: 4}}
{more}
"""
_DCGM = """
activity: {{dcgm: {{url: "http://127.0.0.1:{port}/metrics", interval: 1s, max_age: 5s}}}}
hooks: {{after_change: [["sh", "-c", "kill -HUP $(cat {pid_file})"]]}}
"""
_VETO = """
veto:
  - name: maintenance
    source: prometheus
    url: "http://127.0.0.1:{port}"
    query: "sum(up) < 0"
"""
NODES: dict[str, tuple[str, str, bool | Sequence[bool]]] = {
    "a100-1": ("2xA100-SXM4-40GB", '{model: "NVIDIA A100*"}', True),
    "h100-1": ("2xH100-80GB", '{model: "NVIDIA H100*"}', True),
    "mixed-1": (
        "1xA100-SXM4-40GB,1xA30,1xH100-80GB",
        '{model: "NVIDIA A100*"}, {model: "NVIDIA A30*"}',
        [True, True, False],
    ),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Fleet:
    """The running fleet; `began` in seconds since 1970, before anything was scraped."""

    server: Prometheus
    nodes: dict[str, Daemon]
    began: float = field(default_factory=time.time)

    def push(self, node: str, **wants: int) -> None:
        """Say what is wanted on a node (`_1g=3`)."""
        sizes = [f"{size[1:]}={count}" for size, count in wants.items()]
        self.nodes[node].cli("demand", "push", "desk", *sizes, "--ttl", "10m", "--output", "json")

    def run_jobs(self, node: str, count: int) -> list[int]:
        """Start a process on so many free instances of a node, busier one after the other."""
        found = self.nodes[node].node
        free = [
            (gpu.index, gi)
            for gpu in found.state.gpus
            for gi in gpu.instances
            if all(job.gi_id != gi for job in gpu.jobs)
        ]
        return [
            found.start_job(gpu, gi, activity=0.3 + 0.1 * index)
            for index, (gpu, gi) in enumerate(free[:count])
        ]


@contextlib.contextmanager
def fleet(directory: Path) -> Iterator[Fleet]:
    """Run the fleet until the block ends."""
    port, dcgm = free_port(), free_port()
    with contextlib.ExitStack() as stack:
        nodes = {}
        for name, (gpus, entries, mig) in NODES.items():
            (directory / name).mkdir()
            more = {
                "a100-1": _DCGM.format(port=dcgm, pid_file=directory / "dcgm.pid"),
                "mixed-1": _VETO.format(port=port),
            }
            config = _CONFIG.format(gpus=entries, more=more.get(name, ""))
            nodes[name] = stack.enter_context(daemon(directory / name, gpus, config, mig=mig))
        stack.enter_context(_dcgm_exporter(nodes["a100-1"], dcgm, directory / "dcgm.pid"))
        targets = {name: node.port for name, node in nodes.items()}
        server = stack.enter_context(_prometheus(directory / "prometheus", targets, port))
        yield Fleet(server=server, nodes=nodes)


@contextlib.contextmanager
def _dcgm_exporter(node: Daemon, port: int, pid_file: Path) -> Iterator[None]:
    """Run a simulated dcgm-exporter on a node's GPUs; the node's hook tells it of new layouts."""
    where = ["--directory", str(node.directory / "node"), "--port", str(port)]
    command = [sys.executable, "-m", "migscaler.cli.main", "sim", "dcgm", *where]
    with running(command, node.directory / "dcgm.log") as process:
        pid_file.write_text(str(process.pid))
        yield


@contextlib.contextmanager
def _prometheus(directory: Path, targets: dict[str, int], port: int) -> Iterator[Prometheus]:
    """Run Prometheus on one job with a target per node, named as in a real fleet."""
    directory.mkdir()
    statics = "".join(
        f'      - {{targets: ["127.0.0.1:{target}"], labels: {{instance: {name}, cluster: lab}}}}\n'
        for name, target in targets.items()
    )
    file = directory / "prometheus.yml"
    file.write_text(
        "global: {scrape_interval: 1s, scrape_timeout: 1s}\n"
        f"scrape_configs:\n  - job_name: gpu-nodes\n    static_configs:\n{statics}"
    )
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


@contextlib.contextmanager
def lease(node: Daemon, size: str) -> Iterator[None]:
    """Hold an instance of a size by a real lease until the block ends."""
    migscaler = str(Path(sys.executable).parent / "migscaler")
    state = str(node.directory / "state")
    command = [migscaler, "--state-dir", state, "lease", "--wait", "--owner", "alice", size]
    done = subprocess.Popen([*command, "--", "sleep", "600"], stderr=subprocess.DEVNULL)
    try:
        yield
    finally:
        done.terminate()
        done.wait(120)


def play(running_fleet: Fleet) -> None:
    """Let the story happen, somebody waiting for a lease; it is over when all of it was scraped."""
    server, nodes = running_fleet.server, running_fleet.nodes
    broken = nodes["mixed-1"].node
    broken.add_fault(fails(_CREATE, Code.UNKNOWN, times=None, gpu=0))
    broken.raise_xid(1, 31)
    broken.add_ecc_errors(2, uncorrected=1)
    running_fleet.push("mixed-1", _1g=9)
    running_fleet.push("a100-1", _1g=6, _3g=1)
    running_fleet.push("h100-1", _3g=2, _1g=3)

    def made(node: str) -> bool:
        query = f'sum(migscaler_gpu_instances{{instance="{node}"}}) >= 5'
        return bool(server.query(query))

    wait_until("both nodes have instances", lambda: made("a100-1") and made("h100-1"))
    # Before jobs take what there is; who waits for a lease asks once a second.
    held = "migscaler_instance_allocation_info"
    wait_until("alice has her lease", lambda: server.query(held))
    running_fleet.run_jobs("a100-1", 2)
    jobs = running_fleet.run_jobs("h100-1", 4)
    broken.start_job(2, None, activity=0.6)
    running_fleet.push("a100-1", _7g=1, _1g=2)
    wait_until("the breaker opens", lambda: server.query("migscaler_gpu_breaker_open == 1"), 120)
    for job in jobs[:2]:
        nodes["h100-1"].node.end_job(job)
    coarser = 'sum by (instance) (migscaler_gpu_plans_total{direction="coarser"}) > 0'
    wait_until("a coarser layout", lambda: server.query(coarser), 120)
    # So that rates of the last events exist.
    over = scrapes(server)
    wait_until("two more scrapes of each", lambda: min(new_scrapes(server, over)) >= 2)


def scrapes(server: Prometheus) -> dict[str, float]:
    """Return how often each node has been scraped."""
    rows = server.query("sum by (instance) (sum_over_time(up[1h]))")
    return {labels["instance"]: count for labels, count in rows}


def new_scrapes(server: Prometheus, before: dict[str, float]) -> list[float]:
    """Return how often each node has been scraped since."""
    now = scrapes(server)
    return [now[name] - before[name] for name in NODES]
