"""What the child process is for: hangs, crashes and the driver's comings and goings."""

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from migscaler.errors import DeadlineExceeded, HardwareError
from migscaler.hardware.worker import NvmlWorker, WorkerLimits
from migscaler.model.gpu import Gap
from migscaler.sim import faults
from migscaler.sim.node import SimNode, build_node
from tests.contract.nvml_service import is_running, wait_for
from tests.unit.hardware.rig import QUICK, RealClock, SimulatedRig, SteppedClock, through_worker


def worker_of(rig: SimulatedRig) -> NvmlWorker:
    assert isinstance(rig.reader, NvmlWorker)
    return rig.reader


def has_struck(node: SimNode) -> bool:
    """Whether a call is inside of the first fault, or has been."""
    return node.state.faults[0].times == 0


def test_hanging_gpu_hides_no_other_and_comes_back(tmp_path: Path) -> None:
    clock = SteppedClock()
    with through_worker("3xA100-SXM4-40GB", tmp_path, limits=QUICK, clock=clock) as rig:
        rig.reader.read_node()
        first_child = worker_of(rig).child_pid
        assert first_child is not None
        rig.node.add_fault(faults.hangs("nvmlDeviceGetMigMode", gpu=1))

        hung = rig.reader.read_node()
        why = "read_index did not answer within 4 s"
        assert [gpu.gaps for gpu in hung.gpus] == [(), (Gap(what="gpu", why=why),), ()]
        assert [gpu.instances for gpu in hung.gpus] == [(), None, ()]
        assert hung.gpus[1].uuid == rig.uuids[1]

        left_alone = rig.reader.read_node()
        assert left_alone.gpus[1].gaps == (Gap(what="gpu", why=f"left alone for 30 s more: {why}"),)
        assert worker_of(rig).child_pid != first_child
        assert rig.reader.call_stats().worker_restarts == 1
        wait_for("the process given up is gone", lambda: not is_running(first_child))

        clock.sleep(30)
        assert [gpu.gaps for gpu in rig.reader.read_node().gpus] == [(), (), ()]


def test_hanging_change_is_told_and_leaves_the_gpu_alone(tmp_path: Path) -> None:
    clock = SteppedClock()
    with through_worker("2xA100-SXM4-40GB", tmp_path, limits=QUICK, clock=clock) as rig:
        gi_id = rig.create("1g@0")
        rig.node.add_fault(faults.hangs("nvmlGpuInstanceDestroy"))
        with pytest.raises(DeadlineExceeded, match="destroy_gpu_instance did not answer"):
            rig.destroy(gi_id)
        with pytest.raises(HardwareError, match="left alone for "):
            rig.reader.read_gpu(rig.uuids[0])
        assert rig.reader.read_gpu(rig.uuids[1]).gaps == ()


PATIENT = WorkerLimits(patience_seconds=0.5, stop_seconds=30.0)


@contextmanager
def changing(rig: SimulatedRig, function: str, change: Callable[[], object]) -> Iterator[None]:
    """Make a change of the first GPU that hangs, in a thread; it has ended after the block."""
    done = threading.Event()

    def make() -> None:
        with suppress(HardwareError):
            change()
        done.set()

    rig.node.add_fault(faults.hangs(function, gpu=0))
    thread = threading.Thread(target=make)
    thread.start()
    wait_for("it hangs", lambda: has_struck(rig.node))
    yield
    assert not done.is_set()  # what was read meanwhile was read during the change
    rig.node.clear_faults()
    thread.join(30)
    assert done.is_set()


