"""The one table of everything that migscaler exports, in the order in which it is exported."""

from collections.abc import Mapping
from types import MappingProxyType

from migscaler.metrics import families_daemon, families_hardware, families_policy
from migscaler.metrics.family import Family, most_series
from migscaler.model.layout import GpuModel

SECTIONS: tuple[tuple[str, tuple[Family, ...]], ...] = (
    ("Daemon", families_daemon.DAEMON),
    ("Node", families_hardware.NODE),
    ("GPU", families_hardware.GPU),
    ("Instance", families_hardware.INSTANCE),
    ("Demand", families_policy.DEMAND),
    ("Decision", families_policy.DECISION),
    ("Decision by GPU", families_policy.DECISION_GPU),
    ("Acting", families_policy.ACTING),
)
"""(title, rows): the sections of the reference."""

FAMILIES: tuple[Family, ...] = tuple(family for _, rows in SECTIONS for family in rows)

BY_SHORT_NAME: Mapping[str, Family] = MappingProxyType({f.short: f for f in FAMILIES})
"""Rows by name without the prefix."""


def series_bound(model: GpuModel) -> int:
    """Return the most series one GPU of a model can add to a scrape.

    Series of the node, its rules and its sources come on top once.
    """
    return most_series(FAMILIES, model)
