import random

import pytest

from tests.e2e.trend import trend

HOURS = [minute / 60 for minute in range(60)]


def test_a_constant_has_no_trend_and_no_doubt() -> None:
    found = trend(HOURS, [7.0] * 60)

    assert (found.slope, found.half_width) == (0.0, 0.0)


def test_a_straight_line_is_found_exactly() -> None:
    found = trend(HOURS, [100 + 3 * hour for hour in HOURS])

    assert found.slope == pytest.approx(3)
    assert found.low == pytest.approx(3, abs=1e-6)


def test_the_interval_of_independent_noise_is_the_textbook_s() -> None:
    found = trend([0, 1, 2, 3, 4, 5], [1, 3, 2, 4, 1, 4])

    # Residuals alternate, which is no reason to count more samples than there are.
    assert found.samples == 6
    assert found.slope == pytest.approx(11 / 35)
    squares = 9.5 - (11 / 35) ** 2 * 17.5
    assert found.half_width == pytest.approx(2.776 * (squares / 4 / 17.5) ** 0.5)


@pytest.mark.parametrize(("follow", "leaks"), [(0.0, 200), (0.6, 190), (0.9, 90)])
def test_a_leak_is_seen_and_noise_is_not_taken_for_one(follow: float, leaks: int) -> None:
    """Noise that follows itself, as memory does; 5 % of intervals may miss, 12 % fail."""
    draw = random.Random(1)
    seen = missed = 0
    for _ in range(200):
        noise, values = 0.0, []
        for _hour in HOURS:
            noise = follow * noise + draw.gauss(0, 0.3)
            values.append(80 + noise)
        quiet = trend(HOURS, values)
        missed += not quiet.low <= 0 <= quiet.high
        leaking = trend(HOURS, [v + 6 * hour for v, hour in zip(values, HOURS)])
        seen += leaking.low > 1
    assert missed <= 24
    assert seen >= leaks


def test_too_few_samples_are_refused() -> None:
    with pytest.raises(ValueError, match="four"):
        trend([0, 1, 2], [1, 2, 3])
    with pytest.raises(ValueError, match="one moment"):
        trend([1, 1, 1, 1], [1, 2, 3, 4])
