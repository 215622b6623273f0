"""Counts of legal layouts are the published ones; fits and waste on known layouts."""

from fractions import Fraction

import pytest

from migscaler.model.layout import Layout
from migscaler.planner.layouts import (
    Stranded,
    all_layouts,
    creatable_if_dissolved,
    fits,
    fragmentation,
    fragmentation_ratio,
    maximal_layouts,
    stranded,
)
from tests.builders import A30, A100, H100, layout, model

PLAIN = ("1g", "2g", "3g", "4g", "7g")


def _names(board: str, classes: tuple[str, ...]) -> list[str]:
    return [p.name for p in model(board).profiles if p.size_class in classes]


@pytest.mark.parametrize("board", [A100, "a100-sxm4-80gb", H100, "h200-141gb", "b200-180gb"])
def test_seven_slice_family_has_the_published_number_of_layouts(board: str) -> None:
    plain, wide = _names(board, PLAIN), _names(board, (*PLAIN, "1gx"))
    assert len(all_layouts(model(board), plain)) == 298
    assert len(maximal_layouts(model(board), plain)) == 19
    assert len(all_layouts(model(board), wide)) == 723
    assert len(maximal_layouts(model(board), wide)) == 78
    assert len(all_layouts(model(board))) == 2319
    assert len(maximal_layouts(model(board))) == 239


def test_a30_has_the_published_number_of_layouts() -> None:
    plain = _names(A30, PLAIN)
    assert len(all_layouts(model(A30), plain)) == 26
    assert len(maximal_layouts(model(A30), plain)) == 5
    assert len(all_layouts(model(A30))) == 76
    assert len(maximal_layouts(model(A30))) == 17


def test_rtx_pro_6000_has_five_plain_maximal_layouts() -> None:
    board = "rtx-pro-6000-blackwell-96gb"
    assert len(maximal_layouts(model(board), _names(board, PLAIN))) == 5


def test_maximal_plain_layouts_are_fourteen_multisets() -> None:
    found = {
        tuple(sorted(one.profiles().items()))
        for one in maximal_layouts(model(), _names(A100, PLAIN))
    }
    assert len(found) == 14


def test_driver_before_r510_has_eighteen_maximal_layouts() -> None:
    old = model(A100, 470)
    plain = [p.name for p in old.profiles if p.size_class in PLAIN]
    layouts = maximal_layouts(old, plain)
    assert len(layouts) == 18
    assert not any(one.profiles()["4g.20gb"] and one.profiles()["3g.20gb"] for one in layouts)


def test_all_layouts_are_legal_distinct_and_sorted() -> None:
    layouts = all_layouts(model())
    assert layouts[0] == Layout()
    assert len(set(layouts)) == len(layouts)
    assert list(layouts) == sorted(layouts, key=lambda one: one.specs)
    assert all(model().violation(one) is None for one in layouts[::50])


def test_fits_counts_placements_not_slices() -> None:
    assert fits(model(), layout(A100, "1g@1 1g@5")) == {
        "1g.5gb": 5,
        "2g.10gb": 1,
        "3g.20gb": 0,
        "4g.20gb": 0,
        "7g.40gb": 0,
        "1g.5gb+me": 1,
        "1g.10gb": 2,
    }


def test_fits_respects_driver_that_refuses_4g_beside_3g() -> None:
    assert fits(model(A100, 470), layout(A100, "4g@0"))["3g.20gb"] == 0
    assert fits(model(A100, 510), layout(A100, "4g@0"))["3g.20gb"] == 1


def test_fits_is_nothing_beside_a_layout_of_another_model() -> None:
    assert set(fits(model(A30), layout(A100, "3g@4")).values()) == {0}


def test_creatable_if_dissolved_keeps_only_the_pinned() -> None:
    pinned = layout(A100, "1g@6").specs
    assert creatable_if_dissolved(model(), pinned)["3g.20gb"] == 1
    assert creatable_if_dissolved(model(), ())["7g.40gb"] == 1


@pytest.mark.parametrize(
    ("text", "memory", "compute"),
    [
        ("3g@0 3g@4", 0, 1),
        ("1g@0 1g@1 1g@2 1g@3 1g@4 1g@5 1g@6", 1, 0),
        ("3g@0 2g@4 1g@6", 1, 1),
        ("4g@0", 0, 0),
        ("-", 0, 0),
    ],
)
def test_stranded_slices_are_those_nothing_can_use(text: str, memory: int, compute: int) -> None:
    found = stranded(model(), layout(A100, text))
    assert found == Stranded(memory_slices=memory, compute_slices=compute)


def test_fragmentation_weighs_what_each_profile_could_not_use() -> None:
    # Six free slices: 1g uses 5, 2g 2, 3g none. Wasted 1 + 4 + 6 of 18.
    weights = {"1g.5gb": 1, "2g.10gb": 1, "3g.20gb": 1}
    found = fragmentation(model(), layout(A100, "1g@1 1g@5"), weights)
    assert found == (11, 18)
    assert fragmentation_ratio([found, (1, 6)]) == Fraction(1, 2)


def test_fragmentation_of_nothing_free_is_zero() -> None:
    assert fragmentation_ratio([fragmentation(model(), layout(A100, "7g@0"))]) == 0
