"""A process that was given up on and can't be ended: its call may still come through."""

import contextlib
import weakref
from collections.abc import Callable
from functools import partial

import pytest

from migscaler.errors import DeadlineExceeded, HardwareError
from migscaler.hardware.roll_call import GpuAnswer, NodeFacts
from migscaler.hardware.worker import NvmlWorker
from migscaler.hardware.worker_messages import Reply, Request
from migscaler.model.gpu import GpuReading
from migscaler.model.ids import GiId, GpuUuid
from migscaler.model.stats import CallStats
from tests.builders import NOW
from tests.unit.store.fixed_clock import FixedClock

ILL, WELL = (GpuUuid(f"GPU-00000000-0000-0000-0000-00000000000{n}") for n in (1, 2))
HANGS, WORKS = True, False


class Stuck:
    """A worker's process that sits inside a driver call: killed, but not gone before it returns."""

    inherited = ()

    def __init__(self, pid: int, *, hangs: bool) -> None:
        self.pid, self.hangs, self.returned = pid, hangs, False
        self.asked: list[str] = []

    def ask(self, request: Request, seconds: float) -> Reply:
        self.asked.append(request.name)
        if self.hangs:
            raise DeadlineExceeded(request.name, seconds)
        return Reply(stats=CallStats())

    def has_ended(self) -> bool:
        return False

    def abandon(self) -> None:
        """Kill it, which it does not notice yet."""

    def stop(self, seconds: float) -> None:
        """End it."""

    def is_gone(self, seconds: float) -> bool:
        return self.returned


def node(*processes: Stuck) -> tuple[NvmlWorker, FixedClock]:
    """Return a worker whose processes are these, one after the other."""
    clock, waiting = FixedClock(), iter(processes)
    worker = NvmlWorker(clock)
    worker._start = lambda seconds: next(waiting)
    return worker, clock


def test_gpu_is_neither_changed_nor_judged_while_a_process_given_up_on_over_it_lives() -> None:
    stuck, other = Stuck(7, hangs=HANGS), Stuck(8, hangs=WORKS)
    worker, clock = node(stuck, other)
    with pytest.raises(DeadlineExceeded):
        worker.destroy_gpu_instance(ILL, GiId(1))
    clock.advance(3_600.0)

    for ask in (partial(worker.destroy_gpu_instance, ILL, GiId(2)), partial(worker.read_gpu, ILL)):
        with pytest.raises(HardwareError, match="process 7, given up on when last asked, has not"):
            ask()
    assert other.asked == []

    stuck.returned = True
    worker.destroy_gpu_instance(ILL, GiId(2))
    assert other.asked == ["destroy_gpu_instance"]


def test_other_gpus_are_changed_meanwhile() -> None:
    worker, _clock = node(Stuck(7, hangs=HANGS), other := Stuck(8, hangs=WORKS))
    with pytest.raises(DeadlineExceeded):
        worker.destroy_gpu_instance(ILL, GiId(1))

    worker.destroy_gpu_instance(WELL, GiId(1))

    assert other.asked == ["destroy_gpu_instance"]


@pytest.mark.parametrize("hangs", ["begin", "read_index"])
def test_reading_that_hangs_leaves_one_process_however_long(hangs: str) -> None:
    """Each attempt after a back-off left one more: 16 after two hours, until none could be made."""
    worker, clock, made = sampled(hangs=hangs, ends=lambda: False)
    for _ in range(720):
        with contextlib.suppress(HardwareError):
            worker.read_node()
        clock.advance(60.0)

    assert [one.hung for one in made].count(True) == 1


def test_gpu_is_read_again_once_the_process_given_up_on_has_ended() -> None:
    ended: list[bool] = []
    worker, clock, made = sampled(hangs="read_index", ends=lambda: bool(ended))
    worker.read_node()
    clock.advance(3_600.0)
    why = "process 1, given up on when last asked, has not ended: its call may still come through"
    assert [gap.why for gap in worker.read_node().gpus[0].gaps] == [why]

    ended.append(True)
    made[-1].hangs = None
    assert [gpu.gaps for gpu in worker.read_node().gpus] == [(), ()]


class Sampled:
    """A process that answers for two GPUs, but for one request of the first, which hangs."""

    inherited = ()

    def __init__(self, pid: int, hangs: str | None, ends: Callable[[], bool]) -> None:
        self.pid, self.hangs, self.hung = pid, hangs, False
        self.ends = ends

    def ask(self, request: Request, seconds: float) -> Reply:
        if request.name == self.hangs and request.arguments in ((), (0,)):
            self.hung = True
            raise DeadlineExceeded(request.name, seconds)
        if request.name == "begin":
            return Reply(stats=CallStats(), value=FACTS)
        (index,) = request.arguments
        uuid = (ILL, WELL)[index == 1]
        reading = GpuReading(index=int(index == 1), uuid=uuid, name="A", pci_bus_id=None)
        return Reply(stats=CallStats(), value=GpuAnswer(reading=reading))

    def has_ended(self) -> bool:
        return False

    def abandon(self) -> None:
        """Kill it, which it does not notice yet."""

    def stop(self, seconds: float) -> None:
        """End it."""

    def is_gone(self, seconds: float) -> bool:
        return self.ends()


FACTS = NodeFacts(
    taken_at=NOW, taken_monotonic=0.0, gpu_count=2, driver_version=None, nvml_version=None
)


def sampled(
    *, hangs: str, ends: Callable[[], bool]
) -> tuple[NvmlWorker, FixedClock, list[Sampled]]:
    """Return a worker that has read the node once, before one request began to hang."""
    clock, made = FixedClock(), list[Sampled]()
    worker = NvmlWorker(clock)

    def start(_seconds: float) -> Sampled:
        made.append(Sampled(len(made) + 1, hangs if made else None, ends))
        return made[-1]

    worker._start = start
    worker.read_node()
    made[0].hangs = hangs
    return worker, clock, made


def test_process_given_up_on_is_forgotten_once_it_has_ended_though_nothing_is_changed() -> None:
    """Where a GPU hung for weeks, each process given up on stayed, with all it had read."""
    made: list[weakref.ref[Stuck]] = []
    clock = FixedClock()
    worker = NvmlWorker(clock)

    def start(_seconds: float) -> Stuck:
        one = Stuck(len(made) + 1, hangs=HANGS)
        one.returned = True
        made.append(weakref.ref(one))
        return one

    worker._start = start
    for _ in range(6):
        with pytest.raises(DeadlineExceeded):
            worker._main.ask(ILL, "read_index", 0, kind=GpuAnswer, seconds=1.0)
        clock.advance(3_600.0)

    assert [one() is not None for one in made] == [False] * 5 + [True]
