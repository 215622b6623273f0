"""Rows of the metric table about the node's GPUs and instances; all from one snapshot."""

# ruff: noqa: E501 (a table: one row, one line)
# fmt: off

from migscaler.metrics.family import Family, Many, row

_NVML = "NVML"
_FITS = "layout and the model's placements"
_JUDGED = "NVML, scheduler and holds, judged"

NODE: tuple[Family, ...] = (
    row("snapshot_timestamp_seconds", "seconds", "Time at which the snapshot behind all hardware series was taken.", origin="sampler"),
    row("snapshot_stale", "", "1 if the snapshot is too old to be shown or acted on; hardware series are absent then.", origin="sampler"),
    row("driver_info", "", "NVIDIA driver in use; always 1.", Many.NODE, "driver_version", origin=_NVML),
    row("driver_mismatch", "", "1 if the NVML library and the driver are of different versions, as after an upgrade; absent if not known.", origin=_NVML,
        example="migscaler_driver_mismatch == 1"),
    row("gpus", "", "GPUs that the node's snapshot lists.", origin=_NVML),
    row("node_gaps", "", "Things about the node as a whole that could not be read.", origin=_NVML),
    row("processes_visible", "", "1 if all processes of the host can be seen, so that holders can be found.", origin="/proc"),
    row("allocations_known", "", "1 if it is known which instances the scheduler has handed out.", origin="scheduler"),
    row("foreign_owner", "", "1 if another layout manager on the node claims the GPUs.", origin="host"),
    row("pinned_instances", "instances", "Instances that keep their place, by primary reason.", Many.NODE, "reason", origin=_JUDGED,
        example="sum by (reason) (migscaler_pinned_instances)"),
    row("idle_instances", "instances", "Instances proven idle, which a plan may destroy.", origin=_JUDGED),
    row("fragmentation_ratio", "ratio", "Share of the node's free memory slices, averaged over profiles, that no instance of the profile could use.", origin=_FITS),
    row("family_supported", "", "1 if at least one GPU of this node reports the family; for families of instances absent while there is no instance.", Many.NODE, "family", origin="snapshot",
        example="migscaler_family_supported == 0"),
)

GPU: tuple[Family, ...] = (
    row("gpu_info", "", "Identity of a GPU; always 1.", Many.GPU, "model", "pci_bus_id", "minor_number", origin=_NVML,
        example="migscaler_gpu_up * on (gpu_uuid) group_left (model) migscaler_gpu_info"),
    row("gpu_up", "", "1 if the GPU answered in the last sample.", Many.GPU, origin=_NVML, example="migscaler_gpu_up == 0"),
    row("gpu_gaps", "", "Things about the GPU that could not be read in the last sample.", Many.GPU, origin=_NVML),
    row("gpu_mig_enabled", "", "1 if MIG mode is on.", Many.GPU, origin=_NVML, optional=True),
    row("gpu_mig_pending", "", "1 if MIG mode will be on after the next GPU reset.", Many.GPU, origin=_NVML, optional=True,
        example="migscaler_gpu_mig_pending != migscaler_gpu_mig_enabled"),
    row("gpu_memory_total_bytes", "bytes", "Memory of the whole GPU.", Many.GPU, origin=_NVML, optional=True),
    row("gpu_memory_used_bytes", "bytes", "Memory in use on the whole GPU.", Many.GPU, origin=_NVML, optional=True,
        example="migscaler_gpu_memory_used_bytes / migscaler_gpu_memory_total_bytes"),
    row("gpu_power_watts", "watts", "Power draw.", Many.GPU, origin=_NVML, optional=True),
    row("gpu_power_limit_watts", "watts", "Power limit in force.", Many.GPU, origin=_NVML, optional=True),
    row("gpu_energy_joules_total", "joules", "Energy used since the driver was loaded.", Many.GPU, origin=_NVML, optional=True,
        example="rate(migscaler_gpu_energy_joules_total[5m])"),
    row("gpu_temperature_celsius", "celsius", "Temperature of the GPU.", Many.GPU, origin=_NVML, optional=True),
    row("gpu_sm_clock_hertz", "hertz", "SM clock.", Many.GPU, origin=_NVML, optional=True),
    row("gpu_memory_clock_hertz", "hertz", "Memory clock.", Many.GPU, origin=_NVML, optional=True),
    row("gpu_ecc_corrected_errors_total", "errors", "Memory errors corrected since the driver was loaded.", Many.GPU, origin=_NVML, optional=True),
    row("gpu_ecc_uncorrected_errors_total", "errors", "Memory errors that could not be corrected since the driver was loaded.", Many.GPU, origin=_NVML, optional=True),
    row("gpu_xid_last_timestamp_seconds", "seconds", "Time of the last XID error seen, and its number; absent until there was one.", Many.GPU, "xid", origin=_NVML,
        example="time() - migscaler_gpu_xid_last_timestamp_seconds < 3600"),
    row("gpu_utilization_ratio", "ratio", "Share of time in which the GPU was busy; exists only while MIG is off.", Many.GPU, origin=_NVML, optional=True),
    row("gpu_memory_utilization_ratio", "ratio", "Share of time in which memory was read or written; exists only while MIG is off.", Many.GPU, origin=_NVML, optional=True),
    row("gpu_processes", "", "Processes on a GPU without MIG.", Many.GPU, origin=_NVML, optional=True),
    row("gpu_changing", "", "1 while a plan changes the GPU; its layout and instance series are absent meanwhile.", Many.GPU, origin="executor"),
    row("gpu_foreign_change", "", "1 if the last layout change was made by somebody else.", Many.GPU, origin="snapshot"),
    row("gpu_generation", "", "Number of layout changes seen; part of an instance's identity, since GPU instance ids are reused.", Many.GPU, origin="snapshot",
        example="changes(migscaler_gpu_generation[1d])"),
    row("gpu_layout_changed_timestamp_seconds", "seconds", "Time of the last layout change.", Many.GPU, origin="snapshot"),
    row("gpu_layout_info", "", "Layout of the GPU in canonical text, profile@start; always 1.", Many.GPU, "layout", origin=_NVML),
    row("gpu_instances", "instances", "GPU instances that exist.", Many.GPU, origin=_NVML),
    row("gpu_instances_without_compute_instance", "", "GPU instances that nothing can run on, for they have no compute instance.", Many.GPU, origin=_NVML),
    row("gpu_memory_slices", "slices", "Memory slices by state; free ones can still be used, stranded ones by no profile beside the layout.", Many.SLICE_STATE, "state", origin=_JUDGED,
        example='sum by (state) (migscaler_gpu_memory_slices) / ignoring (state) group_left sum (migscaler_gpu_memory_slices)'),
    row("gpu_compute_slices", "slices", "Compute slices by state; as for memory slices.", Many.SLICE_STATE, "state", origin=_JUDGED),
    row("gpu_slice_cover", "", "Per memory slice, the compute slices of the instance that covers it; 0 if none does. Draws the strip.", Many.SLICE, "slice", origin=_NVML),
    row("gpu_fragmentation_ratio", "ratio", "Share of the GPU's free memory slices, averaged over profiles, that no instance of the profile could use; absent if none is free.", Many.GPU, origin=_FITS),
    row("gpu_sm_activity_ratio", "ratio", "SM activity of the whole GPU: its instances weighted by compute slices, idle room counting 0; absent unless known for all.", Many.GPU, origin="GPM", optional=True),
    row("gpu_profile_present_instances", "instances", "Instances of the profile that exist.", Many.PROFILE, "profile", origin=_NVML),
    row("gpu_profile_unused_instances", "instances", "Instances of the profile that a job could take now.", Many.PROFILE, "profile", origin=_JUDGED),
    row("gpu_profile_creatable_instances", "instances", "Instances of the profile alone that could be created now, beside what exists.", Many.PROFILE, "profile", origin=_FITS,
        example="sum by (profile) (migscaler_gpu_profile_creatable_instances)"),
    row("gpu_profile_reachable_instances", "instances", "Instances of the profile alone that could be created if the idle ones were dissolved.", Many.PROFILE, "profile", origin=_FITS),
)

