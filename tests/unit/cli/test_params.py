"""What people write on the command line."""

from datetime import timedelta

import click
import pytest

from migscaler.cli.params import DURATION, GPU, GPUS, SECONDS, WANT


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("90s", 90),
        ("30m", 1800),
        ("8h", 28800),
        ("1d12h", 129600),
        ("1h0m30s", 3630),
        ("0.5s", 0.5),
    ],
)
def test_duration_reads_what_people_write(text: str, seconds: float) -> None:
    assert DURATION.convert(text, None, None) == timedelta(seconds=seconds)


@pytest.mark.parametrize(
    "text",
    ["", "8", "8 h", "-1h", "0s", "1h30", "h", "9999999999d", "²s",
     pytest.param("9" * 400 + "s", id="endless")],
)  # fmt: skip
def test_duration_refuses_the_rest(text: str) -> None:
    with pytest.raises(click.BadParameter):
        DURATION.convert(text, None, None)


def test_seconds_may_be_a_plain_number() -> None:
    assert SECONDS.convert("20", None, None) == timedelta(seconds=20)
    assert SECONDS.convert("4m", None, None) == timedelta(minutes=4)


def test_gpus_are_indices_or_uuids() -> None:
    assert GPUS.convert("0, 3,GPU-5c89852c-d268", None, None) == (0, 3, "GPU-5c89852c-d268")


# The last two passed for numbers, and ended as "unexpected ValueError".
NO_NUMBERS = ["²", pytest.param("9" * 5_000, id="endless")]


@pytest.mark.parametrize("text", ["", ",", "0,x", "MIG-1", "-1", *NO_NUMBERS])
def test_gpus_refuses_the_rest(text: str) -> None:
    with pytest.raises(click.BadParameter):
        GPUS.convert(text, None, None)


@pytest.mark.parametrize("count", NO_NUMBERS)
def test_want_refuses_what_is_no_count(count: str) -> None:
    with pytest.raises(click.BadParameter):
        WANT.convert(f"1g={count}", None, None)


def test_gpu_is_one() -> None:
    assert GPU.convert("7", None, None) == 7
    with pytest.raises(click.BadParameter):
        GPU.convert("0,1", None, None)


def test_want_is_size_and_count() -> None:
    assert WANT.convert("1g+me=3", None, None) == ("1g+me", 3)
    for text in ("1g", "=3", "1g=x", "1g=-1"):
        with pytest.raises(click.BadParameter):
            WANT.convert(text, None, None)
