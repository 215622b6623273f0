"""Which instances are idle, and why the others keep their place.

An instance is idle once every signal has been quiet for `idle.after` on the monotonic clock. A gap
in the samples, a missing signal and any use start the timer anew; the timers live in memory only,
so that after a start of the process everything is unknown until proven.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime

from migscaler.model.decision import HoldRecord
from migscaler.model.gpu import (
    IN_USE_REASONS,
    Activity,
    Allocations,
    Claim,
    GpuReading,
    InstanceReading,
    InstanceState,
    NodeReading,
    PinReason,
)
from migscaler.model.ids import GiId, GpuUuid
from migscaler.model.policy import IdlePolicy, Mode, Policy
from migscaler.model.profile import InstanceSpec
from migscaler.policy.evidence import Findings, Surroundings, look

Identity = tuple[GpuUuid, GiId, InstanceSpec, int]
"""GPU, GPU instance id, profile and placement, and the generation at which it appeared."""

# Samples further apart than this many periods are a gap.
GAP_PERIODS = 3
_PRECEDENCE = {reason: place for place, reason in enumerate(PinReason)}


@dataclass(frozen=True, slots=True, kw_only=True)
class IdleEntry:
    """What is remembered of one instance; times are monotonic seconds unless they end in `_at`.

    `is_proven`: it was seen to appear, or was seen in use, or was idle before; until then quiet is
    not enough.
    """

    first_seen: float
    last_seen: float
    is_proven: bool
    quiet_since: float | None = None
    baseline_bytes: int | None = None
    last_activity_at: datetime | None = None
    held_unused_since: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class IdleMemory:
    """What is remembered from sample to sample; the empty one means: everything is unknown.

    `gpus` is when each GPU's instances were last enumerated, `with_activity` those that have shown
    activity.
    """

    entries: Mapping[Identity, IdleEntry] = field(default_factory=dict)
    gpus: Mapping[GpuUuid, float] = field(default_factory=dict)
    with_activity: frozenset[GpuUuid] = frozenset()


@dataclass(frozen=True, slots=True, kw_only=True)
class _Sample:
    """One node reading with all that is known beside it."""

    reading: NodeReading
    allocations: Allocations
    holds: tuple[HoldRecord, ...]
    policy: Policy
    processes_visible: bool

    @property
    def longest_gap(self) -> float:
        """Seconds between two samples above which they don't connect."""
        return GAP_PERIODS * self.policy.sampling.total_seconds()

    def connects(self, last_seen: float | None) -> bool:
        """Say whether an earlier moment and this sample leave no gap between them."""
        if last_seen is None:
            return False
        return 0 <= self.reading.taken_monotonic - last_seen <= self.longest_gap


def judge(
    memory: IdleMemory,
    *,
    reading: NodeReading,
    born: Mapping[tuple[GpuUuid, GiId], int],
    allocations: Allocations,
    holds: tuple[HoldRecord, ...],
    policy: Policy,
    processes_visible: bool,
) -> tuple[IdleMemory, Mapping[GpuUuid, tuple[InstanceState, ...]]]:
    """Return the memory after this reading, and every instance with its verdict.

    `born` is the generation of each instance (0 where absent). GPUs whose instances could not be
    enumerated are absent from the result, and start anew.
    """
    sample = _Sample(
        reading=reading,
        allocations=allocations,
        holds=tuple(h for h in holds if h.expires_at is None or h.expires_at > reading.taken_at),
        policy=policy,
        processes_visible=processes_visible,
    )
    with_activity = memory.with_activity | {g.uuid for g in reading.gpus if _shows_activity(g)}
    known = replace(memory, with_activity=with_activity)
    entries: dict[Identity, IdleEntry] = {}
    seen: dict[GpuUuid, float] = {}
    states: dict[GpuUuid, tuple[InstanceState, ...]] = {}
    for gpu in reading.gpus:
        if gpu.instances is None:
            entries.update(_kept_blind(memory, gpu.uuid))
            continue
        seen[gpu.uuid] = reading.taken_monotonic
        verdicts = []
        for one in gpu.instances:
            gi_id = one.instance.gi_id
            identity = (gpu.uuid, gi_id, one.instance.spec, born.get((gpu.uuid, gi_id), 0))
            entries[identity], state = _judge_instance(known, identity, gpu, one, sample)
            verdicts.append(state)
        states[gpu.uuid] = tuple(verdicts)
    return IdleMemory(entries=entries, gpus=seen, with_activity=with_activity), states


