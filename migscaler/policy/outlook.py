"""What stands in the way of the wanted plan, and why demand stays unmet."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from migscaler.model.decision import DecisionInput
from migscaler.model.gpu import IN_USE_REASONS, InstanceState
from migscaler.model.ids import GpuUuid
from migscaler.model.layout import Layout
from migscaler.model.plan import Direction, Gate, GateReason, GpuPlan, Unmet, UnmetCause
from migscaler.policy import pace
from migscaler.policy.baseline import baseline_layout, needs_baseline
from migscaler.policy.gates import (
    budget_gate,
    budget_left,
    freezes,
    gpu_gates,
    in_order,
    node_gates,
)
from migscaler.policy.proposal import Limits, Proposal
from migscaler.policy.supply import ManagedGpu, Survey
from migscaler.policy.targets import RuleTarget, lower_after, raise_after
from migscaler.policy.words import gpu_text, listed


@dataclass(frozen=True, slots=True, kw_only=True)
class Outlook:
    """The closed gates in order, and what they leave; `node_closed`: nothing may change at all."""

    gates: tuple[Gate, ...]
    node_closed: bool
    limits: Limits

    @property
    def blocking(self) -> tuple[Gate, ...]:
        """Return the gates in the way of the wanted plan, the first asked first."""
        return tuple(gate for gate in self.gates if gate.blocks)


def look_out(
    inp: DecisionInput,
    found: Survey,
    targets: tuple[RuleTarget, ...],
    proposal: Proposal,
) -> Outlook:
    """Return all closed gates, with whether each blocks the wanted plan."""
    wanted = proposal.gpu_plans
    frozen, freeze_gates = freezes(inp)
    whole_node = tuple(node_gates(inp))
    directions = {plan.direction for plan in wanted}
    changing = {plan.gpu_uuid for plan in wanted}
    short = [one for one in targets if one.missing]
    gates = [replace(gate, blocks=bool(wanted)) for gate in whole_node]
    gates += [replace(gate, blocks=bool(directions & frozen)) for gate in freeze_gates]
    on_gpus = tuple(gpu_gates(inp, found))
    for gate in on_gpus:
        in_way = gate.gpu_uuid in changing or _hides_supply(gate, found, short, wanted)
        gates.append(replace(gate, blocks=in_way))
    gates += budget_gate(inp, len(wanted))
    gates += _rule_gates(inp, found, targets, proposal)
    gates += _baseline_gates(found, wanted)
    fixed = frozenset(gate.gpu_uuid for gate in on_gpus if gate.gpu_uuid is not None)
    return Outlook(
        gates=in_order(gates),
        node_closed=bool(whole_node) or frozen == frozenset(Direction),
        limits=Limits(fixed=fixed, frozen=frozen, budget=budget_left(inp), paced=True),
    )


def _hides_supply(
    gate: Gate, found: Survey, short: list[RuleTarget], wanted: tuple[GpuPlan, ...]
) -> bool:
    """Say whether a GPU that can't be planned could serve a rule that is short of instances."""
    if wanted or gate.gpu_uuid is None:
        return False
    gpu = found.gpu(gate.gpu_uuid)
    if gpu.problem is None:
        return False
    return any(_offers(gpu, one) for one in short)


def _offers(gpu: ManagedGpu, target: RuleTarget) -> bool:
    """Say whether a GPU has a profile for the rule."""
    return any(rule == target.rule.name for _, rule in gpu.keys)


def _rule_gates(
    inp: DecisionInput, found: Survey, targets: tuple[RuleTarget, ...], proposal: Proposal
) -> Iterator[Gate]:
    """Yield the closed gates of every rule."""
    is_quiet = not proposal.gpu_plans
    then = found.free_in(proposal.layouts)
    for one in targets:
        gain = then[one.rule.name] - one.supply.free
        if one.demand.unknown:
            others_short = any(other.missing for other in targets if other is not one)
            yield Gate(
                reason=GateReason.SOURCE_UNKNOWN,
                explanation=f"{one.rule.name}: {'; '.join(one.demand.problems)}",
                rule=one.rule.name,
                blocks=(one.no_create and gain > 0)
                or (is_quiet and others_short and one.hard_kept > 0),
            )
        yield from _settling(inp, one, gain)
        if one.missing and is_quiet:
            yield _unservable(found, one)


