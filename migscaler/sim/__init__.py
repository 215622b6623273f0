"""A simulated NVML library that refuses what a GPU refuses.

It stands below pynvml and is loaded in the place of the driver's library, so that the code above
runs unchanged. It raises for what it does not model and is never kinder than a driver.

- `node.build_node("6xA100-SXM4-40GB,2xH100-80GB", driver, directory=None, variant=, mig=, seed=,
  clock=)` makes a `SimNode`, in memory or in a directory; `node.open_node(directory)` opens it from
  another process.
- `nvml_library.NvmlLibrary(node, actor=None)` is what pynvml gets; one object per simulated
process.
  After `node.restart_driver("570.86.15")` older objects answer LIB_RM_VERSION_MISMATCH for good.
- Looking: `node.state` (not to be changed), `boot_id`, `rules(gpu)`, `mig_uuid(gpu, gi_id, ci_id)`,
  and `call_log()`, a `core.CallRecord` for every changing call by anyone: its answer, its spec, and
  whether a process was on what it named.
- Jobs: `start_job(gpu, gi_id | mig_uuid | None, memory_mib=, activity=, pid=, name=, user=)`
returns
  the pid; `end_job(pid)`, `set_activity(pid, 0..1)`, `hold_gpu`, `hold_instance`, `release`.
- Incidents: `reboot`, `restart_driver`, `unload_driver`, `reset_gpu`, `lose_gpu`, `raise_xid`,
  `add_ecc_errors`, `foreign_create(gpu, "3g@4")`, `foreign_destroy(gpu, gi_id)`,
  `set_node(privileged=, admin=, vgpu_guest=, confidential=, bare_metal_reset=)`.
- Faults: `node.add_fault(faults.fails("nvmlGpuInstanceDestroy", Code.IN_USE, nth=2))`, also `slow`,
  `hangs` and `loses_answer`; `node.clear_faults()`. Functions are named by their C symbols.
- `workload.Workload(node, seed, speed=480)`: `.step(now)`, `.waiting()`, `.running()`.
- `hook.run_with_hook(directory, ["nvitop-exporter"])` shows the node to any Python program.

GPUs are named by index or UUID everywhere.
"""
