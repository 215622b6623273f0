"""The scheduler is replaced when it falls silent; jobs fail, overlap and are replaced safely."""

import logging
import threading
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta

import pytest

from migscaler.app.clock import RealClock
from migscaler.app.jobs import Job, Jobs

_DAY = timedelta(days=1)
_PATIENCE_SECONDS = 10.0


class TwoClocks:
    """A wall clock, which APScheduler follows, off by `wall`, and a monotonic one moved by hand."""

    def __init__(self) -> None:
        self.seconds = 1_000.0
        self.wall = timedelta(0)
        self.is_crowded = False

    def now(self) -> datetime:
        if self.is_crowded:
            raise RuntimeError("can't start new thread")
        return RealClock().now() + self.wall

    def monotonic(self) -> float:
        return self.seconds

    def sleep(self, seconds: float) -> None:
        self.seconds += seconds


class Counted:
    """A job that counts its runs and can be waited for."""

    def __init__(self) -> None:
        self.runs = threading.Semaphore(0)

    def __call__(self) -> None:
        self.runs.release()

    def wait(self) -> bool:
        return self.runs.acquire(timeout=_PATIENCE_SECONDS)


@pytest.fixture
def made() -> Iterator[tuple[Jobs, TwoClocks]]:
    clock = TwoClocks()
    jobs = Jobs(clock)
    yield jobs, clock
    jobs.stop()


def job(name: str, run: Callable[[], object], every: timedelta = _DAY) -> Job:
    return Job(name=name, concern=name, every=every, run=run)


def until(holds: Callable[[], bool]) -> None:
    for _ in range(1_000):
        if holds():
            return
        threading.Event().wait(0.01)
    raise AssertionError("it never came true")


def test_job_whose_time_never_comes_is_silent_after_ten_seconds(
    made: tuple[Jobs, TwoClocks],
) -> None:
    """A wall clock that is set back silences interval jobs for as long."""
    jobs, clock = made
    clock.wall = timedelta(hours=1)
    jobs.start((job("sample", Counted(), timedelta(seconds=1)),))

    clock.sleep(10)
    just_in_time = jobs.silent()
    clock.sleep(0.5)

    assert (just_in_time, jobs.silent()) == ((), ("sample",))


def test_slow_job_is_silent_only_after_four_of_its_periods(made: tuple[Jobs, TwoClocks]) -> None:
    jobs, clock = made
    clock.wall = timedelta(hours=1)
    jobs.start((job("prune", Counted(), timedelta(minutes=1)),))

    clock.sleep(240)
    just_in_time = jobs.silent()
    clock.sleep(0.5)

    assert (just_in_time, jobs.silent()) == ((), ("prune",))


def test_silent_scheduler_is_replaced_and_the_jobs_run_again(
    made: tuple[Jobs, TwoClocks], caplog: pytest.LogCaptureFixture
) -> None:
    jobs, clock = made
    runs = Counted()
    clock.wall = timedelta(hours=1)
    jobs.start((job("sample", runs, timedelta(seconds=5)),))
    clock.wall = timedelta(0)
    clock.sleep(21)

    with caplog.at_level(logging.WARNING):
        jobs.supervise()

    assert runs.wait()
    assert jobs.restarts == 1
    assert jobs.scheduler().restarts == 1
    assert jobs.silent() == ()
    assert "scheduler_stalled jobs=sample" in caplog.text


def test_scheduler_that_works_is_left_alone(made: tuple[Jobs, TwoClocks]) -> None:
    jobs, clock = made
    runs = Counted()
    jobs.start((job("sample", runs),))
    assert runs.wait()
    clock.sleep(60)

    jobs.supervise()

    assert jobs.restarts == 0


def test_jobs_are_not_started_once_they_were_stopped(made: tuple[Jobs, TwoClocks]) -> None:
    """A reload that ended after SIGTERM began ticks anew, while the daemon closed its state."""
    jobs, _clock = made
    runs = Counted()
    jobs.stop()

    jobs.start((job("tick", runs),))

    assert jobs._scheduler is None
    assert not runs.runs.acquire(blocking=False)


def test_stopped_jobs_are_not_started_again_by_the_supervisor(
    made: tuple[Jobs, TwoClocks],
) -> None:
    jobs, clock = made
    clock.wall = timedelta(hours=1)
    jobs.start((job("sample", Counted(), timedelta(seconds=1)),))
    jobs.stop()
    clock.sleep(3600)

    jobs.supervise()

    assert jobs.restarts == 0


