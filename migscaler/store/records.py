"""Values that the state file keeps and that no other package needs to know of."""

import enum
from dataclasses import dataclass
from datetime import datetime

from migscaler.model.ids import CiId, GiId, GpuUuid, MigUuid, PlanId
from migscaler.model.layout import Layout
from migscaler.model.plan import Direction, OutcomeKind, OutcomeReason, Step
from migscaler.model.profile import InstanceSpec

DIED = "the process died in it"
"""Begins the note of a call of which nobody wrote the end."""
RESTORE = "restore-"
"""How the ids of plans begin that make again what a reboot or a driver loaded anew took."""


class NvmlAction(enum.Enum):
    """One NVML call that changes a GPU; four of them make two planned steps."""

    DESTROY_CI = "destroy_ci"
    DESTROY_GI = "destroy_gi"
    CREATE_GI = "create_gi"
    CREATE_CI = "create_ci"


DESTROYS = frozenset({NvmlAction.DESTROY_CI, NvmlAction.DESTROY_GI})
"""The calls that take something away."""


class Purpose(enum.Enum):
    """Whether a call leads to the layout wanted or back to the one before."""

    FORWARD = "forward"
    UNDO = "undo"


class StepState(enum.Enum):
    """Begun: may or may not have happened. Done: it happened. Void: it did not happen."""

    BEGUN = "begun"
    DONE = "done"
    VOID = "void"


class PlanState(enum.Enum):
    """Open: the GPU may be half changed. Verified: it is as wanted, others may not know yet."""

    OPEN = "open"
    VERIFIED = "verified"
    CLOSED = "closed"


@dataclass(frozen=True, slots=True, kw_only=True)
class KnownInstance:
    """An instance by its identity as far as NVML gives one."""

    gi_id: GiId
    spec: InstanceSpec
    mig_uuid: MigUuid | None


@dataclass(frozen=True, slots=True, kw_only=True)
class PlanRecord:
    """One GPU plan in the journal, with the whole layout before: profiles, placements, ids.

    `left_open`: whoever carried it out came to his end and left the rest for later. A plan that is
    open without was cut short.
    """

    plan_id: PlanId
    gpu_uuid: GpuUuid
    before: Layout
    after: Layout
    steps: tuple[Step, ...]
    instances: tuple[KnownInstance, ...]
    boot_id: str
    begun_at: datetime
    seq: int = 0
    state: PlanState = PlanState.OPEN
    left_open: bool = False

    @property
    def is_restore(self) -> bool:
        """Say whether it makes again what was lost: ended by going on, never by going back."""
        return self.plan_id.startswith(RESTORE)


@dataclass(frozen=True, slots=True, kw_only=True)
class StepRequest:
    """A call about to be made. `heed_pause`: nothing was changed yet, so a pause stops it.

    `heed_hold`: a hold of the whole GPU stops it too, although it leads back.
    """

    action: NvmlAction
    spec: InstanceSpec
    purpose: Purpose = Purpose.FORWARD
    gi_id: GiId | None = None
    ci_id: CiId | None = None
    heed_pause: bool = False
    heed_hold: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class StepTicket:
    """Answer to a request: a step durably begun, or who stands in the way and for which reason."""

    step_id: int | None
    refused_by: str = ""
    reason: OutcomeReason = OutcomeReason.HELD


@dataclass(frozen=True, slots=True, kw_only=True)
class StepRecord:
    """One call in the journal; `gi_id` of a create is known once it is done."""

    step_id: int
    action: NvmlAction
    spec: InstanceSpec
    purpose: Purpose
    state: StepState
    begun_at: datetime
    gi_id: GiId | None = None
    ci_id: CiId | None = None
    note: str = ""

    @property
    def in_doubt(self) -> bool:
        """Say whether nobody has written yet what became of it, nor why that is not known."""
        return self.state is StepState.BEGUN and not self.note

    @property
    def died(self) -> bool:
        """Say whether the process died in it."""
        return self.note.startswith(DIED)


@dataclass(frozen=True, slots=True, kw_only=True)
class PastPlan:
    """A GPU plan of the past for people: what was to be done, how it ended (None: still open)."""

    seq: int
    plan_id: PlanId
    gpu_uuid: GpuUuid
    before: Layout
    after: Layout
    begun_at: datetime
    kind: OutcomeKind | None
    reason: OutcomeReason | None
    explanation: str
    layout: Layout | None
    ended_at: datetime | None
    direction: Direction | None
    rolled_back: bool
    boot_id: str
    counts_as_failure: bool | None

    @property
    def is_restore(self) -> bool:
        """Say whether it made again what was lost."""
        return self.plan_id.startswith(RESTORE)

    @property
    def is_whole(self) -> bool:
        """Say whether it ended with the layout that it was to make."""
        return self.layout == self.after

    @property
    def was_cut(self) -> bool:
        """Say whether the process died in it: nobody wrote its end, or settling did."""
        if self.kind is None:
            return self.counts_as_failure is None
        return self.reason is OutcomeReason.SETTLED and self.counts_as_failure is True


@dataclass(frozen=True, slots=True, kw_only=True)
class GenerationRecord:
    """What was last known of a GPU: our count of its layout changes, and the layout of that count.

    `mig_mode_wanted` is an operator's wish, None when nobody expressed one.
    """

    gpu_uuid: GpuUuid
    generation: int
    layout: Layout | None
    boot_id: str
    changed_at: datetime
    model_name: str | None = None
    mig_mode_wanted: bool | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class WantedRecord:
    """The last layout decided for a GPU and carried out, and in which boot."""

    gpu_uuid: GpuUuid
    layout: Layout
    boot_id: str
    at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class LeaseWait:
    """Somebody waits for an instance of a size; ends at `expires_at` unless renewed."""

    wait_id: int
    size: str
    owner: str
    since: datetime
    pid: int | None = None
    expires_at: datetime | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class DecisionRecord:
    """A recorded decision for a list; its complete input is fetched by `seq`."""

    seq: int
    at: datetime
    kind: str
    reason: str
    sentence: str


@dataclass(frozen=True, slots=True, kw_only=True)
class GoodConfig:
    """The last configuration that loaded without error."""

    text: str
    sha256: str
    at: datetime
