"""Periodic jobs: brought forward, stuck, silent, counted."""

import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import pytest

from migscaler.app.clock import RealClock
from migscaler.app.jobs import Job, Jobs

_DAY = timedelta(days=1)
_PATIENCE_SECONDS = 10.0


class HandClock:
    """The real wall clock, which APScheduler follows, beside a monotonic one moved by hand."""

    def __init__(self) -> None:
        self.seconds = 0.0

    def now(self) -> datetime:
        return RealClock().now()

    def monotonic(self) -> float:
        return self.seconds

    def sleep(self, seconds: float) -> None:
        self.seconds += seconds


class Runs:
    """A job's runs: each is announced, and lasts until it may end."""

    def __init__(self) -> None:
        self.begun = threading.Semaphore(0)
        self.may_end = threading.Semaphore(0)

    def __call__(self) -> None:
        self.begun.release()
        assert self.may_end.acquire(timeout=_PATIENCE_SECONDS)

    def wait(self) -> bool:
        return self.begun.acquire(timeout=_PATIENCE_SECONDS)


@pytest.fixture
def jobs() -> Iterator[tuple[Jobs, HandClock]]:
    clock = HandClock()
    made = Jobs(clock)
    yield made, clock
    made.stop()


def _until_counted(jobs: Jobs, runs: int) -> None:
    for _ in range(1_000):
        if jobs.stats()[0].runs >= runs:
            return
        threading.Event().wait(0.01)
    raise AssertionError("the run was never counted")


def test_job_brought_forward_runs_long_before_its_time(jobs: tuple[Jobs, HandClock]) -> None:
    made, _ = jobs
    runs = Runs()
    runs.may_end.release(2)
    made.start((Job(name="tick", concern="policy", every=_DAY, run=runs),))
    assert runs.wait()
    _until_counted(made, 1)

    assert made.soon("tick") is True

    assert runs.wait()
    _until_counted(made, 2)
    (stats,) = made.stats()
    assert (stats.failures, stats.missed, stats.lateness_seconds) == (0, 0, 0.0)


def test_job_brought_forward_just_as_its_run_ended_is_run_all_the_same(
    jobs: tuple[Jobs, HandClock],
) -> None:
    """To APScheduler the last run was still there: this one was left out, for up to a period."""
    made, _ = jobs
    runs = Runs()
    made.start((Job(name="tick", concern="policy", every=_DAY, run=runs),))
    assert runs.wait()
    assert made._scheduler is not None
    with made._scheduler._lookup_executor("policy")._lock:  # what it takes to forget the run
        runs.may_end.release(2)
        for _ in range(30):
            assert made.soon("tick") is False
            threading.Event().wait(0.01)
    _until_counted(made, 1)

    assert made.soon("tick") is True

    _until_counted(made, 2)
    assert made.stats()[0].missed == 0


def test_job_is_not_brought_forward_while_its_scheduler_is_being_replaced(
    jobs: tuple[Jobs, HandClock],
) -> None:
    made, _ = jobs
    made.start((Job(name="tick", concern="policy", every=_DAY, run=lambda: None),))
    _until_counted(made, 1)
    assert made._scheduler is not None
    made._scheduler.shutdown(wait=False)

    assert made.soon("tick") is False

    made._scheduler = None


def test_unknown_job_is_not_brought_forward(jobs: tuple[Jobs, HandClock]) -> None:
    made, _ = jobs
    made.start(())

    assert made.soon("tick") is False
    assert made.stats() == ()


def test_run_that_does_not_end_is_stuck_and_never_silent(jobs: tuple[Jobs, HandClock]) -> None:
    made, clock = jobs
    runs = Runs()
    job = Job(
        name="sample",
        concern="sampler",
        every=timedelta(seconds=5),
        run=runs,
        longest=timedelta(minutes=1),
    )
    made.start((job,))
    assert runs.wait()

    clock.sleep(59)
    before = made.stuck()
    clock.sleep(2)
    stuck, silent = made.stuck(), made.silent()
    assert made.soon("sample") is False
    made.stop()
    runs.may_end.release(2)

    assert (before, stuck, silent) == ((), ("sample",), ())


def test_success_is_dated_and_failure_is_not(jobs: tuple[Jobs, HandClock]) -> None:
    made, _ = jobs
    answers = iter([None, ValueError("odd")])
    ran = threading.Semaphore(0)

    def run() -> None:
        ran.release()
        problem = next(answers)
        if problem is not None:
            raise problem

    began = datetime.now(UTC)
    made.start((Job(name="prune", concern="housekeeping", every=_DAY, run=run),))
    _until_counted(made, 1)
    first = made.stats()[0].last_success_at
    made.soon("prune")
    _until_counted(made, 2)

    assert first is not None
    assert first >= began
    (stats,) = made.stats()
    assert (stats.runs, stats.failures, stats.last_success_at) == (2, 1, first)
