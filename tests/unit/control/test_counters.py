"""What a finished GPU plan adds to the cumulative counts."""

from datetime import UTC, datetime, timedelta

from migscaler.control.counters import Tally
from migscaler.model.ids import GpuUuid, PlanId
from migscaler.model.plan import (
    Direction,
    Outcome,
    OutcomeKind,
    OutcomeReason,
    StepFailure,
    StepTiming,
)

_FAILED = Outcome(
    plan_id=PlanId("p"),
    gpu_uuid=GpuUuid("GPU-1"),
    kind=OutcomeKind.FAILED,
    reason=OutcomeReason.INSUFFICIENT_RESOURCES,
    explanation="no room",
    layout=None,
    started_at=datetime(2026, 1, 1, tzinfo=UTC),
    duration=timedelta(seconds=3),
    steps=(StepTiming(kind="destroy_gi", seconds=0.02, nvml_seconds=0.01),),
    step_failures=(
        StepFailure(kind="create_gi", reason=OutcomeReason.INSUFFICIENT_RESOURCES),
        StepFailure(kind="create_gi", reason=OutcomeReason.INSUFFICIENT_RESOURCES),
    ),
    rolled_back=True,
    direction=Direction.FINER,
)


def test_outcome_counts_plan_failure_steps_and_failed_steps() -> None:
    tally = Tally()

    tally.outcome(_FAILED)

    counts = tally.freeze()
    assert counts.gpu_plans == (("finer", 1),)
    assert counts.gpu_plan_failures == (("insufficient_resources", 1),)
    assert counts.rollbacks == 1
    assert counts.steps == (("destroy_gi", 1),)
    assert counts.step_failures == (("create_gi", "insufficient_resources", 2),)


def test_steps_alone_are_counted_for_settling_and_restoring() -> None:
    tally = Tally()

    tally.steps(_FAILED)

    counts = tally.freeze()
    assert counts.gpu_plans == ()
    assert counts.steps == (("destroy_gi", 1),)


def test_every_histogram_is_there_before_anything_was_measured() -> None:
    """A rate over the first event needs the zero before it."""
    kinds = [(name, one.labels, one.count) for name, one in Tally().freeze().histograms]

    assert kinds == [
        ("gpu_plan", (), 0),
        ("plan", (), 0),
        ("restore", (), 0),
        ("settle", (), 0),
        ("step", (("kind", "create_ci"),), 0),
        ("step", (("kind", "create_gi"),), 0),
        ("step", (("kind", "destroy_ci"),), 0),
        ("step", (("kind", "destroy_gi"),), 0),
    ]
