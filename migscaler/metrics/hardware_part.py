"""Series about the node and its GPUs, from the snapshot."""

from collections import Counter
from collections.abc import Sequence

from migscaler.metrics import activity
from migscaler.metrics.family import PIN_REASONS, SLICE_STATES
from migscaler.metrics.fits import Fit, FitBook, layout_of
from migscaler.metrics.samples import Samples
from migscaler.model.gpu import GpuReading, GpuState, InstanceState, NodeSnapshot, PinReason
from migscaler.model.ids import GpuUuid
from migscaler.model.status import Status
from migscaler.planner.layouts import fragmentation_ratio

# A job could take such an instance at once: only the idle timer still runs.
_UNUSED = frozenset({PinReason.SETTLING})


def shown_snapshot(status: Status) -> NodeSnapshot | None:
    """Return the snapshot if it may be shown: old figures are worse than none."""
    return None if status.snapshot_stale else status.snapshot


def withheld_gpus(status: Status) -> frozenset[GpuUuid]:
    """Return the GPUs whose layout is changing, so that no series shows what may be gone."""
    running = () if status.running is None else (status.running.gpu_uuid,)
    return frozenset((*status.withheld, *running))


def gpu_labels(gpu: GpuState) -> tuple[str, str]:
    """Return the labels of every GPU series."""
    return str(gpu.reading.index), gpu.uuid


def add_snapshot(status: Status, out: Samples) -> None:
    """Add the age of what is shown, also when it is too old to be shown."""
    out.add("snapshot_stale", float(status.snapshot_stale))
    out.add("driver_mismatch", status.driver_mismatch)
    if status.snapshot is not None:
        out.add_time("snapshot_timestamp_seconds", status.snapshot.taken_at)


def add_node(status: Status, fits: FitBook, out: Samples) -> None:
    """Add what is known of the node as a whole."""
    snapshot = shown_snapshot(status)
    if snapshot is None:
        return
    if snapshot.driver_version is not None:
        out.add("driver_info", 1, snapshot.driver_version)
    out.add("gpus", len(snapshot.gpus))
    out.add("node_gaps", len(snapshot.gaps))
    out.add("processes_visible", float(snapshot.processes_visible))
    out.add("allocations_known", float(snapshot.allocations_known))
    if snapshot.foreign_owner is not None or snapshot.foreign_owner_unknown is None:
        out.add("foreign_owner", float(snapshot.foreign_owner is not None))
    hidden = withheld_gpus(status)
    shown = [gpu for gpu in snapshot.gpus if gpu.uuid not in hidden]
    seen = [gpu.instances for gpu in shown if gpu.instances is not None]
    if seen or not shown:
        pins = [instance.pin for instances in seen for instance in instances]
        counts = Counter(pin.value for pin in pins if pin is not None)
        out.add_closed("pinned_instances", PIN_REASONS, {k: float(n) for k, n in counts.items()})
        out.add("idle_instances", pins.count(None))
    activity.add_node_activity(shown, fits, out)
    known = [fit for fit in map(fits.fit, shown) if fit is not None]
    if any(fit.fragmentation[1] for fit in known):
        out.add("fragmentation_ratio", float(fragmentation_ratio(f.fragmentation for f in known)))


def add_gpu(status: Status, gpu: GpuState, fits: FitBook, out: Samples) -> None:
    """Add everything of one GPU but its instances."""
    labels, reading = gpu_labels(gpu), gpu.reading
    withheld = gpu.uuid in withheld_gpus(status)
    is_up = gpu.excluded is None and all(gap.what != "gpu" for gap in reading.gaps)
    minor = "" if reading.minor is None else str(reading.minor)
    out.add("gpu_info", 1, *labels, reading.name, reading.pci_bus_id or "", minor)
    out.add("gpu_up", float(is_up), *labels)
    out.add("gpu_gaps", len(reading.gaps), *labels)
    out.add("gpu_changing", float(withheld), *labels)
    out.add("gpu_foreign_changes_total", gpu.foreign_changes, *labels)
    out.add("gpu_generation", gpu.generation, *labels)
    out.add_time("gpu_layout_changed_timestamp_seconds", gpu.changed_at, *labels)
    out.add("gpu_mig_enabled", reading.mig_enabled, *labels)
    out.add("gpu_mig_pending", reading.mig_pending, *labels)
    _add_gauges(reading, labels, out)
    if not withheld and reading.mig_enabled:
        _add_layout(gpu, fits.fit(gpu), labels, out)


