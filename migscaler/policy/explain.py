"""A decision explained: what is wanted, there, decided, and what is in the way."""

from dataclasses import dataclass, replace
from datetime import timedelta

from migscaler.model.decision import Decision, DecisionInput, RuleDecision
from migscaler.model.gpu import IN_USE_REASONS, GpuState, InstanceState, PinReason
from migscaler.model.plan import Gate, GateReason, GpuPlan, Hold, Plan, Unmet, UnmetCause
from migscaler.policy import pace
from migscaler.policy.demand import is_taken_up
from migscaler.policy.discretion import gates_of, names_somebody, sentence_for, told
from migscaler.policy.gates import gate_text
from migscaler.policy.outlook import hindering
from migscaler.policy.supply import Survey, overlaps, survey
from migscaler.policy.targets import RuleTarget, raise_after, targets_of
from migscaler.policy.words import clock_text, gpu_text, layout_text, listed, span_text

# Instances named one by one before the rest is only counted.
NAMED = 8
_CAUSES = {
    UnmetCause.CAPACITY: "no room beside what is in use",
    UnmetCause.HELD: "they would fit if only what is in use kept its place",
    UnmetCause.GATE: "a change that a gate keeps back would serve them",
    UnmetCause.CONFIGURATION: "no managed GPU offers the size",
}
# Reasons that say nothing about whether anything runs.
_KEPT_BY_PEOPLE = frozenset({PinReason.HELD, PinReason.PROTECTED})


@dataclass(frozen=True, slots=True, kw_only=True)
class Paragraph:
    """A title and the lines below it, plain text without markup."""

    title: str
    lines: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Telling:
    """What is told: one decision and its input; `names` is False where nobody may be named."""

    inp: DecisionInput
    decision: Decision
    found: Survey
    names: bool


def explain(inp: DecisionInput, decision: Decision, *, names: bool = True) -> tuple[Paragraph, ...]:
    """Return the decision in words: the whole, each rule, each GPU, all closed gates.

    Without `names` no holder, owner or process is named, as strangers are told it.
    """
    found = survey(inp)
    telling = _Telling(inp=inp, decision=decision, found=found, names=names)
    targets = {target.rule.name: target for target in targets_of(inp, found)}
    rules = [
        _rule(telling, line, targets[line.rule]) for line in decision.rules if line.rule in targets
    ]
    states = sorted(inp.snapshot.gpus, key=lambda gpu: (gpu.reading.index, gpu.uuid))
    gpus = [_gpu(telling, state) for state in states]
    return tuple(
        replace(one, lines=tuple(told(line, names=names) for line in one.lines))
        for one in (_whole(telling), *rules, *gpus)
    )


def _whole(telling: _Telling) -> Paragraph:
    """Return the node's paragraph."""
    decision = telling.decision
    lines = [sentence_for(decision, names=telling.names)]
    node = [g for g in decision.gates if g.gpu_uuid is None and g.rule is None]
    lines += [_gate_line(gate, telling) for gate in node]
    lines += _wanted_in_vain(telling)
    outcome, wanted = decision.outcome, decision.wanted
    if isinstance(outcome, Hold) or (wanted and wanted.gpu_plans != outcome.gpu_plans):
        lines += _if_open(wanted, telling)
    return Paragraph(title="Decision", lines=tuple(lines))


def _wanted_in_vain(telling: _Telling) -> list[str]:
    """Return what a source wants and no rule will ever make."""
    inp, models = telling.inp, telling.found.models
    return [
        f"{status.name} wants {want.count} x {want.size}, which no rule makes: none of that size"
        f" is from: [{status.name}]"
        for status in inp.demand
        if status.known and status.reading is not None and not status.reading.overrides
        for want in status.reading.wants
        if want.count and not is_taken_up(inp.policy, status.name, want.size, models)
    ]


def _if_open(wanted: Plan | None, telling: _Telling) -> list[str]:
    """Return what would be done if nothing stood in the way.

    Two gates nobody can open: what is pinned stays, what does not fit is not made. While one of
    them blocks, it is said that the others would change nothing.
    """
    if wanted is not None:
        return [f"with every gate open: {_change(telling.found, one)}" for one in wanted.gpu_plans]
    reasons = {gate.reason for gate in telling.decision.gates if gate.blocks}
    if GateReason.NOT_IDLE in reasons:
        return ["with every other gate open: nothing would change until what is in the way is idle"]
    if GateReason.INFEASIBLE in reasons and _is_gated(telling.decision):
        return [
            "with every gate open: not known; only GPUs that can't change now offer what is missing"
        ]
    if GateReason.INFEASIBLE in reasons:
        return ["with every other gate open: nothing would change; there is no room for more"]
    return ["with every gate open: nothing would change"]


def _is_gated(decision: Decision) -> bool:
    """Say whether what is missing is kept back, at least in part, by gates of GPUs."""
    return any(one.cause is UnmetCause.GATE for one in decision.unmet)


