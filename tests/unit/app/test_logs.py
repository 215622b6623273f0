"""Log lines as operators and their log shippers read them."""

import ast
import json
import logging
import sys
from pathlib import Path

import pytest

import migscaler
from migscaler.app.logs import formatter


def _record(message: str, *values: object, name: str = "migscaler.loop") -> logging.LogRecord:
    record = logging.LogRecord(name, logging.INFO, "", 0, message, values, None)
    record.created = 1_700_000_000.25
    return record


def test_logfmt_quotes_values_with_blanks_and_leaves_words_bare() -> None:
    record = _record(
        "decided outcome=%s reason=%s sentence=%s", "hold", "resting", 'Hold: GPU 3 "rests"'
    )

    assert formatter("logfmt").format(record) == (
        "time=2023-11-14T22:13:20.250Z level=info part=loop event=decided "
        'outcome=hold reason=resting sentence="Hold: GPU 3 \\"rests\\""'
    )


def test_logfmt_keeps_an_event_on_one_line_and_shows_an_empty_value() -> None:
    record = _record("hook_failed command=%s why=%s seconds=%.3f", "", "line\nline", 0.25)

    line = formatter("logfmt").format(record)

    assert line.endswith('event=hook_failed command="" why="line\\nline" seconds=0.250')


def test_json_has_one_member_per_key() -> None:
    record = _record("gpu_plan_end plan=%s seconds=%.1f", "20231114-1-0", 2.06)

    assert json.loads(formatter("json").format(record)) == {
        "time": "2023-11-14T22:13:20.250Z",
        "level": "info",
        "part": "loop",
        "event": "gpu_plan_end",
        "plan": "20231114-1-0",
        "seconds": "2.1",
    }


def test_a_librarys_sentence_becomes_one_quoted_text() -> None:
    record = _record('Run time of job "%s" was missed', "tick", name="apscheduler.executors")

    line = formatter("logfmt").format(record)

    assert line.endswith(
        'part=apscheduler.executors event=message text="Run time of job \\"tick\\" was missed"'
    )


@pytest.mark.parametrize("form", ["logfmt", "json"])
def test_an_event_without_keys_is_its_name_alone(form: str) -> None:
    line = formatter(form).format(_record("stopping"))

    assert line.endswith("event=stopping" if form == "logfmt" else '"event": "stopping"}')


def test_every_message_of_the_package_is_an_event_with_keys() -> None:
    """A message that is none would reach operators as `event=message text=...`."""
    found = 0
    for file in sorted(Path(migscaler.__file__).parent.rglob("*.py")):
        for node in ast.walk(ast.parse(file.read_text())):
            if _is_log_call(node):
                assert isinstance(node, ast.Call)
                assert isinstance(node.func, ast.Attribute)
                named_level = node.func.attr == "log"
                message, *values = node.args[1:] if named_level else node.args
                text = ast.literal_eval(message)
                record = _record(text, *([1] * len(values)))
                line = formatter("logfmt").format(record)
                assert "event=message" not in line, f"{file}:{node.lineno}: {text}"
                found += 1
    assert found > 15


def _is_log_call(node: ast.AST) -> bool:
    return (
        isinstance(node, ast.Call)
        and isinstance(node.func, ast.Attribute)
        and node.func.attr in ("debug", "info", "warning", "error", "exception", "log")
        and isinstance(node.func.value, ast.Name)
        and node.func.value.id in ("_log", "logger")
    )


PWN = "\x1b]0;pwn\x07\x9b2J\u202e"


@pytest.mark.parametrize("form", ["logfmt", "json"])
def test_name_that_orders_a_terminal_about_is_written_out(form: str) -> None:
    line = formatter(form).format(_record("holder who=%s", PWN))

    assert line.isprintable()
    assert "pwn" in line
    if form == "json":
        assert json.loads(line)["who"] == PWN


@pytest.mark.parametrize("form", ["logfmt", "json"])
def test_traceback_that_quotes_such_a_name_is_written_out(form: str) -> None:
    record = _record("looking_after_failed")
    try:
        raise ValueError(PWN)
    except ValueError:
        record.exc_info = sys.exc_info()

    assert all(line.isprintable() for line in formatter(form).format(record).split("\n"))


def test_other_scripts_stay_readable() -> None:
    assert 'why="드라이버 업그레이드"' in formatter("logfmt").format(
        _record("paused why=%s", "드라이버 업그레이드")
    )
