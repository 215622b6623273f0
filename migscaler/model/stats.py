"""Plain cumulative numbers that metrics renders."""

from dataclasses import dataclass
from datetime import datetime
from enum import Enum


@dataclass(frozen=True, slots=True, kw_only=True)
class CallCount:
    """Calls of one NVML function so far: how many, seconds spent, errors by code name."""

    function: str
    calls: int
    seconds: float
    errors: tuple[tuple[str, int], ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class CallStats:
    """All NVML calls so far, by function name; `worker_restarts` counts abandoned workers."""

    functions: tuple[CallCount, ...] = ()
    worker_restarts: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class JobStats:
    """One periodic job so far; lateness is of its last run, in seconds."""

    job: str
    runs: int = 0
    failures: int = 0
    missed: int = 0
    lateness_seconds: float = 0.0
    last_success_at: datetime | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class SchedulerStats:
    """The periodic jobs by name; `restarts` counts schedulers that stalled and were replaced."""

    jobs: tuple[JobStats, ...] = ()
    restarts: int = 0


class Refused(Enum):
    """Why the web server turned somebody away: for being too much, never for who it was.

    A connection for which there is no place, or whose address has spent its budget; a request
    beyond what connection and address may ask; a password beyond what can be checked; a request
    beyond the rate limit of the web configuration file; a command beyond those carried out at once.
    """

    CONNECTION = "connection"
    REQUEST = "request"
    PASSWORD = "password"  # noqa: S105  # a reason, not a secret
    RATE_LIMIT = "rate_limit"
    COMMAND = "command"


@dataclass(frozen=True, slots=True, kw_only=True)
class WebStats:
    """What the web server turned away so far: (reason, count)."""

    refused: tuple[tuple[str, int], ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Histogram:
    """A cumulative histogram: (upper bound in seconds, count up to it), sum and count of all.

    Labels are (name, value) pairs in a fixed order.
    """

    labels: tuple[tuple[str, str], ...]
    buckets: tuple[tuple[float, int], ...]
    total_seconds: float
    count: int
