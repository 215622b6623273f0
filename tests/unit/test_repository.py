"""Rules of the house that no linter knows, checked on the files as they lie in the tree."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
LEFT_OUT = {"__pycache__", "build", "dist", "node_modules"}
BINARY = {".png", ".ico", ".woff2", ".gz", ".sqlite", ".pyc"}

# Written as patterns, so that this file does not contain what it forbids.
REGISTRY_OR_MACHINE = re.compile(
    r"pypi\.(?:org|python)|pythonhosted\.|npmjs\.(?:org|com)|(?:deb|security)\.debian\.org"
    r"|--(?:extra-)?index-url|--find[-]links|(?<![\w.])/(?:work|root|opt/(?:wheels|pypi))/|/home/\w"
)
PATCHED_OR_SKIPPED = re.compile(
    r"unittest\.mock|monkeypatch\.setattr|\bmocker[.:,)]|pytest\.(?:skip|xfail|importorskip)"
    r"|mark\.(?:skip|skipif|xfail)\b"
)
UNFINISHED = re.compile(r"\b(?:TODO|FIXME|XXX|NotImplementedError)\b|pragma: no cover")


def files_of_the_tree() -> Iterator[Path]:
    """Yield every text file of the checkout, without what tools leave behind."""
    pending = [ROOT]
    while pending:
        for path in sorted(pending.pop().iterdir()):
            if path.is_symlink() or path.name in LEFT_OUT:
                continue
            if path.is_dir():
                if path.name == ".ci" or not path.name.startswith("."):
                    pending.append(path)
            elif path.suffix not in BINARY and not path.name.startswith(".coverage"):
                yield path


def findings(pattern: re.Pattern[str], paths: Iterator[Path]) -> list[str]:
    return [
        f"{path.relative_to(ROOT)}:{number}: {match.group()}"
        for path in paths
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1)
        if (match := pattern.search(line))
    ]


def functions_longer_than(source: str, lines: int) -> list[str]:
    return [
        f"{node.lineno}: {node.name}"
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        and (node.end_lineno or node.lineno) - node.lineno + 1 > lines
    ]


@pytest.mark.parametrize(
    ("pattern", "line"),
    [
        (REGISTRY_OR_MACHINE, "see https://" + "pypi" + ".org/project/x"),
        (REGISTRY_OR_MACHINE, "cd " + "/wo" + "rk/main"),
        (REGISTRY_OR_MACHINE, "pip install --index" + "-url x"),
        (PATCHED_OR_SKIPPED, "@pytest.mark." + "skipif(True)"),
        (PATCHED_OR_SKIPPED, "monkeypatch." + "setattr(a, 'b', 1)"),
        (UNFINISHED, "raise " + "NotImplemented" + "Error"),
    ],
)
def test_pattern_finds_what_it_forbids(pattern: re.Pattern[str], line: str) -> None:
    assert pattern.search(line)


def test_function_length_counts_from_def_to_last_line() -> None:
    source = "def short():\n    return 1\n\n\ndef long():\n    a = 1\n    b = 2\n    return a + b\n"

    assert functions_longer_than(source, 3) == ["5: long"]


def test_tree_names_no_registry_and_no_machine() -> None:
    assert findings(REGISTRY_OR_MACHINE, files_of_the_tree()) == []


def test_tests_neither_patch_nor_skip() -> None:
    assert findings(PATCHED_OR_SKIPPED, (ROOT / "tests").rglob("*.py")) == []


def test_product_has_no_unfinished_places() -> None:
    assert findings(UNFINISHED, (ROOT / "migscaler").rglob("*.py")) == []


def test_product_files_stay_under_400_lines() -> None:
    lengths = {
        str(path.relative_to(ROOT)): len(path.read_text(encoding="utf-8").splitlines())
        for path in (ROOT / "migscaler").rglob("*.py")
    }

    assert {name: length for name, length in lengths.items() if length >= 400} == {}


def test_product_functions_stay_under_50_lines() -> None:
    found = {
        str(path.relative_to(ROOT)): functions_longer_than(path.read_text(encoding="utf-8"), 50)
        for path in (ROOT / "migscaler").rglob("*.py")
    }

    assert {name: functions for name, functions in found.items() if functions} == {}


def test_package_files_hold_a_docstring_and_nothing_else() -> None:
    allowed = {"migscaler/__init__.py": 2}  # the version beside the docstring

    for path in (ROOT / "migscaler").rglob("__init__.py"):
        body = ast.parse(path.read_text(encoding="utf-8")).body
        name = str(path.relative_to(ROOT))
        assert ast.get_docstring(ast.Module(body, [])), name
        assert len(body) == allowed.get(name, 1), name
