"""A worker that can't be started for want of room: an error like any other of the hardware."""

from pathlib import Path

import pytest

from migscaler.errors import DeadlineExceeded, HardwareError
from migscaler.hardware.worker import NvmlWorker
from migscaler.hardware.worker_messages import Reply, Request
from migscaler.model.ids import GpuUuid
from tests.unit.descriptors import no_more_descriptors
from tests.unit.hardware.rig import RealClock
from tests.unit.hardware.test_worker_turns import Played
from tests.unit.store.fixed_clock import FixedClock

GPU = GpuUuid("GPU-00000000-0000-0000-0000-000000000001")


def test_child_for_which_there_is_no_descriptor_is_a_hardware_error_and_blames_no_gpu() -> None:
    """The error of the operating system went through the sampler, and through a plan's step."""
    worker = NvmlWorker(RealClock())
    with no_more_descriptors():
        for _ in range(2):
            with pytest.raises(HardwareError, match="can't be started: Too many open files"):
                worker.read_gpu(GPU)
    assert worker.call_stats().worker_restarts == 0
    assert worker.child_pid is None


def test_child_that_can_not_be_given_what_it_is_to_hold_is_a_hardware_error() -> None:
    worker = NvmlWorker(RealClock())
    worker.bequeath(lambda: (999_999,))  # open nowhere
    with pytest.raises(HardwareError, match="can't be started: Bad file descriptor"):
        worker.read_node()


def test_service_that_can_not_be_asked_for_want_of_descriptors_is_a_hardware_error(
    tmp_path: Path,
) -> None:
    worker = NvmlWorker(RealClock(), address=tmp_path / "worker.sock")
    with (
        no_more_descriptors(),
        pytest.raises(HardwareError, match="can't be asked: Too many open files"),
    ):
        worker.read_node()


class Beginning(Played):
    """A process whose passes do not begin while the driver as a whole is ill."""

    def __init__(self, clock: FixedClock, illness: list[Exception]) -> None:
        super().__init__(clock, lambda _index: 0.01, 2)
        self.illness = illness

    def ask(self, request: Request, seconds: float) -> Reply:
        if request.name == "begin" and self.illness:
            self.clock.advance(seconds)
            raise self.illness[0]
        return super().ask(request, seconds)


@pytest.mark.parametrize(
    "failure", [DeadlineExceeded("begin", 10.0), ConnectionError("it ended during begin")]
)
@pytest.mark.parametrize(("ill_seconds", "most"), [(15, 10), (60, 30), (1_800, 40)])
def test_node_is_read_again_soon_after_the_driver_as_a_whole_has_come_back(
    ill_seconds: int, most: int, failure: Exception
) -> None:
    """It was left alone as one GPU is: after ten minutes of illness for six more, and not read."""
    clock, starts, illness = FixedClock(), list[float](), list[Exception]()
    worker = NvmlWorker(clock)

    def start(_seconds: float) -> Beginning:
        starts.append(clock.monotonic())
        return Beginning(clock, illness)

    worker._start = start
    worker.read_node()
    illness.append(failure)
    began = clock.monotonic()
    while clock.monotonic() < began + ill_seconds:
        with pytest.raises(HardwareError):
            worker.read_node()
        clock.advance(5.0)
    illness.clear()
    well = clock.monotonic()
    while not is_read(worker):
        clock.advance(5.0)

    assert clock.monotonic() - well <= most
    assert len(starts) <= 4 + ill_seconds / 30  # and not at each sample


def is_read(worker: NvmlWorker) -> bool:
    try:
        return worker.read_node().gaps == ()
    except HardwareError:
        return False


@pytest.mark.parametrize("failure", [DeadlineExceeded("start", 30.0), ConnectionError("it ended")])
def test_start_that_fails_is_no_gpu_s_fault_and_is_tried_again_soon(failure: Exception) -> None:
    """Whoever was to be asked next was left alone for 30 s, though it was well."""
    clock, hung, starts = FixedClock(), list[int](), iter([None, failure, None])
    worker = NvmlWorker(clock)

    def start(_seconds: float) -> Played:
        if (failed := next(starts)) is not None:
            raise failed
        return Played(clock, lambda index: 1_000.0 if index in hung else 0.01, 3)

    worker._start = start
    worker.read_node()
    hung.append(0)
    assert [gap.why for gpu in worker.read_node().gpus for gap in gpu.gaps] == [
        "read_index did not answer within 10 s",
        str(failure),
        f"left alone for 5 s more: {failure}",
    ]

    clock.advance(5.0)
    assert [bool(gpu.gaps) for gpu in worker.read_node().gpus] == [True, False, False]
    assert worker.call_stats().worker_restarts == 2


def test_start_that_fails_for_long_is_tried_every_half_minute() -> None:
    """The pause doubled up to ten minutes, in which no GPU was read though the cause had gone."""
    clock, tried = FixedClock(), list[float]()
    worker = NvmlWorker(clock)
    began = clock.monotonic()

    def start(_seconds: float) -> Played:
        tried.append(clock.monotonic() - began)
        raise ConnectionError("it ended")

    worker._start = start
    for _ in range(30):
        with pytest.raises(HardwareError):
            worker.read_node()
        clock.advance(5.0)

    assert tried == [0, 5, 15, 35, 65, 95, 125]
