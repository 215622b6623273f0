"""The complete input of a decision and everything that was decided from it.

A decision is a pure function of `DecisionInput`: recorded and replayed, it says the same again.
"""

from dataclasses import dataclass
from datetime import datetime

from migscaler.model.demand import SourceStatus, VetoStatus
from migscaler.model.gpu import NodeSnapshot
from migscaler.model.ids import GpuUuid, RuleName
from migscaler.model.layout import Layout
from migscaler.model.plan import Direction, Gate, Hold, Plan, Unmet
from migscaler.model.policy import Mode, Policy
from migscaler.model.profile import InstanceSpec


@dataclass(frozen=True, slots=True, kw_only=True)
class WindowState:
    """A calendar window at one moment: open or not, and when that changes next (None: never)."""

    window: str
    open: bool
    next_change: datetime | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class HoldRecord:
    """A person's or lease's hold on a GPU, or on one instance of it.

    Without `expires_at` it lasts until released.
    `kind` is `hold` (by a person: keeps its place, counts on neither side), or `lease` (an
    allocation).
    """

    hold_id: int
    gpu_uuid: GpuUuid
    spec: InstanceSpec | None
    owner: str
    reason: str
    kind: str = "hold"
    expires_at: datetime | None = None
    created_at: datetime | None = None
    pid: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class PauseRecord:
    """Acting is switched off: by whom, why, until when (None: until resumed)."""

    who: str
    why: str
    since: datetime
    until: datetime | None = None
    driver_released: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class TargetSample:
    """Target of a rule as it was from `since_monotonic` (seconds) on.

    Where a source was silent it is what was certain; `doubt` is how many more may have been wanted
    (None: nobody knows).
    """

    since_monotonic: float
    target: int
    doubt: int | None = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class RuleHistory:
    """What pace needs of one rule: its targets, oldest first, one entry per change."""

    rule: RuleName
    samples: tuple[TargetSample, ...] = ()
    unmet_since: datetime | None = None
    last_known_target: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class GpuHistory:
    """What pace and breakers need of one GPU; kept in the store across restarts.

    `rest_until` already holds the flap guard's doubling; `reversals` are changes against the
    direction of the one before within an hour. `wanted` is the last layout decided for it and
    carried out.
    """

    gpu_uuid: GpuUuid
    last_change_at: datetime | None = None
    last_direction: Direction | None = None
    rest_until: datetime | None = None
    flapping: bool = False
    reversals: int = 0
    failures_in_row: int = 0
    breaker_open_until: datetime | None = None
    breaker_trips: int = 0
    held_by_client_until: datetime | None = None
    wanted: Layout | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class History:
    """The past that decisions depend on; `changes_last_day`: GPU plans of the last 24 hours."""

    rules: tuple[RuleHistory, ...] = ()
    gpus: tuple[GpuHistory, ...] = ()
    changes_last_day: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Conditions:
    """State of the node outside the GPUs that closes gates; texts say why, None means fine.

    `waiting_restores`: GPUs whose open restore waits for a hold to end, and whose.
    `stale_after_seconds`: a snapshot older than this decides nothing.
    """

    pause: PauseRecord | None = None
    journal_problem: str | None = None
    open_plan: str | None = None
    waiting_restores: tuple[tuple[GpuUuid, str], ...] = ()
    clock_step: str | None = None
    forced_observe: str | None = None
    stale_after_seconds: float = 15.0


@dataclass(frozen=True, slots=True, kw_only=True)
class DecisionInput:
    """Everything a decision depends on; `now` and `now_monotonic` (seconds) included."""

    now: datetime
    now_monotonic: float
    snapshot: NodeSnapshot
    policy: Policy
    demand: tuple[SourceStatus, ...] = ()
    windows: tuple[WindowState, ...] = ()
    vetoes: tuple[VetoStatus, ...] = ()
    holds: tuple[HoldRecord, ...] = ()
    history: History = History()
    conditions: Conditions = Conditions()


@dataclass(frozen=True, slots=True, kw_only=True)
class RuleDecision:
    """One rule as decided: instances wanted, in use, free (`supply`), and missing.

    `wanted` is in use + waiting (or the total) within floor and maximum; `target` adds spare.
    `raised` is the target that may be created for, `kept` the one below which nothing is destroyed.
    `source_unknown` names the sources that don't answer. `source_counts` are the raw numbers used,
    by source.
    """

    rule: RuleName
    size: str
    floor: int
    in_use: int
    supply: int
    wanted: int
    target: int
    raised: int
    kept: int
    unmet: int
    unmet_since: datetime | None = None
    source_unknown: tuple[str, ...] = ()
    source_counts: tuple[tuple[str, int], ...] = ()
    explanation: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class GpuDecision:
    """One GPU as decided: its mode (None: not managed), the layout wanted for it, gates on it."""

    gpu_uuid: GpuUuid
    mode: Mode | None
    wanted: Layout | None
    explanation: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    """Result of one tick.

    `outcome` is what is done now. `wanted` is the plan that would be carried out with every gate
    open (None when it can't be made); it is published also where the mode forbids acting. `gates`
    are all closed gates. `history` is the rules' part to hand to the next decision. `sentence` says
    it in one line of words. `unmet` is what rules will still lack after the outcome, by cause.
    """

    outcome: Plan | Hold
    wanted: Plan | None
    gates: tuple[Gate, ...]
    rules: tuple[RuleDecision, ...]
    gpus: tuple[GpuDecision, ...]
    rule_histories: tuple[RuleHistory, ...]
    sentence: str
    fragmentation_ratio: float | None = None
    unmet: tuple[Unmet, ...] = ()
