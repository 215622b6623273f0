"""Which gates are closed, on the node and on each GPU, why, and when they open.

All are looked at every time. Whether one blocks depends on the plan that is wanted; `outlook` says
that.
"""

from collections.abc import Callable, Iterator
from datetime import datetime

from migscaler.model.decision import DecisionInput
from migscaler.model.gpu import NodeSnapshot
from migscaler.model.plan import Direction, Gate, GateReason
from migscaler.model.policy import Mode
from migscaler.policy.supply import ManagedGpu, Survey
from migscaler.policy.words import clock_text, gpu_text, listed

_ORDER = {reason: place for place, reason in enumerate(GateReason)}


def in_order(gates: Iterator[Gate] | list[Gate]) -> tuple[Gate, ...]:
    """Return the gates in the order in which they are asked: reason, node first, GPU, rule."""
    return tuple(
        sorted(
            gates,
            key=lambda g: (_ORDER[g.reason], g.gpu_uuid or "", g.rule or "", g.explanation),
        )
    )


def node_gates(inp: DecisionInput) -> Iterator[Gate]:
    """Yield the closed gates of the whole node, freezes and budget apart."""
    conditions, snapshot = inp.conditions, inp.snapshot
    if conditions.forced_observe is not None:
        yield Gate(
            reason=GateReason.MODE, explanation=f"observing only: {conditions.forced_observe}"
        )
    yield from _pause(inp)
    yield from _vetoes(inp)
    owner = owner_words(snapshot)
    # Processes out of sight have a gate of their own below, which says the same.
    if owner is not None and (snapshot.foreign_owner is not None or snapshot.processes_visible):
        yield Gate(reason=GateReason.FOREIGN_OWNER, explanation=owner)
    if not snapshot.allocations_known:
        words = f"it is not known who was given what: {snapshot.allocations_why or 'no answer'}"
        yield Gate(reason=GateReason.ALLOCATIONS_UNKNOWN, explanation=words)
    if not snapshot.processes_visible:
        words = "the host's processes are not all visible from here"
        yield Gate(reason=GateReason.ALLOCATIONS_UNKNOWN, explanation=words)
    if conditions.journal_problem is not None:
        words = f"the journal can't be written: {conditions.journal_problem}"
        yield Gate(reason=GateReason.JOURNAL_UNWRITABLE, explanation=words)
    if conditions.open_plan is not None:
        words = f"a plan is still open: {conditions.open_plan}"
        yield Gate(reason=GateReason.OPEN_PLAN, explanation=words)
    if conditions.clock_step is not None:
        yield Gate(reason=GateReason.CLOCK_STEP, explanation=conditions.clock_step)
    yield from _staleness(inp)


def owner_words(snapshot: NodeSnapshot) -> str | None:
    """Return who else shapes the node's GPUs, or may, and the way out; None: nobody does."""
    if snapshot.foreign_owner is not None:
        words = f"the layout belongs to {snapshot.foreign_owner}"
    elif snapshot.foreign_owner_unknown is not None:
        words = f"it is not known who else shapes the GPUs: {snapshot.foreign_owner_unknown}"
    else:
        return None
    remedy = snapshot.foreign_owner_remedy
    return f"{words}; way out: {remedy}" if remedy else words


def _pause(inp: DecisionInput) -> Iterator[Gate]:
    """Yield the pause while it lasts."""
    pause = inp.conditions.pause
    if pause is not None and (pause.until is None or pause.until > inp.now):
        words = f"paused by {pause.who}: {pause.why}"
        yield Gate(reason=GateReason.PAUSED, explanation=words, opens_at=pause.until)


def _vetoes(inp: DecisionInput) -> Iterator[Gate]:
    """Yield each veto that stands; one that does not answer stands."""
    answers = {status.name: status for status in inp.vetoes}
    for name in sorted({*inp.policy.vetoes, *answers}):
        status = answers.get(name)
        if status is not None and status.active is False:
            continue
        state = "is active" if status is not None and status.active else "does not answer"
        detail = f" ({status.explanation})" if status is not None and status.explanation else ""
        yield Gate(reason=GateReason.VETO, explanation=f"veto {name} {state}{detail}")


def _staleness(inp: DecisionInput) -> Iterator[Gate]:
    """Yield a gate when the picture of the node is too old to act on."""
    age = inp.now_monotonic - inp.snapshot.taken_monotonic
    limit = inp.conditions.stale_after_seconds
    if not 0 <= age <= limit:
        words = f"the GPUs were last read {age:.0f} s ago, more than {limit:.0f} s"
        yield Gate(reason=GateReason.SNAPSHOT_STALE, explanation=words)


def freezes(inp: DecisionInput) -> tuple[frozenset[Direction], tuple[Gate, ...]]:
    """Return the directions that are frozen now, and the gates.

    A freeze whose window was not evaluated stands: missing data may veto.
    """
    windows = {state.window: state for state in inp.windows}
    frozen: set[Direction] = set()
    gates = []
    for freeze in inp.policy.freezes:
        state = windows.get(freeze.window)
        if state is not None and not state.open:
            continue
        frozen.update(Direction if freeze.only is None else (freeze.only,))
        what = "changes" if freeze.only is None else f"{freeze.only.value} layouts"
        words = f"{what} are frozen: {freeze.window}"
        opens = None if state is None else state.next_change
        gates.append(Gate(reason=GateReason.FROZEN, explanation=words, opens_at=opens))
    return frozenset(frozen), tuple(gates)


def budget_left(inp: DecisionInput) -> int:
    """Return how many GPUs may be changed now."""
    pace = inp.policy.pace
    return max(0, min(pace.gpus_at_once, pace.per_day - inp.history.changes_last_day))


