"""Opaque handles as numbers: kind, reset epoch, GPU index, GI id and CI id packed together.

So a handle's value is reused when an instance with the same id comes back, and dies with its object
and with a reset, as with a driver.
"""

from enum import IntEnum

from migscaler.sim.codes import Answered, Code
from migscaler.sim.state import ComputeState, GpuState, InstanceState, NodeState


class Kind(IntEnum):
    """What a handle names."""

    DEVICE = 0x11
    GPU_INSTANCE = 0x12
    COMPUTE_INSTANCE = 0x13
    MIG_DEVICE = 0x14
    GPM_SAMPLE = 0x15
    EVENT_SET = 0x16


def pack(kind: Kind, gpu: GpuState, gi_id: int = 0, ci_id: int = 0) -> int:
    """Return the handle of an object of a GPU."""
    return kind << 48 | (gpu.epoch & 0xFF) << 40 | gpu.index << 28 | gi_id << 16 | ci_id << 8


def kind_of(value: int) -> int:
    """Return the kind of a handle."""
    return value >> 48


def gpu_of(state: NodeState, value: int) -> GpuState:
    """Return the GPU of a handle; GPU_IS_LOST, or INVALID_ARGUMENT for one from before a reset."""
    index = value >> 28 & 0xFFF
    if index >= len(state.gpus):
        raise Answered(Code.INVALID_ARGUMENT)
    gpu = state.gpus[index]
    if gpu.epoch & 0xFF != value >> 40 & 0xFF:
        raise Answered(Code.INVALID_ARGUMENT)
    if gpu.lost:
        raise Answered(Code.GPU_IS_LOST)
    return gpu


def device_of(state: NodeState, value: int) -> GpuState:
    """Return the GPU of a parent handle."""
    if value >> 48 != Kind.DEVICE:
        raise Answered(Code.INVALID_ARGUMENT)
    return gpu_of(state, value)


def instance_of(state: NodeState, value: int, kind: Kind) -> tuple[GpuState, InstanceState]:
    """Return what a handle of a GPU instance, or of something in it, names."""
    if value >> 48 != kind:
        raise Answered(Code.INVALID_ARGUMENT)
    gpu = gpu_of(state, value)
    gi = gpu.instances.get(value >> 16 & 0xFFF)
    if gi is None:
        raise Answered(Code.INVALID_ARGUMENT)
    return gpu, gi


def compute_of(
    state: NodeState, value: int, kind: Kind
) -> tuple[GpuState, InstanceState, ComputeState]:
    """Return what a compute instance handle or a MIG device handle names."""
    gpu, gi = instance_of(state, value, kind)
    ci = gi.compute.get(value >> 8 & 0xFF)
    if ci is None:
        raise Answered(Code.INVALID_ARGUMENT)
    return gpu, gi, ci
