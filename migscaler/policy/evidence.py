"""What one instance's signals say at one moment: in use, busy, quiet, or not known.

A signal is `process`, `allocation`, `memory` or `activity`. Somebody's process or claim always
pins; memory and activity count as far as `idle.evidence` names them. A signal that is due and
silent is unknown, never quiet.
"""

from dataclasses import dataclass

from migscaler.model.gpu import Claim, InstanceReading, PinReason
from migscaler.model.policy import IdlePolicy

# What an instance without any context may plausibly show as used: nvidia-smi listings of empty
# instances have 3 to some 90 MiB, rising with the size (belief from public transcripts; no
# documented figure). A CUDA context takes several hundred MiB, so that a process which we can't see
# does not pass for an empty instance.
EMPTY_BYTES = 64 * 1024 * 1024
EMPTY_SHARE = 100  # one part in a hundred of the instance's memory, but no more altogether than:
EMPTY_MOST_BYTES = 256 * 1024 * 1024  # a hundredth of 80 GB and more would have room for a context

# Processes of an instance named one by one before the rest is only counted.
NAMED = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Surroundings:
    """What is known of the node and GPU while an instance is judged.

    `activity_due`: activity figures can exist here. `activity_pending`: the instance is so new that
    they can't yet.
    """

    idle: IdlePolicy
    processes_visible: bool
    allocations_known: bool
    activity_due: bool
    activity_pending: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Findings:
    """Everything that the signals of one instance say.

    `pins` and `notes` go together, one note per pin. `evidence` names the signals looked at,
    `left_out` those that can't exist here. `pending`: a signal has not had time to appear.
    `baseline_bytes` is the lowest plausible memory seen while empty, None until measured.
    `is_held_unused`: it has a process or an owner and is known to do nothing.
    """

    pins: tuple[PinReason, ...]
    notes: tuple[str, ...]
    evidence: tuple[str, ...]
    left_out: tuple[str, ...]
    pending: bool
    baseline_bytes: int | None
    is_held_unused: bool = False

    @property
    def shows_use(self) -> bool:
        """Say whether something is positively going on (not merely unknown)."""
        return any(pin is not PinReason.UNKNOWN for pin in self.pins)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Signal:
    """One signal's verdict; `pin` None means quiet."""

    name: str
    pin: PinReason | None = None
    note: str = ""
    left_out: bool = False
    pending: bool = False


def look(
    reading: InstanceReading,
    claim: Claim | None,
    lease: str | None,
    baseline_bytes: int | None,
    around: Surroundings,
) -> Findings:
    """Return what the signals say, given a lease's owner and the memory measured before."""
    is_empty = reading.processes == () and claim is None and lease is None
    baseline = _measured_baseline(reading, baseline_bytes) if is_empty else baseline_bytes
    signals = [_process(reading, around), _allocation(claim, lease, around)]
    is_used = bool(reading.processes) or claim is not None or lease is not None
    if "memory" in around.idle.evidence and not is_used:
        # Memory in use by a known owner says nothing more.
        signals.append(_memory(reading, baseline, around.idle))
    if "activity" in around.idle.evidence:
        signals.append(_activity(reading, around))
    return Findings(
        pins=tuple(signal.pin for signal in signals if signal.pin is not None),
        notes=tuple(signal.note for signal in signals if signal.pin is not None),
        evidence=tuple(signal.name for signal in signals if not signal.left_out),
        left_out=tuple(signal.name for signal in signals if signal.left_out),
        pending=any(signal.pending for signal in signals),
        baseline_bytes=baseline,
        is_held_unused=is_used and _does_nothing(reading, around),
    )


def plausible_empty_bytes(reading: InstanceReading) -> int:
    """Return the most memory that an empty instance of this size may show as used."""
    share = (reading.memory_total_bytes or 0) // EMPTY_SHARE
    return min(EMPTY_BYTES + share, EMPTY_MOST_BYTES)


def _measured_baseline(reading: InstanceReading, known: int | None) -> int | None:
    """Return the empty baseline after this reading of an instance that nobody visibly uses."""
    used = reading.memory_used_bytes
    if used is None or used > plausible_empty_bytes(reading):
        return known
    return used if known is None else min(known, used)


def _process(reading: InstanceReading, around: Surroundings) -> _Signal:
    """Look at the processes on the instance."""
    if reading.processes:
        named = [str(process) for process in reading.processes[:NAMED]]
        if len(reading.processes) > NAMED:
            named.append(f"{len(reading.processes) - NAMED} more")
        note = f"used by {', '.join(named)}"
        if not around.processes_visible:
            note += " (names and containers need the host's PID namespace)"
        return _Signal(name="process", pin=PinReason.PROCESS, note=note)
    if reading.processes is None:
        return _unknown("process", "its processes could not be read")
    if not around.processes_visible:
        return _unknown("process", "the host's processes are not all visible from here")
    return _Signal(name="process")


def _allocation(claim: Claim | None, lease: str | None, around: Surroundings) -> _Signal:
    """Look at who was given the instance."""
    owner = lease if claim is None else claim.named
    if owner is not None:
        return _Signal(name="allocation", pin=PinReason.ALLOCATION, note=f"it belongs to {owner}")
    if not around.allocations_known:
        return _unknown("allocation", "it is not known who was given it")
    return _Signal(name="allocation")


def _memory(reading: InstanceReading, baseline: int | None, idle: IdlePolicy) -> _Signal:
    """Compare the memory in use with the instance's own measured empty baseline."""
    used = reading.memory_used_bytes
    if used is None:
        return _unknown("memory", "its memory could not be read")
    mib = used // (1024 * 1024)
    if baseline is None and used <= plausible_empty_bytes(reading):
        return _unknown("memory", "its empty memory is not measured yet")
    if baseline is None:
        note = f"{mib} MiB in use, more than an empty instance holds"
        return _Signal(name="memory", pin=PinReason.MEMORY, note=note)
    if used > baseline + idle.memory_margin_bytes:
        note = f"{mib} MiB in use, {baseline // (1024 * 1024)} MiB when empty"
        return _Signal(name="memory", pin=PinReason.MEMORY, note=note)
    return _Signal(name="memory")


def _activity(reading: InstanceReading, around: Surroundings) -> _Signal:
    """Look at the busy share of the instance."""
    busiest = None if reading.activity is None else reading.activity.busiest
    if busiest is None:
        if not around.activity_due:
            return _Signal(name="activity", left_out=True)
        if around.activity_pending:
            return _Signal(name="activity", pending=True)
        return _unknown("activity", reading.activity_gap or "its activity is not reported")
    if busiest >= around.idle.activity_below:
        note = f"{busiest:.0%} active"
        return _Signal(name="activity", pin=PinReason.ACTIVITY, note=note)
    return _Signal(name="activity")


def _does_nothing(reading: InstanceReading, around: Surroundings) -> bool:
    """Say whether it is known that nothing runs: by its activity, else for want of processes."""
    busiest = None if reading.activity is None else reading.activity.busiest
    if busiest is not None:
        return busiest < around.idle.activity_below
    return reading.processes == () and around.processes_visible


def _unknown(name: str, note: str) -> _Signal:
    """Return the verdict on a signal that is due and silent."""
    return _Signal(name=name, pin=PinReason.UNKNOWN, note=note)