def budget_gate(inp: DecisionInput, wanted_gpus: int) -> Iterator[Gate]:
    """Yield the budget's gate when it is used up, or smaller than what is wanted."""
    left, pace = budget_left(inp), inp.policy.pace
    if left and wanted_gpus <= left:
        return
    if left == 0:
        words = f"{inp.history.changes_last_day} of {pace.per_day} changes of a day are used"
    else:
        words = f"{wanted_gpus} GPUs would change, {left} may now"
    yield Gate(reason=GateReason.BUDGET, explanation=words, blocks=wanted_gpus > left)


def gpu_gates(inp: DecisionInput, found: Survey) -> Iterator[Gate]:
    """Yield the closed gates of every managed GPU."""
    for gpu in found.gpus:
        for look in _LOOKS:
            yield from look(gpu, inp)


def _mode(gpu: ManagedGpu, inp: DecisionInput) -> Iterator[Gate]:
    """Yield the mode's gate unless changes are allowed."""
    if gpu.entry.mode is not Mode.ENFORCE:
        words = f"{gpu_text(gpu.state)} is in mode {gpu.entry.mode.value}"
        yield _gate(gpu, GateReason.MODE, words, gpu.entry.until)


def _health(gpu: ManagedGpu, inp: DecisionInput) -> Iterator[Gate]:
    """Yield gates of a GPU that can't be planned."""
    if gpu.problem is not None:
        reason = GateReason.MIG_DISABLED if gpu.is_off else GateReason.DRIVER_FAULT
        yield _gate(gpu, reason, f"{gpu_text(gpu.state)}: {gpu.problem}")


def _ownership(gpu: ManagedGpu, inp: DecisionInput) -> Iterator[Gate]:
    """Yield the gate of a GPU whose layout this node may not change."""
    owner = gpu.state.reading.foreign_owner
    if owner is not None:
        words = f"{gpu_text(gpu.state)} is left alone: {owner.words}"
        yield _gate(gpu, GateReason.FOREIGN_OWNER, words)


def _protection(gpu: ManagedGpu, inp: DecisionInput) -> Iterator[Gate]:
    """Yield gates of a GPU that somebody keeps as it is."""
    name = gpu_text(gpu.state)
    if gpu.entry.mode is Mode.OBSERVE and gpu.entry.reason:
        words = f"{name} is protected: {gpu.entry.reason}"
        yield _gate(gpu, GateReason.PROTECTED, words, gpu.entry.until)
    for hold in sorted(inp.holds, key=lambda h: h.hold_id):
        is_whole = hold.gpu_uuid == gpu.uuid and hold.spec is None
        if is_whole and (hold.expires_at is None or hold.expires_at > inp.now):
            words = f"{name} is held by {hold.owner}: {hold.reason}"
            yield _gate(gpu, GateReason.PROTECTED, words, hold.expires_at)


def _waiting(gpu: ManagedGpu, inp: DecisionInput) -> Iterator[Gate]:
    """Yield the gate of a GPU whose restore is not at its end and waits for somebody."""
    for uuid, why in inp.conditions.waiting_restores:
        if uuid == gpu.uuid:
            words = f"a restore of {gpu_text(gpu.state)} waits, with the rest of its layout: {why}"
            yield _gate(gpu, GateReason.OPEN_PLAN, words, None)


def _past(gpu: ManagedGpu, inp: DecisionInput) -> Iterator[Gate]:
    """Yield gates that follow from what happened to a GPU before."""
    name, past = gpu_text(gpu.state), gpu.history
    if _is_ahead(past.breaker_open_until, inp.now):
        words = f"{name} failed {past.failures_in_row} times in a row"
        yield _gate(gpu, GateReason.BREAKER_OPEN, words, past.breaker_open_until)
    if _is_ahead(past.held_by_client_until, inp.now):
        words = f"a client holds an instance of {name} without showing as a process"
        yield _gate(gpu, GateReason.HELD_BY_CLIENT, words, past.held_by_client_until)
    if _is_ahead(past.rest_until, inp.now):
        reason = GateReason.FLAPPING if past.flapping else GateReason.RESTING
        words = f"{name} rests"
        if past.flapping:
            times = "1 reversal" if past.reversals == 1 else f"{past.reversals} reversals"
            words += f" longer: {times} within an hour"
        yield _gate(gpu, reason, words, past.rest_until)


_LOOKS: tuple[Callable[[ManagedGpu, DecisionInput], Iterator[Gate]], ...] = (
    _mode,
    _health,
    _ownership,
    _protection,
    _waiting,
    _past,
)


def _is_ahead(moment: datetime | None, now: datetime) -> bool:
    """Say whether a moment is still to come."""
    return moment is not None and moment > now


def _gate(
    gpu: ManagedGpu, reason: GateReason, words: str, opens_at: datetime | None = None
) -> Gate:
    """Return a closed gate of one GPU."""
    return Gate(reason=reason, explanation=words, gpu_uuid=gpu.uuid, opens_at=opens_at)


def gate_text(gate: Gate, now: datetime) -> str:
    """Return the gate in words, with when it opens."""
    if gate.opens_at is None:
        return gate.explanation
    return f"{gate.explanation} (until {clock_text(gate.opens_at, now)})"


def summary(gates: tuple[Gate, ...], now: datetime) -> str:
    """Return the first gate in words, and how many of its kind there are beside it."""
    first = gates[0]
    others = [g for g in gates[1:] if g.reason is first.reason]
    words = gate_text(first, now)
    return words if not others else listed([words, f"{len(others)} more like it"])
