"""Two processes, the second only while a change takes long: what may never happen at once."""

import random
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from migscaler.errors import DeadlineExceeded, HardwareError
from migscaler.hardware.roll_call import GpuAnswer, NodeFacts
from migscaler.hardware.worker import NvmlWorker, WorkerLimits
from migscaler.hardware.worker_messages import Reply, Request
from migscaler.model.gpu import GpuReading
from migscaler.model.ids import CiId, GiId, GpuUuid
from migscaler.model.ports import Clock
from migscaler.model.stats import CallStats
from tests.builders import NOW
from tests.unit.hardware.rig import RealClock, SteppedClock

GPUS = tuple(GpuUuid(f"GPU-00000000-0000-0000-0000-00000000000{n}") for n in range(3))
READINGS = ("begin", "read_index", "read_gpu")
LIMITS = WorkerLimits(patience_seconds=0.05, mode_patience_seconds=0.3)
UNDER_WAY = "a change of this GPU has been under way for 3 s"


class Node:
    """The processes of one worker, and whatever went on at once that may not."""

    def __init__(self, clock: Clock | None = None) -> None:
        self.mutex = threading.Lock()
        self.open: list[Played] = []
        self.started = 0
        self.changing: GpuUuid | None = None
        self.being_read: list[GpuUuid | None] = []
        self.reading_seconds = 0.0
        self.hangs = threading.Event()
        self.go_on = threading.Event()
        self.gives_up = False
        self.bequeathed: tuple[int, ...] = ()
        self.wrongs: list[str] = []
        self.clock = clock or SteppedClock()
        self.worker = NvmlWorker(self.clock, limits=LIMITS)
        self.worker._start = lambda seconds: Played(self)

    @contextmanager
    def change(self, process: "Played", uuid: GpuUuid) -> Iterator[None]:
        with self.mutex:
            if self.open != [process]:
                self.wrongs.append("changed while another process had NVML open")
            if uuid in self.being_read or self.changing is not None:
                self.wrongs.append("changed while it was read, or another one changed")
            self.changing = uuid
        try:
            yield
        finally:
            with self.mutex:
                self.changing = None

    @contextmanager
    def read(self, uuid: GpuUuid | None) -> Iterator[None]:
        with self.mutex:
            if uuid is not None and uuid == self.changing:
                self.wrongs.append("a half changed GPU was read")
            self.being_read.append(uuid)
        try:
            time.sleep(self.reading_seconds)
            yield
        finally:
            with self.mutex:
                self.being_read.remove(uuid)


class Played:
    """A process that answers at once, but for changes: those wait for `go_on` while they hang."""

    def __init__(self, node: Node) -> None:
        self.node = node
        self.keeps = node.bequeathed
        with node.mutex:
            node.started += 1
            self.pid = node.started
            node.open.append(self)

    @property
    def inherited(self) -> tuple[int, ...]:
        return self.keeps

    def ask(self, request: Request, seconds: float) -> Reply:
        name, arguments = request.name, request.arguments
        if name not in READINGS:
            hangs = self.node.hangs.is_set()
            with self.node.change(self, GpuUuid(str(arguments[0]))):
                time.sleep(random.random() * 0.1)
                if hangs:
                    assert self.node.go_on.wait(60)
                    if self.node.gives_up:
                        raise DeadlineExceeded(name, seconds)
            return Reply(stats=CallStats())
        if name == "begin":
            with self.node.read(None):
                return Reply(stats=CallStats(), value=facts())
        uuid = GPUS[arguments[0]] if isinstance(arguments[0], int) else GpuUuid(str(arguments[0]))
        with self.node.read(uuid):
            reading = GpuReading(index=GPUS.index(uuid), uuid=uuid, name="A", pci_bus_id=None)
            whole = name == "read_index"
            return Reply(stats=CallStats(), value=GpuAnswer(reading=reading) if whole else reading)

    def has_ended(self) -> bool:
        return False

    def abandon(self) -> None:
        self._close()

    def stop(self, seconds: float) -> None:
        self._close()

    def _close(self) -> None:
        with self.node.mutex:
            self.node.open.remove(self)

    def is_gone(self, seconds: float) -> bool:
        return True


def facts() -> NodeFacts:
    return NodeFacts(
        taken_at=NOW, taken_monotonic=0.0, gpu_count=3, driver_version=None, nvml_version=None
    )


def gaps(worker: NvmlWorker) -> list[str]:
    return [" ".join(gap.why for gap in gpu.gaps) for gpu in worker.read_node().gpus]


@contextmanager
def hung_change(
    node: Node, *, mode: bool = False, since: float = 3.0
) -> Iterator[list[HardwareError]]:
    """A change of the first GPU hangs during the block, and has ended after it."""
    errors: list[HardwareError] = []

    def change() -> None:
        try:
            if mode:
                node.worker.set_mig_mode(GPUS[0], enabled=True)
            else:
                node.worker.destroy_gpu_instance(GPUS[0], GiId(1))
        except HardwareError as error:
            errors.append(error)

    node.hangs.set()
    thread = threading.Thread(target=change)
    thread.start()
    while node.changing is None:
        time.sleep(0.005)
    node.clock.sleep(since)
    try:
        yield errors
    finally:
        node.hangs.clear()
        node.go_on.set()
        thread.join(60)
        assert not thread.is_alive()


