"""Everything there is to show at one moment; swapped as one reference, never changed."""

from dataclasses import dataclass, field, replace
from datetime import datetime

from migscaler.model.decision import Decision, DecisionInput, GpuHistory, HoldRecord, PauseRecord
from migscaler.model.demand import SourceStatus, VetoStatus
from migscaler.model.gpu import NodeSnapshot
from migscaler.model.ids import GpuUuid, PlanId
from migscaler.model.layout import Layout
from migscaler.model.plan import Outcome
from migscaler.model.policy import Policy
from migscaler.model.stats import CallStats, Histogram, SchedulerStats, WebStats


@dataclass(frozen=True, slots=True, kw_only=True)
class CollectorStatus:
    """One collector (nvml, scheduler, each source, store): last attempt and last success."""

    name: str
    success: bool
    duration_seconds: float
    last_success_at: datetime | None = None
    problem: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ConfigStatus:
    """The configuration in force: file, hash, whether the last load worked, findings in words.

    `state_problem`: why there is no durable state; no configuration may act without.
    """

    path: str | None = None
    sha256: str | None = None
    valid: bool = True
    last_reload_success: bool = True
    last_reload_success_at: datetime | None = None
    problems: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    forced_observe: str | None = None
    state_problem: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Running:
    """A GPU plan being carried out; its GPU's instance series are withheld meanwhile."""

    plan_id: PlanId
    gpu_uuid: GpuUuid
    before: Layout
    after: Layout
    since: datetime
    fenced_since: datetime | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Regret:
    """Verdicts and regrets so far, cumulative.

    `idle_verdicts` counts instances found idle and kept (`kept`) or that a plan would destroy or
    destroyed (`destroy`); regrets are those that got a process or allocation within 300 or 1800
    seconds. Entries: (verdict, count) and (verdict, window seconds, count).
    """

    verdicts: tuple[tuple[str, int], ...] = ()
    regrets: tuple[tuple[str, int, int], ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Counters:
    """Cumulative counts of acting since the process started; labels from closed sets.

    plans: by direction; gpu_plans and failures: (direction, reason); steps: by kind; step_failures:
    (kind, reason). holds: ticks that held, by reason. due: GPUs that were to get back the layout
    last wanted, after a reboot, a reload of the driver, or somebody who emptied them.
    """

    ticks: int = 0
    holds: tuple[tuple[str, int], ...] = ()
    plans: tuple[tuple[str, int], ...] = ()
    gpu_plans: tuple[tuple[str, int], ...] = ()
    gpu_plan_failures: tuple[tuple[str, int], ...] = ()
    steps: tuple[tuple[str, int], ...] = ()
    step_failures: tuple[tuple[str, str, int], ...] = ()
    rollbacks: int = 0
    due: frozenset[GpuUuid] = frozenset()
    histograms: tuple[tuple[str, Histogram], ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Status:
    """What the daemon knows and did, at one moment.

    `snapshot` is None before the first sample. `decision_input` is what `decision` was made from,
    for who wants it explained. `driver_mismatch`: NVML's library is of another version than the
    driver, None if that is not known. `fenced` are GPUs whose fence could not be lifted.
    `usable_lost` lists (profile, count) that a change left below what was there before.
    `snapshot_stale`: the snapshot is too old to be shown, as it will be after `stale_from`, in
    monotonic seconds (None without one).
    """

    version: str
    started_at: datetime
    now: datetime
    snapshot: NodeSnapshot | None = None
    decision: Decision | None = None
    decision_at: datetime | None = None
    decision_input: DecisionInput | None = None
    policy: Policy = field(default_factory=Policy)
    demand: tuple[SourceStatus, ...] = ()
    vetoes: tuple[VetoStatus, ...] = ()
    holds: tuple[HoldRecord, ...] = ()
    pause: PauseRecord | None = None
    gpu_histories: tuple[GpuHistory, ...] = ()
    budget_left: int | None = None
    running: Running | None = None
    withheld: tuple[GpuUuid, ...] = ()
    fenced: tuple[tuple[GpuUuid, datetime], ...] = ()
    usable_lost: tuple[tuple[GpuUuid, str, int], ...] = ()
    outcomes: tuple[Outcome, ...] = ()
    counters: Counters = Counters()
    regret: Regret = Regret()
    calls: CallStats = field(default_factory=CallStats)
    driver_mismatch: bool | None = None
    scheduler: SchedulerStats = field(default_factory=SchedulerStats)
    web: WebStats = field(default_factory=WebStats)
    collectors: tuple[CollectorStatus, ...] = ()
    config: ConfigStatus = ConfigStatus()
    state_writable: bool = True
    snapshot_stale: bool = False
    stale_from: float | None = None

    def at(self, monotonic: float) -> "Status":
        """Return it as it is to be shown at a later moment, when nobody published since.

        Whoever publishes may be the one that hangs; who shows looks at the clock himself.
        """
        is_old = self.stale_from is not None and monotonic > self.stale_from
        return replace(self, snapshot_stale=True) if is_old and not self.snapshot_stale else self
