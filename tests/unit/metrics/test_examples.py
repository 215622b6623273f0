"""Example queries of the metric table are PromQL."""

import subprocess
from pathlib import Path

import yaml

from migscaler.metrics.families import FAMILIES


def test_promtool_reads_every_example_query(tmp_path: Path) -> None:
    rules = [{"record": f"x:{f.name}", "expr": f.example} for f in FAMILIES]
    path = tmp_path / "examples.yml"
    path.write_text(yaml.safe_dump({"groups": [{"name": "examples", "rules": rules}]}))

    done = subprocess.run(["promtool", "check", "rules", path], capture_output=True, text=True)

    assert done.returncode == 0, done.stdout + done.stderr
