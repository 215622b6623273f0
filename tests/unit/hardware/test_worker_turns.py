"""GPUs that are slow, or hang together: what it costs the others that are well."""

from collections.abc import Callable
from dataclasses import dataclass, field

import pytest

from migscaler.errors import DeadlineExceeded
from migscaler.hardware.roll_call import GpuAnswer, NodeFacts
from migscaler.hardware.worker import NvmlWorker
from migscaler.hardware.worker_messages import Reply, Request
from migscaler.model.gpu import GpuReading, NodeReading
from migscaler.model.ids import GpuUuid
from migscaler.model.stats import CallStats
from tests.builders import NOW
from tests.unit.store.fixed_clock import FixedClock

GPUS = tuple(GpuUuid(f"GPU-00000000-0000-0000-0000-00000000000{n}") for n in range(8))
_PERIOD = 5.0
_STALE = 15.0
_HANGS = 1_000.0


class Played:
    """A process whose answers take as long as told, by GPU."""

    pid = 1
    inherited = ()

    def __init__(self, clock: FixedClock, takes: Callable[[int], float], count: int) -> None:
        self.clock, self.takes, self.count = clock, takes, count

    def ask(self, request: Request, seconds: float) -> Reply:
        if request.name == "begin":
            facts = NodeFacts(
                taken_at=NOW,
                taken_monotonic=self.clock.monotonic(),
                gpu_count=self.count,
                driver_version=None,
                nvml_version=None,
            )
            return Reply(stats=CallStats(), value=facts)
        (index,) = request.arguments
        assert isinstance(index, int)
        self.clock.advance(min(self.takes(index), seconds))
        if self.takes(index) > seconds:
            raise DeadlineExceeded(request.name, seconds)
        reading = GpuReading(index=index, uuid=GPUS[index], name="A", pci_bus_id=None)
        return Reply(stats=CallStats(), value=GpuAnswer(reading=reading))

    def has_ended(self) -> bool:
        return False

    def abandon(self) -> None:
        """End it."""

    def stop(self, seconds: float) -> None:
        """End it."""

    def is_gone(self, seconds: float) -> bool:
        return True


@dataclass(kw_only=True)
class Watched:
    """Samples of a node, every 5 s or once the last one has come back, and how old they got."""

    slow: dict[int, float]
    count: int = 8
    start_seconds: float = 0.0
    clock: FixedClock = field(default_factory=FixedClock)
    hidden: float = 0.0
    readings: list[NodeReading] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.worker = NvmlWorker(self.clock)
        self.worker._start = self._start
        well, self.slow = self.slow, {}
        self.sample()
        self.slow = well

    def _start(self, _seconds: float) -> Played:
        self.clock.advance(self.start_seconds)
        return Played(self.clock, self._takes, self.count)

    def _takes(self, index: int) -> float:
        return self.slow.get(index, 0.01)

    def sample(self) -> NodeReading:
        """Take a sample and wait for the next; until it comes the one before is shown."""
        began = self.clock.monotonic()
        reading = self.worker.read_node()
        now = self.clock.monotonic()
        if self.readings:
            stale_from = max(began, self.readings[-1].taken_monotonic + _STALE)
            self.hidden += max(0.0, now - stale_from)
        self.readings.append(reading)
        self.clock.advance(_PERIOD - (now - began) % _PERIOD)
        return reading

    def watch(self, seconds: float) -> None:
        self.hidden, self.readings = 0.0, []
        end = self.clock.monotonic() + seconds
        while self.clock.monotonic() < end:
            self.sample()

    def shown(self, index: int) -> float:
        """In which share of the samples a GPU answered."""
        found = [reading.gpus[index].gaps == () for reading in self.readings]
        return sum(found) / len(found)


@pytest.mark.parametrize("count", [1, 2, 4])
@pytest.mark.parametrize("seconds", [3.0, 6.0, 8.0, 9.5])
def test_gpus_that_are_slow_hide_none_that_is_well(count: int, seconds: float) -> None:
    """Never excluded, as they answer in time, they hid the node for up to 99 % of an hour."""
    node = Watched(slow=dict.fromkeys(range(count), seconds))
    node.watch(60.0)  # what is slow is learnt by asking

    node.watch(3_600.0)

    assert node.hidden == 0.0
    assert [node.shown(index) for index in range(count, 8)] == [1.0] * (8 - count)
    assert all(node.shown(index) >= 0.12 for index in range(count))


