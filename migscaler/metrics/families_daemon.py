"""Rows of the metric table about the daemon itself."""

# ruff: noqa: E501 (a table: one row, one line)
# fmt: off

from migscaler.metrics.family import Family, Many, row

_JOB = "APScheduler listeners"
_CONFIG = "configuration"
_CALLS = "NVML call wrapper"

DAEMON: tuple[Family, ...] = (
    row("build_info", "", "Version that runs; always 1.", Many.NODE, "version", "python_version", origin="package"),
    row("collector_success", "", "1 if the collector's last attempt worked; collectors named exposition_* are parts of this page.", Many.NODE, "collector", origin="loop",
        example="migscaler_collector_success == 0"),
    row("collector_duration_seconds", "seconds", "Duration of the collector's last attempt.", Many.NODE, "collector", origin="loop"),
    row("collector_last_success_timestamp_seconds", "seconds", "Time of the collector's last success.", Many.NODE, "collector", origin="loop",
        example="time() - migscaler_collector_last_success_timestamp_seconds > 60"),
    row("config_valid", "", "1 if the configuration file as it lies there is valid.", origin=_CONFIG),
    row("config_info", "", "Configuration in force, by hash of the file; always 1.", Many.NODE, "sha256", origin=_CONFIG),
    row("config_problems", "", "Errors found in the file at the last load.", origin=_CONFIG),
    row("config_warnings", "", "Warnings: settings that do not fit the hardware at hand.", origin=_CONFIG),
    row("config_forced_observe", "", "1 if everything is only observed for want of a valid configuration.", origin=_CONFIG),
    row("config_last_reload_successful", "", "1 if the last load worked.", origin=_CONFIG),
    row("config_last_reload_success_timestamp_seconds", "seconds", "Time of the last load that worked.", origin=_CONFIG),
    row("state_writable", "", "1 if the journal can be written; nothing is changed otherwise.", origin="store"),
    row("scheduler_restarts_total", "restarts", "Stalled schedulers of periodic jobs that were replaced by a new one.", origin="supervisor",
        example="increase(migscaler_scheduler_restarts_total[1d]) > 0"),
    row("scheduler_job_runs_total", "runs", "Runs of a periodic job.", Many.NODE, "task", origin=_JOB),
    row("scheduler_job_failures_total", "failures", "Runs of a periodic job that raised.", Many.NODE, "task", origin=_JOB),
    row("scheduler_job_missed_total", "runs", "Runs of a periodic job that were missed.", Many.NODE, "task", origin=_JOB),
    row("scheduler_job_last_success_timestamp_seconds", "seconds", "Time at which the job's last run that worked ended.", Many.NODE, "task", origin=_JOB,
        example='time() - migscaler_scheduler_job_last_success_timestamp_seconds{task="sample"} > 60'),
    row("scheduler_job_lateness_seconds", "seconds", "How late the job's last run began.", Many.NODE, "task", origin=_JOB),
    row("nvml_calls_total", "calls", "NVML calls, by function.", Many.NODE, "function", origin=_CALLS,
        example="sum (rate(migscaler_nvml_calls_total[5m]))"),
    row("nvml_call_seconds_total", "seconds", "Time spent in NVML calls, by function.", Many.NODE, "function", origin=_CALLS,
        example="rate(migscaler_nvml_call_seconds_total[5m]) / rate(migscaler_nvml_calls_total[5m])"),
    row("nvml_call_errors_total", "errors", "NVML calls that answered with an error, by function and code.", Many.NODE, "function", "code", origin=_CALLS),
    row("nvml_worker_restarts_total", "restarts", "NVML worker processes that were abandoned and started anew.", origin=_CALLS),
    row("http_refused_total", "requests", "Connections and requests turned away for being too many, by reason; who may not read or command is not counted.", Many.NODE, "reason", origin="web server",
        example="sum by (reason) (rate(migscaler_http_refused_total[5m])) > 0"),
)