def _kept_blind(memory: IdleMemory, uuid: GpuUuid) -> dict[Identity, IdleEntry]:
    """Return a GPU's entries while it can't be read: baselines stay, timers and proofs go."""
    return {
        identity: replace(entry, quiet_since=None, held_unused_since=None, is_proven=False)
        for identity, entry in memory.entries.items()
        if identity[0] == uuid
    }


def _judge_instance(
    memory: IdleMemory,
    identity: Identity,
    gpu: GpuReading,
    reading: InstanceReading,
    sample: _Sample,
) -> tuple[IdleEntry, InstanceState]:
    """Return what to remember of an instance, and its verdict."""
    now = sample.reading.taken_monotonic
    time_to_appear = max(sample.longest_gap, gpu.dcgm_grace_seconds)
    before = memory.entries.get(identity)
    if before is None:
        # Seen to appear only if this GPU's instances were known a moment ago.
        appeared = sample.connects(memory.gpus.get(gpu.uuid))
        before = IdleEntry(first_seen=now, last_seen=now, is_proven=appeared)
    claim = _claim_of(gpu.uuid, reading, sample.allocations.claims)
    lease = _lease_of(gpu.uuid, reading.instance.spec, sample.holds)
    findings = look(
        reading,
        claim,
        lease,
        before.baseline_bytes,
        Surroundings(
            idle=sample.policy.idle,
            processes_visible=sample.processes_visible,
            allocations_known=sample.allocations.known,
            activity_due=gpu.activity_source is not None or gpu.uuid in memory.with_activity,
            activity_pending=before.is_proven and now - before.first_seen <= time_to_appear,
        ),
    )
    findings = _with_usability(findings, reading)
    after = _next_entry(before, findings, sample)
    pins, notes = _all_pins(after, findings, gpu, reading.instance.spec, sample)
    return after, _state(reading, identity[3], pins, notes, findings, claim, after, sample)


def _with_usability(findings: Findings, reading: InstanceReading) -> Findings:
    """Add that an instance which is not made as we make them is unknown."""
    if reading.instance.usable:
        return findings
    count = len(reading.instance.compute_instances)
    note = f"it has {count} compute instance(s), not exactly one of full width"
    return replace(
        findings,
        pins=(*findings.pins, PinReason.UNKNOWN),
        notes=(*findings.notes, note),
    )


def _next_entry(before: IdleEntry, findings: Findings, sample: _Sample) -> IdleEntry:
    """Return the memory of an instance after this sample."""
    now = sample.reading.taken_monotonic
    is_quiet = not findings.pins and not findings.pending
    connects = sample.connects(before.last_seen)
    quiet_since = before.quiet_since if connects else None
    unused_since = before.held_unused_since if connects else None
    if not is_quiet:
        quiet_since = None
    elif quiet_since is None:
        quiet_since = now
    was_long = quiet_since is not None and now - quiet_since >= _after_seconds(sample.policy.idle)
    return replace(
        before,
        last_seen=now,
        is_proven=before.is_proven or findings.shows_use or was_long,
        quiet_since=quiet_since,
        baseline_bytes=findings.baseline_bytes,
        last_activity_at=(
            sample.reading.taken_at if findings.shows_use else before.last_activity_at
        ),
        held_unused_since=(
            (now if unused_since is None else unused_since) if findings.is_held_unused else None
        ),
    )


