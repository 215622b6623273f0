"""Series about GPU instances, from the snapshot."""

from migscaler.metrics.hardware_part import gpu_labels
from migscaler.metrics.samples import Samples
from migscaler.model.gpu import GpuState, InstanceState, NodeSnapshot


def add_instances(snapshot: NodeSnapshot, gpu: GpuState, out: Samples) -> None:
    """Add the series of every instance of one GPU."""
    for instance in gpu.instances or ():
        spec = instance.spec
        place = str(spec.placement)
        labels = (*gpu_labels(gpu), str(instance.gi_id), spec.profile, place)
        _add_readings(instance, labels, out)
        _add_verdict(snapshot, instance, labels, out)


def _add_readings(instance: InstanceState, labels: tuple[str, ...], out: Samples) -> None:
    """Add identity, memory, processes and activity as read."""
    reading = instance.reading
    for compute in reading.instance.compute_instances:
        out.add("instance_info", 1, *labels, str(compute.ci_id), compute.mig_uuid or "")
    out.add("instance_memory_used_bytes", reading.memory_used_bytes, *labels)
    out.add("instance_memory_total_bytes", reading.memory_total_bytes, *labels)
    if reading.processes is not None:
        out.add("instance_processes", len(reading.processes), *labels)
    activity = reading.activity
    if activity is not None:
        source = activity.source.value
        out.add("instance_graphics_activity_ratio", activity.graphics_ratio, *labels, source)
        out.add("instance_sm_activity_ratio", activity.sm_ratio, *labels, source)
        out.add("instance_tensor_activity_ratio", activity.tensor_ratio, *labels, source)
        out.add("instance_dram_activity_ratio", activity.dram_ratio, *labels, source)
        for field, ratio in activity.raw:
            if ratio > 1:
                out.add("instance_activity_raw_ratio", ratio, *labels, field)


def _add_verdict(
    snapshot: NodeSnapshot, instance: InstanceState, labels: tuple[str, ...], out: Samples
) -> None:
    """Add whether and why the instance keeps its place, and whose it is."""
    out.add("instance_idle", float(instance.pin is None), *labels)
    if instance.pin is not None:
        out.add("instance_pinned_info", 1, *labels, instance.pin.value)
    quiet = snapshot.wall_time(instance.quiet_since_monotonic)
    out.add_time("instance_quiet_since_timestamp_seconds", quiet, *labels)
    unused = snapshot.wall_time(instance.held_unused_since_monotonic)
    out.add_time("instance_held_unused_since_timestamp_seconds", unused, *labels)
    out.add_time("instance_last_activity_timestamp_seconds", instance.last_activity_at, *labels)
    if instance.claim is not None:
        out.add("instance_allocation_info", 1, *labels, instance.claim.owner)
