"""How often something may happen: a burst, then a steady rate, and no credit beyond the burst."""

from migscaler.app.allowance import Allowance


class Timer:
    def __init__(self) -> None:
        self.seconds = 100.0

    def __call__(self) -> float:
        return self.seconds


def taken(allowance: Allowance, tries: int) -> int:
    return sum(allowance.take() for _ in range(tries))


def test_burst_is_given_and_then_no_more() -> None:
    allowance = Allowance(Timer(), at_once=3, per_second=2.0)

    assert [allowance.take() for _ in range(5)] == [True, True, True, False, False]


def test_it_fills_at_its_rate() -> None:
    timer = Timer()
    allowance = Allowance(timer, at_once=3, per_second=2.0)
    taken(allowance, 5)
    timer.seconds += 1.0

    assert taken(allowance, 5) == 2


def test_a_long_rest_gives_no_more_than_the_burst() -> None:
    timer = Timer()
    allowance = Allowance(timer, at_once=3, per_second=2.0)
    timer.seconds += 3_600.0

    assert taken(allowance, 10) == 3