def _all_pins(
    entry: IdleEntry, findings: Findings, gpu: GpuReading, spec: InstanceSpec, sample: _Sample
) -> tuple[tuple[PinReason, ...], tuple[str, ...]]:
    """Return every reason that holds, most important first, each with its note."""
    found = list(zip(findings.pins, findings.notes, strict=True))
    found.extend((PinReason.HELD, note) for note in _hold_notes(gpu.uuid, spec, sample.holds))
    line = sample.policy.entry_for(gpu, sample.reading.taken_at)
    if line is not None and line.mode is Mode.OBSERVE and line.reason:
        found.append((PinReason.PROTECTED, f"its GPU is protected: {line.reason}"))
    if not findings.pins:
        found.extend(_waiting_pin(entry, sample))
    found.sort(key=lambda pair: _PRECEDENCE[pair[0]])
    return tuple(dict.fromkeys(pin for pin, _ in found)), tuple(note for _, note in found)


def _waiting_pin(entry: IdleEntry, sample: _Sample) -> list[tuple[PinReason, str]]:
    """Return the pin of an instance that is quiet, but not long enough; none when idle."""
    after = _after_seconds(sample.policy.idle)
    if entry.quiet_since is None:
        return [(PinReason.SETTLING, "it is new and not all signals have appeared")]
    quiet = sample.reading.taken_monotonic - entry.quiet_since
    if quiet >= after:
        return []
    if not entry.is_proven:
        return [(PinReason.UNKNOWN, f"watched for {quiet:.0f} s only; {after:.0f} s prove it idle")]
    return [(PinReason.SETTLING, f"quiet for {quiet:.0f} s of {after:.0f} s")]


def _state(
    reading: InstanceReading,
    born: int,
    pins: tuple[PinReason, ...],
    notes: tuple[str, ...],
    findings: Findings,
    claim: Claim | None,
    entry: IdleEntry,
    sample: _Sample,
) -> InstanceState:
    """Put one verdict together."""
    words = "; ".join(notes) or "every signal has been quiet long enough"
    if findings.left_out and not findings.pins:
        words += f"; {', '.join(findings.left_out)} can't be known here"
    quiet = entry.quiet_since
    return InstanceState(
        reading=reading,
        born=born,
        pin=pins[0] if pins else None,
        pins=pins,
        explanation=words,
        claim=claim,
        quiet_since_monotonic=quiet,
        idle_at_monotonic=None if quiet is None else quiet + _after_seconds(sample.policy.idle),
        last_activity_at=entry.last_activity_at,
        evidence=findings.evidence,
        held_unused_since_monotonic=entry.held_unused_since,
    )


def is_in_use(state: InstanceState) -> bool:
    """Say whether the instance counts as demand already served."""
    return state.pin in IN_USE_REASONS


def _after_seconds(idle: IdlePolicy) -> float:
    """Return how long everything must be quiet."""
    return idle.after.total_seconds()


def _shows_activity(gpu: GpuReading) -> bool:
    """Say whether any instance of the GPU reports activity."""
    activities: Iterable[Activity | None] = (one.activity for one in gpu.instances or ())
    return any(activity is not None for activity in activities)


def _claim_of(uuid: GpuUuid, reading: InstanceReading, claims: tuple[Claim, ...]) -> Claim | None:
    """Return the claim on any MIG device of an instance; of several the first by owner."""
    devices = {ci.mig_uuid for ci in reading.instance.compute_instances} - {None}
    mine = [c for c in claims if c.gpu_uuid == uuid and c.mig_uuid in devices]
    return min(mine, key=lambda claim: (claim.owner, claim.mig_uuid), default=None)


def _lease_of(uuid: GpuUuid, spec: InstanceSpec, holds: tuple[HoldRecord, ...]) -> str | None:
    """Return the owner of a lease on the instance or its whole GPU."""
    leases = [h for h in holds if h.kind == "lease" and h.gpu_uuid == uuid]
    mine = [h for h in leases if h.spec in (None, spec)]
    return min((f"lease {h.hold_id} of {h.owner}" for h in mine), default=None)


def _hold_notes(uuid: GpuUuid, spec: InstanceSpec, holds: tuple[HoldRecord, ...]) -> list[str]:
    """Return a note for each person's hold on the instance or its whole GPU."""
    return sorted(
        f"held by {h.owner}: {h.reason}"
        for h in holds
        if h.kind == "hold" and h.gpu_uuid == uuid and h.spec in (None, spec)
    )