def _settling(inp: DecisionInput, one: RuleTarget, gain: int) -> Iterator[Gate]:
    """Yield the gate of a target that has not been what it is for long enough.

    `gain`: what the wanted plan gives the rule (negative: takes from it).
    """
    samples, name = one.history.samples, one.rule.name
    paced, free = one.paced_needs.target, one.supply.free
    has_fallen = paced > one.open_needs.target
    # A target can have risen lately from one that had fallen lately from a higher one: what counts
    # is what the plan does to the rule.
    if one.raised < one.wanted and not (has_fallen and gain < 0):
        opens = pace.raised_at(samples, one.wanted, raise_after(one.rule, inp.policy))
        words, blocks = "rose", gain > 0 and free + gain > paced
    elif has_fallen:
        opens = pace.lowered_at(samples, one.wanted, lower_after(one.rule, inp.policy))
        words, blocks = "fell", gain < 0 and free + gain < paced
    else:
        return
    yield Gate(
        reason=GateReason.SETTLING_TARGET,
        explanation=f"{name}: the target {words} to {one.wanted}, not long enough ago to act on",
        rule=name,
        opens_at=_whole_second(inp.now, opens - inp.now_monotonic),
        blocks=blocks,
    )


def _whole_second(now: datetime, seconds: float) -> datetime:
    """Return the moment so many seconds from now."""
    return now + timedelta(seconds=max(0.0, seconds))


def _unservable(found: Survey, one: RuleTarget) -> Gate:
    """Return why a rule stays short though every gate is open."""
    name, size = one.rule.name, one.rule.size
    offering = [gpu for gpu in found.plannable if _offers(gpu, one)]
    in_way = [state for gpu in offering for state in hindering(gpu, one)]
    if in_way:
        words = f"{name} lacks {one.missing} x {size}; {len(in_way)} pinned instance(s) in the way"
        return Gate(reason=GateReason.NOT_IDLE, explanation=words, rule=one.rule.name, blocks=True)
    if offering:
        words = f"{name} lacks {one.missing} x {size}; nothing more fits beside what comes before"
    elif any(_offers(gpu, one) for gpu in found.gpus):
        words = f"{name} lacks {one.missing} x {size}, which only GPUs offer that can't change now"
    else:
        words = f"{name} lacks {one.missing} x {size}, which no managed GPU offers to it"
    return Gate(reason=GateReason.INFEASIBLE, explanation=words, rule=one.rule.name, blocks=True)


def hindering(gpu: ManagedGpu, one: RuleTarget) -> list[InstanceState]:
    """Return the pinned instances of a GPU that are not supply of this rule themselves."""
    return [
        state
        for state in gpu.instances
        if state.pin is not None
        and not (gpu.supplies(state) and gpu.rule_of(state.spec.profile) == one.rule.name)
    ]


def _baseline_gates(found: Survey, wanted: tuple[GpuPlan, ...]) -> Iterator[Gate]:
    """Yield a gate for each empty GPU whose baseline can't be laid out."""
    changing = {plan.gpu_uuid for plan in wanted}
    for gpu in found.plannable:
        if gpu.uuid not in changing and needs_baseline(gpu) and baseline_layout(gpu) is None:
            words = f"{gpu_text(gpu.state)}: its baseline {listed(list(gpu.entry.baseline))} "
            words += "is no legal layout of it"
            yield Gate(reason=GateReason.INFEASIBLE, explanation=words, gpu_uuid=gpu.uuid)


def unmet_causes(
    found: Survey,
    targets: tuple[RuleTarget, ...],
    after: Mapping[GpuUuid, Layout],
    wanted: Mapping[GpuUuid, Layout],
    unhindered: Mapping[GpuUuid, Layout] | None,
) -> tuple[Unmet, ...]:
    """Return what each rule lacks after the layouts decided for, by cause.

    Gate: the wanted layouts would give it. Configuration: no managed GPU offers the size. Held: it
    would be there if only what is in use were pinned (`unhindered`; None when nothing else is).
    Capacity: the rest.
    """
    now, then = found.free_in(after), found.free_in(wanted)
    freed = then if unhindered is None else found.free_in(unhindered, only_use_blocks=True)
    lines = []
    for one in targets:
        name, need = one.rule.name, one.open_needs.wanted
        lacks = max(0, need - now[name])
        lacks_wanted = min(lacks, max(0, need - then[name]))
        parts = {UnmetCause.GATE: lacks - lacks_wanted}
        if lacks_wanted and not any(_offers(gpu, one) for gpu in found.plannable):
            hidden = any(_offers(gpu, one) for gpu in found.gpus)
            cause = UnmetCause.GATE if hidden else UnmetCause.CONFIGURATION
            parts[cause] = parts.get(cause, 0) + lacks_wanted
        else:
            held = min(lacks_wanted, max(0, freed[name] - then[name]))
            parts[UnmetCause.HELD] = held
            parts[UnmetCause.CAPACITY] = lacks_wanted - held
        lines += [Unmet(rule=name, count=parts[c], cause=c) for c in UnmetCause if parts.get(c)]
    return tuple(lines)


def has_held(found: Survey) -> bool:
    """Say whether anything but use keeps an instance in its place."""
    return any(
        one.pin is not None and one.pin not in IN_USE_REASONS
        for gpu in found.plannable
        for one in gpu.instances
    )
