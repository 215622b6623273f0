"""Activity, memory and power of a simulated GPU, as integrals over the node's clock (seconds)."""

from migscaler.model.catalog import Board
from migscaler.sim.state import GpuState, InstanceState

RESERVED_MIB = 512  # driver's own part on every GPU, about what nvidia-smi -q shows as reserved
# Board power limits by architecture in mW, and the share of it an idle board draws: round figures,
# not measured; only their direction (busy draws more) is meant.
_LIMIT_MW = {7: 400_000, 9: 700_000, 10: 1_000_000}
_SMALL_LIMIT_MW = {4: 165_000, 12: 600_000}
_IDLE_SHARE = 0.14


def instance_activity(gpu: GpuState, gi: InstanceState) -> float:
    """Return how busy an instance is now, 0..1 of the instance."""
    return min(1.0, sum(job.activity for job in gpu.jobs if job.gi_id == gi.id))


def gpu_activity(gpu: GpuState) -> float:
    """Return how busy the whole GPU is now, 0..1, instances weighted by memory slices."""
    if not gpu.jobs:
        return 0.0
    whole = sum(job.activity for job in gpu.jobs if job.gi_id is None)
    parts = sum(
        instance_activity(gpu, gi) * gi.size / gpu.memory_slices for gi in gpu.instances.values()
    )
    return min(1.0, whole + parts)


def settle_instance(gpu: GpuState, gi: InstanceState, now: float) -> None:
    """Bring an instance's integral up to now; call before its processes change."""
    gi.active_seconds += instance_activity(gpu, gi) * max(0.0, now - gi.counted_at)
    gi.counted_at = now


def settle(gpu: GpuState, now: float) -> None:
    """Bring all integrals of a GPU up to now; call before its processes change."""
    elapsed = max(0.0, now - gpu.counted_at)
    activity = gpu_activity(gpu)
    gpu.active_seconds += activity * elapsed
    gpu.energy_mj += _draw_mw(gpu.power_limit_mw, activity) * elapsed
    gpu.counted_at = now
    for gi in gpu.instances.values():
        settle_instance(gpu, gi, now)


def instance_seconds(gpu: GpuState, gi: InstanceState, now: float) -> float:
    """Return an instance's busy seconds since it was made."""
    return gi.active_seconds + instance_activity(gpu, gi) * max(0.0, now - gi.counted_at)


def gpu_seconds(gpu: GpuState, now: float) -> float:
    """Return the GPU's busy seconds since the driver was loaded."""
    return gpu.active_seconds + gpu_activity(gpu) * max(0.0, now - gpu.counted_at)


def energy_mj(gpu: GpuState, now: float) -> int:
    """Return the energy used since the driver was loaded, in mJ."""
    draw = _draw_mw(gpu.power_limit_mw, gpu_activity(gpu))
    return int(gpu.energy_mj + draw * max(0.0, now - gpu.counted_at))


def power_limit_mw(board: Board) -> int:
    """Return the board's power limit in mW."""
    small = _SMALL_LIMIT_MW.get(board.memory_slices)
    return small if small is not None else _LIMIT_MW.get(board.nvml_arch, 700_000)


def power_mw(gpu: GpuState) -> int:
    """Return what the board draws now, in mW."""
    return int(_draw_mw(gpu.power_limit_mw, gpu_activity(gpu)))


def _draw_mw(limit: int, activity: float) -> float:
    return limit * (_IDLE_SHARE + (1 - _IDLE_SHARE) * activity)


def temperature_celsius(gpu: GpuState) -> int:
    """Return the core temperature."""
    return int(31 + 38 * gpu_activity(gpu))


def instance_used_mib(gpu: GpuState, gi: InstanceState) -> int:
    """Return the MiB in use on an instance: its empty baseline and its processes."""
    return gi.baseline_mib + sum(job.memory_mib for job in gpu.jobs if job.gi_id == gi.id)


def gpu_used_mib(gpu: GpuState) -> int:
    """Return the MiB in use on the whole GPU, driver's own part excluded."""
    inside = sum(gi.baseline_mib for gi in gpu.instances.values())
    return 4 + inside + sum(job.memory_mib for job in gpu.jobs)
