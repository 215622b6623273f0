"""What a finished plan means for its GPU: one row per way in which a plan can end."""

from dataclasses import replace
from datetime import datetime, timedelta

import pytest

from migscaler.control.aftermath import (
    after_foreign_change,
    after_outcome,
    after_settled,
    closed_breaker,
)
from migscaler.model.decision import GpuHistory
from migscaler.model.ids import PlanId
from migscaler.model.plan import Direction, Outcome, OutcomeKind, OutcomeReason
from migscaler.model.policy import Pace
from tests.builders import A100, NOW, layout, uuid

PACE = Pace(rest=timedelta(minutes=2), rest_after_failure=timedelta(minutes=10))
FRESH = GpuHistory(gpu_uuid=uuid())


def minutes(count: float) -> datetime:
    return NOW + timedelta(minutes=count)


def outcome(
    kind: OutcomeKind = OutcomeKind.DONE,
    reason: OutcomeReason = OutcomeReason.COMPLETED,
    *,
    direction: Direction = Direction.FINER,
    rolled_back: bool = False,
    counts: bool = False,
) -> Outcome:
    return Outcome(
        plan_id=PlanId("p1"),
        gpu_uuid=uuid(),
        kind=kind,
        reason=reason,
        explanation="",
        layout=layout(A100, "3g@0 3g@4"),
        started_at=NOW,
        duration=timedelta(seconds=3),
        rolled_back=rolled_back,
        counts_as_failure=counts,
        direction=direction,
    )


FAILURE = outcome(OutcomeKind.FAILED, OutcomeReason.NOT_VERIFIED, rolled_back=True, counts=True)


def test_success_rests_and_closes_everything() -> None:
    tried = replace(
        FRESH,
        failures_in_row=2,
        breaker_open_until=minutes(-1),
        breaker_trips=1,
        held_by_client_until=minutes(5),
    )

    after = after_outcome(tried, outcome(), PACE, NOW)

    assert after == GpuHistory(
        gpu_uuid=uuid(),
        last_change_at=NOW,
        last_direction=Direction.FINER,
        rest_until=minutes(2),
        wanted=layout(A100, "3g@0 3g@4"),
    )


def test_reversals_within_the_hour_double_the_rest_each_time() -> None:
    history, now, rests = FRESH, NOW, []
    for number in range(4):
        direction = (Direction.FINER, Direction.COARSER)[number % 2]
        history = after_outcome(history, outcome(direction=direction), PACE, now)
        assert history.rest_until is not None
        rests.append((history.rest_until - now, history.flapping, history.reversals))
        now += timedelta(minutes=59)

    assert rests == [
        (timedelta(minutes=2), False, 0),
        (timedelta(minutes=4), True, 1),
        (timedelta(minutes=8), True, 2),
        (timedelta(minutes=16), True, 3),
    ]


def test_rest_of_a_flapping_gpu_ends_at_eight_hours() -> None:
    flapping = replace(
        FRESH, last_change_at=minutes(-1), last_direction=Direction.COARSER, reversals=30
    )

    after = after_outcome(flapping, outcome(), PACE, NOW)

    assert after.rest_until == NOW + timedelta(hours=8)


def test_reversal_after_more_than_an_hour_is_none() -> None:
    before = replace(
        FRESH, last_change_at=minutes(-61), last_direction=Direction.COARSER, reversals=3
    )

    after = after_outcome(before, outcome(), PACE, NOW)

    assert (after.rest_until, after.flapping, after.reversals) == (minutes(2), False, 0)


def test_change_in_the_same_direction_keeps_the_doubling() -> None:
    before = replace(
        FRESH, last_change_at=minutes(-30), last_direction=Direction.FINER, reversals=2
    )

    after = after_outcome(before, outcome(), PACE, NOW)

    assert (after.rest_until, after.flapping, after.reversals) == (minutes(8), False, 2)


def test_first_failure_rests_longer_and_leaves_the_breaker_closed() -> None:
    after = after_outcome(FRESH, FAILURE, PACE, NOW)

    assert after == GpuHistory(gpu_uuid=uuid(), rest_until=minutes(10), failures_in_row=1)


def test_second_failure_in_a_row_opens_the_breaker_for_an_hour() -> None:
    after = after_outcome(after_outcome(FRESH, FAILURE, PACE, NOW), FAILURE, PACE, minutes(11))

    assert (after.failures_in_row, after.breaker_open_until, after.breaker_trips) == (
        2,
        minutes(71),
        1,
    )
    assert after.rest_until == minutes(21)


