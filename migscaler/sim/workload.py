"""A day's jobs for a simulated node: they arrive, wait for an instance, run and leave.

Arrivals and lengths depend only on the seed and the kinds, not on how often `step` is called, so
that two policies can be compared on the same day.
"""

import heapq
import random
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field

from migscaler.errors import CommandRefused
from migscaler.sim.node import SimNode
from migscaler.sim.state import GpuState, InstanceState

# Arrivals by hour of the day, as multiples of a kind's mean rate.
OFFICE = (
    0.1, 0.1, 0.1, 0.1, 0.1, 0.1, 0.2, 0.5, 1.4, 2.2, 2.4, 2.2,
    1.6, 2.0, 2.4, 2.2, 1.9, 1.5, 1.0, 0.7, 0.4, 0.3, 0.2, 0.2,
)  # fmt: skip
NIGHT = (
    1.4, 1.2, 1.0, 0.8, 0.6, 0.4, 0.3, 0.3, 0.3, 0.4, 0.5, 0.5,
    0.5, 0.6, 0.6, 0.8, 1.2, 1.8, 2.2, 2.4, 2.2, 2.0, 1.8, 1.6,
)  # fmt: skip
_HOUR = 3600.0
_DAY = 24 * _HOUR


@dataclass(frozen=True, slots=True, kw_only=True)
class JobKind:
    """Jobs of one size class (`1g`, `3g`): how many an hour, when, and how long they take.

    `curve` has 24 factors, one an hour; `memory_share` is of the instance's memory.
    """

    size: str
    per_hour: float
    mean_minutes: float
    curve: tuple[float, ...] = OFFICE
    activity: float = 0.8
    memory_share: float = 0.5


NOTEBOOKS_AND_TRAINING = (
    JobKind(size="1g", per_hour=8, mean_minutes=50),
    JobKind(size="2g", per_hour=2, mean_minutes=70),
    JobKind(size="3g", per_hour=1.5, mean_minutes=100, curve=NIGHT),
    JobKind(size="7g", per_hour=0.5, mean_minutes=150, curve=NIGHT),
)


@dataclass(frozen=True, slots=True)
class QueuedJob:
    """A job; `arrived` in seconds of the workload's time, `seconds` how long it runs."""

    number: int
    kind: JobKind
    arrived: float
    seconds: float


@dataclass(slots=True)
class Tally:
    """What happened so far; `wait_seconds` is the sum over started jobs, in the workload's time."""

    arrived: int = 0
    started: int = 0
    finished: int = 0
    lost: int = 0
    wait_seconds: float = 0.0


def anything_goes(gpu_uuid: str, gi_id: int) -> bool:
    """Allow every instance."""
    return True


