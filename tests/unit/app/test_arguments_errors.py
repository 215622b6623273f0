"""Each wrong argument is one sentence that names the command, the argument and what to give."""

import re
from collections.abc import Callable
from datetime import timedelta

import pytest

from migscaler.app.arguments import Arguments
from migscaler.errors import ParseError

Read = Callable[[Arguments], object]

SECONDS = "a number of seconds above 0 and below 1e9 (31 years)"


def given(**values: object) -> Arguments:
    return Arguments("hold", values, values.keys())


@pytest.mark.parametrize(
    ("read", "values", "sentence"),
    [
        (lambda a: a.text("why"), {}, "hold: why must be a text, got nothing"),
        (lambda a: a.text("why"), {"why": "  "}, "hold: why must be a text, got '  '"),
        (lambda a: a.text("why"), {"why": 3}, "hold: why must be a text, got 3"),
        (lambda a: a.optional_text("why"), {"why": ""}, "hold: why must be a text, got ''"),
        (lambda a: a.flag("wait"), {"wait": "yes"}, "hold: wait must be true or false, got 'yes'"),
        (lambda a: a.flag("wait"), {"wait": 1}, "hold: wait must be true or false, got 1"),
        (lambda a: a.number("id"), {}, "hold: id must be a whole number, got nothing"),
        (lambda a: a.number("id"), {"id": True}, "hold: id must be a whole number, got True"),
        (lambda a: a.number("id"), {"id": 1.5}, "hold: id must be a whole number, got 1.5"),
        (lambda a: a.number("id"), {"id": "1"}, "hold: id must be a whole number, got '1'"),
        (
            lambda a: a.optional_number("id"),
            {"id": "x"},
            "hold: id must be a whole number, got 'x'",
        ),
        (
            lambda a: a.duration("ttl"),
            {},
            f"hold: ttl must be {SECONDS}, got nothing",
        ),
        (
            lambda a: a.duration("ttl"),
            {"ttl": 0},
            f"hold: ttl must be {SECONDS}, got 0",
        ),
        (
            lambda a: a.duration("ttl"),
            {"ttl": float("nan")},
            f"hold: ttl must be {SECONDS}, got nan",
        ),
        (
            lambda a: a.duration("ttl"),
            {"ttl": 1e12},
            f"hold: ttl must be {SECONDS}, got 1000000000000.0",
        ),
        (
            lambda a: a.optional_duration("ttl"),
            {"ttl": "2h"},
            f"hold: ttl must be {SECONDS}, got '2h'",
        ),
        (lambda a: a.gpu(), {}, "hold: gpu must be a GPU's index or UUID, got nothing"),
        (lambda a: a.gpu(), {"gpu": True}, "hold: gpu must be a GPU's index or UUID, got True"),
        (
            lambda a: a.gpus("gpus"),
            {"gpus": []},
            "hold: gpus must be a list of GPU indices or UUIDs, got []",
        ),
        (
            lambda a: a.gpus("gpus"),
            {"gpus": "0,1"},
            "hold: gpus must be a list of GPU indices or UUIDs, got '0,1'",
        ),
        (
            lambda a: a.counts("wants"),
            {"wants": {}},
            'hold: wants must be counts by size, e.g. {"1g": 3}, got {}',
        ),
        (
            lambda a: a.counts("wants"),
            {"wants": {"1g": -1}},
            "hold: wants.1g must be a whole number, 0 to 10000, got -1",
        ),
        (
            lambda a: a.counts("wants"),
            {"wants": {"1g": True}},
            "hold: wants.1g must be a whole number, 0 to 10000, got True",
        ),
    ],
)
def test_wrong_argument_is_one_sentence(
    read: Read, values: dict[str, object], sentence: str
) -> None:
    with pytest.raises(ParseError) as problem:
        read(given(**values))

    assert str(problem.value) == sentence


def test_values_come_out_trimmed_and_typed() -> None:
    arguments = given(why=" upgrade ", wait=True, id=3, ttl=1.5, wants={"7g": 0, "1g": 2})

    assert arguments.text("why") == "upgrade"
    assert arguments.flag("wait") is True
    assert arguments.number("id") == 3
    assert arguments.duration("ttl") == timedelta(seconds=1.5)
    assert arguments.counts("wants") == (("1g", 2), ("7g", 0))


@pytest.mark.parametrize("named", [{}, {"x": None}])
def test_what_is_optional_may_be_absent_or_null(named: dict[str, object]) -> None:
    arguments = given(**named)

    assert arguments.optional_text("x") is None
    assert arguments.optional_number("x") is None
    assert arguments.optional_duration("x") is None
    assert given().flag("x") is False


def test_gpu_is_an_index_or_a_uuid() -> None:
    assert given(gpu=0).gpu() == "0"
    assert given(gpu="GPU-5c89852c").gpu() == "GPU-5c89852c"
    assert given(gpus=[0, "GPU-5c89852c"]).gpus("gpus") == ("0", "GPU-5c89852c")


@pytest.mark.parametrize(
    ("values", "character"),
    [
        ({"why": "\ud800"}, "U+D800"),
        ({"why": "\x1b]0;pwn\x07"}, "U+001B"),
        ({"gpus": ["0", "\x00"]}, "U+0000"),
        ({"wants": {"1g\x9b": 1}}, "U+009B"),
        ({"unknown": [{"deep": ["\udfff"]}]}, "U+DFFF"),
    ],
)
def test_text_that_no_log_or_answer_can_hold_is_refused_wherever_it_stands(
    values: dict[str, object], character: str
) -> None:
    """`pause --why` with half a character made /api/v1/status fail for everybody (2026-11-29)."""
    with pytest.raises(
        ParseError, match=f"a text holds a character that is none .{re.escape(character)}"
    ):
        given(**values)


def test_text_of_several_lines_and_of_any_script_is_taken() -> None:
    assert given(why="driver\nupgrade\t드라이버 🙂").text("why") == "driver\nupgrade\t드라이버 🙂"


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        ({"dryrun": True}, "apply takes no argument 'dryrun'; did you mean dry_run?"),
        ({"Dry_Run": True}, "apply takes no argument 'Dry_Run'; did you mean dry_run?"),
        ({"gpu": 0, "why": "x"}, "apply takes no argument 'why'; it takes gpu, dry_run"),
    ],
)
def test_unknown_argument_is_refused(values: dict[str, object], sentence: str) -> None:
    with pytest.raises(ParseError) as problem:
        Arguments("apply", values, ("gpu", "dry_run"))

    assert str(problem.value) == sentence


def test_command_without_arguments_takes_none() -> None:
    with pytest.raises(ParseError, match=r"^reload takes no argument 'force'; it takes none$"):
        Arguments("reload", {"force": True}, ())


@pytest.mark.parametrize("values", [{}, {"on": None}, {"on": "yes"}])
def test_flag_that_decides_must_be_given(values: dict[str, object]) -> None:
    """`mig_mode` without `enabled` would have switched MIG off."""
    with pytest.raises(ParseError, match=r"^hold: on must be true or false, got"):
        given(**values).required_flag("on")


def test_argument_that_means_nothing_beside_the_others_is_refused() -> None:
    given(gpu=None).must_lack("gpu", "goes with layout")
    with pytest.raises(ParseError, match=r"^hold: gpu goes with layout$"):
        given(gpu=0).must_lack("gpu", "goes with layout")
