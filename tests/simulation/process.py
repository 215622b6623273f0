"""One daemon process of a simulated day: the real parts in one thread, ended at will."""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from pathlib import Path

from migscaler.app.config.load import load_text
from migscaler.app.runtime import Outside as Around
from migscaler.app.runtime import Runtime
from migscaler.app.start import InForce
from migscaler.app.wiring import Assembly, Ground
from migscaler.control.gather import Gatherer
from migscaler.control.parts import Parts
from migscaler.hardware.nvml import NvmlReader, NvmlWriter
from migscaler.hardware.nvml_calls import install_library
from migscaler.model.demand import Counts, Fetched, Reading, VetoStatus, Want
from migscaler.model.stats import SchedulerStats
from migscaler.model.status import ConfigStatus, Status
from migscaler.schedulers.owners import HostRoots
from migscaler.sim.node import SimNode
from migscaler.sim.nvml_library import NvmlLibrary
from migscaler.sources import calendar
from migscaler.sources.scheduler import SchedulerSource
from migscaler.store.store import Store
from tests.simulation.acting import QuietHost
from tests.simulation.clockwork import Around as AroundCall
from tests.simulation.clockwork import VirtualClock, WatchedLibrary
from tests.simulation.scenarios import LEASES, QUEUE, TOTALS, Scenario

# The policy comes from the scenario; what is left are places and boot habits (restore, mode on).
_CONFIG = "mode: enforce\ngpus: [{index: 0}]\n"


@dataclass
class Queue:
    """A source that the harness fills; silent while `problem` is set, raises an `error`."""

    clock: VirtualClock
    counts: Counts
    max_age: timedelta
    wants: dict[str, int] = field(default_factory=dict)
    problem: str | None = None
    absent_is_zero: bool = True
    expires_at: datetime | None = None
    error: Exception | None = None

    def fetch(self) -> Fetched:
        if self.error is not None:
            raise self.error
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
        """Say whether the last answer still holds; an error ends it at once."""
        fresh = self.expires_at is not None and self.clock.now() < self.expires_at
        return fresh and self.problem is None


@dataclass
class Objection:
    """A veto; None: it does not answer. Raises an `error`."""

    active: bool | None = False
    error: Exception | None = None

    def fetch_veto(self) -> VetoStatus:
        if self.error is not None:
            raise self.error
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
    around: AroundCall
    publish: Callable[[Status], None]
    store: Store

    def roots(self) -> HostRoots:
        """Return a host on which nothing else runs."""
        roots = HostRoots(
            proc=self.directory / "proc",
            run=self.directory / "run",
            cgroup=self.directory / "cgroup",
            units=self.directory / "units",
            etc=self.directory / "etc",
        )
        for root in (roots.proc, roots.run, roots.cgroup, roots.units, roots.etc):
            root.mkdir(parents=True, exist_ok=True)
        return roots


class Process:
    """A running daemon without threads: the real runtime, with the harness's sources."""

    def __init__(self, outside: Outside) -> None:
        self._outside = outside
        install_library(WatchedLibrary(NvmlLibrary(outside.node, "migscaler"), outside.around))
        self._reader = NvmlReader(outside.clock, QuietHost())
        self._assembly = Assembly(
            Ground(
                clock=outside.clock,
                reader=self._reader,
                writer=NvmlWriter(self._reader),
                host=QuietHost(),
                store=outside.store,
                boot_id=outside.node.boot_id,
                roots=outside.roots(),
            )
        )
        loaded = replace(load_text(_CONFIG, "simulated day"), policy=outside.scenario.policy)
        self.runtime = Runtime(
            self._assembly,
            InForce(loaded=loaded, status=ConfigStatus()),
            Around(
                publish=outside.publish,
                call_stats=self._reader.call_stats,
                job_stats=SchedulerStats,
                real_host=QuietHost(),
                release_driver=lambda: None,
                resume_driver=lambda: None,
                config_changed=lambda: None,
            ),
        )
        self.loop = self.runtime.loop
        self.loop.reconfigure(self._with_sources())

    def close(self) -> None:
        """End the process; what it remembered is gone."""
        self._assembly.close()
        self._reader.close()
        install_library(None)

    def _with_sources(self) -> Parts:
        """Return the loop's parts with the scenario's sources and calendar."""
        outside = self._outside
        texts = tuple(window.text for window in outside.scenario.windows)
        gatherer = Gatherer(
            sources={
                QUEUE: outside.queue,
                TOTALS: outside.totals,
                LEASES: SchedulerSource(self._assembly.scheduler),
            },
            vetoes={"objection": outside.objection} if outside.scenario.has_veto else {},
            clock=outside.clock,
            overrides=outside.store.all_pushed,
        )
        return replace(
            self.loop.parts,
            gatherer=gatherer,
            evaluate_windows=lambda now: calendar.evaluate(texts, "UTC", now),
        )
