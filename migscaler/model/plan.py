"""What is decided: steps, GPU plans, the node's plan or a hold, and how it ended."""

import enum
from dataclasses import dataclass
from datetime import datetime, timedelta

from migscaler.model.ids import GpuUuid, PlanId, RuleName
from migscaler.model.layout import Layout
from migscaler.model.profile import InstanceSpec


class Direction(enum.Enum):
    """Finer: more instances after than before, or only gains. Coarser: everything else."""

    FINER = "finer"
    COARSER = "coarser"


def direction_between(before: Layout, after: Layout) -> Direction:
    """Return the direction of a change of one GPU's layout."""
    only_gains = all(spec in after for spec in before.specs)
    return Direction.FINER if only_gains or len(after) > len(before) else Direction.COARSER


class StepAction(enum.Enum):
    """What a planned step does to one whole instance (its compute instance included)."""

    DESTROY = "destroy"
    CREATE = "create"


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """The smallest unit of a plan: one instance goes or comes."""

    action: StepAction
    spec: InstanceSpec

    def __str__(self) -> str:
        """Return `destroy 1g.5gb@4`."""
        return f"{self.action.value} {self.spec}"


@dataclass(frozen=True, slots=True, kw_only=True)
class GpuPlan:
    """Change of one GPU; steps in order, every prefix of them a legal layout.

    Steps: creates that already fit, then destroys, then the other creates. `before` is the whole
    layout assumed, pinned instances included; the plan is dropped if the GPU no longer has it.
    """

    gpu_uuid: GpuUuid
    before: Layout
    after: Layout
    steps: tuple[Step, ...]

    @property
    def direction(self) -> Direction:
        """Say whether the GPU becomes finer or coarser."""
        return direction_between(self.before, self.after)


@dataclass(frozen=True, slots=True, kw_only=True)
class Level:
    """One level of the lexicographic objective: value reached, proven bound, whether they meet."""

    name: str
    value: int
    bound: int
    proved: bool


class UnmetCause(enum.Enum):
    """Why wanted instances are not supplied."""

    CAPACITY = "capacity"
    HELD = "held"
    GATE = "gate"
    CONFIGURATION = "configuration"


@dataclass(frozen=True, slots=True, kw_only=True)
class Unmet:
    """Instances of a rule that the layout after the plan would still lack, by cause."""

    rule: RuleName
    count: int
    cause: UnmetCause


class GateReason(enum.Enum):
    """Why a wanted plan is not carried out, in the order in which they are asked (design 4)."""

    SATISFIED = "satisfied"
    MODE = "mode"
    PAUSED = "paused"
    VETO = "veto"
    FOREIGN_OWNER = "foreign_owner"
    ALLOCATIONS_UNKNOWN = "allocations_unknown"
    MIG_DISABLED = "mig_disabled"
    JOURNAL_UNWRITABLE = "journal_unwritable"
    OPEN_PLAN = "open_plan"
    CLOCK_STEP = "clock_step"
    SNAPSHOT_STALE = "snapshot_stale"
    DRIVER_FAULT = "driver_fault"
    BREAKER_OPEN = "breaker_open"
    FROZEN = "frozen"
    PROTECTED = "protected"
    NOT_IDLE = "not_idle"
    HELD_BY_CLIENT = "held_by_client"
    SOURCE_UNKNOWN = "source_unknown"
    SETTLING_TARGET = "settling_target"
    RESTING = "resting"
    FLAPPING = "flapping"
    BUDGET = "budget"
    FENCE_TIMEOUT = "fence_timeout"
    INFEASIBLE = "infeasible"


@dataclass(frozen=True, slots=True, kw_only=True)
class Gate:
    """One closed gate: where it is closed, why in words, and when it opens if that is known.

    Scope: the node when both `gpu_uuid` and `rule` are None, else that GPU or that rule. `blocks`
    is True if it stands in the way of the plan wanted now.
    """

    reason: GateReason
    explanation: str
    gpu_uuid: GpuUuid | None = None
    rule: RuleName | None = None
    opens_at: datetime | None = None
    blocks: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """Decided change of the node: GPU plans in the order in which they are carried out."""

    gpu_plans: tuple[GpuPlan, ...]
    levels: tuple[Level, ...] = ()
    unmet: tuple[Unmet, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Hold:
    """Decided to do nothing, for the stated reason."""

    reason: GateReason
    explanation: str


class OutcomeKind(enum.Enum):
    """How a GPU plan ended; abandoned means the GPU is as it was, or as the world made it."""

    DONE = "done"
    ABANDONED = "abandoned"
    FAILED = "failed"


class OutcomeReason(enum.Enum):
    """Why a GPU plan was abandoned or failed; a closed set for metrics."""

    COMPLETED = "completed"
    CHANGED_UNDERNEATH = "changed_underneath"
    NO_LONGER_IDLE = "no_longer_idle"
    HELD = "held"
    HELD_BY_CLIENT = "held_by_client"
    FENCE_TIMEOUT = "fence_timeout"
    PAUSED = "paused"
    GATE_CLOSED = "gate_closed"
    STOPPING = "stopping"
    INSUFFICIENT_RESOURCES = "insufficient_resources"
    NO_PERMISSION = "no_permission"
    NOT_VERIFIED = "not_verified"
    DRIVER_FAULT = "driver_fault"
    JOURNAL_UNWRITABLE = "journal_unwritable"
    ROLLBACK_INCOMPLETE = "rollback_incomplete"
    SETTLED = "settled"


@dataclass(frozen=True, slots=True, kw_only=True)
class StepTiming:
    """Duration of one executed NVML step, and the part of it spent inside NVML calls (seconds)."""

    kind: str
    seconds: float
    nvml_seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class StepFailure:
    """An NVML call that was made and changed nothing, or nothing that could be seen."""

    kind: str
    reason: OutcomeReason


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """How one GPU plan ended.

    `before` is what was there at the beginning, None if that was not noted; `layout` what was read
    back at the end, None if the GPU could not be read. `rolled_back` is True if something had been
    changed and was put back. `counts_as_failure` feeds the breaker.
    """

    plan_id: PlanId
    gpu_uuid: GpuUuid
    kind: OutcomeKind
    reason: OutcomeReason
    explanation: str
    layout: Layout | None
    started_at: datetime
    duration: timedelta
    steps: tuple[StepTiming, ...] = ()
    rolled_back: bool = False
    counts_as_failure: bool = False
    direction: Direction | None = None
    step_failures: tuple[StepFailure, ...] = ()
    before: Layout | None = None