def _rule(telling: _Telling, line: RuleDecision, target: RuleTarget) -> Paragraph:
    """Return one rule's paragraph."""
    inp, decision = telling.inp, telling.decision
    lines = [line.explanation]
    lines += [f"{source} says {count}" for source, count in line.source_counts]
    if line.raised < line.target:
        lines.append(_raise_line(inp, line, target))
    if line.unmet_since is not None:
        lines.append(f"unmet for {span_text(inp.now - line.unmet_since)}")
    lines += [_gate_line(gate, telling) for gate in decision.gates if gate.rule == line.rule]
    lines += [_unmet_line(one) for one in decision.unmet if one.rule == line.rule]
    if line.unmet:
        lines += _in_the_way(telling, target)
    return Paragraph(title=f"Rule {line.rule} ({line.size})", lines=tuple(lines))


def _raise_line(inp: DecisionInput, line: RuleDecision, target: RuleTarget) -> str:
    """Return how long the target counts as what it is, and whether a silence began that anew."""
    since, was_lower = pace.reached(target.history.samples, target.wanted)
    so_long = span_text(timedelta(seconds=max(0.0, inp.now_monotonic - since)))
    asked = span_text(raise_after(target.rule, inp.policy))
    words = f"{line.raised} may be created for so far: {line.target} wanted for {so_long} of"
    words += f" {asked} (raise_after)"
    if not was_lower:
        words += "; what was wanted before is not known, so the count began anew"
    return words


def _in_the_way(telling: _Telling, target: RuleTarget) -> list[str]:
    """Return who keeps the places that a rule could use, those in use last."""
    found = telling.found
    name = target.rule.name
    pinned = [
        (state.pin in IN_USE_REASONS, gpu.state.reading.index, state)
        for gpu in found.plannable
        if any(rule == name for _, rule in gpu.keys)
        for state in hindering(gpu, target)
    ]
    pinned.sort(key=lambda entry: (entry[0], entry[1], entry[2].spec))
    lines = [
        f"in the way: GPU {index} {_pin_text(state, telling)}" for _, index, state in pinned[:NAMED]
    ]
    if len(pinned) > NAMED:
        lines.append(f"in the way: {len(pinned) - NAMED} more")
    return lines


def _gpu(telling: _Telling, state: GpuState) -> Paragraph:
    """Return one GPU's paragraph."""
    found, decision = telling.found, telling.decision
    line = next((one for one in decision.gpus if one.gpu_uuid == state.uuid), None)
    layout = None if overlaps(state) else state.layout
    present = "unknown" if layout is None else layout_text(state.reading.model, layout)
    lines = [f"there: {present}"]
    mine = gates_of(decision, state.uuid)
    if not telling.names and any(map(names_somebody, mine)):
        lines += [_gate_line(gate, telling) for gate in mine]  # the line below quotes their texts
    elif line is not None:
        lines.append(line.explanation)
    if isinstance(decision.outcome, Plan):
        plans = [p for p in decision.outcome.gpu_plans if p.gpu_uuid == state.uuid]
        lines += [f"now: {_change(found, one)}" for one in plans]
    lines += [_pin_text(one, telling) for one in state.instances or ()]
    mode = "not managed" if line is None or line.mode is None else line.mode.value
    return Paragraph(title=f"{gpu_text(state)} ({mode})", lines=tuple(lines))


def _pin_text(state: InstanceState, telling: _Telling) -> str:
    """Return one instance with its verdict, and since when nothing runs on one that is kept."""
    verdict = "idle" if state.pin is None else f"pinned ({state.pin.value})"
    words = f"{state.spec} {verdict}"
    if state.explanation and (telling.names or state.pin is None):
        words += f": {state.explanation}"
    quiet = state.held_unused_since_monotonic
    untold = state.pin is PinReason.SETTLING and not telling.names
    if state.pin in _KEPT_BY_PEOPLE or untold:
        quiet = state.quiet_since_monotonic if quiet is None else quiet
    if quiet is None:
        return words
    span = timedelta(seconds=max(0.0, telling.inp.now_monotonic - quiet))
    return f"{words}; nothing has run on it for {span_text(span)}"


def _gate_line(gate: Gate, telling: _Telling) -> str:
    """Return a closed gate on one line."""
    line = f"gate {gate.reason.value} {'blocks' if gate.blocks else 'closed'}"
    if telling.names or not names_somebody(gate):
        return f"{line}: {gate_text(gate, telling.inp.now)}"
    if gate.opens_at is None:
        return line
    return f"{line} until {clock_text(gate.opens_at, telling.inp.now)}"


def _unmet_line(unmet: Unmet) -> str:
    """Return what stays unmet and why."""
    return f"{unmet.count} stay unmet: {unmet.cause.value} ({_CAUSES[unmet.cause]})"


def _change(found: Survey, plan: GpuPlan) -> str:
    """Return a GPU plan with its steps."""
    gpu = found.gpu(plan.gpu_uuid)
    before, after = layout_text(gpu.model, plan.before), layout_text(gpu.model, plan.after)
    steps = listed([str(step) for step in plan.steps])
    return f"{gpu_text(gpu.state)} from {before} to {after} ({steps})"
