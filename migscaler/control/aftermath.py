"""What a finished GPU plan means for the next one: rest, flap guard, back-off, breaker."""

from dataclasses import replace
from datetime import datetime, timedelta

from migscaler.model.decision import GpuHistory
from migscaler.model.plan import Outcome, OutcomeKind, OutcomeReason
from migscaler.model.policy import Pace

# A change against the one before within this time counts as a reversal (design, Pace).
_REVERSAL_WINDOW = timedelta(hours=1)
_LONGEST_REST = timedelta(hours=8)
# Two failures in a row open the breaker; it half-opens after this time, doubled at each further
# trip.
_FAILURES_TO_OPEN = 2
_BREAKER_OPEN = timedelta(hours=1)
_LONGEST_OPEN = timedelta(hours=24)
# A client that holds an idle instance (DCGM, a starting job) is asked again no sooner than this.
_CLIENT_BACK_OFF = timedelta(minutes=10)


def after_outcome(history: GpuHistory, outcome: Outcome, pace: Pace, now: datetime) -> GpuHistory:
    """Return the GPU's history after one of its plans ended."""
    if outcome.kind is OutcomeKind.DONE:
        return _after_success(history, outcome, pace, now)
    if outcome.counts_as_failure:
        return _after_failure(history, pace, now)
    if outcome.reason is OutcomeReason.HELD_BY_CLIENT:
        return replace(history, held_by_client_until=now + _CLIENT_BACK_OFF)
    rest = pace.rest_after_failure if outcome.rolled_back else pace.rest
    return replace(history, rest_until=now + rest)


def after_settled(history: GpuHistory, outcome: Outcome, pace: Pace, now: datetime) -> GpuHistory:
    """Return the history after a plan was ended that had been found open: rest from now on.

    A longer rest goes on. A layout that could not be read then takes nothing wanted away.
    """
    after = after_outcome(history, outcome, pace, now)
    return replace(
        after,
        rest_until=max(after.rest_until or now, history.rest_until or now),
        wanted=history.wanted if after.wanted is None else after.wanted,
    )


def after_deaths(history: GpuHistory, deaths: int, now: datetime) -> GpuHistory:
    """Return the history after the process died so often in a row at restoring the GPU."""
    return _opened(history, max(history.failures_in_row, deaths), now)


def after_return(history: GpuHistory) -> GpuHistory:
    """Return the history after a restore made what processes had died at: the breaker closes."""
    return replace(history, failures_in_row=0, breaker_open_until=None, breaker_trips=0)


def after_foreign_change(
    history: GpuHistory, pace: Pace, now: datetime, *, is_empty: bool = False
) -> GpuHistory:
    """Return the history after somebody else changed the layout: adopt it and rest.

    A longer rest that our own failure or flapping asked for goes on. An empty GPU is no layout that
    anybody could want kept: what was wanted stays wanted and is restored after the rest.
    """
    rest_until = max(now + pace.rest, history.rest_until or now)
    return replace(history, rest_until=rest_until, wanted=history.wanted if is_empty else None)


def closed_breaker(history: GpuHistory) -> GpuHistory:
    """Return the history with its breaker reset by a person."""
    return replace(
        history,
        failures_in_row=0,
        breaker_open_until=None,
        breaker_trips=0,
        rest_until=None,
        held_by_client_until=None,
    )


def _after_success(history: GpuHistory, outcome: Outcome, pace: Pace, now: datetime) -> GpuHistory:
    """Rest; a reversal within the hour doubles the rest each time."""
    recent = history.last_change_at is not None and now - history.last_change_at <= _REVERSAL_WINDOW
    reversal = recent and history.last_direction not in (None, outcome.direction)
    reversals = history.reversals + 1 if reversal else (history.reversals if recent else 0)
    rest = min(pace.rest * 2 ** min(reversals, 10), max(_LONGEST_REST, pace.rest))
    return replace(
        history,
        last_change_at=now,
        last_direction=outcome.direction,
        rest_until=now + rest,
        flapping=reversal,
        reversals=reversals,
        failures_in_row=0,
        breaker_open_until=None,
        breaker_trips=0,
        held_by_client_until=None,
        wanted=outcome.layout,
    )


def _after_failure(history: GpuHistory, pace: Pace, now: datetime) -> GpuHistory:
    """Rest longer; the second failure in a row opens the breaker for a doubling time."""
    failures = history.failures_in_row + 1
    if failures < _FAILURES_TO_OPEN:
        return replace(history, failures_in_row=failures, rest_until=now + pace.rest_after_failure)
    return replace(_opened(history, failures, now), rest_until=now + pace.rest_after_failure)


def _opened(history: GpuHistory, failures: int, now: datetime) -> GpuHistory:
    """Return the history with its breaker open from now on."""
    open_for = min(_BREAKER_OPEN * 2 ** min(history.breaker_trips, 10), _LONGEST_OPEN)
    return replace(
        history,
        failures_in_row=failures,
        breaker_open_until=now + open_for,
        breaker_trips=history.breaker_trips + 1,
    )
