"""When the web configuration file and what it names are read again."""

import os
from pathlib import Path

import pytest

from migscaler.app.config.web_file import WebReading
from migscaler.app.web_watch import WebWatch, stamp_of
from migscaler.errors import Finding
from migscaler.web.protection import Protection

WRONG = Finding(where="tls_server_config.key_file", problem="can't be read", remedy="check rights")


class Readings:
    """Reads what the test says, and counts."""

    def __init__(self, *findings: Finding) -> None:
        self.findings = findings
        self.count = 0

    def __call__(self, path: Path, _open_to: str | None) -> WebReading:
        self.count += 1
        protection = None if self.findings else Protection()
        return WebReading(path=path, protection=protection, findings=self.findings, files=(path,))


def test_stamp_tells_a_right_and_a_size_whose_times_are_the_same(file: Path) -> None:
    """Many kernels count the times of files in steps of 4 ms: a right given at once was missed."""

    def stamp() -> tuple[int, ...]:
        found = list(os.stat(file))  # its times are left out
        return stamp_of(os.stat_result([*found[:7], 0, 0, 0]))

    before = stamp()
    os.chmod(file, 0o640)
    readable = stamp()
    file.write_text("x")

    assert len({before, readable, stamp()}) == 3


@pytest.fixture
def file(tmp_path: Path) -> Path:
    made = tmp_path / "web.yml"
    made.write_text("")
    return made


def test_file_is_read_again_when_only_its_rights_change(file: Path) -> None:
    """A new key was written for root and made readable afterwards: it never came into force."""
    readings = Readings()
    watch = WebWatch(file, None, readings)
    assert not watch.look()

    os.chmod(file, 0o640)

    assert watch.look()
    assert readings.count == 2


def test_what_is_wrong_is_read_again_at_each_look_and_told_once(
    file: Path, caplog: pytest.LogCaptureFixture
) -> None:
    readings = Readings(WRONG)
    watch = WebWatch(file, None, readings)

    assert [watch.look() for _ in range(3)] == [False, False, False]
    assert len(caplog.records) == 1
    before = watch.protection
    assert before is None

    readings.findings = ()

    assert watch.look()
    assert watch.problems == ()
    assert watch.protection is not None
    assert not watch.look()


def test_signal_has_everything_read_once_more(file: Path) -> None:
    readings = Readings()
    watch = WebWatch(file, None, readings)

    watch.read_again()

    assert [watch.look(), watch.look()] == [True, False]


def test_without_a_file_nothing_is_read() -> None:
    readings = Readings()
    watch = WebWatch(None, None, readings)
    watch.read_again()

    assert not watch.look()
    assert readings.count == 0
