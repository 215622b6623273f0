"""How a rule's target is slowed down: raised late, lowered later.

The samples are steps: each target holds from its moment to the next one's. What was before the
first is not known, so it neither proves a target raised nor lowered.
"""

from datetime import timedelta
from itertools import pairwise

from migscaler.model.decision import TargetSample


def recorded(
    samples: tuple[TargetSample, ...], target: int, now: float, horizon: timedelta
) -> tuple[TargetSample, ...]:
    """Return the samples with today's target added, without those that no longer matter.

    Times are monotonic seconds; samples after `now` are of another boot and dropped.
    """
    past = [sample for sample in samples if sample.since_monotonic <= now]
    if not past or past[-1].target != target:
        past.append(TargetSample(since_monotonic=now, target=target))
    start = now - horizon.total_seconds()
    covering = [n for n, sample in enumerate(past) if sample.since_monotonic <= start]
    return tuple(past[covering[-1] if covering else 0 :])


def raised(samples: tuple[TargetSample, ...], now: float, after: timedelta) -> int:
    """Return the target that has been reached for all of `after`; 0 if it wasn't known so long."""
    inside, is_covered = _inside(samples, now, after)
    return min(inside, default=0) if is_covered else 0


def kept(samples: tuple[TargetSample, ...], now: float, after: timedelta) -> int | None:
    """Return the highest target within `after`, None if not known for so long (keep everything)."""
    inside, is_covered = _inside(samples, now, after)
    return max(inside, default=None) if is_covered else None


def raised_at(samples: tuple[TargetSample, ...], target: int, after: timedelta) -> float:
    """Return the monotonic second at which a target will have been reached long enough."""
    since = samples[-1].since_monotonic
    for sample in reversed(samples):
        if sample.target < target:
            break
        since = sample.since_monotonic
    return since + after.total_seconds()


def lowered_at(samples: tuple[TargetSample, ...], target: int, after: timedelta) -> float:
    """Return the monotonic second at which everything above a target will be long enough ago."""
    since = samples[0].since_monotonic
    for sample, following in pairwise(samples):
        if sample.target > target:
            since = following.since_monotonic
    return since + after.total_seconds()


def _inside(
    samples: tuple[TargetSample, ...], now: float, after: timedelta
) -> tuple[list[int], bool]:
    """Return the targets that held within the last `after`, and whether all are known."""
    start = now - after.total_seconds()
    covering = [sample for sample in samples if sample.since_monotonic <= start]
    within = [sample.target for sample in samples if sample.since_monotonic > start]
    if not covering:
        return within, False
    return [covering[-1].target, *within], True
