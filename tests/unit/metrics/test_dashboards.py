"""Dashboards and example queries speak only of families that exist."""

import json
import re
import subprocess
from pathlib import Path

import yaml

from migscaler.metrics.families import FAMILIES
from migscaler.metrics.family import Kind

ROOT = Path(__file__).parents[3]
DASHBOARDS = ROOT / "grafana" / "dashboards"
NAMES = {f.name for f in FAMILIES} | {
    f.name + suffix
    for f in FAMILIES
    if f.kind is Kind.HISTOGRAM
    for suffix in ("_bucket", "_sum", "_count")
}


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


def test_promtool_reads_every_example_query(tmp_path: Path) -> None:
    rules = [{"record": f"x:{f.name}", "expr": f.example} for f in FAMILIES]
    path = tmp_path / "examples.yml"
    path.write_text(yaml.safe_dump({"groups": [{"name": "examples", "rules": rules}]}))

    done = subprocess.run(["promtool", "check", "rules", path], capture_output=True, text=True)

    assert done.returncode == 0, done.stdout + done.stderr