def _add_gauges(reading: GpuReading, labels: tuple[str, str], out: Samples) -> None:
    """Add the figures of the whole GPU; utilization only where the GPU is not partitioned."""
    gauges = reading.gauges
    out.add("gpu_memory_total_bytes", gauges.memory_total_bytes, *labels)
    out.add("gpu_memory_used_bytes", gauges.memory_used_bytes, *labels)
    out.add("gpu_power_watts", gauges.power_watts, *labels)
    out.add("gpu_power_limit_watts", gauges.power_limit_watts, *labels)
    out.add("gpu_energy_joules_total", gauges.energy_joules, *labels)
    out.add("gpu_temperature_celsius", gauges.temperature_celsius, *labels)
    out.add("gpu_sm_clock_hertz", gauges.sm_clock_hertz, *labels)
    out.add("gpu_memory_clock_hertz", gauges.memory_clock_hertz, *labels)
    out.add("gpu_ecc_corrected_errors_total", gauges.ecc_corrected, *labels)
    out.add("gpu_ecc_uncorrected_errors_total", gauges.ecc_uncorrected, *labels)
    if gauges.last_xid is not None:
        xid = str(gauges.last_xid)
        out.add_time("gpu_xid_last_timestamp_seconds", gauges.last_xid_at, *labels, xid)
    if reading.mig_enabled:
        return
    out.add("gpu_utilization_ratio", gauges.utilization_ratio, *labels)
    out.add("gpu_memory_utilization_ratio", gauges.memory_utilization_ratio, *labels)
    if reading.processes is not None:
        out.add("gpu_processes", len(reading.processes), *labels)


def _add_layout(gpu: GpuState, fit: Fit | None, labels: tuple[str, str], out: Samples) -> None:
    """Add layout, slices and what fits, as far as they are known."""
    readings, layout = gpu.reading.instances, layout_of(gpu)
    if readings is None or layout is None:
        return
    out.add("gpu_layout_info", 1, *labels, str(layout))
    out.add("gpu_instances", len(readings), *labels)
    without = sum(not one.instance.compute_instances for one in readings)
    out.add("gpu_instances_without_compute_instance", without, *labels)
    if fit is None or gpu.instances is None:
        return
    _add_slices(gpu.instances, fit, labels, out)
    _add_cover(fit, labels, out)
    _add_profiles(gpu.instances, fit, labels, out)
    wasted, whole = fit.fragmentation
    out.add("gpu_fragmentation_ratio", wasted / whole if whole else None, *labels)
    activity.add_gpu_activity(gpu, fit, labels, out)


def _add_slices(
    instances: Sequence[InstanceState], fit: Fit, labels: tuple[str, str], out: Samples
) -> None:
    """Add slices by state; the states of one GPU sum to its slices."""
    model = fit.model
    memory, compute = Counter[str](), Counter[str]()
    for instance in instances:
        state = "idle" if instance.pin is None else "pinned"
        profile = model.find(instance.spec.profile)
        memory[state] += instance.spec.placement.size
        if profile is None:
            return  # a profile that the model never offered: no sum can be trusted
        compute[state] += profile.compute_slices
    memory["stranded"] = fit.stranded.memory_slices
    compute["stranded"] = fit.stranded.compute_slices
    memory["free"] = model.memory_slices - memory.total()
    compute["free"] = model.compute_slices - compute.total()
    for state in SLICE_STATES:
        out.add("gpu_memory_slices", memory[state], *labels, state)
        out.add("gpu_compute_slices", compute[state], *labels, state)


def _add_cover(fit: Fit, labels: tuple[str, str], out: Samples) -> None:
    """Add, per memory slice, the size of the instance on it."""
    for number in range(fit.model.memory_slices):
        spec = next((s for s in fit.layout.specs if s.mask >> number & 1), None)
        profile = None if spec is None else fit.model.find(spec.profile)
        if spec is None or profile is not None:
            size = 0 if profile is None else profile.compute_slices
            out.add("gpu_slice_cover", size, *labels, str(number))


def _add_profiles(
    instances: Sequence[InstanceState], fit: Fit, labels: tuple[str, str], out: Samples
) -> None:
    """Add what there is and what fits, for every profile of the model."""
    present = fit.layout.profiles()
    unused = Counter(
        one.spec.profile
        for one in instances
        if one.reading.instance.usable and (one.pin is None or set(one.pins) <= _UNUSED)
    )
    for profile in fit.model.profiles:
        name = profile.name
        out.add("gpu_profile_present_instances", present[name], *labels, name)
        out.add("gpu_profile_unused_instances", unused[name], *labels, name)
        out.add("gpu_profile_creatable_instances", fit.creatable.get(name), *labels, name)
        out.add("gpu_profile_reachable_instances", fit.reachable.get(name), *labels, name)
