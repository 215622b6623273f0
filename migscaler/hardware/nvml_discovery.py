"""What a GPU allows, as NVML tells it: profiles, where they may lie, and what limits them."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

from migscaler.errors import ForeignAnswer, NotSupported, NvmlError
from migscaler.hardware.nvml_answers import (
    ARGUMENT_VERSION_MISMATCH,
    FUNCTION_NOT_FOUND,
    INVALID_ARGUMENT,
    Device,
    GiHandle,
    ProfileInfo,
)
from migscaler.hardware.nvml_mig_calls import MigCalls
from migscaler.model.catalog import exclusive_pairs, limiting_engines
from migscaler.model.layout import GpuModel
from migscaler.model.profile import Engines, Profile

Info = TypeVar("Info")

# Enumeration ends at INVALID_ARGUMENT (18 GPU and 9 compute profiles in nvml.h, API 13); this only
# bounds it.
ENUM_BOUND = 64
_MIB_PER_GIB = 1024
# Attribute in the name by NVML_GPU_INSTANCE_PROFILE_* (nvml.h), where the driver gives no name.
_ATTRIBUTES = {
    **dict.fromkeys((7, 8), "+me"),
    **dict.fromkeys((10, 11, 12, 17), "+gfx"),
    **dict.fromkeys((13, 14), "-me"),
    **dict.fromkeys((15, 16), "+me.all"),
}
_ONCE_PER_GPU = ("+me", "+me.all")
_NVL_ENUM = 8  # NVML_COMPUTE_INSTANCE_PROFILE_7_SLICE_NVL


@dataclass(frozen=True, slots=True, kw_only=True)
class ComputeProfiles:
    """Compute instance profiles of one GPU instance profile.

    `full_width` are the ids that take every SM of the GPU instance, the one to create first;
    `others` the rest. `slices` gives the compute slices of each id.
    """

    full_width: tuple[int, ...]
    others: tuple[int, ...]
    slices: tuple[tuple[int, int], ...]


def read_model(
    calls: MigCalls, device: Device, *, name: str, memory_mib: int, branch: int | None
) -> GpuModel:
    """Return what the GPU allows; about three calls per profile, so callers keep the result.

    `memory_mib` is the whole GPU's. The answer holds while MIG mode and driver last.

    Raises:
        NotSupported: profiles can't be read here now (old drivers: while MIG mode is off).
        NoPermission: placements need root or the mig/config capability.
        ForeignAnswer: placements contradict each other.
        NvmlError: any other answer.
    """
    infos = _enumerated(lambda enum_value: calls.gpu_profile(device, enum_value))
    profiles = tuple(
        _profile(info, calls.placements(device, info.profile_id), name, memory_mib)
        for info in infos
    )
    if not profiles:
        raise NotSupported("nvmlDeviceGetGpuInstanceProfileInfo", 3, "NOT_SUPPORTED")
    return GpuModel(
        name=name,
        memory_slices=max(p.starts[-1] + p.memory_slices for p in profiles),
        compute_slices=max(p.compute_slices for p in profiles),
        profiles=profiles,
        engine_totals=limiting_engines(profiles),
        exclusive_pairs=exclusive_pairs(profiles, branch),
    )


def _enumerated(ask: Callable[[int], Info]) -> tuple[Info, ...]:
    """Ask for every enum value until the driver knows no more."""
    found = []
    for enum_value in range(ENUM_BOUND):
        try:
            found.append(ask(enum_value))
        except NotSupported as error:
            if error.code in (FUNCTION_NOT_FOUND, ARGUMENT_VERSION_MISMATCH):
                raise
        except NvmlError as error:
            if error.code != INVALID_ARGUMENT:
                raise
            break
    return tuple(found)


def _profile(
    info: ProfileInfo, placements: tuple[tuple[int, int], ...], gpu_name: str, memory_mib: int
) -> Profile:
    """Combine what NVML says of one profile."""
    sizes = {size for _, size in placements}
    if len(sizes) != 1:
        raise ForeignAnswer(f"profile {info.profile_id} has placements of sizes {sorted(sizes)}")
    (size,) = sizes
    starts = tuple(sorted({start for start, _ in placements}))
    name = (info.name or "").removeprefix("MIG ").strip() or derived_name(info, memory_mib)
    return Profile(
        name=name,
        profile_id=info.profile_id,
        enum_value=info.enum_value,
        compute_slices=info.slices,
        memory_slices=size,
        starts=starts,
        max_instances=max_instances(info, starts, size, gpu_name),
        memory_mib=info.memory_mib,
        sm_count=info.sm_count,
        engines=Engines(
            copy=info.copy_engines,
            decoder=info.decoders,
            encoder=info.encoders,
            jpeg=info.jpegs,
            ofa=info.ofas,
        ),
    )


def derived_name(info: ProfileInfo, memory_mib: int) -> str:
    """Return the name of a profile whose driver gives none (before the v2 struct).

    Raises ForeignAnswer where the GPU's memory is not known (0).

    The GB figure is the memory share rounded up to eighths, times the whole GiB, rounded
    (NVIDIA/mig-parted, vendored go-nvlib `device/mig_profile.go`).
    """
    if not memory_mib:
        raise ForeignAnswer("profiles have no names, and the GPU's memory to derive them is hidden")
    eighths = math.ceil(info.memory_mib * 8 / memory_mib)
    gigabytes = math.floor(eighths / 8 * math.ceil(memory_mib / _MIB_PER_GIB) + 0.5)
    return f"{info.slices}g.{gigabytes}gb{_ATTRIBUTES.get(info.enum_value, '')}"


def max_instances(info: ProfileInfo, starts: tuple[int, ...], size: int, gpu_name: str) -> int:
    """Return how many there can be at once: the driver's figure, never more than intervals allow.

    An A30 reports wrong counts (NVIDIA/mig-parted `pkg/mig/config/known_configs.go` hard-codes that
    board): there, and where the driver says 0, the placements alone decide, and media profiles
    exist once.
    """
    fits, end = 0, 0
    for start in starts:
        if start >= end:
            fits, end = fits + 1, start + size
    if info.instances and "A30" not in gpu_name.split():
        return min(info.instances, fits)
    return 1 if _ATTRIBUTES.get(info.enum_value) in _ONCE_PER_GPU else fits


def read_compute_profiles(calls: MigCalls, gi: GiHandle, sm_count: int | None) -> ComputeProfiles:
    """Return the compute profiles of a live GPU instance that has `sm_count` SMs.

    Full width goes by SM count, not by name: a Hopper 1g with double memory has 26 SMs, its compute
    profile 0 gives 16 and 7 gives 26. Where drivers list 7_SLICE_NVL beside 7_SLICE, it comes last.
    """
    found = _enumerated(lambda enum_value: calls.compute_profile(gi, enum_value))
    full = [p for p in found if p.sm_count == sm_count]
    full.sort(key=lambda p: (p.enum_value == _NVL_ENUM, p.enum_value))
    full_ids = tuple(p.profile_id for p in full)
    return ComputeProfiles(
        full_width=full_ids,
        others=tuple(p.profile_id for p in found if p.profile_id not in full_ids),
        slices=tuple((p.profile_id, p.slices) for p in found),
    )