@pytest.mark.parametrize(
    "function", ["nvmlGpuInstanceDestroy", "nvmlDeviceCreateGpuInstanceWithPlacement"]
)
def test_other_gpus_are_read_while_a_change_hangs(tmp_path: Path, function: str) -> None:
    """Readings waited for the change's deadline of 60 s, and the whole node's series went."""
    with through_worker("2xA100-SXM4-40GB", tmp_path, limits=PATIENT) as rig:
        orphan = rig.create_orphan("1g@0")
        rig.create("3g@4", index=1)
        rig.reader.read_node()
        worker = worker_of(rig)
        first = worker.child_pid
        spec = rig.model().spec("1g@1")

        def change() -> None:
            if "Destroy" in function:
                rig.destroy(orphan)
            else:
                rig.writer.create_gpu_instance(rig.uuids[0], spec)

        with changing(rig, function, change):
            for _ in range(3):
                sick, well = rig.reader.read_node().gpus
                assert sick.instances is None
                (gap,) = sick.gaps
                assert gap.why.startswith("a change of this GPU has been under way for ")
                assert well.gaps == ()
                assert [str(one.instance.spec) for one in well.instances or ()] == ["3g.20gb@4"]
            with pytest.raises(HardwareError, match="has been under way for"):
                rig.reader.read_gpu(rig.uuids[0])
            assert rig.reader.read_gpu(rig.uuids[1]).gaps == ()
            relief = worker.relief_pid
            assert relief is not None
            assert is_running(relief)

        # It came back: the process goes on, and no other has NVML open before the next change.
        rig.create_orphan("1g@3")
        assert not is_running(relief)
        assert (worker.child_pid, worker.relief_pid) == (first, None)
        assert [gpu.gaps for gpu in rig.reader.read_node().gpus] == [(), ()]
        assert rig.reader.call_stats().worker_restarts == 0


def test_hanging_driver_load_is_not_tried_at_every_sample(tmp_path: Path) -> None:
    clock = SteppedClock()
    with through_worker("A100-SXM4-40GB", tmp_path, limits=QUICK, clock=clock) as rig:
        rig.node.add_fault(faults.hangs("nvmlInitWithFlags"))
        with pytest.raises(DeadlineExceeded):
            rig.reader.read_node()
        with pytest.raises(HardwareError, match="left alone for 5 s more"):
            rig.reader.read_node()
        clock.sleep(5.0)
        wait_for("the driver is asked again", lambda: is_well(rig))


def is_well(rig: SimulatedRig) -> bool:
    try:
        return rig.gpu().gaps == ()
    except HardwareError:  # the process given up on may take a moment to end
        return False


def test_slow_gpus_do_not_stretch_a_pass_beyond_its_bound(tmp_path: Path) -> None:
    clock, limits = SteppedClock(), WorkerLimits(read_seconds=60.0, fresh_seconds=60.0)
    with through_worker("4xA100-SXM4-40GB", tmp_path, limits=limits, clock=clock) as rig:
        rig.reader.read_node()

        def take_long() -> None:
            wait_for("it is in the call", lambda: has_struck(rig.node))
            clock.sleep(30.5)
            rig.node.clear_faults()

        rig.node.add_fault(faults.hangs("nvmlDeviceGetMigMode", gpu=1))
        taking_long = threading.Thread(target=take_long)
        taking_long.start()
        node = rig.reader.read_node()
        taking_long.join()

        assert node.gpus[0].gaps == ()
        why = "not asked: the pass took 30 s"
        assert [gpu.gaps for gpu in node.gpus[2:]] == [(Gap(what="gpu", why=why),)] * 2


def test_child_that_crashes_in_a_call_costs_one_reading_of_one_gpu(tmp_path: Path) -> None:
    with through_worker("2xA100-SXM4-40GB", tmp_path) as rig:
        rig.reader.read_node()
        child = worker_of(rig).child_pid
        assert child is not None
        rig.node.add_fault(faults.hangs("nvmlDeviceGetMigMode"))

        def kill() -> None:
            wait_for("it is in the call", lambda: has_struck(rig.node))
            os.kill(child, signal.SIGKILL)

        killing = threading.Thread(target=kill)
        killing.start()
        with pytest.raises(HardwareError, match="the NVML worker ended during read_gpu"):
            rig.reader.read_gpu(rig.uuids[0])
        killing.join()
        with pytest.raises(HardwareError, match="left alone for "):
            rig.reader.read_gpu(rig.uuids[0])
        assert rig.reader.read_gpu(rig.uuids[1]).gaps == ()