def test_others_are_read_while_a_change_hangs_and_its_gpu_is_a_gap() -> None:
    node = Node()
    assert gaps(node.worker) == ["", "", ""]
    with hung_change(node):
        found = gaps(node.worker)
        with pytest.raises(HardwareError, match=UNDER_WAY):
            node.worker.read_gpu(GPUS[0])
        assert node.worker.read_gpu(GPUS[1]).gaps == ()
        assert len(node.open) == 2

    assert found == [UNDER_WAY, "", ""]
    assert node.wrongs == []


def test_gpu_not_known_yet_is_not_believed_in_the_middle_of_its_change() -> None:
    """Nothing was read since the start, which settles: its index does not tell which GPU it is."""
    node = Node()
    with hung_change(node):
        reading = node.worker.read_node()
        assert [gpu.uuid for gpu in reading.gpus] == list(GPUS[1:])
        assert [gap.why for gap in reading.gaps] == [f"GPU 0: {UNDER_WAY}"]


def test_relief_ends_with_the_next_reading_or_change_after_the_slow_one() -> None:
    for next_request in ("read", "change"):
        node = Node()
        node.worker.read_node()
        with hung_change(node):
            node.worker.read_node()
            assert node.worker.relief_pid == 2
        if next_request == "read":
            node.worker.read_node()
        else:
            node.worker.destroy_compute_instance(GPUS[1], GiId(1), CiId(0))
        assert [one.pid for one in node.open] == [node.worker.child_pid] == [1]
        assert node.wrongs == []
        assert node.worker.call_stats().worker_restarts == 0


def test_relief_of_a_process_that_was_given_up_on_takes_its_place() -> None:
    node = Node()
    node.worker.read_node()
    node.gives_up = True
    with hung_change(node) as errors:
        node.worker.read_node()
    assert [type(error) for error in errors] == [DeadlineExceeded]
    why = "left alone for 30 s more: destroy_gpu_instance did not answer within 60 s"
    assert gaps(node.worker) == [why, "", ""]
    assert [one.pid for one in node.open] == [node.worker.child_pid] == [2]
    assert node.started == 2
    assert node.worker.call_stats().worker_restarts == 1


def test_change_that_does_not_take_long_needs_no_relief() -> None:
    node = Node()
    node.worker.read_node()
    reading = threading.Thread(target=node.worker.read_node)
    with hung_change(node, since=0.04):
        reading.start()
        reading.join(0.2)
        assert reading.is_alive()
    reading.join(60)
    assert not reading.is_alive()
    assert node.started == 1


def test_mode_change_is_given_more_time_before_another_process_opens_nvml() -> None:
    node = Node(RealClock())
    node.worker.read_node()
    with hung_change(node, mode=True, since=0.0):
        change = node.worker._change_under_way
        assert change is not None
        node.worker.read_node()
        assert time.clock_gettime(time.CLOCK_BOOTTIME) - change.since >= 0.3
    assert node.started == 2


def test_counts_are_given_and_nobody_waits_for_them_while_a_change_hangs() -> None:
    node = Node()
    with hung_change(node):
        assert node.worker.call_stats().worker_restarts == 0
        assert node.worker.child_pid == 1


def test_change_is_made_by_a_process_that_has_what_was_bequeathed_since() -> None:
    """What a relief had inherited counted as inherited by the process that changes GPUs."""
    node = Node()
    node.worker.bequeath(lambda: node.bequeathed)
    with hung_change(node):
        node.bequeathed = (7,)
        node.worker.read_node()
    node.worker.read_node()
    assert [one.inherited for one in node.open] == [()]

    node.worker.destroy_gpu_instance(GPUS[1], GiId(1))

    assert [one.inherited for one in node.open] == [(7,)]


def test_released_driver_leaves_neither_process() -> None:
    node = Node()
    node.worker.read_node()
    with hung_change(node):
        node.worker.read_node()
    node.worker.release_driver()
    assert node.open == []
    with pytest.raises(HardwareError, match="released"):
        node.worker.read_node()


def test_readers_and_writers_at_once_never_meet_on_a_gpu_nor_beside_another_process() -> None:
    node = Node(RealClock())
    node.worker.read_node()  # before it an index does not tell the GPU: read, and not believed
    node.reading_seconds = 0.01
    end = time.monotonic() + 120.0
    unexpected: list[Exception] = []

    def work(seed: int) -> None:
        draw = random.Random(seed)
        while node.started < 12 and time.monotonic() < end:
            time.sleep(draw.random() * 0.03)
            try:
                if seed == 0:
                    node.worker.destroy_gpu_instance(draw.choice(GPUS), GiId(1))
                elif seed == 1:
                    node.worker.read_gpu(draw.choice(GPUS))
                else:
                    node.worker.read_node()
            except HardwareError as error:
                if "has been under way for" not in str(error):
                    unexpected.append(error)
            except Exception as error:  # noqa: BLE001 - a thread of its own would hide it
                unexpected.append(error)

    threads = [threading.Thread(target=work, args=(seed,)) for seed in (0, 0, 1, 1, 2, 2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(180)
    node.worker.close()

    assert unexpected == []
    assert node.wrongs == []
    assert node.started >= 12  # there were reliefs
    assert node.open == []
