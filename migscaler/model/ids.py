"""Identifiers: plain values with a type of their own."""

from typing import NewType

GpuUuid = NewType("GpuUuid", str)
"""UUID of a physical GPU, `GPU-...`; the key of everything kept about it."""

GiId = NewType("GiId", int)
"""NVML GPU instance id; reused at once after a destroy, never an identity by itself."""

CiId = NewType("CiId", int)
"""NVML compute instance id within its GPU instance; reused."""

MigUuid = NewType("MigUuid", str)
"""UUID of a MIG device, `MIG-...`; can come back for another profile."""

PlanId = NewType("PlanId", str)
"""Identifier of one node plan; sorts by time of making."""

RuleName = NewType("RuleName", str)
"""Name of a rule in the configuration."""

SourceName = NewType("SourceName", str)
"""Name of a demand source in the configuration; `scheduler` is the node's own."""
