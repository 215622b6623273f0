"""Waiting jobs on a node of different models: a size is another profile on each of them."""

from migscaler.model.gpu import PinReason
from migscaler.policy.demand import demand_of
from migscaler.policy.supply import survey
from tests.builders import (
    A100,
    H100,
    decision_input,
    gpu_state,
    policy,
    rule,
    snapshot,
    source_status,
)

FULL = dict.fromkeys(("1g@0", "1g@1", "1g@2"), PinReason.PROCESS)


def test_waiting_jobs_come_on_top_of_those_in_use_on_all_models() -> None:
    """Only the busiest model's instances were counted: two waiting jobs got nothing at all."""
    rules = rule("small", "1g", "queue")
    status = source_status(
        "queue", {"1g": 2}, in_use_at_reading={"1g.5gb": 3, "1g.10gb": 3, "3g.20gb": 1}
    )
    gpus = (
        gpu_state(A100, "1g@0 1g@1 1g@2", FULL),
        gpu_state(H100, "1g@0 1g@1 1g@2", FULL, index=1),
    )
    inp = decision_input(snapshot(*gpus), policy(rules), status)

    assert demand_of(rules, inp, survey(inp)).waiting == 8
