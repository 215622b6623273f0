"""Leases on a bare host: a free instance of a size for one command, or a place in the queue."""

from dataclasses import dataclass
from datetime import datetime, timedelta

from migscaler.model.decision import HoldRecord
from migscaler.model.gpu import GpuState, InstanceState, NodeSnapshot, PinReason
from migscaler.model.ids import GpuUuid, MigUuid, SourceName
from migscaler.model.policy import Policy
from migscaler.model.ports import HostProcesses
from migscaler.policy.demand import is_taken_up, means_same
from migscaler.store.store import Store

# Waiting leases are a source of this name (docs/configuration.md).
_SCHEDULER = SourceName("scheduler")


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """An instance that a lease could get."""

    gpu: GpuState
    state: InstanceState

    @property
    def mig_uuid(self) -> MigUuid | None:
        """UUID to put into CUDA_VISIBLE_DEVICES."""
        return self.state.reading.instance.mig_uuid


@dataclass(frozen=True, slots=True, kw_only=True)
class LeaseRequest:
    """Who asks for what; `pid` is the process that keeps the lease alive."""

    size: str
    owner: str
    ttl: timedelta
    pid: int | None = None


def candidates(
    snapshot: NodeSnapshot, size: str, acting_on: frozenset[GpuUuid]
) -> tuple[Candidate, ...]:
    """Return the usable instances of a size that nobody holds, best first.

    GPUs under change are left out. Best is the GPU with least free to lose: an instance on a GPU
    that is already in use leaves the wholly idle ones free to be reshaped.
    """
    found: list[Candidate] = []
    for gpu in snapshot.gpus:
        model = gpu.reading.model
        if model is None or gpu.uuid in acting_on:
            continue
        profile = model.resolve(size)
        found.extend(
            Candidate(gpu=gpu, state=state)
            for state in gpu.instances or ()
            if profile is not None and state.spec.profile == profile.name and _is_free(state)
        )
    return tuple(sorted(found, key=_preference))


def waiting_words(policy: Policy, snapshot: NodeSnapshot, size: str) -> str:
    """Return what is waited for, and whether any rule would make it."""
    models = {gpu.reading.model for gpu in snapshot.gpus}
    known = tuple(model for model in models if model is not None)
    if is_taken_up(policy, _SCHEDULER, size, known):
        return f"waiting for a {size}"
    return (
        f"waiting for a {size} that somebody gives back: none is made, since no rule of that size"
        " is from: [scheduler]"
    )


def take_lease(
    store: Store,
    snapshot: NodeSnapshot,
    request: LeaseRequest,
    acting_on: frozenset[GpuUuid],
    now: datetime,
) -> tuple[HoldRecord, MigUuid] | None:
    """Reserve the best free instance durably; None when there is none.

    The store refuses an instance that an open plan is about to destroy, and the executor refuses
    one that was leased: both look within one transaction, so only one of them wins.
    """
    for candidate in candidates(snapshot, request.size, acting_on):
        mig_uuid = candidate.mig_uuid
        if mig_uuid is None:
            continue
        lease = store.take_lease(
            candidate.gpu.uuid,
            candidate.state.spec,
            owner=request.owner,
            expires_at=now + request.ttl,
            pid=request.pid,
            generation=candidate.gpu.generation,
        )
        if lease is not None:
            return lease, mig_uuid
    return None


def same_queue(snapshot: NodeSnapshot, size: str, other: str) -> bool:
    """Say whether who waits for these sizes waits for the same instances: `3g` and `3g.20gb` do."""
    models = (gpu.reading.model for gpu in snapshot.gpus)
    return means_same(size, other, tuple(model for model in models if model is not None))


def sizes_present(snapshot: NodeSnapshot) -> tuple[str, ...]:
    """Return every size class that some GPU of the node could offer, for a helpful refusal."""
    classes = {
        profile.size_class
        for gpu in snapshot.gpus
        if gpu.reading.model is not None
        for profile in gpu.reading.model.profiles
    }
    return tuple(sorted(classes))


def _is_free(state: InstanceState) -> bool:
    """Say whether nothing but missing time or evidence stands against handing the instance out."""
    return (
        state.reading.instance.usable
        and state.reading.processes == ()
        and state.pin in (None, PinReason.SETTLING, PinReason.UNKNOWN)
        and state.claim is None
    )


def _preference(candidate: Candidate) -> tuple[int, int, int]:
    """Sort key: GPUs in use first, then fewest idle neighbors, then by place."""
    instances = candidate.gpu.instances or ()
    busy = sum(1 for s in instances if s.pin in (PinReason.PROCESS, PinReason.ALLOCATION))
    return (-busy, candidate.gpu.reading.index, candidate.state.spec.placement.start)


def end_dead_leases(store: Store, host: HostProcesses, now: datetime) -> int:
    """Release leases and waits whose process is gone; returns how many leases ended.

    A process id that was reused keeps its lease until it expires: wrong only to the safe side.
    """
    ended = 0
    for hold in store.holds(now):
        if hold.kind == "lease" and hold.pid is not None and not host.exists(hold.pid):
            ended += store.release_hold(hold.hold_id)
    for wait in store.lease_waits(now):
        if wait.pid is not None and not host.exists(wait.pid):
            store.remove_lease_wait(wait.wait_id)
    return ended
