"""Times, layouts and counts in words, the same in gates, sentences and explanations."""

from datetime import datetime, timedelta
from itertools import groupby

from migscaler.model.gpu import GpuState
from migscaler.model.layout import GpuModel, Layout


def clock_text(moment: datetime, now: datetime) -> str:
    """Return `14:02 UTC`, with the date if it isn't today."""
    utc = moment.astimezone(now.tzinfo)
    shape = "%H:%M UTC" if utc.date() == now.date() else "%Y-%m-%d %H:%M UTC"
    return utc.strftime(shape)


def span_text(span: timedelta) -> str:
    """Return `45 s`, `10 min`, `3 h`, rounded down."""
    seconds = int(span.total_seconds())
    if seconds < 120:
        return f"{seconds} s"
    return f"{seconds // 60} min" if seconds < 7200 else f"{seconds // 3600} h"


def layout_text(model: GpuModel | None, layout: Layout) -> str:
    """Return the sizes from left to right, `3g+3g` or `4g+3x1g`; `nothing` for an empty GPU."""
    sizes = []
    for spec in layout.specs:
        profile = None if model is None else model.find(spec.profile)
        sizes.append(spec.profile if profile is None else profile.size_class)
    words = []
    for size, run in groupby(sizes):
        count = len(list(run))
        words += [size] * count if count < 3 else [f"{count}x{size}"]
    return "+".join(words) or "nothing"


def gpu_text(state: GpuState) -> str:
    """Return `GPU 3`."""
    return f"GPU {state.reading.index}"


def listed(words: list[str]) -> str:
    """Return `a`, `a and b`, or `a, b and c`."""
    if len(words) < 2:
        return "".join(words)
    return f"{', '.join(words[:-1])} and {words[-1]}"
