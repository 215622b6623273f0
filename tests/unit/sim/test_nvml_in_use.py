from collections.abc import Callable

import pynvml
import pytest

from migscaler.errors import CommandRefused
from tests.unit.sim.conftest import Build
from tests.unit.sim.smi_nvml import cgi, full_ci, gpu, lgi, mig_walk

A100 = "A100-SXM4-40GB"


def test_gpu_instance_with_a_compute_instance_is_in_use(build: Build) -> None:
    build(A100)
    (gi,) = cgi(19)
    ci = full_ci(gi)
    with pytest.raises(pynvml.NVMLError_InUse):
        pynvml.nvmlGpuInstanceDestroy(gi)
    pynvml.nvmlComputeInstanceDestroy(ci)
    pynvml.nvmlGpuInstanceDestroy(gi)
    assert lgi() == []


def test_compute_instance_with_a_process_is_in_use_until_it_ends(build: Build) -> None:
    node = build(A100)
    (gi,) = cgi(19)
    ci = full_ci(gi)
    pid = node.start_job(0, 13)
    with pytest.raises(pynvml.NVMLError_InUse):
        pynvml.nvmlComputeInstanceDestroy(ci)
    assert node.end_job(pid)
    pynvml.nvmlComputeInstanceDestroy(ci)


def test_client_with_a_handle_leaves_half_a_destroy_and_no_process(build: Build) -> None:
    node = build(A100)
    (gi,) = cgi(19)
    ci = full_ci(gi)
    node.hold_instance(0, 13, "nv-hostengine")
    assert pynvml.nvmlDeviceGetComputeRunningProcesses(gpu()) == []
    pynvml.nvmlComputeInstanceDestroy(ci)
    with pytest.raises(pynvml.NVMLError_InUse):
        pynvml.nvmlGpuInstanceDestroy(gi)
    assert (mig_walk(), lgi()) == ([], [(19, 13, 6, 1)])
    node.release(0)
    pynvml.nvmlGpuInstanceDestroy(gi)


def test_first_instance_is_refused_while_something_holds_the_gpu(build: Build) -> None:
    node = build(A100)
    node.hold_gpu(0, "nsys")
    with pytest.raises(pynvml.NVMLError_InUse):
        cgi(19)
    node.release(0)
    cgi(19)
    node.hold_gpu(0, "nsys")
    cgi(19)
    assert len(lgi()) == 2


def test_job_needs_a_compute_instance_and_memory(build: Build) -> None:
    node = build(A100)
    (gi,) = cgi(19)
    with pytest.raises(CommandRefused, match="compute instance"):
        node.start_job(0, 13)
    full_ci(gi)
    with pytest.raises(CommandRefused, match="memory"):
        node.start_job(0, 13, memory_mib=4864)
    with pytest.raises(CommandRefused, match="MIG mode is on"):
        node.start_job(0)


def test_unprivileged_process_may_look_at_mig_devices_only(build: Build) -> None:
    node = build(A100)
    full_ci(cgi(19)[0])
    node.set_node(privileged=False)
    refused: list[Callable[[], object]] = [
        lambda: cgi(19),
        lambda: pynvml.nvmlDeviceSetMigMode(gpu(), 0),
        lambda: pynvml.nvmlDeviceGetGpuInstanceById(gpu(), 13),
        lambda: pynvml.nvmlDeviceGetGpuInstanceRemainingCapacity(gpu(), 19),
        lambda: pynvml.nvmlDeviceGetComputeRunningProcesses(gpu()),
        lambda: pynvml.nvmlDeviceGetMemoryInfo(gpu()),
        lgi,
    ]
    for call in refused:
        with pytest.raises(pynvml.NVMLError_NoPermission):
            call()
    device = pynvml.nvmlDeviceGetMigDeviceHandleByIndex(gpu(), 0)
    assert pynvml.nvmlDeviceGetGpuInstanceId(device) == 13
    assert pynvml.nvmlDeviceGetMemoryInfo(device).total == 4864 * 1024 * 1024


def test_vgpu_guest_can_not_repartition(build: Build) -> None:
    node = build(A100)
    node.set_node(vgpu_guest=True)
    with pytest.raises(pynvml.NVMLError_NotSupported):
        cgi(19)
    assert pynvml.nvmlDeviceGetVirtualizationMode(gpu()) == 2


def test_vgpu_guest_may_remake_compute_instances_and_no_gpu_instance(build: Build) -> None:
    node = build(A100)
    (gi,) = cgi(9)
    node.set_node(vgpu_guest=True)
    pynvml.nvmlComputeInstanceDestroy(full_ci(gi, 2))
    with pytest.raises(pynvml.NVMLError_NotSupported):
        pynvml.nvmlGpuInstanceDestroy(gi)


def test_nothing_is_changed_under_confidential_computing(build: Build) -> None:
    node = build(A100)
    (gi,) = cgi(9)
    ci = full_ci(gi, 0)
    node.set_node(confidential=True)
    for change in (
        lambda: full_ci(gi, 0),
        lambda: pynvml.nvmlComputeInstanceDestroy(ci),
        lambda: pynvml.nvmlGpuInstanceDestroy(gi),
        lambda: cgi(19),
    ):
        with pytest.raises(pynvml.NVMLError_NotSupported):
            change()


def test_call_log_tells_what_was_hit_and_by_whom(build: Build) -> None:
    node = build(A100)
    (gi,) = cgi(9)
    ci = full_ci(gi, 2)
    node.start_job(0, 2)
    with pytest.raises(pynvml.NVMLError_InUse):
        pynvml.nvmlComputeInstanceDestroy(ci)
    node.foreign_create(0, "1g@0")
    told = [(r.function, r.actor, r.gi_id, r.spec, r.code, r.in_use) for r in node.call_log()]
    create_ci = "nvmlGpuInstanceCreateComputeInstance"
    assert told == [
        ("nvmlDeviceCreateGpuInstance", "test", 2, "3g.20gb@4", 0, False),
        (create_ci, "test", 2, "3g.20gb@4", 0, False),
        ("nvmlComputeInstanceDestroy", "test", 2, "3g.20gb@4", 19, True),
        ("nvmlDeviceCreateGpuInstanceWithPlacement", "foreign", 7, "1g.5gb@0", 0, False),
        (create_ci, "foreign", 7, "1g.5gb@0", 0, False),
    ]
    assert {r.gpu_uuid for r in node.call_log()} == {node.state.gpus[0].uuid}


def test_foreign_tool_meets_the_same_refusals(build: Build) -> None:
    node = build(A100)
    made = node.foreign_create(0, "3g@4")
    with pytest.raises(CommandRefused, match="INSUFFICIENT_RESOURCES"):
        node.foreign_create(0, "1g@5")
    node.start_job(0, made)
    with pytest.raises(CommandRefused, match="IN_USE"):
        node.foreign_destroy(0, made)
    assert lgi() == [(9, 2, 4, 4)]
