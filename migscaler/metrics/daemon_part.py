"""Series about the daemon itself: configuration, collectors, jobs, NVML calls, acting."""

import platform

from migscaler.metrics.family import GATE_REASONS
from migscaler.metrics.samples import Samples
from migscaler.model.plan import Direction, OutcomeReason
from migscaler.model.stats import Refused
from migscaler.model.status import Counters, Status

VERDICTS = ("kept", "destroy")
# The NVML calls that change a GPU, as the journal names them.
STEP_KINDS = ("destroy_ci", "destroy_gi", "create_gi", "create_ci")
# What becomes of a call that did not do what it should (control.steps_run).
STEP_FAILURES = tuple(
    reason.value
    for reason in (
        OutcomeReason.NO_LONGER_IDLE,
        OutcomeReason.HELD_BY_CLIENT,
        OutcomeReason.INSUFFICIENT_RESOURCES,
        OutcomeReason.NO_PERMISSION,
        OutcomeReason.NOT_VERIFIED,
        OutcomeReason.DRIVER_FAULT,
    )
)
REFUSALS = tuple(reason.value for reason in Refused)
REGRET_WINDOWS = ("300", "1800")
_DIRECTIONS = tuple(direction.value for direction in Direction)
_FAILURE_REASONS = tuple(
    reason.value
    for reason in OutcomeReason
    if reason not in (OutcomeReason.COMPLETED, OutcomeReason.SETTLED)
)
# Keys of `Counters.histograms`; one that is missing here would be lost without a word otherwise.
HISTOGRAMS = ("plan", "gpu_plan", "step", "settle", "restore")


def add_daemon(status: Status, out: Samples) -> None:
    """Add version, configuration and store."""
    config = status.config
    out.add("build_info", 1, status.version, platform.python_version())
    out.add("state_writable", float(status.state_writable))
    out.add("config_valid", float(config.valid))
    if config.sha256 is not None:
        out.add("config_info", 1, config.sha256)
    out.add("config_problems", len(config.problems))
    out.add("config_warnings", len(config.warnings))
    out.add("config_forced_observe", float(config.forced_observe is not None))
    out.add("config_last_reload_successful", float(config.last_reload_success))
    out.add_time("config_last_reload_success_timestamp_seconds", config.last_reload_success_at)


def add_collectors(status: Status, out: Samples) -> None:
    """Add how the last attempt of each collector went."""
    for one in status.collectors:
        out.add("collector_success", float(one.success), one.name)
        out.add("collector_duration_seconds", one.duration_seconds, one.name)
        out.add_time("collector_last_success_timestamp_seconds", one.last_success_at, one.name)


def add_work(status: Status, out: Samples) -> None:
    """Add jobs, NVML calls, and whom the web server turned away."""
    out.add("scheduler_restarts_total", status.scheduler.restarts)
    for job in status.scheduler.jobs:
        out.add("scheduler_job_runs_total", job.runs, job.job)
        out.add("scheduler_job_failures_total", job.failures, job.job)
        out.add("scheduler_job_missed_total", job.missed, job.job)
        out.add("scheduler_job_lateness_seconds", job.lateness_seconds, job.job)
        out.add_time("scheduler_job_last_success_timestamp_seconds", job.last_success_at, job.job)
    for call in status.calls.functions:
        out.add("nvml_calls_total", call.calls, call.function)
        out.add("nvml_call_seconds_total", call.seconds, call.function)
        for code, count in call.errors:
            out.add("nvml_call_errors_total", count, call.function, code)
    out.add("nvml_worker_restarts_total", status.calls.worker_restarts)
    out.add_closed("http_refused_total", REFUSALS, _floats(status.web.refused))


def add_acting(status: Status, out: Samples) -> None:
    """Add the cumulative counts of deciding and acting."""
    counters = status.counters
    out.add("ticks_total", counters.ticks)
    out.add("rollbacks_total", counters.rollbacks)
    out.add_closed("hold_ticks_total", GATE_REASONS, _floats(counters.holds))
    out.add_closed("plans_total", _DIRECTIONS, _floats(counters.plans))
    out.add_closed("gpu_plans_total", _DIRECTIONS, _floats(counters.gpu_plans))
    out.add_closed("gpu_plan_failures_total", _FAILURE_REASONS, _floats(counters.gpu_plan_failures))
    out.add_closed("steps_total", STEP_KINDS, _floats(counters.steps))
    for kind in STEP_KINDS:
        failed = {why: float(n) for what, why, n in counters.step_failures if what == kind}
        out.add_closed("step_failures_total", STEP_FAILURES, failed, kind)
    out.add_closed("idle_verdicts_total", VERDICTS, _floats(status.regret.verdicts))
    for verdict in VERDICTS:
        found = {str(w): float(n) for v, w, n in status.regret.regrets if v == verdict}
        out.add_closed("idle_regrets_total", REGRET_WINDOWS, found, verdict)


def add_histograms(counters: Counters, out: Samples) -> None:
    """Add the duration histograms.

    Raises:
        ValueError: the counters hold one that the table does not know.
    """
    for name, histogram in counters.histograms:
        if name not in HISTOGRAMS:
            raise ValueError(f"no family for the durations of {name!r}; known: {HISTOGRAMS}")
        out.add_histogram(f"{name}_duration_seconds", histogram)


def _floats(pairs: tuple[tuple[str, int], ...]) -> dict[str, float]:
    return {name: float(count) for name, count in pairs}
