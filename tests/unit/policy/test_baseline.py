"""Baseline: what a GPU is given when it has nothing and nothing is wanted."""

from dataclasses import replace

from migscaler.model.decision import DecisionInput, GpuHistory
from migscaler.model.layout import Layout
from migscaler.model.plan import GateReason, Hold, Plan
from migscaler.model.policy import Mode, Pace
from migscaler.policy.decide import decide
from tests.builders import (
    A100,
    decision_input,
    gpu_entry,
    gpu_state,
    layout,
    policy,
    rule,
    snapshot,
    source_status,
    uuid,
)


def empty(count: int = 1, baseline: tuple[str, ...] = ("3g", "3g")) -> DecisionInput:
    """Return empty A100s with that baseline."""
    state = snapshot(*(gpu_state(A100, index=n) for n in range(count)))
    return decision_input(state, policy(gpus=(gpu_entry(baseline=baseline),)))


def laid_out(inp: DecisionInput) -> dict[str, str]:
    """Return the layouts after the plan by GPU."""
    outcome = decide(inp).outcome
    assert isinstance(outcome, Plan)
    return {plan.gpu_uuid: str(plan.after) for plan in outcome.gpu_plans}


def test_empty_gpu_gets_its_baseline() -> None:
    decision = decide(empty())
    assert isinstance(decision.outcome, Plan)
    [plan] = decision.outcome.gpu_plans
    assert plan.after == layout(A100, "3g@0 3g@4")
    assert [str(step) for step in plan.steps] == ["create 3g.20gb@0", "create 3g.20gb@4"]
    assert decision.sentence == (
        "Reshape GPU 0 from nothing to 3g+3g: an empty GPU gets its baseline"
    )
    assert decision.gpus[0].wanted == plan.after


def test_baseline_lies_where_the_rest_stays_useful() -> None:
    assert laid_out(empty(baseline=("3g",))) == {uuid(0): "3g.20gb@4"}


def test_recorded_layout_is_left_to_recovery() -> None:
    inp = empty()
    known = GpuHistory(gpu_uuid=uuid(0), wanted=layout(A100, "7g@0"))
    inp = replace(inp, history=replace(inp.history, gpus=(known,)))
    assert isinstance(decide(inp).outcome, Hold)


def test_recorded_empty_layout_does_not_stand_in_the_way() -> None:
    inp = empty()
    known = GpuHistory(gpu_uuid=uuid(0), wanted=Layout())
    inp = replace(inp, history=replace(inp.history, gpus=(known,)))
    assert laid_out(inp) == {uuid(0): "3g.20gb@0 3g.20gb@4"}


def test_demand_comes_before_the_baseline() -> None:
    inp = empty(count=2)
    inp = replace(inp, policy=replace(inp.policy, rules=(rule("r", "7g", minimum=1),)))
    assert sorted(laid_out(inp).values()) == ["3g.20gb@0 3g.20gb@4", "7g.40gb@0"]


def test_gpu_with_any_instance_gets_no_baseline() -> None:
    inp = replace(empty(), snapshot=snapshot(gpu_state(A100, "1g@0")))
    assert isinstance(decide(inp).outcome, Hold)


def test_baselines_obey_the_budget() -> None:
    inp = empty(count=3)
    inp = replace(inp, policy=replace(inp.policy, pace=Pace(gpus_at_once=2)))
    assert len(laid_out(inp)) == 2


def test_baseline_of_a_gpu_not_enforced_is_only_wanted() -> None:
    inp = empty()
    entry = gpu_entry(Mode.RECOMMEND, baseline=("7g",))
    decision = decide(replace(inp, policy=replace(inp.policy, gpus=(entry,))))
    assert isinstance(decision.outcome, Hold)
    assert decision.outcome.reason is GateReason.MODE
    assert decision.wanted is not None
    assert [str(plan.after) for plan in decision.wanted.gpu_plans] == ["7g.40gb@0"]


def test_impossible_baseline_is_said() -> None:
    for impossible in (("7g", "1g"), ("5g",)):
        decision = decide(empty(baseline=impossible))
        assert isinstance(decision.outcome, Hold)
        [gate] = decision.gates
        assert gate.reason is GateReason.INFEASIBLE
        assert "is no legal layout" in gate.explanation


def test_gpu_that_is_wanted_behind_a_gate_gets_no_baseline() -> None:
    """A baseline in the place of a size whose source is silent would only stand in its way."""
    inp = empty()
    silent = source_status("queue", {"1g": 0}, absent_is_zero=False)
    spoken = replace(inp.policy, rules=(rule("r", "7g", "queue", minimum=1),))
    decision = decide(replace(inp, policy=spoken, demand=(silent,)))

    assert isinstance(decision.outcome, Hold)
    assert decision.outcome.reason is GateReason.SOURCE_UNKNOWN
