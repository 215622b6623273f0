"""Decide: a plan, or a hold with its reason, from one complete input.

Two questions are asked of the planner: what would be done with every gate open, and what may be
done now. The second is asked only when a gate makes a difference.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction

from migscaler.errors import PlanningFailed
from migscaler.model.decision import Decision, DecisionInput
from migscaler.model.ids import GpuUuid
from migscaler.model.layout import Layout
from migscaler.model.plan import Gate, GateReason, Hold, Plan, Unmet
from migscaler.planner.cache import OptionCache
from migscaler.planner.layouts import fragmentation
from migscaler.policy.gates import summary
from migscaler.policy.outlook import Outlook, has_held, look_out, unmet_causes
from migscaler.policy.proposal import Limits, Proposal, propose, unhindered
from migscaler.policy.report import gpu_decisions, plan_sentence, rule_decision
from migscaler.policy.supply import Survey, survey
from migscaler.policy.targets import RuleTarget, targets_of

# Gates of a rule that may refuse a plan without blocking it alone.
_OF_RULES = (GateReason.SOURCE_UNKNOWN, GateReason.SETTLING_TARGET)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Picture:
    """Everything worked out on the way to one decision.

    `freed`: the layouts if only what is in use were pinned, None where they make no difference.
    """

    inp: DecisionInput
    found: Survey
    targets: tuple[RuleTarget, ...]
    wanted: Proposal
    outlook: Outlook
    freed: Mapping[GpuUuid, Layout] | None

    @property
    def present(self) -> Mapping[GpuUuid, Layout]:
        """Return today's layouts."""
        return {gpu.uuid: gpu.layout for gpu in self.found.plannable}


def decide(inp: DecisionInput, cache: OptionCache | None = None) -> Decision:
    """Return what to do now, what would be done with every gate open, and all that was weighed.

    The order of GPUs, sources, windows, holds and histories in the input does not matter; the order
    of rules and `gpus:` lines does. Given the same `cache` again, work already done is not
    repeated; it never changes an answer. A fault of the solver ends in a hold.
    """
    try:
        return _decided(inp, cache if cache is not None else OptionCache())
    except PlanningFailed as error:
        return _failed(inp, error)


def _decided(inp: DecisionInput, cache: OptionCache) -> Decision:
    """Return the decision.

    Raises:
        PlanningFailed: the solver could not finish.
    """
    found = survey(inp)
    targets = targets_of(inp, found)
    wanted = propose(found, targets, Limits(), cache)
    then = found.free_in(wanted.layouts)
    is_short = any(one.open_needs.wanted > then[one.rule.name] for one in targets)
    picture = _Picture(
        inp=inp,
        found=found,
        targets=targets,
        wanted=wanted,
        outlook=look_out(inp, found, targets, wanted),
        freed=unhindered(found, targets, cache) if is_short and has_held(found) else None,
    )
    outcome, after = _outcome(picture, _permitted(picture, cache))
    return Decision(
        outcome=outcome,
        wanted=_wanted_plan(picture),
        gates=picture.outlook.gates,
        rules=tuple(rule_decision(one, inp) for one in targets),
        gpus=gpu_decisions(inp, found, wanted, picture.outlook),
        rule_histories=tuple(sorted((one.history for one in targets), key=lambda h: h.rule)),
        sentence=_sentence(picture, outcome),
        fragmentation_ratio=_fragmentation(found, cache),
        unmet=_unmet(picture, after),
    )


def _failed(inp: DecisionInput, error: PlanningFailed) -> Decision:
    """Return the decision to do nothing; histories stay as they were."""
    words = f"planning failed: {error}"
    return Decision(
        outcome=Hold(reason=GateReason.INFEASIBLE, explanation=words),
        wanted=None,
        gates=(Gate(reason=GateReason.INFEASIBLE, explanation=words, blocks=True),),
        rules=(),
        gpus=(),
        rule_histories=inp.history.rules,
        sentence=f"Hold: {words}",
    )


