from datetime import timedelta

import pytest

from migscaler.model.gpu import PinReason
from migscaler.web.html import join, tag
from migscaler.web.strip import Cell, cells_of, in_words, stranded_slices
from migscaler.web.words import span_words
from tests.builders import A30, A100, gpu_state, layout, model


def drawn(cells: tuple[Cell, ...]) -> str:
    """Return the strip as short text: kind and width."""
    return " ".join(f"{cell.kind}:{cell.size}" for cell in cells)


def test_strip_covers_every_slice_once_from_left_to_right() -> None:
    pins = {"3g@0": PinReason.PROCESS, "1g@6": PinReason.HELD}

    cells = cells_of(gpu_state(A100, "3g@0 2g@4 1g@6", pins))

    assert drawn(cells) == "used:4 idle:2 kept:1 stranded:1"
    assert [cell.size_class for cell in cells] == ["3g", "2g", "1g", ""]


@pytest.mark.parametrize(
    ("pin", "kind"),
    [
        (PinReason.PROCESS, "used"),
        (PinReason.ALLOCATION, "used"),
        (PinReason.UNKNOWN, "kept"),
        (PinReason.SETTLING, "kept"),
        (None, "idle"),
    ],
)
def test_only_processes_and_allocations_count_as_use(pin: PinReason | None, kind: str) -> None:
    pins = {} if pin is None else {"7g@0": pin}

    assert drawn(cells_of(gpu_state(A100, "7g@0", pins))) == f"{kind}:8"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("-", set()),
        ("1g@0 1g@1 1g@2 1g@3 1g@4 1g@5 1g@6", {7}),
        ("3g@0 3g@4", set()),
        ("3g@0 2g@4 1g@6", {7}),
        ("4g@0", set()),
        ("2g@0 1g@2", set()),
    ],
)
def test_stranded_slices_are_those_that_nothing_more_can_cover(
    text: str, expected: set[int]
) -> None:
    assert stranded_slices(model(A100), layout(A100, text)) == expected


def test_a30_has_four_slices() -> None:
    assert drawn(cells_of(gpu_state(A30, "2g@0"))) == "idle:2 free:1 free:1"


def test_gpu_without_mig_has_no_strip() -> None:
    assert cells_of(gpu_state(A100, "-", mig=False)) == ()


def test_strip_in_words_names_what_lies_where() -> None:
    cells = cells_of(gpu_state(A100, "3g@0 3g@4", {"3g@0": PinReason.PROCESS}))

    assert in_words(cells) == "3g.20gb in use at slices 0 to 3, 3g.20gb idle at slices 4 to 7"
    assert in_words(()) == "layout not known"


def test_html_quotes_texts_and_attributes() -> None:
    assert tag("p", "<script>&", title='"x"', hidden=True, id=None) == (
        '<p title="&quot;x&quot;" hidden>&lt;script&gt;&amp;</p>'
    )
    assert join(tag("b", "a"), "<") == "<b>a</b>&lt;"


@pytest.mark.parametrize(
    ("seconds", "expected"),
    [
        (0, "0 s"),
        (45, "45 s"),
        (75, "1 min 15 s"),
        (10_800, "3 h"),
        (187_200, "2 d 4 h"),
        (-5, "0 s"),
    ],
)
def test_spans_are_said_in_two_units_at_most(seconds: int, expected: str) -> None:
    assert span_words(timedelta(seconds=seconds)) == expected
