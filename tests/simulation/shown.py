"""Which instances an exposition shows."""

import re

from migscaler.sim.node import SimNode
from tests.simulation.truth import instances

Shown = tuple[str, int, str]
"""GPU UUID, GI id and profile."""

_LABEL = re.compile(r'(\w+)="([^"]*)"')


def present(node: SimNode) -> frozenset[Shown]:
    """Return the instances that are there now."""
    return frozenset((gpu.uuid, gi.id, gi.profile) for gpu, gi in instances(node))


def instance_series(text: str) -> frozenset[Shown]:
    """Return the instances of which a scrape has series."""
    found = set()
    for line in text.splitlines():
        if 'gi_id="' in line:
            labels = dict(_LABEL.findall(line))
            found.add((labels["gpu_uuid"], int(labels["gi_id"]), labels["profile"]))
    return frozenset(found)
