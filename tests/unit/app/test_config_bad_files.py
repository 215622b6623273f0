"""Every file of tests/data/bad_configs begins with what must be said of it, a line per finding:
`# line | key | problem | remedy`."""

from pathlib import Path

import pytest

from migscaler.app.config.load import load_file
from migscaler.errors import ConfigError

FOLDER = Path(__file__).parents[2] / "data" / "bad_configs"
FILES = sorted(FOLDER.glob("*.yaml"))


def expected_findings(path: Path) -> list[tuple[int, str, str, str]]:
    rows = []
    for line in path.read_text("utf-8").splitlines():
        if not line.startswith("# "):
            break
        number, where, problem, remedy = line[2:].split(" | ")
        rows.append((int(number), where, problem, remedy))
    return rows


def test_bad_files_are_many_enough() -> None:
    assert len(FILES) >= 110


@pytest.mark.parametrize("path", FILES, ids=[path.stem for path in FILES])
def test_bad_file_is_refused_with_line_and_remedy(path: Path) -> None:
    expected = expected_findings(path)

    with pytest.raises(ConfigError) as refused:
        load_file(path)

    findings = refused.value.findings
    assert [(f.line, f.where, f.problem, f.remedy) for f in findings] == expected
    assert expected
