"""One daemon process of a simulated day: the real parts in one thread, ended at will."""

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path

from migscaler.control.enforce import Enforcer
from migscaler.control.executor import Executor
from migscaler.control.gather import Gatherer
from migscaler.control.loop import Loop, Parts
from migscaler.control.observe import Observer
from migscaler.control.recovery import restore, settle
from migscaler.hardware.nvml import NvmlReader, NvmlWriter
from migscaler.hardware.nvml_calls import install_library
from migscaler.model.demand import Counts, Fetched, Reading, VetoStatus, Want
from migscaler.model.ids import GpuUuid, SourceName
from migscaler.model.plan import Outcome
from migscaler.model.policy import Mode
from migscaler.model.status import Status
from migscaler.schedulers.bare import BareHost, BareScheduler
from migscaler.schedulers.owners import HostRoots, foreign_owner
from migscaler.sim.node import SimNode
from migscaler.sim.nvml_library import NvmlLibrary
from migscaler.sources import calendar
from migscaler.sources.scheduler import SchedulerSource
from migscaler.store.store import Store
from tests.simulation.acting import QuietHost
from tests.simulation.clockwork import Around, VirtualClock, WatchedLibrary
from tests.simulation.scenarios import LEASES, QUEUE, TOTALS, Scenario


@dataclass
class Queue:
    """A source that the harness fills; silent while `problem` is set."""

    clock: VirtualClock
    counts: Counts
    max_age: timedelta
    wants: dict[str, int] = field(default_factory=dict)
    problem: str | None = None
    absent_is_zero: bool = True
    expires_at: datetime | None = None

    def fetch(self) -> Fetched:
        if self.problem is not None:
            return Fetched(reading=None, problem=self.problem)
        now = self.clock.now()
        self.expires_at = now + self.max_age
        return Fetched(
            reading=Reading(
                counts=self.counts,
                true_at=now,
                expires_at=self.expires_at,
                wants=tuple(Want(size=size, count=n) for size, n in sorted(self.wants.items())),
                absent_is_zero=self.absent_is_zero,
            )
        )

    def known(self) -> bool:
        """Say whether the last answer still holds."""
        return self.expires_at is not None and self.clock.now() < self.expires_at


@dataclass
class Objection:
    """A veto; None: it does not answer."""

    active: bool | None = False

    def fetch_veto(self) -> VetoStatus:
        return VetoStatus(name="objection", active=self.active)


@dataclass
class Outside:
    """What outlives a process: node, time, disk, sources."""

    scenario: Scenario
    node: SimNode
    clock: VirtualClock
    directory: Path
    queue: Queue
    totals: Queue
    objection: Objection
    around: Around
    publish: Callable[[Status], None]
    store: Store

    def roots(self) -> HostRoots:
        """Return a host on which nothing else runs."""
        roots = HostRoots(
            proc=self.directory / "proc",
            run=self.directory / "run",
            cgroup=self.directory / "cgroup",
            units=self.directory / "units",
        )
        for root in (roots.proc, roots.run, roots.cgroup, roots.units):
            root.mkdir(parents=True, exist_ok=True)
        return roots


class Process:
    """A running daemon without threads: `turn` is what its jobs do in one period."""

    def __init__(self, outside: Outside) -> None:
        self.outside = outside
        self.store = outside.store
        self.boot_id = outside.node.boot_id
        install_library(WatchedLibrary(NvmlLibrary(outside.node, "migscaler"), outside.around))
        self.reader = NvmlReader(outside.clock, QuietHost())
        self.writer = NvmlWriter(self.reader)
        self.scheduler = BareScheduler(
            book=self.store,
            clock=outside.clock,
            host=BareHost(host=QuietHost(), roots=outside.roots(), own_pid=1),
            wait_max_age=timedelta(minutes=1),
        )
        self.loop = Loop(self._parts())

    def begin(self) -> tuple[Outcome, ...]:
        """Do what a start does: look, settle, restore, look."""
        if self.loop.sample() is None:
            return ()
        outside, alone = self.outside, self._acts_alone()
        settled = settle(
            self.store,
            self.reader,
            self.writer,
            self.scheduler,
            outside.clock,
            self.boot_id,
            act=bool(alone),
            only=alone,
        )
        restored = restore(
            store=self.store,
            reader=self.reader,
            writer=self.writer,
            scheduler=self.scheduler,
            clock=outside.clock,
            boot_id=self.boot_id,
            layout="restore",
            mig_mode=True,
            act_on=alone,
        )
        return settled + restored

    def close(self) -> None:
        """End the process; what it remembered is gone."""
        self.reader.close()
        install_library(None)

    def _acts_alone(self) -> frozenset[GpuUuid]:
        """Return the GPUs that may be changed at start."""
        snapshot, policy = self.loop.status().snapshot, self.outside.scenario.policy
        if snapshot is None or self.store.pause() is not None:
            return frozenset()
        entries = ((gpu, policy.entry_for(gpu.reading, snapshot.taken_at)) for gpu in snapshot.gpus)
        return frozenset(gpu.uuid for gpu, entry in entries if entry and entry.mode is Mode.ENFORCE)

    def _parts(self) -> Parts:
        outside, store = self.outside, self.store
        policy, roots = outside.scenario.policy, outside.roots()
        texts = tuple(window.text for window in outside.scenario.windows)
        observer = Observer(
            reader=self.reader,
            scheduler=self.scheduler,
            store=store,
            host=QuietHost(),
            boot_id=self.boot_id,
            find_owner=lambda: foreign_owner(roots),
        )
        executor = Executor(
            store=store,
            reader=self.reader,
            writer=self.writer,
            scheduler=self.scheduler,
            clock=outside.clock,
            boot_id=self.boot_id,
        )
        return Parts(
            observer=observer,
            gatherer=Gatherer(
                sources={
                    SourceName(QUEUE): outside.queue,
                    SourceName(TOTALS): outside.totals,
                    SourceName(LEASES): SchedulerSource(self.scheduler),
                },
                vetoes={"objection": outside.objection} if outside.scenario.has_veto else {},
                clock=outside.clock,
                overrides=store.all_pushed,
            ),
            store=store,
            clock=outside.clock,
            policy=policy,
            evaluate_windows=lambda now: calendar.evaluate(texts, "UTC", now),
            call_stats=self.reader.call_stats,
            publish=outside.publish,
            version="test",
            enforcer=Enforcer(
                executor=executor, observer=observer, store=store, clock=outside.clock
            ),
        )