def test_child_that_ends_between_two_requests_is_replaced_and_no_gpu_blamed(
    tmp_path: Path,
) -> None:
    with through_worker("2xA100-SXM4-40GB", tmp_path) as rig:
        rig.reader.read_node()
        child = worker_of(rig).child_pid
        assert child is not None
        process = worker_of(rig)._main.process
        assert process is not None
        os.kill(child, signal.SIGKILL)
        # Its first thread may be gone a moment before the others let go of the connection.
        wait_for("its end is seen", process.has_ended)
        assert [gpu.gaps for gpu in rig.reader.read_node().gpus] == [(), ()]
        assert rig.reader.call_stats().worker_restarts == 1


def test_child_ignores_the_signals_of_a_service_stop(tmp_path: Path) -> None:
    with through_worker("A100-SXM4-40GB", tmp_path) as rig:
        rig.reader.read_node()
        child = worker_of(rig).child_pid
        assert child is not None
        os.kill(child, signal.SIGTERM)
        os.kill(child, signal.SIGINT)
        assert rig.gpu().gaps == ()
        assert worker_of(rig).child_pid == child


def test_released_driver_has_no_child_and_refuses_requests_until_resumed(tmp_path: Path) -> None:
    limits = WorkerLimits(stop_seconds=30.0)
    with through_worker("A100-SXM4-40GB", tmp_path, limits=limits) as rig:
        rig.reader.read_node()
        child = worker_of(rig).child_pid
        assert child is not None
        worker_of(rig).release_driver()
        assert not is_running(child)
        with pytest.raises(HardwareError, match="released"):
            rig.reader.read_node()
        worker_of(rig).resume()
        assert rig.gpu().gaps == ()


def test_call_counts_go_on_over_restarts(tmp_path: Path) -> None:
    with through_worker("A100-SXM4-40GB", tmp_path) as rig:
        for _ in range(3):
            rig.reader.read_node()
            worker_of(rig).release_driver()
            worker_of(rig).resume()
        counts = {c.function: c.calls for c in rig.reader.call_stats().functions}
        assert counts["nvmlDeviceGetCount"] == 3
        assert counts["nvmlInit"] == 3


def test_child_carries_none_of_the_heavy_packages(tmp_path: Path) -> None:
    with through_worker("A100-SXM4-40GB", tmp_path) as rig:
        rig.reader.read_node()
        maps = Path(f"/proc/{worker_of(rig).child_pid}/maps").read_text()
        assert [n for n in ("pydantic", "highspy", "uvicorn", "numpy") if n in maps] == []


def test_node_without_driver_is_told_with_its_remedy() -> None:
    worker = NvmlWorker(RealClock())
    with pytest.raises(HardwareError, match="install the NVIDIA driver"):
        worker.read_node()
    worker.close()


PARENT = """
import sys
from pathlib import Path
from tests.unit.hardware.rig import RealClock, SimulatedHost, install_directory
import functools
from migscaler.hardware.worker import NvmlWorker
worker = NvmlWorker(RealClock(), functools.partial(install_directory, sys.argv[1]), SimulatedHost)
worker.read_node()
print(worker.child_pid, flush=True)
worker.read_node()
"""


def test_hung_child_ends_when_its_parent_is_killed(tmp_path: Path) -> None:
    node = build_node("A100-SXM4-40GB", directory=tmp_path)
    node.add_fault(faults.hangs("nvmlDeviceGetMigMode", at_most=60, nth=2))
    with subprocess.Popen(
        [sys.executable, "-c", PARENT, str(tmp_path)],
        stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": os.getcwd()},
    ) as parent:
        assert parent.stdout is not None
        child = int(parent.stdout.readline())
        wait_for("it is in the call", lambda: has_struck(node))
        assert is_running(child)
        parent.kill()
        wait_for("the child has ended", lambda: not is_running(child))
