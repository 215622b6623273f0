"""Prints the metrics reference (docs/metrics.md) from the table."""

import sys

from migscaler.metrics.families import FAMILIES, SECTIONS, series_bound
from migscaler.metrics.family import Family, Many
from migscaler.model.catalog import load_catalog

_INTRO = """\
# Metrics

Generated from the table in `migscaler/metrics/` by `make generate`; do not edit.

Every series of a scrape comes from one status, so they all show the same moment; a scrape never
calls NVML. What is unknown is absent, never 0. Closed label sets start at 0. While a plan changes
a GPU, and when the snapshot is too old, the series that could be wrong are absent. GPU series carry
`gpu` (index) and `gpu_uuid`, instance series also `gi_id`, `profile` and `placement` (first memory
slice and length, `4:4`). GPU instance ids are reused: watch `migscaler_gpu_generation`. `/metrics`
also has the `process_*` and `python_info` series of the daemon itself.

The text format 0.0.4 and OpenMetrics 1.0 are served, with gzip if asked for. In OpenMetrics a
counter's family is named without `_total` and an info's without `_info`.
"""

_HEAD = """\
| name | type | unit | labels | meaning | series | from | example query |
|---|---|---|---|---|---|---|---|
"""

_BOUND = """\
## How many series

A GPU adds at most this many series, whatever is done with it
(`migscaler.metrics.families.series_bound`):

| GPU | most series |
|---|---|
{rows}

On top come, once a node, {node} families whose series grow with rules, sources, jobs and NVML
functions, not with GPUs.
"""


def reference() -> str:
    """Return the reference as markdown, ending in one newline."""
    sections = "\n".join(_section(title, rows) for title, rows in SECTIONS)
    return f"{_INTRO}\n{sections}\n{_bound()}"


def _section(title: str, rows: tuple[Family, ...]) -> str:
    """Return one section as a table."""
    lines = "\n".join(map(_line, rows))
    return f"## {title}\n\n{_HEAD}{lines}\n"


def _line(family: Family) -> str:
    """Return one row."""
    labels = ", ".join(f"`{label}`" for label in family.labels)
    meaning = family.help + (" Not on every GPU." if family.optional else "")
    cells = (
        f"`{family.name}`",
        family.kind.value,
        family.unit,
        labels,
        meaning,
        family.many.value,
        family.origin,
        f"`{family.example}`",
    )
    return "| " + " | ".join(cells) + " |"


def _bound() -> str:
    """Return the published bounds, one row per board that differs in size."""
    bounds: dict[int, list[str]] = {}
    for board in load_catalog().boards:
        name = board.product_names[0].removeprefix("NVIDIA ")
        bounds.setdefault(series_bound(board.model()), []).append(name)
    rows = "\n".join(f"| {', '.join(names)} | {most} |" for most, names in sorted(bounds.items()))
    node = sum(family.many is Many.NODE for family in FAMILIES)
    return _BOUND.format(rows=rows, node=node)


if __name__ == "__main__":
    sys.stdout.write(reference())
