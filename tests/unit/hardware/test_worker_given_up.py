"""A process that was given up on and can't be ended: its call may still come through."""

import weakref
from functools import partial

import pytest

from migscaler.errors import DeadlineExceeded, HardwareError
from migscaler.hardware.roll_call import GpuAnswer
from migscaler.hardware.worker import NvmlWorker
from migscaler.hardware.worker_messages import Reply, Request
from migscaler.model.ids import GiId, GpuUuid
from migscaler.model.stats import CallStats
from tests.unit.store.fixed_clock import FixedClock

ILL, WELL = (GpuUuid(f"GPU-00000000-0000-0000-0000-00000000000{n}") for n in (1, 2))
HANGS, WORKS = True, False


class Stuck:
    """A worker's process that sits inside a driver call: killed, but not gone before it returns."""

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
        with pytest.raises(HardwareError, match="process 7, given up on over this GPU, has not"):
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


def test_process_given_up_on_is_forgotten_once_it_has_ended_though_nothing_is_changed() -> None:
    """Where a GPU hung for weeks, each process given up on stayed, with all it had read."""
    made: list[weakref.ref[Stuck]] = []
    clock = FixedClock()
    worker = NvmlWorker(clock)

    def start(_seconds: float) -> Stuck:
        one = Stuck(len(made) + 1, hangs=HANGS)
        # The third sits inside its call; the others end at once.
        one.returned = len(made) != 2
        made.append(weakref.ref(one))
        return one

    worker._start = start
    for _ in range(6):
        with pytest.raises(DeadlineExceeded):
            worker._main.ask(ILL, "read_index", 0, kind=GpuAnswer, seconds=1.0)
        clock.advance(3_600.0)

    assert [one() is not None for one in made] == [False, False, True, False, False, True]
