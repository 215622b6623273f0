"""Draws a GPU as a strip of memory slices, as wide as its slices whatever the instances are."""

import re
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from migscaler.model.layout import GpuModel, Layout

if TYPE_CHECKING:
    from rich.text import Text

_COLORS = {1: "black on green", 2: "black on cyan", 3: "black on yellow", 4: "white on blue"}
_WHOLE_COLOR = "white on magenta"
_FEWEST_CHARACTERS = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class Bar:
    """Part of a strip, `start` and `size` in memory slices; without compute slices it is free."""

    start: int
    size: int
    label: str = ""
    compute_slices: int = 0


def bars_of(model: GpuModel, layout: Layout) -> tuple[Bar, ...]:
    """Return the bars of a layout, its gaps included."""
    bars = []
    position = 0
    for spec in layout.specs:
        bars += _gap(position, spec.placement.start)
        profile = model.profile(spec.profile)
        bars.append(
            Bar(
                start=spec.placement.start,
                size=spec.placement.size,
                label=profile.size_class,
                compute_slices=profile.compute_slices,
            )
        )
        position = spec.placement.end
    return (*bars, *_gap(position, model.memory_slices))


def slice_width(bars: Iterable[Bar]) -> int:
    """Return the characters of one memory slice that let every label fit its bar."""
    needed = (-(-(len(bar.label) + 1) // bar.size) for bar in bars)
    return max(_FEWEST_CHARACTERS, *needed, _FEWEST_CHARACTERS)


def strip(bars: Iterable[Bar], width: int) -> "Text":
    """Return the strip of one GPU: instances with their labels, dots where nothing is."""
    from rich.text import Text

    edge, dot = ("│", "·") if _speaks_unicode() else ("|", ".")
    drawn = Text(no_wrap=True)
    for bar in bars:
        drawn.append(edge)
        room = bar.size * width - 1
        if bar.compute_slices:
            style = _COLORS.get(bar.compute_slices, _WHOLE_COLOR)
            drawn.append(bar.label[:room].ljust(room), style=style)
        else:
            drawn.append(dot * room)
    drawn.append(edge)
    return drawn


def is_plain(size_class: str) -> bool:
    """Say whether a size class has no attribute and no double memory: 1g, 2g, 3g, 4g, 7g."""
    return re.fullmatch(r"\d+g", size_class) is not None


def _gap(start: int, end: int) -> list[Bar]:
    return [Bar(start=slot, size=1) for slot in range(start, end)]


def _speaks_unicode() -> bool:
    return (sys.stdout.encoding or "").lower().replace("-", "") == "utf8"
