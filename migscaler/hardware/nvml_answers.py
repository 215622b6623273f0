"""What NVML answers, as plain values; handles stay opaque and live for one pass only."""

from dataclasses import dataclass
from typing import NewType

Device = NewType("Device", object)
"""Handle of a GPU or a MIG device; never equal to another handle of the same thing."""

GiHandle = NewType("GiHandle", object)
"""Handle of a GPU instance; dies with it, and the value may be reused."""

CiHandle = NewType("CiHandle", object)
"""Handle of a compute instance; dies with it, and the value may be reused."""

SampleHandle = NewType("SampleHandle", object)
"""Buffer of one GPM sample."""

EventSetHandle = NewType("EventSetHandle", object)
"""Set of events that the driver fills."""

# nvmlReturn_t, nvml.h
INVALID_ARGUMENT = 2
NOT_SUPPORTED = 3
NO_PERMISSION = 4
NOT_FOUND = 6
TIMEOUT = 10
FUNCTION_NOT_FOUND = 13
RESET_REQUIRED = 16
IN_USE = 19
ARGUMENT_VERSION_MISMATCH = 25
NOT_A_MIG_ID = 0xFFFFFFFF
"""Instance id of a process that runs on no instance."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ProfileInfo:
    """A GPU instance profile; `name` is None below the v2 struct. NVML's MB are MiB."""

    profile_id: int
    enum_value: int
    slices: int
    instances: int
    sm_count: int
    memory_mib: int
    copy_engines: int
    decoders: int
    encoders: int
    jpegs: int
    ofas: int
    name: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ComputeProfileInfo:
    """A compute instance profile of one GPU instance profile."""

    profile_id: int
    enum_value: int
    slices: int
    instances: int
    sm_count: int


@dataclass(frozen=True, slots=True, kw_only=True)
class GiInfo:
    """A live GPU instance: its id, profile id and interval of memory slices."""

    gi_id: int
    profile_id: int
    start: int
    size: int


@dataclass(frozen=True, slots=True, kw_only=True)
class CiInfo:
    """A live compute instance; `device` is the handle of its MIG device."""

    ci_id: int
    profile_id: int
    device: Device


@dataclass(frozen=True, slots=True, kw_only=True)
class ProcessRow:
    """One process as reported; ids are None where it runs on no instance, bytes where unknown."""

    pid: int
    gi_id: int | None
    ci_id: int | None
    used_memory_bytes: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Memory:
    """Memory of a GPU or instance in bytes."""

    total_bytes: int
    used_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class PciInfo:
    """Bus id `00000000:01:00.0`, and device id over vendor id 0x20B010DE (nvmlPciInfo_t)."""

    bus_id: str
    device_id: int


@dataclass(frozen=True, slots=True, kw_only=True)
class GpuEvent:
    """An event of a GPU; for a critical XID error `data` is its number."""

    device: Device
    kind: int
    data: int