@dataclass
class Workload:
    """Seeded jobs on a node.

    `now` of `step` is any clock in seconds; the workload's own time starts at `start_hour` of a day
    at the first step and runs `speed` times as fast, so that 480 makes a day of three minutes.
    `may_use` may keep jobs off an instance (GPU UUID, GI id). All jobs get `pid` if one is given.
    """

    node: SimNode
    seed: int
    kinds: tuple[JobKind, ...] = NOTEBOOKS_AND_TRAINING
    speed: float = 1.0
    start_hour: float = 7.0
    may_use: Callable[[str, int], bool] = anything_goes
    pid: int | None = None
    tally: Tally = field(default_factory=Tally)

    def __post_init__(self) -> None:
        """Draw the first arrival of each kind."""
        self._origin: float | None = None
        self._time = self.start_hour * _HOUR
        self._numbers = 0
        self._queues: dict[str, deque[QueuedJob]] = {kind.size: deque() for kind in self.kinds}
        self._running: list[tuple[float, int, int, str]] = []
        self._draws = [random.Random(f"{self.seed}/{n}") for n in range(len(self.kinds))]
        self._next = [self._after(n, self._time) for n in range(len(self.kinds))]

    def step(self, now: float) -> None:
        """Let everything happen that is due by now, in order of time."""
        if self._origin is None:
            self._origin = now
        until = self.start_hour * _HOUR + (now - self._origin) * self.speed
        while (due := self._next_due()) is not None and due <= until:
            self._time = due
            self._finish_due()
            self._arrive_due()
            self._place_all()
        self._time = until
        self._place_all()

    def waiting(self) -> dict[str, int]:
        """Return how many jobs wait, by size class; every size of the workload is there."""
        return {size: len(queue) for size, queue in self._queues.items()}

    def running(self) -> dict[str, int]:
        """Return how many jobs run, by size class."""
        sizes = [size for _, _, _, size in self._running]
        return {size: sizes.count(size) for size in self._queues}

    def hour(self) -> float:
        """Return the workload's hour of the day, 0..24."""
        return self._time % _DAY / _HOUR

    def _next_due(self) -> float | None:
        ends = [self._running[0][0]] if self._running else []
        return min([*ends, *self._next], default=None)

    def _after(self, number: int, start: float) -> float:
        """Draw the next arrival of a kind, by thinning the highest rate of its day."""
        kind, draw = self.kinds[number], self._draws[number]
        peak = max(kind.curve)
        if kind.per_hour <= 0 or peak <= 0:
            return float("inf")
        time = start
        while True:
            time += draw.expovariate(kind.per_hour * peak / _HOUR)
            if draw.random() * peak <= kind.curve[int(time % _DAY / _HOUR)]:
                return time

    def _arrive_due(self) -> None:
        for number, kind in enumerate(self.kinds):
            while self._next[number] <= self._time:
                arrived = self._next[number]
                seconds = self._draws[number].expovariate(1 / (kind.mean_minutes * 60))
                self._numbers += 1
                job = QueuedJob(self._numbers, kind, arrived, max(60.0, seconds))
                self._queues[kind.size].append(job)
                self.tally.arrived += 1
                self._next[number] = self._after(number, arrived)

    def _finish_due(self) -> None:
        while self._running and self._running[0][0] <= self._time:
            _, number, pid, _ = heapq.heappop(self._running)
            ended = self.node.end_job(pid, name=f"job-{number}")
            self.tally.finished += ended
            self.tally.lost += not ended

    def _place_all(self) -> None:
        if not any(self._queues.values()):
            return
        free = self._free_instances()
        for size, queue in self._queues.items():
            places = free.get(size, [])
            while queue and places:
                gpu, gi = places.pop(0)
                if self._start(queue[0], gpu, gi):
                    queue.popleft()

    def _free_instances(self) -> dict[str, list[tuple[GpuState, InstanceState]]]:
        """Return what no process and no client is on, by size class, in a fixed order."""
        free: dict[str, list[tuple[GpuState, InstanceState]]] = {}
        for gpu in self.node.state.gpus:
            if gpu.lost:
                continue
            used = {job.gi_id for job in gpu.jobs}
            rules = self.node.rules(gpu)
            for gi in sorted(gpu.instances.values(), key=lambda gi: gi.start):
                if gi.id in used or not gi.compute or not self.may_use(gpu.uuid, gi.id):
                    continue
                size = rules.by_id[gi.profile_id].size_class
                free.setdefault(size, []).append((gpu, gi))
        return free

    def _start(self, job: QueuedJob, gpu: GpuState, gi: InstanceState) -> bool:
        """Start a job; False if the instance went away or was taken meanwhile."""
        try:
            pid = self.node.start_job(
                gpu.index,
                gi.id,
                memory_mib=int(gi.memory_mib * job.kind.memory_share),
                activity=job.kind.activity,
                pid=self.pid,
                name=f"job-{job.number}",
                exclusive=True,
            )
        except CommandRefused:
            return False
        ends = self._time + job.seconds
        heapq.heappush(self._running, (ends, job.number, pid, job.kind.size))
        self.tally.started += 1
        self.tally.wait_seconds += self._time - job.arrived
        return True
