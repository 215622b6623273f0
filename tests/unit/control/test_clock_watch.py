"""Who watches the wall clock may be held up at any moment: that is no step of it."""

from datetime import timedelta

import pytest

from migscaler.control.clock_watch import ClockWatch
from tests.builders import NOW
from tests.simulation.clockwork import HeldUpClock


@pytest.mark.parametrize("reading", range(1, 16))
def test_being_held_up_between_the_two_clocks_is_no_step(reading: int) -> None:
    """Deadlines moved by as much, schedulers were built anew, and no plan began for a minute."""
    clock = HeldUpClock(NOW, reading)
    watch = ClockWatch(clock)

    found = [(watch.look(), watch.problem()) for _ in range(4)]

    assert found == [(timedelta(), None)] * 4


@pytest.mark.parametrize("step", [-3600.0, 3600.0])
def test_step_is_seen_once_and_told_for_a_minute(step: float) -> None:
    clock = HeldUpClock(NOW, 0)
    watch = ClockWatch(clock)
    clock.step_wall(step)

    before, found, again = watch.problem(), watch.look(), watch.look()
    then = watch.problem()
    clock.advance(60)

    assert (found, again) == (timedelta(seconds=step), timedelta())
    assert before == then == f"the clock was stepped by {step:+.0f} s"
    assert watch.problem() is None
