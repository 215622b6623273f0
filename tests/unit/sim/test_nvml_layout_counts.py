"""Every layout that the library's own create calls can reach, counted."""

from typing import Any

import pynvml
import pytest

from tests.unit.sim.conftest import Build
from tests.unit.sim.smi_nvml import cgi_at, lgipp

PLAIN = (19, 14, 9, 5, 0)  # ids of 1g, 2g, 3g, 4g, 7g
Spec = tuple[int, int, int]


def reach(ids: tuple[int, ...]) -> tuple[int, int]:
    """Return how many layouts can be made one create at a time, and how many of them are full."""
    specs = [(one, start, size) for one in ids for start, size in lgipp(one)]
    seen: set[frozenset[Spec]] = set()
    full = 0

    def visit(layout: frozenset[Spec]) -> None:
        nonlocal full
        seen.add(layout)
        fits = False
        for spec in specs:
            made = _try(spec)
            if made is None:
                continue
            fits = True
            if layout | {spec} not in seen:
                visit(layout | {spec})
            pynvml.nvmlGpuInstanceDestroy(made)
        full += not fits

    visit(frozenset())
    return len(seen), full


def _try(spec: Spec) -> Any:
    try:
        return cgi_at(*spec)
    except pynvml.NVMLError_InsufficientResources:
        return None


@pytest.mark.parametrize(
    ("board", "driver", "ids", "expected"),
    [
        ("A100-SXM4-40GB", "550.54.14", PLAIN, (298, 19)),
        ("H100-80GB", "550.54.14", PLAIN, (298, 19)),
        ("A100-SXM4-40GB", "550.54.14", (*PLAIN, 20, 15), (2319, 239)),
        ("A30", "550.54.14", (14, 21, 5, 6, 0), (76, 17)),
        ("RTX-PRO-6000", "580.65.06", (14, 5, 0), (26, 5)),
    ],
)
def test_library_reaches_exactly_the_known_layouts(
    build: Build, board: str, driver: str, ids: tuple[int, ...], expected: tuple[int, int]
) -> None:
    build(board, driver)
    assert reach(ids) == expected


def test_old_driver_has_one_full_layout_less(build: Build) -> None:
    """4g beside 3g is refused before R510."""
    build("A100-SXM4-40GB", "495.29.05")
    assert reach((19, 14, 9, 5, 0)) == (297, 18)
