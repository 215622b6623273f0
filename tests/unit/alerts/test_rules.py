"""Alerts and recording rules: what they may speak of, that each is explained, and that each was
seen to fire, to keep quiet, and to end, by promtool.

`cases/` has one promtool file per alert; the name of a test begins with its kind.
"""

import re
import subprocess
from collections import Counter
from functools import cache
from pathlib import Path

import pytest
import yaml

from migscaler.metrics.families import FAMILIES
from migscaler.metrics.family import Kind

ROOT = Path(__file__).parents[3]
PROMETHEUS = ROOT / "deploy" / "prometheus"
ALERTS_FILE = PROMETHEUS / "migscaler.alerts.yml"
RULES_FILE = PROMETHEUS / "migscaler.rules.yml"
ROUTES_FILE = ROOT / "deploy" / "alertmanager" / "alertmanager.example.yml"
CASES = Path(__file__).parent / "cases"
RECORDING = Path(__file__).parent / "recording.yml"
RUNBOOKS = ROOT / "docs" / "runbooks"
LIST = ROOT / "docs" / "alerts.md"

KINDS = ("fires", "does_not_fire", "absent", "stale", "recovers")
# It has no input, so it can neither keep quiet nor recover.
KINDS_OF_WATCHDOG = ("fires", "absent", "stale")
NAMES = {f.name for f in FAMILIES} | {
    f.name + suffix
    for f in FAMILIES
    if f.kind is Kind.HISTOGRAM
    for suffix in ("_bucket", "_sum", "_count")
}
# Prometheus' own series of a target, and what every client library exports.
FOREIGN = {"up", "process_start_time_seconds"}
HEADINGS = ["What it means", "How to look", "What to do", "When to ignore it"]


@cache
def _rules(path: Path, kind: str) -> tuple[dict[str, object], ...]:
    """Return all alerting ("alert") or recording ("record") rules of a file, in order."""
    groups = yaml.safe_load(path.read_text("utf-8"))["groups"]
    return tuple(rule for group in groups for rule in group["rules"] if kind in rule)


ALERTS = {str(rule["alert"]): rule for rule in _rules(ALERTS_FILE, "alert")}


def _severity(rule: dict[str, object]) -> str:
    labels = rule["labels"]
    assert isinstance(labels, dict)
    return str(labels["severity"])


@cache
def _kinds(alert: str) -> Counter[str]:
    """Return how many tests of each kind an alert has."""
    tests = yaml.safe_load((CASES / f"{alert}.yml").read_text("utf-8"))["tests"]
    return Counter(re.split(r"[ :]", test["name"])[0] for test in tests)


