"""How often a verdict of idleness would have hurt: the number that earns an operator's trust.

An instance gets the verdict `kept` when it is found idle, and `destroy` when a plan takes it (in
recommend: would take it). A verdict is regretted if the instance gets a process or an allocation
within 300 or 1800 seconds of it. Each verdict is counted once while the instance stays idle.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace

from migscaler.model.decision import Decision
from migscaler.model.gpu import InstanceState, NodeSnapshot
from migscaler.model.ids import GpuUuid
from migscaler.model.plan import Plan
from migscaler.model.profile import InstanceSpec
from migscaler.model.status import Regret
from migscaler.policy.idleness import Identity, is_in_use

KEPT = "kept"
DESTROY = "destroy"
VERDICTS = (DESTROY, KEPT)
WINDOWS = (300, 1800)
"""Seconds within which use of an instance makes its verdict regretted."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RegretBook:
    """Verdicts that can still be regretted, and the counts so far.

    `given`: monotonic seconds of each verdict, by instance.
    """

    given: Mapping[Identity, Mapping[str, float]] = field(default_factory=dict)
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
    given: dict[Identity, Mapping[str, float]] = {}
    for identity, one in _instances(snapshot):
        before = book.given.get(identity, {})
        if is_in_use(one):
            for verdict, at in before.items():
                for window in WINDOWS:
                    regrets[verdict, window] += now_monotonic - at <= window
            continue
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
    return RegretBook(given=given, counts=counts), counts


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
