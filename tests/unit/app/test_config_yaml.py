import json
import string

import pytest
from hypothesis import given
from hypothesis import strategies as st

from migscaler.app.config.load import load_text
from migscaler.app.config.yaml_text import path_text, read_yaml
from migscaler.errors import ConfigError, Finding


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("22:30", "22:30"),
        ("12:30:45", "12:30:45"),
        ("off", "off"),
        ("Yes", "Yes"),
        ("true", True),
        ("False", False),
        ("2027-03-31", "2027-03-31"),
        ("15", 15),
        ("-3", -3),
        ("0", 0),
        ("0.25", 0.25),
        ("1e3", 1000.0),
        (".inf", ".inf"),
        (".nan", ".nan"),
        ("~", None),
        ("null", None),
        ("", None),
        ('"15"', "15"),
        ("'0755'", "0755"),
        ("1g", "1g"),
        ("=", "="),
    ],
)
def test_plain_scalar_has_one_reading(text: str, value: object) -> None:
    document = read_yaml(f"key: {text}\n")

    assert document.value == {"key": value}
    assert type(document.value["key"]) is type(value)
    assert document.findings == ()


@pytest.mark.parametrize("text", ["0755", "0o755", "0x1F", "0b11", "1_000", "+5", "-017"])
def test_number_with_two_readings_is_refused(text: str) -> None:
    findings = read_yaml(f"a: 1\nkey: {text}\n").findings

    assert [(f.line, f.where) for f in findings] == [(2, "key")]


def test_places_are_those_of_keys_for_groups_and_of_values_for_words() -> None:
    document = read_yaml("rules:\n  - name: a\n    at_least:\n      - {count: 3}\n")

    assert document.places["rules",].line == 1
    assert document.places["rules", 0, "name"].line == 2
    assert document.places["rules", 0, "at_least"].line == 3
    count = document.places["rules", 0, "at_least", 0, "count"]
    assert (count.line, count.column) == (4, 17)
    missing = document.place(("rules", 0, "size"))
    assert missing is not None
    assert missing.line == 2


def test_alias_repeats_a_value() -> None:
    document = read_yaml("a: &x [1g, 2g]\nb: *x\n")

    assert document.value == {"a": ("1g", "2g"), "b": ("1g", "2g")}


def test_aliases_that_multiply_are_refused_quickly() -> None:
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 9)]

    findings = read_yaml("\n".join(lines)).findings

    assert [f.problem for f in findings] == ["the file unfolds into too many values"]


@pytest.mark.parametrize("text", ["a: &x [*x]\n", "[" * 1_500, "{a: " * 1_500])
def test_endless_or_deep_text_is_a_finding(text: str) -> None:
    assert read_yaml(text).findings


def test_path_is_written_as_people_do() -> None:
    assert path_text(("rules", 0, "at_least", 1, "when")) == "rules[0].at_least[1].when"
    assert path_text(()) == "(file)"


def findings_of(text: str) -> tuple[Finding, ...] | None:
    """Return what is wrong with a text, None if it loads."""
    try:
        load_text(text, "x")
    except ConfigError as error:
        return error.findings
    return None


@given(st.text(alphabet=string.printable, max_size=200))
def test_any_text_is_read_or_refused_with_findings(text: str) -> None:
    assert findings_of(text) != ()


_scalars = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=8)
)
_KEYS = (
    "mode gpus rules name size from sources type veto at_least when idle after evidence pace web "
    "listen min max url queue source count prometheus hooks after_change"
)
_keys = st.sampled_from(_KEYS.split())
_values = st.recursive(
    _scalars,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_keys, inner, max_size=4),
    max_leaves=12,
)


@given(st.dictionaries(_keys, _values, max_size=5))
def test_any_nesting_of_known_keys_is_read_or_refused_with_findings(
    value: dict[str, object],
) -> None:
    findings = findings_of(json.dumps(value))

    assert findings != ()
    assert all(f.problem and f.remedy and f.where and f.line for f in findings or ())