@pytest.mark.parametrize(
    ("trips", "hours"), [(0, 1), (1, 2), (2, 4), (3, 8), (4, 16), (5, 24), (60, 24)]
)
def test_failure_at_half_open_doubles_the_time_up_to_a_day(trips: int, hours: int) -> None:
    half_open = replace(
        FRESH, failures_in_row=1 + trips, breaker_trips=trips, breaker_open_until=minutes(-1)
    )

    after = after_outcome(half_open, FAILURE, PACE, NOW)

    assert after.breaker_open_until == NOW + timedelta(hours=hours)
    assert after.breaker_trips == trips + 1


def test_success_between_two_failures_keeps_the_breaker_closed() -> None:
    history = after_outcome(FRESH, FAILURE, PACE, NOW)
    history = after_outcome(history, outcome(), PACE, minutes(20))

    history = after_outcome(history, FAILURE, PACE, minutes(40))

    assert (history.failures_in_row, history.breaker_open_until) == (1, None)


def test_client_that_holds_an_instance_is_left_in_peace_and_never_feeds_the_breaker() -> None:
    held = outcome(OutcomeKind.ABANDONED, OutcomeReason.HELD_BY_CLIENT, rolled_back=True)
    history = FRESH
    for _ in range(5):
        history = after_outcome(history, held, PACE, NOW)

    assert history == GpuHistory(gpu_uuid=uuid(), held_by_client_until=minutes(10))


@pytest.mark.parametrize(
    ("ended", "rest"),
    [
        (outcome(OutcomeKind.ABANDONED, OutcomeReason.CHANGED_UNDERNEATH), 2),
        (outcome(OutcomeKind.ABANDONED, OutcomeReason.NO_LONGER_IDLE, rolled_back=True), 10),
        (outcome(OutcomeKind.ABANDONED, OutcomeReason.FENCE_TIMEOUT), 2),
        (outcome(OutcomeKind.FAILED, OutcomeReason.JOURNAL_UNWRITABLE), 2),
    ],
)
def test_plan_that_was_no_failure_rests_and_counts_nothing(ended: Outcome, rest: int) -> None:
    before = replace(FRESH, failures_in_row=1, last_change_at=minutes(-5))

    after = after_outcome(before, ended, PACE, NOW)

    assert after == replace(before, rest_until=minutes(rest))


def test_foreign_change_is_adopted_and_rests() -> None:
    before = replace(FRESH, wanted=layout(A100, "7g@0"), failures_in_row=1)

    after = after_foreign_change(before, PACE, NOW)

    assert after == replace(before, rest_until=minutes(2), wanted=None)


def test_foreign_change_shortens_no_rest_that_goes_on() -> None:
    """Two owners at work would have ended the flap guard with every change of the other."""
    before = replace(FRESH, rest_until=minutes(64), flapping=True, reversals=5)

    after = after_foreign_change(before, PACE, NOW)

    assert after == before


def test_breaker_that_a_person_closes_forgets_failures_and_rest() -> None:
    before = GpuHistory(
        gpu_uuid=uuid(),
        last_change_at=minutes(-5),
        last_direction=Direction.FINER,
        rest_until=minutes(5),
        failures_in_row=3,
        breaker_open_until=minutes(60),
        breaker_trips=2,
        held_by_client_until=minutes(9),
        wanted=layout(A100, "7g@0"),
    )

    assert closed_breaker(before) == GpuHistory(
        gpu_uuid=uuid(),
        last_change_at=minutes(-5),
        last_direction=Direction.FINER,
        wanted=layout(A100, "7g@0"),
    )


def test_plan_that_was_settled_rests_and_cuts_no_longer_rest_short() -> None:
    settled = outcome(OutcomeKind.ABANDONED, OutcomeReason.SETTLED)
    long = replace(FRESH, rest_until=minutes(30))

    assert after_settled(FRESH, settled, PACE, NOW).rest_until == minutes(2)
    assert after_settled(long, settled, PACE, NOW).rest_until == minutes(30)


def test_settled_plan_that_was_cut_short_is_a_failure_though_it_was_put_back() -> None:
    settled = outcome(OutcomeKind.ABANDONED, OutcomeReason.SETTLED, counts=True)

    after = after_settled(FRESH, settled, PACE, NOW)

    assert after == GpuHistory(gpu_uuid=uuid(), rest_until=minutes(10), failures_in_row=1)
