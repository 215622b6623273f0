"""Series being gathered for one exposition, by family."""

from collections.abc import Iterable
from datetime import datetime

from migscaler.metrics.families import BY_SHORT_NAME
from migscaler.metrics.family import Kind
from migscaler.model.stats import Histogram

LabelValues = tuple[str, ...]


class Samples:
    """Series by family and label values; a series given twice keeps its last value.

    Families are named without the prefix. An unknown family or a wrong number of labels is a
    `KeyError` or `ValueError`: a bug that the guard around each part turns into a failed part.
    """

    def __init__(self) -> None:
        self.series: dict[str, dict[LabelValues, float]] = {}
        self.histograms: dict[str, dict[LabelValues, Histogram]] = {}

    def add(self, short: str, value: float | None, *labels: str) -> None:
        """Add a series; unknown values (None, NaN) are left out, never turned into zeros."""
        family = BY_SHORT_NAME[short]
        if len(labels) != len(family.labels):
            raise ValueError(f"{family.name} has labels {family.labels}, not {labels}")
        if value is None or value != value:
            return
        self.series.setdefault(short, {})[labels] = value

    def add_time(self, short: str, at: datetime | None, *labels: str) -> None:
        """Add a time as Unix seconds; an unknown time is left out."""
        self.add(short, None if at is None else at.timestamp(), *labels)

    def add_closed(
        self, short: str, closed: Iterable[str], found: dict[str, float], *leading: str
    ) -> None:
        """Add one series per member of a closed label set, 0 where nothing was found.

        A label value found outside the set is added too: something unforeseen must not be hidden.
        """
        for value in dict.fromkeys((*closed, *found)):
            self.add(short, found.get(value, 0.0), *leading, value)

    def add_histogram(self, short: str, histogram: Histogram) -> None:
        """Add a cumulative histogram; its label names must be those of the family."""
        family = BY_SHORT_NAME[short]
        if family.kind is not Kind.HISTOGRAM:
            raise ValueError(f"{family.name} is no histogram")
        given = dict(histogram.labels)
        if set(given) != set(family.labels):
            raise ValueError(f"{family.name} has labels {family.labels}, not {tuple(given)}")
        values = tuple(given[name] for name in family.labels)
        self.histograms.setdefault(short, {})[values] = histogram

    def present(self) -> frozenset[str]:
        """Return the families that have at least one series."""
        return frozenset((*self.series, *self.histograms))
