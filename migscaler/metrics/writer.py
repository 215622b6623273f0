"""Writes series in prometheus_client's two text formats, with label texts kept between writes.

The bytes are those of the library's own encoders, which a test compares; only the work of quoting
the same labels again is left out (the library needs 10-16 us a series, this about 1 us).
"""

from collections.abc import Iterator

from migscaler.metrics.collector import histogram_rows, number_text
from migscaler.metrics.families import FAMILIES
from migscaler.metrics.family import Family, Kind
from migscaler.metrics.samples import LabelValues, Samples

END = b"# EOF\n"


class Writer:
    """Writes samples as bytes; keeps the label texts of the last write only.

    Used by one thread at a time. Families come in the order of the table, series as added.
    """

    def __init__(self) -> None:
        # By family: name and quoted labels of each series, up to its value.
        self._texts: dict[str, dict[LabelValues, str]] = {}

    def write(self, samples: Samples, *, openmetrics: bool) -> bytes:
        """Return the text format 0.0.4, or OpenMetrics 1.0 without its last line."""
        lines: list[str] = []
        used: dict[str, dict[LabelValues, str]] = {}
        present = samples.present()
        for family in FAMILIES:
            if family.short in present:
                lines.append(_head(family, openmetrics=openmetrics))
                used[family.short] = self._add_series(family, samples, lines)
                lines.extend(_histogram_lines(family, samples))
        # Labels of instances that are gone must not pile up.
        self._texts = used
        return "".join(lines).encode()

    def kept(self) -> int:
        """Return how many label texts are kept for the next write."""
        return sum(map(len, self._texts.values()))

    def _add_series(
        self, family: Family, samples: Samples, lines: list[str]
    ) -> dict[LabelValues, str]:
        """Append the lines of a family; return the label texts used."""
        name, labels = family.name, family.labels
        known = self._texts.get(family.short, {})
        used: dict[LabelValues, str] = {}
        for values, value in samples.series.get(family.short, {}).items():
            text = known.get(values)
            if text is None:
                text = f"{name}{_quoted(labels, values)} "
            used[values] = text
            lines.append(f"{text}{number_text(value)}\n")
        return used


def _histogram_lines(family: Family, samples: Samples) -> Iterator[str]:
    """Yield the lines of a family's histograms; there are few."""
    for values, histogram in samples.histograms.get(family.short, {}).items():
        for suffix, bound, value in histogram_rows(histogram):
            names, all_values = family.labels, values
            if bound is not None:
                names, all_values = (*names, "le"), (*values, bound)
            text = _quoted(names, all_values)
            yield f"{family.name}{suffix}{text} {number_text(value)}\n"


def _head(family: Family, *, openmetrics: bool) -> str:
    """Return the comment lines of a family."""
    text = family.help.replace("\\", r"\\").replace("\n", r"\n")
    if not openmetrics:
        kind = "gauge" if family.kind is Kind.INFO else family.kind.value
        return f"# HELP {family.name} {text}\n# TYPE {family.name} {kind}\n"
    text = text.replace('"', r"\"")
    head = f"# HELP {family.stem} {text}\n# TYPE {family.stem} {family.kind.value}\n"
    unit = family.declared_unit
    return f"{head}# UNIT {family.stem} {unit}\n" if unit else head


def _quoted(names: tuple[str, ...], values: LabelValues) -> str:
    """Return labels in braces, sorted by name as the library does; nothing without labels."""
    pairs = sorted(zip(names, values, strict=True))
    if not pairs:
        return ""
    return "{" + ",".join(f'{name}="{_escaped(value)}"' for name, value in pairs) + "}"


def _escaped(value: str) -> str:
    return value.replace("\\", r"\\").replace("\n", r"\n").replace('"', r"\"")
