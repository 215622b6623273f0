"""What is periodic, driven by APScheduler, and the supervisor that notices when it is not.

APScheduler 3.11 keeps wall-clock run times: a clock set back silences interval jobs for that long,
one set forwards makes it list every run left out (a year of 5 s: 6 million in 10 s and 300 MiB,
measured), a trigger that raises kills its thread while `running` stays true (measured). So the
trigger here leaves out what is past, and a supervisor on the monotonic clock watches every job's
heartbeat and builds the scheduler anew when it stalls, or at once when the clock was set back.
"""

import logging
import threading
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from zoneinfo import ZoneInfo

from apscheduler.events import (
    EVENT_JOB_EXECUTED,
    EVENT_JOB_MAX_INSTANCES,
    EVENT_JOB_MISSED,
    JobExecutionEvent,
)
from apscheduler.executors.pool import ThreadPoolExecutor
from apscheduler.jobstores.base import JobLookupError
from apscheduler.jobstores.memory import MemoryJobStore
from apscheduler.schedulers.background import BackgroundScheduler
from apscheduler.triggers.base import BaseTrigger

from migscaler.control.clock_watch import ClockWatch
from migscaler.model.ports import Clock
from migscaler.model.stats import JobStats, SchedulerStats

_log = logging.getLogger("migscaler.jobs")

# A job that has not started for this many periods (and a floor in seconds) makes the scheduler
# suspect.
_SILENT_PERIODS = 4
_SILENT_FLOOR_SECONDS = 10.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """One periodic job; `concern` names its thread pool, so that none starves another's.

    A run that takes longer than `longest` counts as stuck.
    """

    name: str
    concern: str
    every: timedelta
    run: Callable[[], object]
    longest: timedelta = timedelta(minutes=3)