INSTANCE: tuple[Family, ...] = (
    row("instance_info", "", "Identity of an instance, one series per compute instance in it; always 1.", Many.COMPUTE_INSTANCE, "ci_id", "mig_uuid", origin=_NVML,
        example="migscaler_instance_memory_used_bytes * on (gpu_uuid, gi_id) group_left (mig_uuid) migscaler_instance_info"),
    row("instance_memory_used_bytes", "bytes", "Memory in use on the instance.", Many.INSTANCE, origin=_NVML, optional=True),
    row("instance_memory_total_bytes", "bytes", "Memory of the instance.", Many.INSTANCE, origin=_NVML, optional=True),
    row("instance_processes", "", "Processes on the instance.", Many.INSTANCE, origin=_NVML, optional=True),
    row("instance_graphics_activity_ratio", "ratio", "Share of time in which the instance's compute engine was busy.", Many.INSTANCE, "source", origin="GPM", optional=True),
    row("instance_sm_activity_ratio", "ratio", "Share of the instance's SMs that were busy.", Many.INSTANCE, "source", origin="GPM", optional=True,
        example="avg by (profile) (migscaler_instance_sm_activity_ratio)"),
    row("instance_tensor_activity_ratio", "ratio", "Share of time in which the instance's tensor cores were busy.", Many.INSTANCE, "source", origin="GPM", optional=True),
    row("instance_dram_activity_ratio", "ratio", "Share of the instance's memory bandwidth that was used.", Many.INSTANCE, "source", origin="GPM", optional=True),
    row("instance_idle", "", "1 if the instance is proven idle, 0 if it keeps its place for some reason.", Many.INSTANCE, origin=_JUDGED),
    row("instance_pinned_info", "", "Primary reason why the instance keeps its place; always 1, absent when it is idle.", Many.INSTANCE, "reason", origin=_JUDGED,
        example="count by (reason) (migscaler_instance_pinned_info)"),
    row("instance_quiet_since_timestamp_seconds", "seconds", "Time at which the last signal of use ended; absent while there is one.", Many.INSTANCE, origin=_JUDGED),
    row("instance_last_activity_timestamp_seconds", "seconds", "Time at which the instance was last seen in use.", Many.INSTANCE, origin=_JUDGED),
    row("instance_allocation_info", "", "Who the scheduler says the instance belongs to; always 1. The only family whose label values are unbounded over time.", Many.INSTANCE, "holder", origin="scheduler"),
)
