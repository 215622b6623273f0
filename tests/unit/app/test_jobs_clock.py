"""What is periodic goes on whatever the wall clock does: nothing caught up, nothing silent."""

import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from migscaler.app.clock import RealClock
from migscaler.app.jobs import Every, Job, Jobs

NOW = datetime(2026, 11, 23, 12, 0, tzinfo=UTC)
YEAR = timedelta(days=365)


class Walls:
    """A wall clock off by `wall`, and a monotonic one that goes with the real one."""

    def __init__(self) -> None:
        self.wall = timedelta(0)

    def now(self) -> datetime:
        return RealClock().now() + self.wall

    def monotonic(self) -> float:
        return RealClock().monotonic()

    def sleep(self, seconds: float) -> None:
        RealClock().sleep(seconds)


@given(
    period=st.integers(1, 3600),
    late=st.floats(0, YEAR.total_seconds(), allow_nan=False),
)
def test_run_that_is_late_is_followed_by_one_that_is_due_within_a_period(
    period: int, late: float
) -> None:
    every, now = timedelta(seconds=period), NOW + timedelta(seconds=late)

    due = Every(every).get_next_fire_time(NOW, now)

    assert now < due <= now + every
    assert (due - NOW) % every == timedelta()


def test_run_that_was_due_later_than_now_is_followed_by_the_one_after_it() -> None:
    trigger = Every(timedelta(seconds=5))

    assert trigger.get_next_fire_time(None, NOW) == NOW
    assert trigger.get_next_fire_time(NOW, NOW - YEAR) == NOW + timedelta(seconds=5)


@pytest.fixture
def made() -> Iterator[tuple[Jobs, Walls]]:
    clock = Walls()
    jobs = Jobs(clock)
    yield jobs, clock
    jobs.stop()


def test_clock_set_back_lets_the_next_look_start_the_jobs_anew(made: tuple[Jobs, Walls]) -> None:
    """APScheduler would sleep until its old wall clock time; its own clock can't be moved here, so
    that the job is one whose time lies ahead.
    """
    jobs, clock = made
    runs = threading.Semaphore(0)
    clock.wall = timedelta(hours=1)
    job = Job(name="prune", concern="prune", every=timedelta(hours=1), run=runs.release)
    jobs.start((job,))
    jobs.supervise()
    before = runs.acquire(timeout=0.2)
    clock.wall = timedelta(0)

    jobs.supervise()

    assert not before
    assert runs.acquire(timeout=10)
    assert (jobs.restarts, jobs.silent()) == (0, ())