def _permitted(picture: _Picture, cache: OptionCache) -> Proposal | None:
    """Return what may be done now, None when nothing may."""
    outlook, wanted = picture.outlook, picture.wanted
    limits = outlook.limits
    if not wanted.gpu_plans or outlook.node_closed or limits.budget == 0:
        return None
    is_unhindered = (
        not limits.fixed
        and not limits.frozen
        and (limits.budget is None or len(wanted.gpu_plans) <= limits.budget)
        and all(one.paced_needs == one.open_needs and not one.no_create for one in picture.targets)
    )
    if is_unhindered:
        return wanted
    spoken_for = frozenset(uuid for uuid, layout in wanted.solution.layouts if len(layout))
    found = propose(picture.found, picture.targets, limits, cache, spoken_for)
    return found if found.gpu_plans else None


def _outcome(
    picture: _Picture, permitted: Proposal | None
) -> tuple[Plan | Hold, Mapping[GpuUuid, Layout]]:
    """Return what is done now, and the layouts after it."""
    if permitted is None:
        return _hold(picture), picture.present
    plan = Plan(
        gpu_plans=permitted.gpu_plans,
        levels=permitted.solution.levels,
        unmet=_unmet(picture, permitted.layouts),
    )
    return plan, permitted.layouts


def _hold(picture: _Picture) -> Hold:
    """Return why nothing is done."""
    inp, outlook = picture.inp, picture.outlook
    blocking = outlook.blocking
    if not blocking and not picture.wanted.gpu_plans:
        # Nobody can be called satisfied while it isn't known what is wanted.
        blocking = tuple(g for g in outlook.gates if g.reason is GateReason.SOURCE_UNKNOWN)
        if not blocking:
            return Hold(reason=GateReason.SATISFIED, explanation="no change is wanted")
    # A plan may be refused by several rules' pace together; a gate of a GPU that it leaves alone
    # never refused it.
    blocking = blocking or tuple(g for g in outlook.gates if g.reason in _OF_RULES)
    if not blocking:
        words = "the wanted plan is not possible within pace"
        return Hold(reason=GateReason.SETTLING_TARGET, explanation=words)
    return Hold(reason=blocking[0].reason, explanation=summary(blocking, inp.now))


def _wanted_plan(picture: _Picture) -> Plan | None:
    """Return the plan with every gate open, None when no change is wanted."""
    wanted = picture.wanted
    if not wanted.gpu_plans:
        return None
    return Plan(
        gpu_plans=wanted.gpu_plans,
        levels=wanted.solution.levels,
        unmet=_unmet(picture, wanted.layouts),
    )


def _unmet(picture: _Picture, after: Mapping[GpuUuid, Layout]) -> tuple[Unmet, ...]:
    """Return what rules lack after some layouts, by cause."""
    wanted = picture.wanted.layouts
    return unmet_causes(picture.found, picture.targets, after, wanted, picture.freed)


def _sentence(picture: _Picture, outcome: Plan | Hold) -> str:
    """Return the decision in one line."""
    if isinstance(outcome, Hold):
        return f"Hold: {outcome.explanation}"
    return plan_sentence(picture.found, picture.targets, outcome)


def _fragmentation(found: Survey, cache: OptionCache) -> float | None:
    """Return the fragmentation of what is free now, 0..1; None when nothing is managed."""
    wasted = whole = 0
    for gpu in found.plannable:
        if gpu.model is None:
            continue
        names = [name for name, _ in gpu.keys] or [p.name for p in gpu.model.profiles]
        space = cache.space(gpu.model)
        part = fragmentation(gpu.model, gpu.layout, dict.fromkeys(names, 1), space=space)
        wasted, whole = wasted + part[0], whole + part[1]
    if not found.plannable:
        return None
    return float(Fraction(wasted, whole)) if whole else 0.0