def test_failing_job_is_counted_and_runs_on(
    made: tuple[Jobs, TwoClocks], caplog: pytest.LogCaptureFixture
) -> None:
    jobs, _ = made
    other = Counted()

    def fail() -> None:
        raise ValueError("odd")

    with caplog.at_level(logging.ERROR):
        jobs.start((job("tick", fail), job("sample", other)))
        until(lambda: jobs.stats()[1].runs == 1)
        jobs.soon("tick")
        until(lambda: jobs.stats()[1].runs == 2)

    assert (jobs.stats()[1].job, jobs.stats()[1].failures) == ("tick", 2)
    assert other.wait()
    assert caplog.text.count("job_failed job=tick") == 2


def test_job_never_overlaps_itself_and_what_was_left_out_is_counted(
    made: tuple[Jobs, TwoClocks],
) -> None:
    jobs, _ = made
    begun, end = Counted(), threading.Event()
    running: list[int] = []

    def run() -> None:
        running.append(1)
        begun()
        assert end.wait(_PATIENCE_SECONDS)

    jobs.start((job("sample", run, timedelta(seconds=0.05)),))
    assert begun.wait()
    until(lambda: jobs.stats()[0].missed >= 2)
    at_once = len(running)
    jobs.stop()
    end.set()

    assert at_once == 1


def test_stuck_job_does_not_starve_another_concern(made: tuple[Jobs, TwoClocks]) -> None:
    jobs, _ = made
    begun, end, other = Counted(), threading.Event(), Counted()

    def hang() -> None:
        begun()
        assert end.wait(_PATIENCE_SECONDS)

    jobs.start((job("tick", hang), job("sample", other)))

    assert begun.wait()
    assert other.wait()
    end.set()


def test_counts_of_a_job_that_stays_go_on_over_a_reload(made: tuple[Jobs, TwoClocks]) -> None:
    jobs, _ = made
    jobs.start((job("sample", Counted()), job("source:old", Counted())))
    until(lambda: all(one.runs == 1 for one in jobs.stats()))

    jobs.start((job("sample", Counted()), job("source:new", Counted())))
    until(lambda: [one.runs for one in jobs.stats()] == [2, 1])

    assert [one.job for one in jobs.stats()] == ["sample", "source:new"]


def test_lateness_is_the_time_beyond_the_period(made: tuple[Jobs, TwoClocks]) -> None:
    jobs, clock = made
    runs = Counted()
    jobs.start((job("sample", runs, timedelta(seconds=30)),))
    until(lambda: jobs.stats()[0].runs == 1)
    clock.sleep(37)

    jobs.soon("sample")
    until(lambda: jobs.stats()[0].runs == 2)

    assert jobs.stats()[0].lateness_seconds == 7.0


def test_run_that_a_reload_met_does_not_end_the_one_after_it(
    made: tuple[Jobs, TwoClocks],
) -> None:
    """A long tick ended, the new scheduler's was at work: it was told as silent, and replaced."""
    jobs, clock = made
    begun, may_end = threading.Semaphore(0), [threading.Event(), threading.Event()]
    left = list(may_end)

    def run() -> None:
        mine = left.pop(0)
        begun.release()
        assert mine.wait(_PATIENCE_SECONDS)

    jobs.start((job("tick", run, timedelta(seconds=30)),))
    assert begun.acquire(timeout=_PATIENCE_SECONDS)
    jobs.start((job("tick", run, timedelta(seconds=30)),))
    assert begun.acquire(timeout=_PATIENCE_SECONDS)
    may_end[0].set()
    until(lambda: jobs.stats()[0].runs == 1)

    clock.sleep(121)
    silent, brought_forward = jobs.silent(), jobs.soon("tick")
    may_end[1].set()
    until(lambda: jobs.stats()[0].runs == 2)

    assert (silent, brought_forward) == ((), False)
    assert jobs.silent() == ("tick",)


def test_scheduler_that_could_not_be_built_is_built_once_it_can(
    made: tuple[Jobs, TwoClocks],
) -> None:
    """Where threads were used up when a reload came, nothing was read or decided ever again."""
    jobs, clock = made
    runs = Counted()
    reloaded = (job("sample", runs, timedelta(seconds=5)),)
    clock.is_crowded = True
    with pytest.raises(RuntimeError, match="thread"):
        jobs.start(reloaded)
    clock.is_crowded = False

    clock.sleep(21)
    jobs.supervise()

    assert runs.wait()
