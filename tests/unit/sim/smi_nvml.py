"""What nvidia-smi does, in nvidia-ml-py calls, for the tests that replay transcripts."""

from ctypes import byref, c_uint
from typing import Any

import pynvml

Handle = Any


def gpu(index: int = 0) -> Handle:
    return pynvml.nvmlDeviceGetHandleByIndex(index)


def cgi(*profile_ids: int, index: int = 0) -> list[Handle]:
    """Create GPU instances from left to right, each at the driver's choice."""
    return [pynvml.nvmlDeviceCreateGpuInstance(gpu(index), one) for one in profile_ids]


def cgi_at(profile_id: int, start: int, size: int, index: int = 0) -> Handle:
    place = pynvml.c_nvmlGpuInstancePlacement_t(start=start, size=size)
    return pynvml.nvmlDeviceCreateGpuInstanceWithPlacement(gpu(index), profile_id, byref(place))


def lgi(index: int = 0) -> list[tuple[int, int, int, int]]:
    """List GPU instances as (profile id, GI id, start, size), by start."""
    found = []
    for enum in range(pynvml.NVML_GPU_INSTANCE_PROFILE_COUNT):
        try:
            profile = pynvml.nvmlDeviceGetGpuInstanceProfileInfo(gpu(index), enum, version=1)
        except pynvml.NVMLError_NotSupported:
            continue
        room = (pynvml.c_nvmlGpuInstance_t * profile.instanceCount)()
        count = c_uint()
        pynvml.nvmlDeviceGetGpuInstances(gpu(index), profile.id, room, byref(count))
        for slot in range(count.value):
            info = pynvml.nvmlGpuInstanceGetInfo(room[slot])
            found.append((info.profileId, info.id, info.placement.start, info.placement.size))
    return sorted(found, key=lambda entry: entry[2])


def lgipp(profile_id: int, index: int = 0) -> list[tuple[int, int]]:
    """List a profile's placements as (start, size)."""
    count = c_uint()
    pynvml.nvmlDeviceGetGpuInstancePossiblePlacements(gpu(index), profile_id, None, byref(count))
    room = (pynvml.c_nvmlGpuInstancePlacement_t * count.value)()
    pynvml.nvmlDeviceGetGpuInstancePossiblePlacements(gpu(index), profile_id, room, byref(count))
    return [(place.start, place.size) for place in room]


def full_ci(gi: Handle, ci_profile: int = 0) -> Handle:
    return pynvml.nvmlGpuInstanceCreateComputeInstance(gi, ci_profile)


def uuid_of(ci: Handle) -> str:
    return str(pynvml.nvmlDeviceGetUUID(pynvml.nvmlComputeInstanceGetInfo(ci).device))


def mig_walk(index: int = 0) -> list[int]:
    """Return the MIG device indices that answer."""
    found = []
    for one in range(pynvml.nvmlDeviceGetMaxMigDeviceCount(gpu(index))):
        try:
            pynvml.nvmlDeviceGetMigDeviceHandleByIndex(gpu(index), one)
        except pynvml.NVMLError_NotFound:
            continue
        found.append(one)
    return found
