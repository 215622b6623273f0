"""Tables lose nothing, however narrow the terminal is."""

import io

import pytest
from rich.console import Console
from rich.text import Text

from migscaler.cli.sheet import Sheet, fitted

STRIP = "│1g │1g │···│···│3g             │"
SPECS = "1g.5gb@0 1g.5gb@1 3g.20gb@4"


def drawn(width: int, *rows: tuple[object, ...]) -> list[str]:
    """Return the lines of a table of GPUs on a terminal of this width."""
    sheet = Sheet(("GPU", "model", "memory slices", "instances"), rows, ("GPU",))
    out = io.StringIO()
    Console(file=out, width=width, highlight=False).print(sheet)
    return [line.rstrip() for line in out.getvalue().splitlines()]


def gpu(index: int = 0) -> tuple[object, ...]:
    return index, "A100-SXM4-40GB", Text(STRIP, no_wrap=True), SPECS


def test_wide_terminal_shows_a_row_a_line() -> None:
    assert drawn(100, gpu()) == [
        "GPU  model           memory slices                      instances",
        f"  0  A100-SXM4-40GB  {STRIP}  {SPECS}",
    ]


def test_eighty_columns_fold_words_and_keep_the_strip() -> None:
    """rich cropped the strip there: GPUs seemed to have fewer slices, and jobs not to exist."""
    assert drawn(70, gpu()) == [
        "GPU  model           memory slices                      instances",
        f"  0  A100-SXM4-40GB  {STRIP}  1g.5gb@0",
        " " * 56 + "1g.5gb@1",
        " " * 56 + "3g.20gb@4",
    ]


def test_narrow_terminal_shows_a_block_a_row() -> None:
    assert drawn(40, gpu(), gpu(1))[:9] == [
        "GPU            0",
        "model          A100-SXM4-40GB",
        "memory slices",
        STRIP,
        "instances      1g.5gb@0 1g.5gb@1",
        "               3g.20gb@4",
        "",
        "GPU            1",
        "model          A100-SXM4-40GB",
    ]


@pytest.mark.parametrize("width", [1, 7, 16, 20, 33, 40, 60, 66, 67, 80, 200])
def test_no_character_is_lost_at_any_width(width: int) -> None:
    shown = "".join("".join(drawn(width, gpu())).split())

    for said in ("A100-SXM4-40GB", STRIP, SPECS):
        kept = "".join(said.split())
        if width < 67:
            assert kept in shown
        else:
            # Side by side the words of two columns alternate.
            assert all(word in shown for word in said.split())


def test_long_words_are_broken_where_there_is_no_room() -> None:
    sheet = Sheet(("a", "b"), [("x" * 50, "y")], ())
    out = io.StringIO()
    Console(file=out, width=30, highlight=False).print(sheet)

    assert out.getvalue().count("x") == 50


def test_widths_go_first_to_columns_that_lack_little() -> None:
    assert fitted([(3, 3), (4, 6), (5, 50)], 40) == [3, 6, 31]
    assert fitted([(3, 3), (4, 6), (5, 50)], 12) == [3, 4, 5]
    assert fitted([(3, 3), (4, 6), (5, 50)], 11) is None
    assert fitted([(3, 9)], 100) == [9]
