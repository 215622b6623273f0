"""Whatever a configuration file holds, it is loaded or refused with findings; nothing else.

Files are made of the keys that the model knows, so that every check is reached, with values that
no person writes on purpose.
"""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel

from migscaler.app.config.findings import _models
from migscaler.app.config.load import LoadedConfig, effective_yaml, load_text
from migscaler.app.config.model import Config
from migscaler.app.config.unforeseen import UNFORESEEN
from migscaler.app.config.web_file import read_web_file
from migscaler.app.config.web_model import WebFile
from migscaler.errors import ConfigError

# Sections that are lists or named, with what such an entry needs to be judged further.
LISTS: Mapping[str, Mapping[str, object]] = {
    "gpus": {"index": 0},
    "rules": {"name": "r", "size": "1g"},
    "at_least": {"count": 1, "when": "mon 10:00-11:00"},
    "freeze": {"when": "mon 10:00-11:00"},
    "veto": {"source": "prometheus", "url": "http://a", "query": "x"},
}
SOURCE = {"type": "prometheus", "url": "http://a", "query": "x"}
ODD: tuple[object, ...] = (
    "", None, [], {}, [[]], [{}], {"a": "b"}, 5, -1, 10**30, 1e300, True, "\0", "\ud800", "\x1b[2J",
    "9999-12-31", "9999-12-31T23:59:59-12:00", "9999-12-31T23:59", "0001-01-01", "2027-01-01",
    "http://[x", "http://a:b", "http://u:p@[x", "//", "[::", "/", "/\0", "*", "[a", "%s", "1g",
    "99999999999999999999h", "999999999s", "٣s", "١٢:٣٤", "GPU-", "mon-mon 00:00-24:00", "x",
    ["x", "x"], ["\0"], [1], [None], {"\ud800": 1}, {"uuid": "{{ x }}"},
)  # fmt: skip
TIMEZONES = ("UTC", "Pacific/Kiritimati", "Pacific/Pago_Pago", "Asia/Seoul")

PATHS = st.deferred(lambda: st.sampled_from(sorted(paths(Config))))
VALUES = st.one_of(
    st.sampled_from(ODD),
    st.text(max_size=12),
    st.integers(),
    st.floats(allow_nan=False, allow_infinity=False),
    st.datetimes().map(lambda moment: moment.isoformat()),
)


def paths(model: type[BaseModel], above: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    """Yield the path of every key of the model."""
    for name, field in model.model_fields.items():
        here = (*above, field.alias or name)
        yield here
        for inner in _models(field.annotation):
            yield from paths(inner, here)


def file_with(path: tuple[str, ...], value: object, *, complete: bool) -> Any:
    """Return a file whose only oddity is this value; its neighbors are given if `complete`."""
    if not path:
        return value
    key, rest = path[0], path[1:]
    inner = file_with(rest, value, complete=complete)
    if not rest:
        return {key: inner}
    if key in LISTS:
        return {key: [{**(LISTS[key] if complete else {}), **inner}]}
    if key == "sources":
        return {key: {"a": {**(SOURCE if complete else {}), **inner}}}
    return {key: inner}


def text_of(file: object) -> str:
    return yaml.safe_dump(file, allow_unicode=False)


def judged(text: str) -> LoadedConfig | None:
    """Load a file; None if it was refused as it should be."""
    try:
        return load_text(text, "fuzzed")
    except ConfigError as error:
        findings = error.findings
    assert findings
    for finding in findings:
        assert UNFORESEEN not in finding.problem, finding
        f"{finding.found}; {finding.remedy}".encode()  # as logs and the API have it
    return None


def test_every_key_takes_or_refuses_every_odd_value() -> None:
    for path in sorted(set(paths(Config))):
        for value in ODD:
            bare, complete = (file_with(path, value, complete=how) for how in (False, True))
            judged(text_of(complete))
            if bare != complete:
                judged(text_of(bare))


@given(parts=st.lists(st.tuples(PATHS, VALUES), max_size=4), zone=st.sampled_from(TIMEZONES))
def test_any_file_is_loaded_or_refused_with_findings(
    parts: list[tuple[tuple[str, ...], object]], zone: str
) -> None:
    file: dict[str, object] = {"timezone": zone}
    for path, value in parts:
        file |= file_with(path, value, complete=True)

    loaded = judged(text_of(file))

    if loaded is not None:
        again = load_text(effective_yaml(loaded), "written out")
        assert again.policy == loaded.policy
        assert again.settings == loaded.settings


@given(text=st.text())
def test_any_text_is_loaded_or_refused_with_findings(text: str) -> None:
    judged(text)


def test_every_key_of_the_web_file_takes_or_refuses_every_odd_value(tmp_path: Path) -> None:
    file = tmp_path / "web.yml"
    pair = {"cert_file": "c", "key_file": "k"}
    users = [("basic_auth_users", name) for name in ("ada", "\ud800", "a:b")]
    headers = [("http_server_config", "headers", name) for name in ("X-Frame-Options", "Evil")]
    for path in sorted({*paths(WebFile), *users, *headers}):
        for value in (*ODD, "a\0b", "\ud800", "1e999", "9" * 400 + "h", "x" * 5000):
            made = file_with(path, value, complete=False)
            if path[0] == "tls_server_config" and len(path) > 1:
                made = {path[0]: {**pair, **made[path[0]]}}
            file.write_text(text_of(made))

            reading = read_web_file(file)

            assert (reading.protection is None) == bool(reading.findings)
            for finding in reading.findings:
                assert UNFORESEEN not in finding.problem, (path, value, finding)
                f"{finding.found}; {finding.remedy}".encode()


def test_path_that_no_file_can_have_is_a_finding() -> None:
    assert len(read_web_file(Path("/etc/a\0b")).findings) == 1
