"""How a rule's target is slowed down: raised late, lowered later.

The samples are steps: each target holds from its moment to the next one's. What was before the
first is not known, so it neither proves a target raised nor lowered. Nor does time in which a
source was silent: what was certain then counts for raising, what may have been wanted for lowering.
"""

from datetime import timedelta
from itertools import pairwise

from migscaler.model.decision import TargetSample


def recorded(
    samples: tuple[TargetSample, ...],
    target: int,
    now: float,
    horizon: timedelta,
    doubt: int | None = 0,
) -> tuple[TargetSample, ...]:
    """Return the samples with today's target added, without those that no longer matter.

    Times are monotonic seconds; samples after `now` are of another boot and dropped.
    """
    past = [sample for sample in samples if sample.since_monotonic <= now]
    if not past or (past[-1].target, past[-1].doubt) != (target, doubt):
        past.append(TargetSample(since_monotonic=now, target=target, doubt=doubt))
    start = now - horizon.total_seconds()
    covering = [n for n, sample in enumerate(past) if sample.since_monotonic <= start]
    return tuple(past[covering[-1] if covering else 0 :])


def raised(samples: tuple[TargetSample, ...], now: float, after: timedelta) -> int:
    """Return the target that has been reached for all of `after`; 0 if it wasn't known so long."""
    inside, is_covered = _inside(samples, now, after)
    return min((one.target for one in inside), default=0) if is_covered else 0


def kept(samples: tuple[TargetSample, ...], now: float, after: timedelta) -> int | None:
    """Return the highest target within `after`, None if not known for so long (keep everything)."""
    inside, is_covered = _inside(samples, now, after)
    highest = [_highest(one) for one in inside]
    known = [target for target in highest if target is not None]
    return max(known) if is_covered and known and len(known) == len(highest) else None


def raised_at(samples: tuple[TargetSample, ...], target: int, after: timedelta) -> float:
    """Return the monotonic second at which a target will have been reached long enough."""
    return reached(samples, target)[0] + after.total_seconds()


def reached(samples: tuple[TargetSample, ...], target: int) -> tuple[float, bool]:
    """Return the monotonic second since which a target counts as reached, and what ended before.

    True where that was a lower target, False where nobody knew: a silence, or the start.
    """
    since, was_lower = samples[-1].since_monotonic, False
    for sample in reversed(samples):
        if sample.target < target:
            highest = _highest(sample)
            was_lower = highest is not None and highest < target
            break
        since = sample.since_monotonic
    return since, was_lower


def lowered_at(samples: tuple[TargetSample, ...], target: int, after: timedelta) -> float:
    """Return the monotonic second at which everything above a target will be long enough ago."""
    since = samples[0].since_monotonic
    for sample, following in pairwise(samples):
        highest = _highest(sample)
        if highest is None or highest > target:
            since = following.since_monotonic
    return since + after.total_seconds()


def _highest(sample: TargetSample) -> int | None:
    """Return the most that may have been wanted, None if nobody knows."""
    return None if sample.doubt is None else sample.target + sample.doubt


def _inside(
    samples: tuple[TargetSample, ...], now: float, after: timedelta
) -> tuple[list[TargetSample], bool]:
    """Return the targets that held within the last `after`, and whether all are known."""
    start = now - after.total_seconds()
    covering = [sample for sample in samples if sample.since_monotonic <= start]
    within = [sample for sample in samples if sample.since_monotonic > start]
    if not covering:
        return within, False
    return [covering[-1], *within], True
