"""A process that the GPU lists is on one of its instances, or nothing is known of any."""

from migscaler.hardware.nvml import NvmlReader
from migscaler.sim.codes import Code
from migscaler.sim.faults import fails
from migscaler.sim.state import Job
from tests.unit.hardware.rig import (
    FIRST_SIMULATED_PID,
    SimulatedHost,
    SimulatedRig,
    in_process,
)


class BlindHost(SimulatedHost):
    """In a PID namespace of its own, where a process of the same number is another one."""

    def visible(self) -> bool:
        return False


STRANGER = FIRST_SIMULATED_PID + 77


def start_unplaced(rig: SimulatedRig) -> None:
    """Let the GPU list a process without saying on which instance it is."""
    with rig.node.changing() as state:
        state.gpus[0].jobs.append(Job(STRANGER, "python3", "alice", 300, 0.5, None, None))


def test_process_that_no_instance_owns_up_to_makes_all_of_them_unknown() -> None:
    """It was asked for at each MIG device, found on none, and every instance passed for free."""
    with in_process("A100-SXM4-40GB") as rig:
        first, second = rig.create("3g.20gb@0"), rig.create("3g.20gb@4")
        start_unplaced(rig)
        assert rig.instance(first).processes is None
        assert rig.instance(second).processes is None
        assert [gap.what for gap in rig.gpu().gaps] == ["processes"]


def test_processes_found_on_mig_devices_are_believed_where_the_gpu_itself_may_not_be_asked() -> (
    None
):
    with in_process("A100-SXM4-40GB") as rig:
        first, second = rig.create("3g.20gb@0"), rig.create("3g.20gb@4")
        pid = rig.node.start_job(0, int(first))
        rig.node.add_fault(
            fails("nvmlDeviceGetComputeRunningProcesses_v3", Code.NO_PERMISSION, nth=1)
        )
        instances = rig.gpu().instances or ()
        found = {one.instance.gi_id: one.processes for one in instances}
        assert [one.pid for one in found[first] or ()] == [pid]
        assert found[second] == ()


def test_nobody_is_named_without_the_hosts_pid_namespace() -> None:
    """A pid of the host was looked up among the container's own processes."""
    with in_process("A100-SXM4-40GB") as rig:
        gi_id = rig.create("3g.20gb@0")
        pid = rig.node.start_job(0, int(gi_id))
        blind = NvmlReader(rig.clock, BlindHost()).read_gpu(rig.uuids[0])

    (one,) = blind.instances or ()
    assert [(p.pid, p.name, p.user) for p in one.processes or ()] == [(pid, None, None)]
