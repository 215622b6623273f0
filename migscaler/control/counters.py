"""Cumulative counts of what the loop decided and did; plain numbers for metrics."""

from collections import Counter
from dataclasses import dataclass, field

from migscaler.model.ids import GpuUuid
from migscaler.model.plan import Outcome, OutcomeKind
from migscaler.model.stats import Histogram
from migscaler.model.status import Counters
from migscaler.store.records import NvmlAction

# Sized for repartitions of seconds to minutes, and for steps and decisions below that.
_BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0)
_HISTOGRAMS: tuple[tuple[str, tuple[tuple[str, str], ...]], ...] = (
    *((name, ()) for name in ("plan", "gpu_plan", "settle", "restore")),
    *(("step", (("kind", action.value),)) for action in NvmlAction),
)


@dataclass(slots=True)
class _Durations:
    """One histogram being filled."""

    counts: list[int] = field(default_factory=lambda: [0] * len(_BUCKETS))
    total: float = 0.0
    count: int = 0

    def add(self, seconds: float) -> None:
        """Count one duration."""
        self.total += seconds
        self.count += 1
        for position, bound in enumerate(_BUCKETS):
            if seconds <= bound:
                self.counts[position] += 1


class Tally:
    """Counts since the process started; only the acting thread adds."""

    def __init__(self) -> None:
        """Start at zero."""
        self._ticks = 0
        self._holds: Counter[str] = Counter()
        self._plans: Counter[str] = Counter()
        self._gpu_plans: Counter[str] = Counter()
        self._failures: Counter[str] = Counter()
        self._steps: Counter[str] = Counter()
        self._step_failures: Counter[tuple[str, str]] = Counter()
        self._rollbacks = 0
        self.due: frozenset[GpuUuid] = frozenset()
        # All there from the start: a rate over the first event needs the zero before it.
        self._durations: dict[tuple[str, tuple[tuple[str, str], ...]], _Durations] = {
            key: _Durations() for key in _HISTOGRAMS
        }

    def tick(self, held_for: str | None, seconds: float) -> None:
        """Count one tick and, where it held, why; `seconds` is how long deciding took."""
        self._ticks += 1
        if held_for is not None:
            self._holds[held_for] += 1
        self.duration("plan", (), seconds)

    def plan(self, directions: tuple[str, ...]) -> None:
        """Count one node plan by the directions it contains."""
        for direction in sorted(set(directions)):
            self._plans[direction] += 1

    def outcome(self, outcome: Outcome) -> None:
        """Count how a GPU plan ended, its steps and their durations."""
        direction = outcome.direction.value if outcome.direction else "coarser"
        self._gpu_plans[direction] += 1
        if outcome.kind is not OutcomeKind.DONE:
            self._failures[outcome.reason.value] += 1
        if outcome.rolled_back:
            self._rollbacks += 1
        self.duration("gpu_plan", (), outcome.duration.total_seconds())
        self.steps(outcome)

    def ended(self, outcome: Outcome, histogram: str) -> None:
        """Count how long settling or restoring took, and its calls."""
        self.duration(histogram, (), outcome.duration.total_seconds())
        self.steps(outcome)

    def steps(self, outcome: Outcome) -> None:
        """Count the calls of a plan, of settling or of restoring, and those that failed."""
        for step in outcome.steps:
            self._steps[step.kind] += 1
            self.duration("step", (("kind", step.kind),), step.seconds)
        for failure in outcome.step_failures:
            self._step_failures[failure.kind, failure.reason.value] += 1

    def duration(self, name: str, labels: tuple[tuple[str, str], ...], seconds: float) -> None:
        """Add one duration (seconds) to a histogram."""
        self._durations.setdefault((name, labels), _Durations()).add(seconds)

    def freeze(self) -> Counters:
        """Return the counts as they are."""
        return Counters(
            ticks=self._ticks,
            holds=tuple(sorted(self._holds.items())),
            plans=tuple(sorted(self._plans.items())),
            gpu_plans=tuple(sorted(self._gpu_plans.items())),
            gpu_plan_failures=tuple(sorted(self._failures.items())),
            steps=tuple(sorted(self._steps.items())),
            step_failures=tuple(
                (kind, reason, count)
                for (kind, reason), count in sorted(self._step_failures.items())
            ),
            rollbacks=self._rollbacks,
            due=self.due,
            histograms=tuple(
                (name, _frozen(labels, durations))
                for (name, labels), durations in sorted(self._durations.items())
            ),
        )


def _frozen(labels: tuple[tuple[str, str], ...], durations: _Durations) -> Histogram:
    """Return one histogram as a value."""
    return Histogram(
        labels=labels,
        buckets=tuple(zip(_BUCKETS, durations.counts, strict=True)),
        total_seconds=durations.total,
        count=durations.count,
    )
