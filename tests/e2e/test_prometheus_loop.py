"""Demand read from a real Prometheus moves eight GPUs, and its silence moves none."""

from collections import Counter
from pathlib import Path

from prometheus_client.parser import text_string_to_metric_families

from migscaler.model.layout import Layout
from tests.e2e.processes import (
    Daemon,
    Prometheus,
    daemon,
    free_port,
    prometheus,
    queue_exporter,
    wait_until,
)

CONFIG = """
mode: enforce
sampling: {{interval: 1s}}
tick: 1s
gpus: [{{model: "NVIDIA A100*"}}]
idle: {{after: 10s}}
sources:
  queue:
    type: prometheus
    url: "http://127.0.0.1:{port}"
    query: "sum by (profile) (jobs_waiting)"
    alive: 'min(up{{job="queue"}}) == 1'
    interval: 1s
    timeout: 1s
    max_age: 5s
  desk: {{type: push}}
rules:
  - {{name: notebooks, size: 1g, from: [queue]}}
  - {{name: training, size: 7g, from: [queue]}}
  - {{name: imaging, size: 3g, from: [desk]}}
pace: {{raise_after: 1s, lower_after: 2s, rest: 0s, gpus_at_once: 8, per_day: 1000}}
"""


def _profiles(running: Daemon) -> Counter[str]:
    """Count the live instances by profile, as the simulated library has them."""
    return Counter(gi.profile for gpu in running.node.state.gpus for gi in gpu.instances.values())


def _destroyed(running: Daemon) -> int:
    """Count the GPU instances that anybody destroyed so far."""
    return sum(
        record.function == "nvmlGpuInstanceDestroy" and record.code == 0
        for record in running.node.call_log()
    )


def _shown_layouts(server: Prometheus, family: str) -> dict[str, str]:
    """Return the layout of each GPU by index, as Prometheus has it now."""
    rows = server.query(family)
    return {labels["gpu"]: labels["layout"] for labels, _ in rows}


def _real_layouts(running: Daemon) -> dict[str, str]:
    """Return the layout of each GPU by index, as the simulated library has it."""
    layouts = {}
    for gpu in running.node.state.gpus:
        model = running.node.rules(gpu).model
        specs = tuple(model.spec(f"{gi.profile}@{gi.start}") for gi in gpu.instances.values())
        layouts[str(gpu.index)] = str(Layout(specs))
    return layouts


def _agree(server: Prometheus, running: Daemon, window: str = "") -> None:
    """Wait until Prometheus shows exactly the layouts and instances that are there, and no other.

    Without `window` instant queries are asked, so that a series of a dead instance would show. A
    Prometheus that was away writes no stale markers for what vanished meanwhile: then only a short
    window is looked at.
    """

    def family(name: str) -> str:
        return f"last_over_time({name}{window})" if window else name

    def agrees() -> bool:
        layouts = _shown_layouts(server, family("migscaler_gpu_layout_info"))
        instances = server.query(family("migscaler_instance_info"))
        return layouts == _real_layouts(running) and len(instances) == _profiles(running).total()

    wait_until("Prometheus shows what is there", agrees)


def test_prometheus_demand_reshapes_eight_gpus_and_its_loss_changes_nothing(
    tmp_path: Path,
) -> None:
    """The whole story of one queue: coarse, fine, coarse, silence, an override, and back."""
    port = free_port()
    with (
        queue_exporter(_7g=8) as queue,
        daemon(tmp_path, "8xA100-SXM4-40GB", CONFIG.format(port=port)) as node,
    ):
        targets = {"queue": queue.port, "migscaler": node.port}
        with prometheus(tmp_path / "prometheus", targets, port) as server:
            wait_until("eight 7g", lambda: _profiles(node) == {"7g.40gb": 8}, 120)
            _agree(server, node)

            queue.waiting = {"1g": 50, "7g": 0}
            wait_until("fifty 1g", lambda: _profiles(node)["1g.5gb"] >= 50, 120)
            _agree(server, node)

            queue.waiting = {"1g": 0, "7g": 8}
            wait_until("eight 7g again", lambda: _profiles(node) == {"7g.40gb": 8}, 120)
            _agree(server, node)
            changes = server.query("changes(migscaler_gpu_generation[5m])")
            assert len(changes) == 8
            assert all(count >= 2 for _, count in changes)
            for rule in ("training", "notebooks"):
                wanted = f'migscaler_rule_wanted_instances{{rule="{rule}"}}'
                assert server.value(f"max_over_time({wanted}[5m])") in (8.0, 50.0)

        destroyed = _destroyed(node)
        queue.waiting = {"1g": 50, "7g": 0}
        wait_until(
            "the rules that ask Prometheus hold",
            lambda: (
                _sample(
                    node, "migscaler_rule_gate_closed", rule="training", reason="source_unknown"
                )
                == 1
            ),
        )
        node.cli("demand", "push", "desk", "3g=1", "--ttl", "5m", "--output", "json")
        wait_until(
            "the other rule is heard",
            lambda: _sample(node, "migscaler_rule_wanted_instances", rule="imaging") == 1,
        )
        before = _ticks(node)
        wait_until("fifteen more ticks", lambda: _ticks(node) >= before + 15)
        assert _destroyed(node) == destroyed
        assert _profiles(node) == {"7g.40gb": 8}

        node.cli("demand", "override", "training", "6", "--ttl", "5m", "--output", "json")
        wait_until(
            "the override frees a GPU for a 3g", lambda: _profiles(node)["3g.20gb"] >= 1, 120
        )
        assert _profiles(node)["7g.40gb"] >= 6

        with prometheus(tmp_path / "prometheus", targets, port) as server:
            node.cli("demand", "clear", "--rule", "training", "--output", "json")
            wait_until("fifty 1g after its return", lambda: _profiles(node)["1g.5gb"] >= 40, 120)
            _agree(server, node, "[3s]")
        assert all(not record.in_use for record in node.node.call_log())


def _sample(running: Daemon, name: str, **labels: str) -> float | None:
    """Return the value of one series of the daemon's exposition, None if it is absent."""
    for family in text_string_to_metric_families(running.metrics()):
        for sample in family.samples:
            if sample.name == name and labels.items() <= sample.labels.items():
                return float(sample.value)
    return None


def _ticks(running: Daemon) -> float:
    """Return how many decisions were made."""
    return _sample(running, "migscaler_ticks_total") or 0.0
