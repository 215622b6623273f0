"""What deploy/ ships is accepted by the tools that will read it."""

import subprocess
from pathlib import Path

DEPLOY = Path(__file__).parents[2] / "deploy"
UNIT = DEPLOY / "systemd" / "migscaler.service"
# Of 100 (less is better); the unit scores 33, of which the capabilities that NVML needs are half.
EXPOSURE_ALLOWED = 40


def run(*command: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)


def test_unit_is_valid_for_systemd(tmp_path: Path) -> None:
    # The check wants the program to exist, which it does not before installation.
    text = UNIT.read_text(encoding="utf-8").replace("/usr/bin/migscaler", "/usr/bin/true")
    unit = tmp_path / "migscaler.service"
    unit.write_text(text, encoding="utf-8")

    checked = run("systemd-analyze", "verify", "--man=no", str(unit))

    assert (checked.returncode, checked.stderr) == (0, "")


def test_unit_exposure_stays_below_the_threshold() -> None:
    checked = run(
        "systemd-analyze",
        "security",
        "--offline=true",
        "--no-pager",
        f"--threshold={EXPOSURE_ALLOWED}",
        str(UNIT),
    )

    assert checked.returncode == 0, checked.stdout
    assert "Overall exposure level for migscaler.service" in checked.stdout


def test_scrape_example_is_valid_for_prometheus() -> None:
    checked = run("promtool", "check", "config", str(DEPLOY / "prometheus" / "scrape.example.yml"))

    assert checked.returncode == 0, checked.stderr
