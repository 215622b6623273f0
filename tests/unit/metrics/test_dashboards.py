"""Dashboard, alerts and rules speak only of families that exist."""

import json
import re
import subprocess
from pathlib import Path

import yaml

from migscaler.metrics.families import FAMILIES
from migscaler.metrics.family import Kind

ROOT = Path(__file__).parents[3]
DASHBOARDS = ROOT / "grafana" / "dashboards"
RULES = ROOT / "deploy" / "prometheus" / "migscaler.rules.yml"
NAMES = {f.name for f in FAMILIES} | {
    f.name + suffix
    for f in FAMILIES
    if f.kind is Kind.HISTOGRAM
    for suffix in ("_bucket", "_sum", "_count")
}
RULES_TEST = """\
rule_files: [{rules}]
evaluation_interval: 1m
tests:
  - interval: 1m
    input_series:
      - {{series: 'migscaler_gpu_breaker_open{{gpu="0",instance="n"}}', values: '0 0 1 1'}}
      - {{series: 'migscaler_snapshot_timestamp_seconds{{instance="n"}}', values: '0x10'}}
    alert_rule_test:
      - {{eval_time: 1m, alertname: MigscalerBreakerOpen, exp_alerts: []}}
      - eval_time: 3m
        alertname: MigscalerBreakerOpen
        exp_alerts:
          - exp_labels: {{severity: warning, gpu: "0", instance: n}}
            exp_annotations:
              summary: migscaler leaves GPU 0 on n alone after failures
              description: "`migscaler history` says what failed; `breaker reset` tries again."
      - {{eval_time: 2m, alertname: MigscalerFiguresOld, exp_alerts: []}}
      - eval_time: 5m
        alertname: MigscalerFiguresOld
        exp_alerts:
          - exp_labels: {{severity: warning, instance: n}}
            exp_annotations:
              summary: migscaler on n has not read its GPUs for two minutes
              description: Hardware series are absent and nothing is changed meanwhile.
"""


def expressions(value: object) -> list[str]:
    """Return every query in a JSON tree."""
    if isinstance(value, dict):
        own = [str(v) for k, v in value.items() if k in ("expr", "definition")]
        return own + [e for v in value.values() for e in expressions(v)]
    if isinstance(value, list):
        return [e for v in value for e in expressions(v)]
    return []


def dashboards() -> list[dict[str, object]]:
    return [json.loads(path.read_text()) for path in sorted(DASHBOARDS.glob("*.json"))]


def test_dashboards_query_only_families_of_the_table() -> None:
    queries = [query for board in dashboards() for query in expressions(board)]

    assert len(queries) > 15
    used = {name for query in queries for name in re.findall(r"migscaler_\w+", query)}
    assert used - NAMES == set()


def test_dashboards_are_the_classic_schema_and_choose_their_data_source() -> None:
    for board in dashboards():
        assert board["schemaVersion"] == 42
        panels = board["panels"]
        assert isinstance(panels, list)
        assert len({panel["id"] for panel in panels}) == len(panels)
        assert {panel["datasource"]["uid"] for panel in panels} == {"${datasource}"}
        assert [panel["title"] for panel in panels if not panel["description"]] == []


def test_alerts_and_rules_name_only_families_of_the_table() -> None:
    groups = yaml.safe_load(RULES.read_text())["groups"]
    used = {
        name
        for group in groups
        for rule in group["rules"]
        for name in re.findall(r"migscaler_\w+", rule["expr"])
    }

    assert len(used) > 5
    assert used - NAMES == set()


def test_promtool_accepts_the_rules_and_they_fire(tmp_path: Path) -> None:
    test = tmp_path / "rules_test.yml"
    test.write_text(RULES_TEST.format(rules=RULES))

    checked = subprocess.run(["promtool", "check", "rules", RULES], capture_output=True, text=True)
    fired = subprocess.run(["promtool", "test", "rules", test], capture_output=True, text=True)

    assert checked.returncode == 0, checked.stdout + checked.stderr
    assert fired.returncode == 0, fired.stdout + fired.stderr


def test_promtool_reads_every_example_query(tmp_path: Path) -> None:
    rules = [{"record": f"x:{f.name}", "expr": f.example} for f in FAMILIES]
    path = tmp_path / "examples.yml"
    path.write_text(yaml.safe_dump({"groups": [{"name": "examples", "rules": rules}]}))

    done = subprocess.run(["promtool", "check", "rules", path], capture_output=True, text=True)

    assert done.returncode == 0, done.stdout + done.stderr
