"""`make audit` calls nothing fine that it could not ask about."""

import runpy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

Judge = Callable[[list[dict[str, object]]], tuple[int, str]]


@pytest.fixture(scope="module")
def judge() -> Judge:
    script = Path(__file__).parents[2] / ".ci" / "audit.py"
    found: Any = runpy.run_path(str(script))["judge"]
    return found  # type: ignore[no-any-return] # the script's own function


def package(name: str, *vulns: str) -> dict[str, object]:
    listed = [{"id": one, "fix_versions": ["2"]} for one in vulns]
    return {"name": name, "version": "1", "vulns": listed}


SKIPPED: dict[str, object] = {"name": "c", "skip_reason": "Dependency not found"}


def test_all_asked_and_nothing_known_is_fine(judge: Judge) -> None:
    assert judge([package("a"), package("b")]) == (0, "2 packages, no known advisory")


def test_advisory_is_told_with_its_fix(judge: Judge) -> None:
    code, said = judge([package("a", "CVE-1"), package("b")])

    assert code == 1
    assert said == "a 1: CVE-1 (fixed in ['2'])"


def test_one_package_not_asked_about_is_not_fine(judge: Judge) -> None:
    """pip-audit ends with 0 where a mirror knows the package but no advisories."""
    code, said = judge([package("a"), SKIPPED])

    assert code == 2
    assert said == "1 of 2 packages could not be asked about: Dependency not found"


def test_empty_report_is_not_fine(judge: Judge) -> None:
    assert judge([])[0] == 2


def test_advisory_counts_more_than_a_package_not_asked_about(judge: Judge) -> None:
    assert judge([SKIPPED, package("a", "CVE-1")])[0] == 1
