"""What goes wrong on a node, as both adapters report it."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path

import pytest

from migscaler.errors import DriverGone, GpuLost, InUse, NoPermission, NotSupported
from migscaler.model.gpu import Gap, GpuOwner, ModeChange
from migscaler.sim import faults
from migscaler.sim.codes import Code
from tests.unit.hardware.rig import SimulatedRig, in_process, through_worker

Open = Callable[..., AbstractContextManager[SimulatedRig]]


@pytest.fixture(params=["in process", "through worker"])
def open_rig(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Open]:
    if request.param == "in process":
        yield in_process
    else:
        yield lambda spec, **more: through_worker(spec, tmp_path, **more)


def test_instance_with_a_process_names_it_and_refuses_to_go(open_rig: Open) -> None:
    with open_rig("2xA100-SXM4-40GB") as rig:
        busy, idle = rig.create("1g@0"), rig.create("1g@1")
        pid = rig.node.start_job(0, busy, memory_mib=512)
        processes = rig.instance(busy).processes
        assert processes is not None
        assert [(p.pid, p.used_memory_bytes, p.user) for p in processes] == [
            (pid, 512 * 1024 * 1024, "alice")
        ]
        assert rig.instance(idle).processes == ()
        with pytest.raises(InUse):
            rig.writer.destroy_compute_instance(
                rig.uuids[0], busy, rig.instance(busy).instance.compute_instances[0].ci_id
            )


def test_instance_held_by_a_client_without_process_loses_only_its_compute_instance(
    open_rig: Open,
) -> None:
    with open_rig("A100-SXM4-40GB") as rig:
        gi_id = rig.create("1g@0")
        rig.node.hold_instance(0, gi_id)
        with pytest.raises(InUse):
            rig.destroy(gi_id)
        reading = rig.instance(gi_id)
        assert reading.instance.compute_instances == ()
        assert reading.processes == ()


def test_lost_gpu_stays_listed_with_its_gap_and_the_other_is_read(open_rig: Open) -> None:
    with open_rig("2xA100-SXM4-40GB") as rig:
        before = rig.gpu(0)
        rig.node.lose_gpu(0)
        lost, other = rig.gpu(0), rig.gpu(1)
        why = "nvmlDeviceGetHandleByIndex answered GPU_IS_LOST (15)"
        assert lost.gaps == (Gap(what="gpu", why=why),)
        assert (lost.name, lost.serial, lost.instances) == (before.name, before.serial, None)
        assert other.gaps == ()
        assert other.instances == ()
        with pytest.raises(GpuLost):
            rig.reader.read_gpu(rig.uuids[0])


def test_gpu_lost_before_it_was_known_is_a_gap_of_the_node(open_rig: Open) -> None:
    with open_rig("2xA100-SXM4-40GB") as rig:
        rig.node.lose_gpu(1)
        node = rig.reader.read_node()
        assert [gpu.uuid for gpu in node.gpus] == [rig.uuids[0]]
        assert [gap.what for gap in node.gaps] == ["gpu"]
        assert node.gaps[0].why.startswith("GPU 1: ")


def test_driver_reload_costs_one_reading(open_rig: Open) -> None:
    with open_rig("H100-SXM5-80GB") as rig:
        rig.create("1g@0")
        rig.node.restart_driver()
        with pytest.raises(DriverGone):
            rig.reader.read_node()
        gpu = rig.gpu()
        assert gpu.mig_enabled is False
        assert gpu.instances == ()


def test_missing_driver_says_what_to_do(open_rig: Open) -> None:
    with open_rig("A100-SXM4-40GB") as rig:
        rig.node.unload_driver()
        with pytest.raises(DriverGone, match="modprobe nvidia"):
            rig.reader.read_node()
        rig.node.unload_driver(loaded=True)
        assert rig.gpu().gaps == ()


def test_without_permission_layout_is_unknown_and_changes_are_refused(open_rig: Open) -> None:
    with open_rig("A100-SXM4-40GB") as rig:
        spec = rig.model().spec("1g@0")
        rig.node.set_node(privileged=False)
        gpu = rig.gpu()
        assert gpu.instances is None
        assert "NO_PERMISSION" in {g.what: g.why for g in gpu.gaps}["instances"]
        assert gpu.gauges.power_watts is not None
        with pytest.raises(NoPermission):
            rig.writer.create_gpu_instance(rig.uuids[0], spec)


def test_vgpu_guest_is_recognized_and_can_not_be_changed(open_rig: Open) -> None:
    with open_rig("A100-SXM4-40GB") as rig:
        rig.node.set_node(vgpu_guest=True)
        assert rig.gpu().foreign_owner is GpuOwner.HYPERVISOR
        with pytest.raises(NotSupported):
            rig.create_orphan("1g@0")


def test_confidential_computing_is_recognized_and_nothing_is_changed(open_rig: Open) -> None:
    with open_rig("H100-80GB") as rig:
        rig.node.set_node(confidential=True)
        assert rig.gpu().foreign_owner is GpuOwner.CONFIDENTIAL_COMPUTING
        with pytest.raises(NotSupported):
            rig.create_orphan("1g@0")


@pytest.mark.parametrize(
    ("gpus", "driver"),
    [("H100-80GB", "550.54.14"), ("H100-80GB", "525.85.12"), ("A100-SXM4-40GB", "550.54.14")],
    ids=["off", "driver without the call", "GPU without it"],
)
def test_no_confidential_computing_keeps_no_gpu_back(
    open_rig: Open, gpus: str, driver: str
) -> None:
    with open_rig(gpus, driver=driver) as rig:
        gpu = rig.gpu()
        assert (gpu.foreign_owner, gpu.gaps) == (None, ())
        rig.gpu()
        functions = {one.function: one for one in rig.reader.call_stats().functions}
        asked = functions["nvmlSystemGetConfComputeState"]
        assert (asked.calls, asked.errors) == (1, ())


def test_gpu_without_mig_has_utilization_and_its_own_processes(open_rig: Open) -> None:
    with open_rig("A100-SXM4-40GB", mig=False) as rig:
        pid = rig.node.start_job(0, activity=0.5)
        gpu = rig.gpu()
        assert gpu.instances == ()
        assert gpu.gauges.utilization_ratio == 0.5
        assert [p.pid for p in gpu.processes or ()] == [pid]


def test_gpu_with_mig_has_no_utilization_and_no_processes_of_its_own(open_rig: Open) -> None:
    with open_rig("A100-SXM4-40GB") as rig:
        gpu = rig.gpu()
        assert gpu.gauges.utilization_ratio is None
        assert gpu.processes is None
        assert gpu.gaps == ()


def test_mode_change_on_ampere_is_pending_until_reset(open_rig: Open) -> None:
    with open_rig("A100-SXM4-40GB", mig=False) as rig:
        answer = rig.writer.set_mig_mode(rig.uuids[0], enabled=True)
        assert answer == ModeChange(active=False, pending_on="reset")
        gpu = rig.gpu()
        assert (gpu.mig_enabled, gpu.mig_pending) == (False, True)
        assert gpu.mode_change_needs_reset is True
        rig.node.reset_gpu(0)
        assert rig.gpu().mig_enabled is True
        rig.create("1g@0")
        assert rig.gpu().layout == rig.model().layout("1g@0")


def test_mode_change_on_ampere_with_a_client_waits_for_clients(open_rig: Open) -> None:
    with open_rig("A100-SXM4-40GB", mig=False) as rig:
        rig.node.hold_gpu(0)
        answer = rig.writer.set_mig_mode(rig.uuids[0], enabled=True)
        assert answer == ModeChange(active=False, pending_on="clients")


def test_mode_change_on_hopper_is_live(open_rig: Open) -> None:
    with open_rig("H100-SXM5-80GB", mig=False) as rig:
        assert rig.gpu().mig_enabled is False
        assert rig.writer.set_mig_mode(rig.uuids[0], enabled=True) == ModeChange(active=True)
        gpu = rig.gpu()
        assert gpu.mig_enabled is True
        assert gpu.mode_change_needs_reset is False
        rig.create("7g@0")
        with pytest.raises(InUse):
            rig.writer.set_mig_mode(rig.uuids[0], enabled=False)


def test_broken_gauge_is_a_gap_of_its_own(open_rig: Open) -> None:
    with open_rig("A100-SXM4-40GB") as rig:
        rig.node.add_fault(faults.fails("nvmlDeviceGetPowerUsage", Code.INVALID_STATE))
        gpu = rig.gpu()
        why = "nvmlDeviceGetPowerUsage answered INVALID_STATE (29)"
        assert gpu.gaps == (Gap(what="gauges", why=why),)
        assert gpu.gauges.power_watts is None
        assert gpu.gauges.temperature_celsius is not None
        assert gpu.instances == ()


def test_instances_that_can_not_be_listed_are_unknown_not_none(open_rig: Open) -> None:
    with open_rig("A100-SXM4-40GB") as rig:
        rig.create("1g@0")
        rig.node.add_fault(faults.fails("nvmlDeviceGetGpuInstances", Code.INVALID_STATE))
        gpu = rig.gpu()
        assert gpu.instances is None
        assert [gap.what for gap in gpu.gaps] == ["instances"]


def test_memory_of_an_instance_that_can_not_be_read_is_missing_alone(open_rig: Open) -> None:
    with open_rig("A100-SXM4-40GB") as rig:
        gi_id = rig.create("1g@0")
        rig.node.add_fault(faults.fails("nvmlDeviceGetMemoryInfo_v2", Code.INVALID_STATE, nth=1))
        reading = rig.reader.read_gpu(rig.uuids[0])
        assert reading.instances is not None
        assert reading.instances[0].instance.gi_id == gi_id
        assert reading.instances[0].memory_used_bytes is None
        assert [gap.what for gap in reading.gaps] == ["memory"]


def test_processes_that_can_not_be_listed_are_asked_of_each_mig_device(open_rig: Open) -> None:
    with open_rig("A100-SXM4-40GB") as rig:
        busy, orphan = rig.create("1g@0"), rig.create_orphan("1g@1")
        pid = rig.node.start_job(0, busy)
        name = "nvmlDeviceGetComputeRunningProcesses_v3"
        rig.node.add_fault(faults.fails(name, Code.NO_PERMISSION))
        by_id = {r.instance.gi_id: r.processes for r in rig.gpu().instances or ()}
        assert [p.pid for p in by_id[busy] or ()] == [pid]
        assert by_id[orphan] is None


def test_pid_that_does_not_exist_makes_processes_unknown(open_rig: Open) -> None:
    with open_rig("A100-SXM4-40GB") as rig:
        gi_id = rig.create("1g@0")
        rig.node.start_job(0, gi_id, pid=1_500_000)
        gpu = rig.gpu()
        assert gpu.gaps == (
            Gap(what="processes", why="the driver lists pid 1500000, which does not exist"),
        )
        assert [r.processes for r in gpu.instances or ()] == [None]


def test_last_xid_is_reported_with_its_time(open_rig: Open) -> None:
    with open_rig("A100-SXM4-40GB") as rig:
        assert rig.gpu().gauges.last_xid is None
        rig.node.raise_xid(0, 63)
        rig.node.raise_xid(0, 94)
        gauges = rig.gpu().gauges
        assert gauges.last_xid == 94
        assert gauges.last_xid_at is not None


def test_foreign_change_is_in_the_next_reading(open_rig: Open) -> None:
    with open_rig("A100-SXM4-40GB") as rig:
        assert rig.gpu().instances == ()
        gi_id = rig.node.foreign_create(0, "3g@4")
        assert rig.gpu().layout == rig.model().layout("3g@4")
        rig.node.foreign_destroy(0, gi_id)
        rig.node.foreign_create(0, "2g@4")
        assert rig.gpu().layout == rig.model().layout("2g@4")


def test_lost_answer_of_a_create_leaves_the_instance_to_be_found(open_rig: Open) -> None:
    with open_rig("A100-SXM4-40GB") as rig:
        spec = rig.model().spec("2g@2")
        rig.node.add_fault(faults.loses_answer("nvmlDeviceCreateGpuInstanceWithPlacement"))
        with pytest.raises(GpuLost):
            rig.writer.create_gpu_instance(rig.uuids[0], spec)
        assert rig.gpu().layout == rig.model().layout("2g@2")