class Every(BaseTrigger):  # type: ignore[misc] # APScheduler has no types
    """Runs a period after the last run was due; what is past by then is left out, not caught up."""

    def __init__(self, period: timedelta) -> None:
        """Take the period, more than nothing."""
        self._period = period

    def get_next_fire_time(self, previous_fire_time: datetime | None, now: datetime) -> datetime:
        """Return when to run next: always later than now, but for the first time."""
        if previous_fire_time is None:
            return now
        periods = max(0, (now - previous_fire_time) // self._period)
        return previous_fire_time + (periods + 1) * self._period


@dataclass(slots=True)
class _Heartbeat:
    """When a job last started, on the monotonic clock, and that run as long as it lasts.

    A run that a reload or a stalled scheduler left behind may end after the next one has begun.
    """

    stats: JobStats
    started: float
    run: "_Run | None" = None


@dataclass(slots=True, kw_only=True, eq=False)
class _Run:
    """One run of a job, by how many seconds it was late, and whether it failed."""

    beat: _Heartbeat
    late: float
    failed: bool = True


class Jobs:
    """Runs jobs until stopped; statistics may be read from any thread."""

    def __init__(self, clock: Clock) -> None:
        """Nothing is scheduled yet."""
        self._clock = clock
        self._watch = ClockWatch(clock)
        self._lock = threading.Lock()
        # A reload and the supervisor may want another scheduler at the same moment.
        self._building = threading.Lock()
        self._has_ended = False
        self._jobs: tuple[Job, ...] = ()
        self._beats: dict[str, _Heartbeat] = {}
        self._scheduler: BackgroundScheduler | None = None
        self._restarts = 0

    @property
    def restarts(self) -> int:
        """Return how often a stalled scheduler was replaced."""
        return self._restarts

    def start(self, jobs: tuple[Job, ...]) -> None:
        """Run these jobs from now on, in place of any others; counts of kept names go on."""
        now = self._clock.monotonic()
        with self._lock:
            self._jobs = jobs
            self._beats = {
                job.name: self._beats.get(job.name)
                or _Heartbeat(stats=JobStats(job=job.name), started=now)
                for job in jobs
            }
            for beat in self._beats.values():
                beat.started = now
        with self._building:
            self._build()

    def stop(self) -> None:
        """Start nothing more, for good.

        Does not wait for a job under way: waiting for a job that asks the scheduler deadlocks.
        """
        with self._building:
            self._has_ended = True
            self._shut_down()

    def _shut_down(self) -> None:
        """End the scheduler; no job is waited for."""
        scheduler, self._scheduler = self._scheduler, None
        if scheduler is not None:
            scheduler.shutdown(wait=False)

    def stats(self) -> tuple[JobStats, ...]:
        """Return the counts of every job, by name."""
        with self._lock:
            return tuple(self._beats[name].stats for name in sorted(self._beats))

    def scheduler(self) -> SchedulerStats:
        """Return the counts of every job, and how often a stalled scheduler was replaced."""
        return SchedulerStats(jobs=self.stats(), restarts=self._restarts)

    def silent(self) -> tuple[str, ...]:
        """Return the jobs that have not started for too long; a job still running is not silent."""
        now = self._clock.monotonic()
        with self._lock:
            return tuple(
                job.name
                for job in self._jobs
                if self._beats[job.name].run is None
                and now - self._beats[job.name].started > _patience(job)
            )

    def stuck(self) -> tuple[str, ...]:
        """Return the jobs whose run under way takes longer than it ever should."""
        now = self._clock.monotonic()
        with self._lock:
            return tuple(
                job.name
                for job in self._jobs
                if self._beats[job.name].run is not None
                and now - self._beats[job.name].started > job.longest.total_seconds()
            )

    def soon(self, name: str) -> bool:
        """Run a job now and count its period from here; not to be called by a job.

        A job that is running already, or that is not there, is left alone: False.
        """
        with self._lock:
            beat = self._beats.get(name)
            is_idle = beat is not None and beat.run is None
        scheduler = self._scheduler
        if not is_idle or scheduler is None:
            return False
        try:
            scheduler.modify_job(name, next_run_time=self._clock.now())
        except JobLookupError:  # a reload is just putting another one in its place
            return False
        return True

    def supervise(self) -> None:
        """Replace the scheduler if jobs have gone silent, or will as the clock was set back.

        One that could not be built is built then too. The main thread calls this.
        """
        set_back = self._watch.look() < timedelta()
        silent = self.silent()
        if self._has_ended or not self._jobs or not (silent or set_back):
            return
        if silent:
            _log.warning("scheduler_stalled jobs=%s", ",".join(silent))
            self._restarts += 1
        now = self._clock.monotonic()
        with self._lock:
            for beat in self._beats.values():
                beat.started = now
        with self._building:
            self._build()

    def _build(self) -> None:
        """Build and start a scheduler for the present jobs, in place of any other."""
        self._shut_down()
        if self._has_ended:
            return
        concerns = {job.concern for job in self._jobs}
        scheduler = BackgroundScheduler(
            jobstores={"default": MemoryJobStore()},
            executors={
                "default": ThreadPoolExecutor(1),
                **{c: ThreadPoolExecutor(4 if c == "sources" else 1) for c in concerns},
            },
            job_defaults={"coalesce": True, "max_instances": 1, "misfire_grace_time": None},
            timezone=ZoneInfo("UTC"),
            daemon=True,
        )
        scheduler.add_listener(self._missed, EVENT_JOB_MISSED | EVENT_JOB_MAX_INSTANCES)
        scheduler.add_listener(self._ended, EVENT_JOB_EXECUTED)
        for job in self._jobs:
            scheduler.add_job(
                self._run,
                Every(job.every),
                args=(job, self._clock.monotonic()),
                id=job.name,
                executor=job.concern,
                next_run_time=self._clock.now(),
            )
        scheduler.start()
        self._scheduler = scheduler

    def _run(self, job: Job, _built: float) -> _Run | None:
        """Run a job, and let nothing it raises reach the scheduler; return what `_ended` counts."""
        beat = self._beats.get(job.name)
        if beat is None:
            return None
        now = self._clock.monotonic()
        with self._lock:
            late = max(0.0, now - beat.started - job.every.total_seconds())
            beat.started = now
            beat.run = run = _Run(beat=beat, late=late)
        try:
            job.run()
            run.failed = False
        except BaseException:  # noqa: BLE001 - the last line: count, log, go on without acting
            _log.exception("job_failed job=%s", job.name)
        return run

    def _ended(self, event: JobExecutionEvent) -> None:
        """Count a run that has ended, for APScheduler too.

        Counted within the run, a job brought forward at that moment was left out: to APScheduler it
        was still running.
        """
        run = event.retval
        if not isinstance(run, _Run):
            return
        with self._lock:
            beat = run.beat
            if beat.run is run:
                beat.run = None
            beat.stats = replace(
                beat.stats,
                runs=beat.stats.runs + 1,
                failures=beat.stats.failures + run.failed,
                lateness_seconds=run.late if beat.stats.runs else 0.0,
                last_success_at=beat.stats.last_success_at if run.failed else self._clock.now(),
            )

    def _missed(self, event: JobExecutionEvent) -> None:
        """Count a run that was left out."""
        with self._lock:
            beat = self._beats.get(event.job_id)
            if beat is not None:
                beat.stats = replace(beat.stats, missed=beat.stats.missed + 1)


def _patience(job: Job) -> float:
    """Return how many seconds of silence are tolerated."""
    return max(_SILENT_FLOOR_SECONDS, _SILENT_PERIODS * job.every.total_seconds())
