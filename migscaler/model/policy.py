"""The operator's rules, compiled from the configuration and immutable."""

import enum
import fnmatch
from dataclasses import dataclass
from datetime import datetime, timedelta

from migscaler.model.demand import Counts
from migscaler.model.gpu import GpuReading
from migscaler.model.ids import GpuUuid, RuleName, SourceName
from migscaler.model.plan import Direction


class Mode(enum.Enum):
    """What may be done with a GPU: measure; plan and publish; act."""

    OBSERVE = "observe"
    RECOMMEND = "recommend"
    ENFORCE = "enforce"


@dataclass(frozen=True, slots=True, kw_only=True)
class GpuEntry:
    """One line of `gpus:`; exactly one of uuid, index, model (a glob) is set.

    `baseline` are size classes or profile names for a GPU that has nothing. After `until` the line
    lapses.
    """

    mode: Mode
    uuid: GpuUuid | None = None
    index: int | None = None
    model: str | None = None
    baseline: tuple[str, ...] = ()
    reason: str | None = None
    until: datetime | None = None

    def matches(self, gpu: GpuReading, now: datetime) -> bool:
        """Say whether the line speaks of this GPU at this moment."""
        if self.until is not None and now >= self.until:
            return False
        if self.uuid is not None:
            return self.uuid == gpu.uuid
        if self.index is not None:
            return self.index == gpu.index
        return fnmatch.fnmatchcase(gpu.name, self.model or "")


@dataclass(frozen=True, slots=True, kw_only=True)
class AtLeast:
    """A floor that holds while a window is open; `window` is its text, the key in the input."""

    count: int
    window: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """Demand for one size; the order of rules is their priority.

    `minimum` and open `at_least` are floors, `maximum` limits what is wanted, `spare` is kept free
    beyond it. `sum_waiting`: add the waitings of several sources instead of taking the largest.
    """

    name: RuleName
    size: str
    sources: tuple[SourceName, ...] = ()
    minimum: int = 0
    maximum: int | None = None
    spare: int = 0
    at_least: tuple[AtLeast, ...] = ()
    sum_waiting: bool = False
    weight: int = 1
    raise_after: timedelta | None = None
    lower_after: timedelta | None = None
    reserve_after: timedelta | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class SourcePolicy:
    """What the decision needs to know of a source; how to reach it is the source's own matter.

    `share` is this node's part of a number that reaches every node (scope shared), None without
    one.
    """

    name: SourceName
    counts: Counts
    max_age: timedelta
    unknown_for: timedelta
    shared: bool = False
    share: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Pace:
    """How fast things may change; defaults in the configuration reference."""

    raise_after: timedelta = timedelta(seconds=30)
    lower_after: timedelta = timedelta(minutes=10)
    gpus_at_once: int = 2
    per_day: int = 48
    rest: timedelta = timedelta(minutes=2)
    rest_after_failure: timedelta = timedelta(minutes=10)
    fence_max: timedelta = timedelta(minutes=2)


@dataclass(frozen=True, slots=True, kw_only=True)
class Freeze:
    """No change in a window; `only` names the one direction that is frozen, None both."""

    window: str
    only: Direction | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class IdlePolicy:
    """When an instance counts as idle; `evidence` are the signals that must be quiet.

    Signals: process, allocation, memory, activity. `memory_margin_bytes` is above the measured
    empty baseline.
    """

    after: timedelta = timedelta(minutes=5)
    evidence: frozenset[str] = frozenset({"process", "allocation", "memory", "activity"})
    activity_below: float = 0.01
    memory_margin_bytes: int = 64 * 1024 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """Everything an operator decided; `sampling` and `tick` are periods."""

    gpus: tuple[GpuEntry, ...] = ()
    rules: tuple[Rule, ...] = ()
    sources: tuple[SourcePolicy, ...] = ()
    pace: Pace = Pace()
    freezes: tuple[Freeze, ...] = ()
    vetoes: tuple[str, ...] = ()
    idle: IdlePolicy = IdlePolicy()
    sampling: timedelta = timedelta(seconds=5)
    tick: timedelta = timedelta(seconds=15)

    def entry_for(self, gpu: GpuReading, now: datetime) -> GpuEntry | None:
        """Return the line that governs a GPU: uuid before index before model, then the first."""
        lines = [entry for entry in self.gpus if entry.matches(gpu, now)]
        for chosen in (
            [e for e in lines if e.uuid is not None],
            [e for e in lines if e.index is not None],
            lines,
        ):
            if chosen:
                return chosen[0]
        return None
