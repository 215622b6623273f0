"""Short words for people: reasons, ages, times."""

from datetime import datetime, timedelta

from migscaler.model.gpu import ActivitySource, GpuReading
from migscaler.model.plan import GateReason, OutcomeReason
from migscaler.model.status import Status

UNREAD = "the GPUs can't be read"
"""How a text begins that says why there is no picture of the node."""

GATE_WORDS = {
    GateReason.SATISFIED: "nothing to change",
    GateReason.MODE: "mode forbids acting",
    GateReason.PAUSED: "paused",
    GateReason.VETO: "veto",
    GateReason.FOREIGN_OWNER: "another layout manager",
    GateReason.ALLOCATIONS_UNKNOWN: "allocations unknown",
    GateReason.MIG_DISABLED: "MIG is off",
    GateReason.JOURNAL_UNWRITABLE: "journal can't be written",
    GateReason.OPEN_PLAN: "a plan is still open",
    GateReason.CLOCK_STEP: "the clock was stepped",
    GateReason.SNAPSHOT_STALE: "figures too old",
    GateReason.DRIVER_FAULT: "driver fault",
    GateReason.BREAKER_OPEN: "left alone after failures",
    GateReason.FROZEN: "frozen by the calendar",
    GateReason.PROTECTED: "protected",
    GateReason.NOT_IDLE: "not idle",
    GateReason.HELD_BY_CLIENT: "held by a client",
    GateReason.SOURCE_UNKNOWN: "source does not answer",
    GateReason.SETTLING_TARGET: "target still settling",
    GateReason.RESTING: "resting",
    GateReason.FLAPPING: "flapping",
    GateReason.BUDGET: "budget used up",
    GateReason.FENCE_TIMEOUT: "fence timed out",
    GateReason.INFEASIBLE: "does not fit",
}
OUTCOME_WORDS = {
    OutcomeReason.COMPLETED: "done",
    OutcomeReason.CHANGED_UNDERNEATH: "the GPU changed meanwhile",
    OutcomeReason.NO_LONGER_IDLE: "an instance came into use",
    OutcomeReason.HELD: "held",
    OutcomeReason.HELD_BY_CLIENT: "held by a client",
    OutcomeReason.FENCE_TIMEOUT: "fence timed out",
    OutcomeReason.PAUSED: "paused",
    OutcomeReason.GATE_CLOSED: "a gate closed meanwhile",
    OutcomeReason.STOPPING: "the daemon stopped",
    OutcomeReason.INSUFFICIENT_RESOURCES: "no room",
    OutcomeReason.NO_PERMISSION: "no permission",
    OutcomeReason.NOT_VERIFIED: "could not be verified",
    OutcomeReason.DRIVER_FAULT: "driver fault",
    OutcomeReason.JOURNAL_UNWRITABLE: "journal can't be written",
    OutcomeReason.ROLLBACK_INCOMPLETE: "could not be put back whole",
    OutcomeReason.SETTLED: "settled at start",
}


def span_words(span: timedelta) -> str:
    """Return a duration to two units at most: `45 s`, `1 min 15 s`, `3 h`, `2 d 4 h`."""
    seconds = max(0, round(span.total_seconds()))
    parts = []
    for unit, size in (("d", 86_400), ("h", 3_600), ("min", 60), ("s", 1)):
        count, seconds = divmod(seconds, size)
        parts.append((count, unit))
    first = next((n for n, (count, _) in enumerate(parts) if count), len(parts) - 1)
    shown = parts[first : first + 2]
    return " ".join(f"{count} {unit}" for count, unit in shown if count) or "0 s"


def ago(at: datetime, now: datetime) -> str:
    """Return how long ago a moment was."""
    return "just now" if now - at < timedelta(seconds=2) else f"{span_words(now - at)} ago"


def until(at: datetime, now: datetime) -> str:
    """Return how long it takes until a moment."""
    return f"in {span_words(at - now)}" if at > now else "now"


def unread_words(status: Status) -> str | None:
    """Say since when and why the GPUs are not read, None while they are."""
    why = _why_unread(status)
    if why is None:
        return None
    if status.snapshot is None:
        return f"{UNREAD}: {why}"
    return f"the GPUs were last read {ago(status.snapshot.taken_at, status.now)}: {why}"


def _why_unread(status: Status) -> str | None:
    pause, snapshot = status.pause, status.snapshot
    unread = snapshot is None or status.snapshot_stale
    if pause is not None and pause.driver_released:
        # A command without a daemon reads them all the same.
        if unread or snapshot is None or snapshot.taken_at <= pause.since:
            return "the driver is released until `migscaler resume`"
        return None
    if not unread:
        return None
    nvml = next((one for one in status.collectors if one.name == "nvml"), None)
    return (nvml and nvml.problem) or "the driver has not answered yet"


def clock(at: datetime) -> str:
    """Return the time of day."""
    return f"{at:%H:%M:%S} UTC"


def count_of(count: int, one: str, many: str) -> str:
    """Return `1 GPU` or `3 GPUs`."""
    return f"{count} {one if count == 1 else many}"


def evidence_words(reading: GpuReading) -> str:
    """Return the signals that show an instance of the GPU to be idle."""
    signals = "processes, allocations, memory"
    match reading.activity_source:
        case ActivitySource.GPM:
            return f"{signals}, activity (GPM)"
        case ActivitySource.DCGM:
            return f"{signals}, activity (DCGM)"
        case None:
            return f"{signals} (no activity per instance on this GPU without DCGM)"


def unseen_words(reading: GpuReading) -> str | None:
    """Say how many instances DCGM should tell the activity of and does not, and why; else None."""
    gaps = [one.activity_gap for one in reading.instances or () if one.activity_gap is not None]
    if not gaps:
        return None
    return f"activity of {len(gaps)} of {len(reading.instances or ())} instances unknown: {gaps[0]}"