def _promtool(*arguments: str | Path) -> None:
    done = subprocess.run(["promtool", *arguments], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stdout + done.stderr


def test_alerts_are_exactly_those_that_were_agreed_by_severity() -> None:
    by_severity = {
        severity: {
            name.removeprefix("Migscaler") for name, r in ALERTS.items() if _severity(r) == severity
        }
        for severity in ("critical", "warning", "info")
    }

    assert by_severity == {
        "critical": {"FenceStuck", "CapacityLost", "BootRestoreFailed", "BreakersOpen", "GpuLost"},
        "warning": {
            "Down",
            "CollectorFailing",
            "TickFailing",
            "ForeignChange",
            "DcgmBlind",
            "ConfigInvalid",
            "ConfigDrift",
            "SourceUnknown",
            "UnmetBlocked",
            "Flapping",
            "PausedTooLong",
            "StateNotWritable",
            "DesiredNotActual",
            "BreakerOpen",
        },
        "info": {
            "HeldUnused",
            "BudgetExhausted",
            "ProtectionEnding",
            "UnmetDemand",
            "Paused",
            "Watchdog",
        },
    }


@pytest.mark.parametrize("path", [ALERTS_FILE, RULES_FILE], ids=lambda path: path.name)
def test_promtool_finds_nothing_wrong_with_the_rules(path: Path) -> None:
    _promtool("check", "rules", "--lint-fatal", path)


@pytest.mark.parametrize("alert", ALERTS)
def test_alert_passes_its_promtool_tests(alert: str) -> None:
    _promtool("test", "rules", CASES / f"{alert}.yml")


@pytest.mark.parametrize("alert", ALERTS)
def test_alert_has_tests_of_every_kind(alert: str) -> None:
    needed = KINDS_OF_WATCHDOG if alert == "MigscalerWatchdog" else KINDS

    assert set(_kinds(alert)) == set(needed)


def test_case_files_are_all_of_alerts_that_exist() -> None:
    assert {path.stem for path in CASES.iterdir()} == set(ALERTS)


def test_recording_rules_pass_their_promtool_tests() -> None:
    _promtool("test", "rules", RECORDING)


def test_every_recording_rule_is_tested_or_feeds_one_that_is() -> None:
    tested = RECORDING.read_text("utf-8")
    rules = _rules(RULES_FILE, "record")
    used = tested + "".join(str(rule["expr"]) for rule in rules)

    assert len(rules) > 20
    assert [rule["record"] for rule in rules if str(rule["record"]) not in used] == []


@pytest.mark.parametrize("path", [ALERTS_FILE, RULES_FILE], ids=lambda path: path.name)
def test_rules_read_only_families_of_the_table(path: Path) -> None:
    expressions = "\n".join(
        str(rule["expr"]) for kind in ("alert", "record") for rule in _rules(path, kind)
    )
    recorded = {str(rule["record"]) for rule in _rules(RULES_FILE, "record")}
    for name in sorted(recorded, key=len, reverse=True):
        expressions = expressions.replace(name, "")
    series = set(re.findall(r"\b(\w+_\w+|up)\b(?=\s*[\[{])|\b(migscaler_\w+)", expressions))
    used = {a or b for a, b in series}

    assert len(used) > 10
    assert used - NAMES - FOREIGN == set()


def test_recording_rules_are_named_by_level_family_and_operation_and_join_on_no_scrape_target() -> (
    None
):
    for rule in _rules(RULES_FILE, "record"):
        level, family, operation = str(rule["record"]).split(":")
        assert level in ("gpu_instance", "gpu", "instance", "job")
        assert family in NAMES
        assert re.fullmatch(r"[a-z_]+", operation)
        assert " by (" not in str(rule["expr"])
    dcgm = [r for r in _rules(RULES_FILE, "record") if str(r["record"]).endswith(":dcgm")]
    assert len(dcgm) == 4
    assert [r for r in dcgm if "instance)" in str(r["expr"])] == []


@pytest.mark.parametrize("alert", ALERTS)
def test_alert_says_what_where_and_what_to_read(alert: str) -> None:
    annotations = ALERTS[alert]["annotations"]
    assert isinstance(annotations, dict)

    assert set(annotations) == {"summary", "description", "runbook_url"}
    assert annotations["runbook_url"] == f"docs/runbooks/{alert}.md"
    assert len(annotations["description"]) > 30


@pytest.mark.parametrize("alert", ALERTS)
def test_runbook_has_its_four_parts_and_the_severity_of_the_alert(alert: str) -> None:
    text = (RUNBOOKS / f"{alert}.md").read_text("utf-8")

    assert text.startswith(f"# {alert}\n\nSeverity {_severity(ALERTS[alert])}: ")
    assert re.findall(r"^## (.*)$", text, re.MULTILINE) == HEADINGS


def test_runbooks_are_all_of_alerts_that_exist() -> None:
    assert {path.stem for path in RUNBOOKS.iterdir()} == set(ALERTS)


def test_list_of_alerts_shows_severity_duration_and_tests_of_each() -> None:
    rows = [
        "| [{0}](runbooks/{0}.md) | {1} | {2} | {3} | {4} |".format(
            name,
            _severity(rule),
            rule.get("for", "-"),
            rule.get("keep_firing_for", "-"),
            " | ".join(str(_kinds(name)[kind] or "-") for kind in KINDS),
        )
        for name, rule in ALERTS.items()
    ]
    shown = [line for line in LIST.read_text("utf-8").splitlines() if line.startswith("| [")]

    assert shown == rows


def test_amtool_accepts_the_alertmanager_example() -> None:
    done = subprocess.run(["amtool", "check-config", ROUTES_FILE], capture_output=True, text=True)

    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("alert", ALERTS)
def test_alert_is_routed_by_its_severity(alert: str) -> None:
    severity = _severity(ALERTS[alert])
    receiver = {"critical": "page", "warning": "tickets", "info": "nobody"}[severity]
    if alert == "MigscalerWatchdog":
        receiver = "watchdog"
    labels = (f"alertname={alert}", f"severity={severity}", "instance=n1")
    config = f"--config.file={ROUTES_FILE}"
    command = ["amtool", "config", "routes", "test", config, f"--verify.receivers={receiver}"]

    done = subprocess.run([*command, *labels], capture_output=True, text=True)

    assert done.returncode == 0, done.stdout + done.stderr


def test_inhibitions_name_only_alerts_that_exist() -> None:
    named: set[str] = set()
    for rule in yaml.safe_load(ROUTES_FILE.read_text("utf-8"))["inhibit_rules"]:
        for matcher in (*rule["source_matchers"], *rule["target_matchers"]):
            value = matcher.split('"')[1]
            assert matcher.startswith("alertname")
            inner = re.fullmatch(r"Migscaler\((.*)\)", value)
            words = inner.group(1).split("|") if inner else value.split("|")
            named |= {
                word if word.startswith("Migscaler") else f"Migscaler{word}" for word in words
            }

    assert named - set(ALERTS) == {"Migscaler.+"}
