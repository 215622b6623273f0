"""A decision in words and figures: per rule, per GPU, and as one sentence."""

from migscaler.model.decision import DecisionInput, GpuDecision, RuleDecision
from migscaler.model.plan import GpuPlan, Plan
from migscaler.policy.gates import gate_text
from migscaler.policy.outlook import Outlook
from migscaler.policy.proposal import Proposal
from migscaler.policy.supply import Survey
from migscaler.policy.targets import RuleTarget
from migscaler.policy.words import gpu_text, layout_text, listed


def rule_decision(one: RuleTarget, inp: DecisionInput) -> RuleDecision:
    """Return one rule as decided."""
    spare = one.target - one.wanted
    everything = one.supply.in_use + one.supply.free
    return RuleDecision(
        rule=one.rule.name,
        size=one.rule.size,
        floor=one.floor,
        in_use=one.supply.in_use,
        supply=one.supply.free,
        wanted=one.wanted,
        target=one.target,
        raised=one.raised + spare,
        kept=everything if one.kept is None else one.kept + spare,
        unmet=one.missing,
        unmet_since=one.history.unmet_since,
        source_unknown=(*one.demand.unknown, *one.demand.lapsed),
        source_counts=one.demand.counts,
        explanation=_rule_words(one),
    )


def _rule_words(one: RuleTarget) -> str:
    """Return a rule in words: wanted, there, and why it is so."""
    supply, demand = one.supply, one.demand
    there = [f"{supply.in_use} in use", f"{supply.free} free"]
    if supply.unseen:
        there.append(f"{supply.unseen} unknown")
    words = f"wanted {one.wanted} x {one.rule.size}"
    if one.target > one.wanted:
        words += f" and {one.target - one.wanted} spare"
    words += f"; there: {listed(there)}"
    if one.missing:
        words += f"; {one.missing} missing"
    if demand.overridden_by is not None:
        words += f"; overridden by {demand.overridden_by}"
    if demand.unknown:
        words += f"; unknown: {'; '.join(demand.problems)}"
        if one.hard_kept:
            words += f", so {one.hard_kept} idle are kept"
    if demand.most is not None and demand.most != demand.waiting:
        words += "; what was in use when jobs waited is not known, so free ones are kept for them"
    if demand.lapsed:
        words += f"; {listed(list(demand.lapsed))} silent for too long, left out"
    return words


def gpu_decisions(
    inp: DecisionInput, found: Survey, wanted: Proposal, outlook: Outlook
) -> tuple[GpuDecision, ...]:
    """Return every GPU of the snapshot as decided, by index."""
    managed = {gpu.uuid: gpu for gpu in found.gpus}
    changing = {plan.gpu_uuid: plan for plan in wanted.gpu_plans}
    lines = []
    for state in sorted(inp.snapshot.gpus, key=lambda one: (one.reading.index, one.uuid)):
        gpu = managed.get(state.uuid)
        if gpu is None:
            words = "not managed: no line of gpus: names it, or it can't do MIG"
            lines.append(
                GpuDecision(gpu_uuid=state.uuid, mode=None, wanted=None, explanation=words)
            )
            continue
        words = "stays as it is"
        if state.uuid in changing:
            words = f"wanted: {_change_words(found, changing[state.uuid])}"
        closed = [gate_text(g, inp.now) for g in outlook.gates if g.gpu_uuid == state.uuid]
        lines.append(
            GpuDecision(
                gpu_uuid=state.uuid,
                mode=gpu.entry.mode,
                wanted=wanted.layouts.get(state.uuid),
                explanation="; ".join([words, *closed]),
            )
        )
    return tuple(lines)


def plan_sentence(found: Survey, targets: tuple[RuleTarget, ...], plan: Plan) -> str:
    """Return `Reshape GPU 3 from 7g to 3g+3g: training waits for 2 x 3g`."""
    changes = [
        f"{gpu_text(found.gpu(one.gpu_uuid).state)} {_change_words(found, one)}"
        for one in plan.gpu_plans
    ]
    shown = changes if len(changes) <= 3 else [*changes[:2], f"{len(changes) - 2} more GPUs"]
    return f"Reshape {listed(shown)}: {_reasons(found, targets, plan)}"


def _change_words(found: Survey, plan: GpuPlan) -> str:
    """Return `from 7g to 3g+3g`."""
    model = found.gpu(plan.gpu_uuid).model
    return f"from {layout_text(model, plan.before)} to {layout_text(model, plan.after)}"


def _reasons(found: Survey, targets: tuple[RuleTarget, ...], plan: Plan) -> str:
    """Return for whom the plan is made."""
    gains: dict[str, int] = {}
    for one in plan.gpu_plans:
        gpu = found.gpu(one.gpu_uuid)
        for spec in one.after.specs:
            rule = gpu.rule_of(spec.profile)
            if rule is not None and spec not in one.before:
                gains[rule] = gains.get(rule, 0) + 1
    words = []
    for target in targets:
        if not gains.get(target.rule.name):
            continue
        if target.missing:
            words.append(f"{target.rule.name} waits for {target.missing} x {target.rule.size}")
        else:
            words.append(f"{target.rule.name} keeps {target.rule.size} spare")
    return listed(words) or "an empty GPU gets its baseline"
