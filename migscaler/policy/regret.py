"""How often a verdict of idleness would have hurt: the number that earns an operator's trust.

An instance gets the verdict `kept` when it is found idle, and `destroy` when a plan takes it (in
recommend: would take it). A verdict is regretted if the instance gets a process or an allocation
within 300 or 1800 seconds of it. Each verdict is counted once while the instance stays idle.

Samples are more frequent than ticks: use that began and ended between two ticks is told by the
moment at which the instance was last seen in use. A GPU that can't be read takes no verdict back.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import TypeVar

from migscaler.model.decision import Decision
from migscaler.model.gpu import InstanceState, NodeSnapshot, PinReason
from migscaler.model.ids import GpuUuid
from migscaler.model.plan import Plan
from migscaler.model.profile import InstanceSpec
from migscaler.model.status import Regret
from migscaler.policy.idleness import Identity, is_in_use

# Use without process or allocation is none that a verdict is regretted for.
_OTHERWISE_BUSY = frozenset({PinReason.ACTIVITY, PinReason.MEMORY})
T = TypeVar("T")
KEPT = "kept"
DESTROY = "destroy"
VERDICTS = (DESTROY, KEPT)
WINDOWS = (300, 1800)
"""Seconds within which use of an instance makes its verdict regretted."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RegretBook:
    """Verdicts that can still be regretted, and the counts so far.

    `given`: monotonic seconds of each verdict, by instance; `last_use`: when it was last seen in
    use, as of the last tick.
    """

    given: Mapping[Identity, Mapping[str, float]] = field(default_factory=dict)
    last_use: Mapping[Identity, datetime | None] = field(default_factory=dict)
    counts: Regret = field(
        default_factory=lambda: Regret(
            verdicts=tuple((verdict, 0) for verdict in VERDICTS),
            regrets=tuple((verdict, window, 0) for verdict in VERDICTS for window in WINDOWS),
        )
    )


def observe(
    book: RegretBook, snapshot: NodeSnapshot, decision: Decision | None, now_monotonic: float
) -> tuple[RegretBook, Regret]:
    """Return the book and the counts after one tick.

    Call once per tick, with the snapshot that the decision was made from (None: none was made).
    """
    doomed = frozenset(_doomed(decision))
    verdicts: dict[str, int] = dict(book.counts.verdicts)
    regrets = {(verdict, window): n for verdict, window, n in book.counts.regrets}
    given = _out_of_sight(book.given, snapshot)
    last_use = _out_of_sight(book.last_use, snapshot)
    for identity, one in _instances(snapshot):
        before = book.given.get(identity, {})
        if is_in_use(one) or _was_used(book, identity, one):
            for verdict, at in before.items():
                for window in WINDOWS:
                    regrets[verdict, window] += now_monotonic - at <= window
            before = {}
        if is_in_use(one):
            continue
        if one.pin not in _OTHERWISE_BUSY:
            last_use[identity] = one.last_activity_at
        after = _verdicts(before, one, identity, doomed, now_monotonic)
        for verdict in after.keys() - before.keys():
            verdicts[verdict] += 1
        if after:
            given[identity] = after
    counts = replace(
        book.counts,
        verdicts=tuple(sorted(verdicts.items())),
        regrets=tuple((*key, count) for key, count in sorted(regrets.items())),
    )
    return RegretBook(given=given, last_use=last_use, counts=counts), counts


def _out_of_sight(book: Mapping[Identity, T], snapshot: NodeSnapshot) -> dict[Identity, T]:
    """Return what is kept of GPUs whose instances are not known now."""
    seen = {gpu.uuid for gpu in snapshot.gpus if gpu.instances is not None}
    return {identity: kept for identity, kept in book.items() if identity[0] not in seen}


def _was_used(book: RegretBook, identity: Identity, one: InstanceState) -> bool:
    """Say whether a quiet instance was used since the last tick."""
    is_quiet = one.pin not in _OTHERWISE_BUSY and identity in book.last_use
    return is_quiet and one.last_activity_at not in (None, book.last_use[identity])


def _verdicts(
    before: Mapping[str, float],
    one: InstanceState,
    identity: Identity,
    doomed: frozenset[tuple[GpuUuid, InstanceSpec]],
    now: float,
) -> Mapping[str, float]:
    """Return the verdicts on an instance nobody uses: those that stand, and a new one.

    An instance that is busy in another way keeps its verdicts while they can be regretted.
    """
    if one.pin is not None:
        return {verdict: at for verdict, at in before.items() if now - at <= max(WINDOWS)}
    verdict = DESTROY if (identity[0], identity[2]) in doomed else KEPT
    return before if verdict in before else {**before, verdict: now}


def _doomed(decision: Decision | None) -> Iterator[tuple[GpuUuid, InstanceSpec]]:
    """Yield the instances that the decision destroys, or would with every gate open."""
    if decision is None:
        return
    for plan in (decision.outcome, decision.wanted):
        if isinstance(plan, Plan):
            for one in plan.gpu_plans:
                for spec in one.before.specs:
                    if spec not in one.after:
                        yield one.gpu_uuid, spec


def _instances(snapshot: NodeSnapshot) -> Iterator[tuple[Identity, InstanceState]]:
    """Yield every known instance with its identity."""
    for gpu in snapshot.gpus:
        for one in gpu.instances or ():
            yield (gpu.uuid, one.gi_id, one.spec, one.born), one