def test_gpu_that_is_a_little_slow_is_in_every_sample() -> None:
    node = Watched(slow={3: 3.0})
    node.watch(600.0)

    assert [node.shown(index) for index in range(8)] == [1.0] * 8


@pytest.mark.parametrize("count", [2, 3])
def test_gpus_that_hang_together_hide_the_others_once_and_not_at_each_attempt(count: int) -> None:
    """They fell due at the same time, and each time the reading was stale as it came back."""
    node = Watched(slow=dict.fromkeys(range(count), _HANGS))
    before = node.clock.monotonic()
    together = node.sample()

    assert node.clock.monotonic() - before >= 10.0 * count
    assert node.readings[-1] is together
    assert [gpu.gaps != () for gpu in together.gpus] == [True] * count + [False] * (8 - count)
    # Read again without them: it is of now.
    assert before + 10.0 * count <= together.taken_monotonic

    node.watch(3_600.0)
    # What was shown before an attempt gets as old as it may while that lasts: a tenth of a second.
    assert node.hidden < 4.0
    assert [node.shown(index) for index in range(count, 8)] == [1.0] * (8 - count)


def test_gpu_that_is_asked_after_one_that_hung_is_not_blamed_for_the_start_of_a_process() -> None:
    """It counted as slow, and was left out as the node was read again without those that are."""
    node = Watched(slow={0: _HANGS, 1: _HANGS}, start_seconds=0.7)

    together = node.sample()

    assert [gpu.gaps != () for gpu in together.gpus] == [True, True] + [False] * 6


def test_gpus_that_hung_are_back_once_they_answer() -> None:
    node = Watched(slow={0: _HANGS, 1: _HANGS})
    node.watch(60.0)
    node.slow = {}
    node.watch(120.0)

    assert [gpu.gaps for gpu in node.readings[-1].gpus] == [()] * 8


def test_gpu_left_out_says_why() -> None:
    node = Watched(slow={0: 8.0})
    node.watch(30.0)

    (why,) = {gap.why for reading in node.readings for gap in reading.gpus[0].gaps}
    assert why == (
        "not asked in this pass: it took 8 s when last asked, and the other GPUs do not wait for it"
    )


@pytest.mark.parametrize("count", [2, 4, 8])
@pytest.mark.parametrize("seconds", [2.0, 3.0, 6.0, 8.0, 9.5])
def test_gpus_that_are_all_slow_take_turns_and_do_not_hide_the_node(
    count: int, seconds: float
) -> None:
    """All were in each reading, and it was too old to be shown: hidden for up to 97 % of an hour.

    Each was read twice as well, and of eight half were only in the half that was thrown away.
    """
    node = Watched(slow=dict.fromkeys(range(count), seconds), count=count)
    node.watch(60.0)

    began = node.clock.monotonic()
    node.watch(3_600.0)

    # No worse than a node with one GPU that is as slow: nothing is newer than its reading.
    assert node.hidden <= 0.45 * (node.clock.monotonic() - began)
    assert all(node.shown(index) >= 0.9 / count for index in range(count))


@pytest.mark.parametrize("prompt", [0, 1])
def test_gpus_that_together_take_a_little_too_long_are_left_out_one_after_the_other(
    prompt: int,
) -> None:
    """It was the same one in every second sample, as if it answered only now and then."""
    node = Watched(slow=dict.fromkeys(range(prompt, 8), 0.75))
    node.watch(60.0)
    node.watch(3_600.0)

    assert node.hidden == 0.0
    assert all(node.shown(index) >= 0.85 for index in range(8))


def test_only_gpu_of_a_node_is_in_every_reading_though_it_is_slow() -> None:
    node = Watched(slow={0: 7.0}, count=1)
    node.watch(20.0)
    node.watch(300.0)

    assert node.shown(0) == 1.0


def test_who_reads_once_gets_all_there_is() -> None:
    """A command has no next reading."""
    clock = FixedClock()
    worker = NvmlWorker(clock)
    worker._start = lambda seconds: Played(clock, lambda index: 7.0 if index < 3 else 0.01, 8)

    assert [gpu.gaps for gpu in worker.read_node().gpus] == [()] * 8
