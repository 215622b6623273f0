"""A decision explained: what is wanted, there, decided, and what is in the way."""

from dataclasses import dataclass

from migscaler.model.decision import Decision, DecisionInput, RuleDecision
from migscaler.model.gpu import IN_USE_REASONS, GpuState, InstanceState
from migscaler.model.plan import Gate, GpuPlan, Hold, Plan, Unmet
from migscaler.policy.gates import gate_text
from migscaler.policy.outlook import hindering
from migscaler.policy.supply import Survey, overlaps, survey
from migscaler.policy.targets import RuleTarget, targets_of
from migscaler.policy.words import gpu_text, layout_text, listed, span_text

# Instances named one by one before the rest is only counted.
NAMED = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class Paragraph:
    """A title and the lines below it, plain text without markup."""

    title: str
    lines: tuple[str, ...]


def explain(inp: DecisionInput, decision: Decision) -> tuple[Paragraph, ...]:
    """Return the decision in words: the whole, each rule, each GPU, all closed gates."""
    found = survey(inp)
    targets = {target.rule.name: target for target in targets_of(inp, found)}
    rules = [
        _rule(inp, found, decision, line, targets[line.rule])
        for line in decision.rules
        if line.rule in targets
    ]
    states = sorted(inp.snapshot.gpus, key=lambda gpu: (gpu.reading.index, gpu.uuid))
    gpus = [_gpu(inp, found, decision, state) for state in states]
    return (_whole(inp, decision, found), *rules, *gpus)


def _whole(inp: DecisionInput, decision: Decision, found: Survey) -> Paragraph:
    """Return the node's paragraph."""
    lines = [decision.sentence]
    node = [g for g in decision.gates if g.gpu_uuid is None and g.rule is None]
    lines += [_gate_line(gate, inp) for gate in node]
    outcome, wanted = decision.outcome, decision.wanted
    if isinstance(outcome, Hold) or (wanted and wanted.gpu_plans != outcome.gpu_plans):
        lines += _if_open(wanted, found)
    return Paragraph(title="Decision", lines=tuple(lines))


def _if_open(wanted: Plan | None, found: Survey) -> list[str]:
    """Return what would be done if nothing stood in the way."""
    if wanted is None:
        return ["with every gate open: nothing would change"]
    return [f"with every gate open: {_change(found, one)}" for one in wanted.gpu_plans]


def _rule(
    inp: DecisionInput,
    found: Survey,
    decision: Decision,
    line: RuleDecision,
    target: RuleTarget,
) -> Paragraph:
    """Return one rule's paragraph."""
    lines = [line.explanation]
    lines += [f"{source} says {count}" for source, count in line.source_counts]
    if line.raised < line.target:
        lines.append(f"{line.raised} may be created for so far (raise_after)")
    if line.unmet_since is not None:
        lines.append(f"unmet for {span_text(inp.now - line.unmet_since)}")
    lines += [_gate_line(gate, inp) for gate in decision.gates if gate.rule == line.rule]
    lines += [_unmet_line(one) for one in decision.unmet if one.rule == line.rule]
    if line.unmet:
        lines += _in_the_way(found, target)
    return Paragraph(title=f"Rule {line.rule} ({line.size})", lines=tuple(lines))


def _in_the_way(found: Survey, target: RuleTarget) -> list[str]:
    """Return who keeps the places that a rule could use, those in use last."""
    name = target.rule.name
    pinned = [
        (state.pin in IN_USE_REASONS, gpu.state.reading.index, state)
        for gpu in found.plannable
        if any(rule == name for _, rule in gpu.keys)
        for state in hindering(gpu, target)
    ]
    pinned.sort(key=lambda entry: (entry[0], entry[1], entry[2].spec))
    lines = [f"in the way: GPU {index} {_pin_text(state)}" for _, index, state in pinned[:NAMED]]
    if len(pinned) > NAMED:
        lines.append(f"in the way: {len(pinned) - NAMED} more")
    return lines


def _gpu(inp: DecisionInput, found: Survey, decision: Decision, state: GpuState) -> Paragraph:
    """Return one GPU's paragraph."""
    line = next((one for one in decision.gpus if one.gpu_uuid == state.uuid), None)
    layout = None if overlaps(state) else state.layout
    present = "unknown" if layout is None else layout_text(state.reading.model, layout)
    lines = [f"there: {present}"]
    if line is not None:
        lines.append(line.explanation)
    if isinstance(decision.outcome, Plan):
        mine = [p for p in decision.outcome.gpu_plans if p.gpu_uuid == state.uuid]
        lines += [f"now: {_change(found, one)}" for one in mine]
    lines += [_pin_text(one) for one in state.instances or ()]
    mode = "not managed" if line is None or line.mode is None else line.mode.value
    return Paragraph(title=f"{gpu_text(state)} ({mode})", lines=tuple(lines))


def _pin_text(state: InstanceState) -> str:
    """Return one instance with its verdict."""
    verdict = "idle" if state.pin is None else f"pinned ({state.pin.value})"
    words = f"{state.spec} {verdict}"
    return f"{words}: {state.explanation}" if state.explanation else words


def _gate_line(gate: Gate, inp: DecisionInput) -> str:
    """Return a closed gate on one line."""
    weight = "blocks" if gate.blocks else "closed"
    return f"gate {gate.reason.value} {weight}: {gate_text(gate, inp.now)}"


def _unmet_line(unmet: Unmet) -> str:
    """Return what stays unmet and why."""
    return f"{unmet.count} stay unmet: {unmet.cause.value}"


def _change(found: Survey, plan: GpuPlan) -> str:
    """Return a GPU plan with its steps."""
    gpu = found.gpu(plan.gpu_uuid)
    before, after = layout_text(gpu.model, plan.before), layout_text(gpu.model, plan.after)
    steps = listed([str(step) for step in plan.steps])
    return f"{gpu_text(gpu.state)} from {before} to {after} ({steps})"
