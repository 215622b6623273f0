"""Why demand stays unmet: capacity, held, gate or configuration."""

from dataclasses import replace

from migscaler.model.decision import Decision
from migscaler.model.gpu import PinReason
from migscaler.model.plan import UnmetCause
from migscaler.model.policy import Mode
from migscaler.policy.decide import decide
from tests.builders import (
    A100,
    decision_input,
    gpu_entry,
    gpu_state,
    policy,
    rule,
    snapshot,
    source_status,
)


def causes(decision: Decision) -> dict[UnmetCause, int]:
    """Return the unmet instances of the only rule by cause."""
    return {unmet.cause: unmet.count for unmet in decision.unmet}


def deciding(pins: dict[str, PinReason], text: str = "3g@0 3g@4", want: int = 1) -> Decision:
    """Return the decision for 7g jobs on one A100 of that layout."""
    return decide(
        decision_input(
            snapshot(gpu_state(A100, text, pins)),
            policy(rule("r", "7g", "queue")),
            source_status("queue", {"7g": want}),
        )
    )


def test_unmet_behind_jobs_is_capacity() -> None:
    assert causes(deciding({"3g@0": PinReason.PROCESS})) == {UnmetCause.CAPACITY: 1}


def test_unmet_behind_what_nobody_uses_is_held() -> None:
    for pin in (PinReason.HELD, PinReason.UNKNOWN, PinReason.MEMORY, PinReason.SETTLING):
        assert causes(deciding({"3g@0": pin})) == {UnmetCause.HELD: 1}


def test_unmet_beside_instances_of_the_size_that_may_be_free_is_held() -> None:
    assert causes(deciding({"7g@0": PinReason.UNKNOWN}, text="7g@0")) == {UnmetCause.HELD: 1}


def test_unmet_beyond_the_node_is_capacity() -> None:
    assert causes(deciding({}, want=3)) == {UnmetCause.CAPACITY: 2}


def test_unmet_behind_a_gate_is_gate() -> None:
    inp = decision_input(
        snapshot(gpu_state(A100, "-")),
        policy(rule("r", "7g", "queue"), gpus=(gpu_entry(Mode.OBSERVE),)),
        source_status("queue", {"7g": 2}),
    )
    assert causes(decide(inp)) == {UnmetCause.GATE: 1, UnmetCause.CAPACITY: 1}


def test_unmet_on_gpus_without_mig_is_gate() -> None:
    inp = decision_input(
        snapshot(gpu_state(A100, "-", mig=False)),
        policy(rule("r", "7g", "queue")),
        source_status("queue", {"7g": 1}),
    )
    assert causes(decide(inp)) == {UnmetCause.GATE: 1}


def test_unmet_of_a_size_nobody_offers_is_configuration() -> None:
    inp = decision_input(
        snapshot(gpu_state(A100, "-")),
        policy(rule("r", "5g", "queue")),
        source_status("queue", {"5g": 1}),
    )
    assert causes(decide(inp)) == {UnmetCause.CONFIGURATION: 1}


def test_wanted_plan_says_what_even_it_leaves_unmet() -> None:
    decision = deciding({}, want=3)
    assert decision.wanted is not None
    assert [(u.count, u.cause) for u in decision.wanted.unmet] == [(2, UnmetCause.CAPACITY)]
    assert decision.wanted == replace(decision.wanted, unmet=decision.unmet)
