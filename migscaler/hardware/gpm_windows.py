"""Activity per instance between two GPM samples, with the older sample kept from pass to pass."""

import math
from dataclasses import dataclass

from migscaler.errors import DriverGone, GpuLost, NvmlError
from migscaler.hardware.nvml_answers import Device, SampleHandle
from migscaler.hardware.nvml_mig_calls import MigCalls
from migscaler.model.gpu import Activity, ActivitySource, GpuInstance
from migscaler.model.ids import GiId, GpuUuid

# NVML_GPM_METRIC_*: graphics/compute engine, SM, any tensor pipe, DRAM bandwidth (nvml.h).
_METRICS = (1, 2, 5, 10)
# Samples must lie 100 ms apart (nvml.h, GPM); an older one than this says nothing of now.
_SHORTEST_SECONDS = 0.1
_LONGEST_SECONDS = 600.0


@dataclass(frozen=True, slots=True, kw_only=True)
class _Older:
    sample: SampleHandle
    taken: float
    activity: Activity | None = None


class GpmWindows:
    """Keeps the last sample of each instance.

    A re-created instance gives garbage differences, and its ids and UUID may be the same as before.
    So the sample of an instance that we change is dropped by `forget`, its neighbors keep theirs;
    and when instances differ that we did not change, somebody else was at work, and all of the GPU
    are dropped.
    """

    def __init__(self) -> None:
        self._older: dict[GpuUuid, dict[GiId, _Older]] = {}
        self._seen: dict[GpuUuid, tuple[GpuInstance, ...]] = {}
        self._touched: dict[GpuUuid, set[GiId]] = {}
        self._spare: list[SampleHandle] = []

    def forget(self, uuid: GpuUuid, gi_id: GiId | None = None) -> None:
        """Drop the sample of an instance that we change, without `gi_id` those of the whole GPU."""
        if gi_id is None:
            self._spare += [older.sample for older in self._older.pop(uuid, {}).values()]
            self._seen.pop(uuid, None)
            self._touched.pop(uuid, None)
            return
        self._touched.setdefault(uuid, set()).add(gi_id)
        older = self._older.get(uuid, {}).pop(gi_id, None)
        if older is not None:
            self._spare.append(older.sample)

    def free_all(self, calls: MigCalls) -> None:
        """Give every buffer back to the driver, before the session ends."""
        for uuid in tuple(self._older):
            self.forget(uuid)
        for sample in self._spare:
            calls.free_sample(sample)
        self.forget_all()

    def forget_all(self) -> None:
        """Drop every sample without returning it to a driver that may be gone."""
        self._older.clear()
        self._seen.clear()
        self._touched.clear()
        self._spare.clear()

    def measure(
        self,
        calls: MigCalls,
        device: Device,
        uuid: GpuUuid,
        instances: tuple[GpuInstance, ...],
        now: float,
    ) -> dict[GiId, Activity]:
        """Take a sample of each instance; return activity where an older one is there.

        `now` is in monotonic seconds. Two calls per instance in the steady state. An instance
        without compute instance yields nothing, nor does one whose sample the driver refuses.
        """
        if not self._is_only_ours(uuid, instances):
            self.forget(uuid)
        self._seen[uuid] = instances
        self._touched.pop(uuid, None)
        kept = self._older.setdefault(uuid, {})
        found = {}
        for instance in instances:
            if not instance.compute_instances:
                continue
            try:
                activity = self._measure_one(calls, device, instance.gi_id, kept, now)
            except (DriverGone, GpuLost):
                raise
            except NvmlError:
                continue  # no figure is a gap of this instance alone; the caller sees it missing
            if activity is not None:
                found[instance.gi_id] = activity
        return found

    def _is_only_ours(self, uuid: GpuUuid, instances: tuple[GpuInstance, ...]) -> bool:
        """Say whether nothing but what we touched differs from the last time."""
        touched = self._touched.get(uuid, set())
        before, now = (
            tuple(one for one in some if one.gi_id not in touched)
            for some in (self._seen.get(uuid, ()), instances)
        )
        return before == now

    def _measure_one(
        self, calls: MigCalls, device: Device, gi_id: GiId, kept: dict[GiId, _Older], now: float
    ) -> Activity | None:
        """Replace the older sample by a new one and compare the two."""
        older = kept.get(gi_id)
        if older is not None and now - older.taken < _SHORTEST_SECONDS:
            # Looked at twice at once (somebody leases, a plan has ended): without a figure every
            # instance would become unknown; what was measured a moment ago is as good.
            return older.activity
        sample = self._spare.pop() if self._spare else calls.new_sample()
        try:
            calls.fill_sample(device, gi_id, sample)
        except NvmlError:
            self._spare.append(sample)
            raise
        kept[gi_id] = _Older(sample=sample, taken=now)
        if older is None:
            return None
        self._spare.append(older.sample)
        seconds = now - older.taken
        if seconds > _LONGEST_SECONDS:
            return None
        activity = _activity(calls.gpm_percent(older.sample, sample, _METRICS), seconds)
        kept[gi_id] = _Older(sample=sample, taken=now, activity=activity)
        return activity


def _activity(percents: tuple[float | None, ...], seconds: float) -> Activity | None:
    """Return ratios; None where no metric was valid."""
    ratios = [ratio_of_percent(percent) for percent in percents]
    if all(ratio is None for ratio in ratios):
        return None
    graphics, sm, tensor, dram = ratios
    return Activity(
        source=ActivitySource.GPM,
        window_seconds=seconds,
        graphics_ratio=graphics,
        sm_ratio=sm,
        tensor_ratio=tensor,
        dram_ratio=dram,
    )


def ratio_of_percent(percent: float | None) -> float | None:
    """Return 0..1; None for what is no percentage. Above 100 happens (129 was seen): clamped."""
    if percent is None or not math.isfinite(percent) or percent < 0:
        return None
    return min(1.0, percent / 100)
