"""Pace: a target is raised late and lowered later."""

from datetime import timedelta

from migscaler.model.decision import TargetSample
from migscaler.policy import pace

HALF_MINUTE = timedelta(seconds=30)


def samples(*pairs: tuple[float, int]) -> tuple[TargetSample, ...]:
    """Return steps of a target: (second, target)."""
    return tuple(TargetSample(since_monotonic=at, target=target) for at, target in pairs)


def test_raised_needs_the_whole_time() -> None:
    past = samples((0, 1), (100, 4))
    assert pace.raised(past, 129.0, HALF_MINUTE) == 1
    assert pace.raised(past, 130.0, HALF_MINUTE) == 4


def test_raised_takes_the_lowest_dip() -> None:
    assert pace.raised(samples((0, 5), (100, 2), (110, 6)), 125.0, HALF_MINUTE) == 2


def test_raised_of_a_rule_just_begun_is_nothing() -> None:
    assert pace.raised(samples((100, 4)), 129.0, HALF_MINUTE) == 0
    assert pace.raised(samples((100, 4)), 130.0, HALF_MINUTE) == 4


def test_raised_without_delay_is_at_once() -> None:
    assert pace.raised(samples((100, 4)), 100.0, timedelta(0)) == 4


def test_kept_takes_the_highest_of_the_time() -> None:
    past = samples((0, 5), (100, 2))
    assert pace.kept(past, 129.0, HALF_MINUTE) == 5
    assert pace.kept(past, 130.0, HALF_MINUTE) == 2


def test_kept_of_a_rule_just_begun_is_everything() -> None:
    assert pace.kept(samples((100, 4)), 129.0, HALF_MINUTE) is None


def test_recorded_adds_a_sample_per_change_only() -> None:
    past = samples((0, 1))
    assert pace.recorded(past, 1, 10.0, HALF_MINUTE) == past
    assert pace.recorded(past, 2, 10.0, HALF_MINUTE) == samples((0, 1), (10, 2))


def test_recorded_forgets_what_no_longer_matters() -> None:
    past = samples((0, 1), (10, 2), (50, 3))
    assert pace.recorded(past, 3, 85.0, HALF_MINUTE) == samples((50, 3))
    assert pace.recorded(past, 3, 70.0, HALF_MINUTE) == samples((10, 2), (50, 3))


def test_recorded_drops_samples_of_another_boot() -> None:
    assert pace.recorded(samples((5_000, 7)), 1, 10.0, HALF_MINUTE) == samples((10, 1))


def test_raised_at_counts_from_the_last_dip() -> None:
    assert pace.raised_at(samples((0, 5), (100, 2), (110, 6), (120, 5)), 5, HALF_MINUTE) == 140.0


def test_reached_tells_a_lower_target_from_one_that_nobody_knew() -> None:
    silent = TargetSample(since_monotonic=100, target=0, doubt=4)
    unknown = TargetSample(since_monotonic=100, target=0, doubt=None)
    surely_lower = TargetSample(since_monotonic=100, target=0, doubt=3)
    back = TargetSample(since_monotonic=115, target=4)

    assert pace.reached(samples((0, 1), (100, 4), (110, 5)), 4) == (100, True)
    assert pace.reached((*samples((0, 4)), silent, back), 4) == (115, False)
    assert pace.reached((*samples((0, 4)), unknown, back), 4) == (115, False)
    assert pace.reached((*samples((0, 4)), surely_lower, back), 4) == (115, True)
    assert pace.reached(samples((100, 4)), 4) == (100, False)


def test_lowered_at_counts_from_the_end_of_the_last_peak() -> None:
    assert pace.lowered_at(samples((0, 5), (100, 2), (110, 1)), 1, HALF_MINUTE) == 140.0


def test_doubt_counts_as_wanted_for_lowering_and_not_for_raising() -> None:
    past = (
        TargetSample(since_monotonic=0, target=0, doubt=5),
        TargetSample(since_monotonic=100, target=3),
    )
    assert pace.kept(past, 129.0, HALF_MINUTE) == 5
    assert pace.kept(past, 130.0, HALF_MINUTE) == 3
    assert pace.raised(past, 129.0, HALF_MINUTE) == 0
    assert pace.lowered_at(past, 3, HALF_MINUTE) == 130.0


def test_target_that_nobody_knew_keeps_everything() -> None:
    past = (
        TargetSample(since_monotonic=0, target=2, doubt=None),
        TargetSample(since_monotonic=100, target=2),
    )
    assert pace.kept(past, 129.0, HALF_MINUTE) is None
    assert pace.kept(past, 130.0, HALF_MINUTE) == 2
    assert pace.lowered_at(past, 2, HALF_MINUTE) == 130.0


def test_recorded_tells_a_target_in_doubt_from_a_certain_one() -> None:
    past = samples((0, 1))
    silent = pace.recorded(past, 1, 10.0, HALF_MINUTE, doubt=4)
    assert silent[-1] == TargetSample(since_monotonic=10.0, target=1, doubt=4)
    assert pace.recorded(silent, 1, 20.0, HALF_MINUTE)[-1] == TargetSample(
        since_monotonic=20.0, target=1
    )
