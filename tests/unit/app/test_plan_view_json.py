"""Decisions, plans and outcomes as JSON: plain values, times in ISO 8601, durations in seconds."""

import json
from datetime import timedelta

from migscaler.app.plan_view import decision_view, outcome_view, plan_view
from migscaler.control.request import plan_layout
from migscaler.model.ids import PlanId
from migscaler.model.plan import Direction, Outcome, OutcomeKind, OutcomeReason, Plan
from migscaler.model.policy import IdlePolicy, Mode
from migscaler.policy.decide import decide
from tests.builders import (
    A100,
    NOW,
    decision_input,
    gpu_entry,
    gpu_state,
    layout,
    policy,
    rule,
    snapshot,
    uuid,
)


def test_gpu_plan_has_layouts_direction_and_steps_as_text() -> None:
    gpu = gpu_state(A100, "7g@0", index=3)
    made = plan_layout(gpu, "3g 3g")
    assert made is not None

    assert plan_view(Plan(gpu_plans=(made,)), snapshot(gpu)) == [
        {
            "gpu": 3,
            "gpu_uuid": uuid(3),
            "before": "7g.40gb@0",
            "after": "3g.20gb@0 3g.20gb@4",
            "direction": "finer",
            "steps": [
                {"action": "destroy", "spec": "7g.40gb@0"},
                {"action": "create", "spec": "3g.20gb@0"},
                {"action": "create", "spec": "3g.20gb@4"},
            ],
        }
    ]


def test_gpu_that_the_picture_lacks_has_no_index() -> None:
    made = plan_layout(gpu_state(A100, "7g@0"), "3g 3g")
    assert made is not None

    (view,) = plan_view(Plan(gpu_plans=(made,)), snapshot())

    assert (view["gpu"], view["gpu_uuid"]) == (None, uuid())


def test_outcome_is_all_plain_values() -> None:
    outcome = Outcome(
        plan_id=PlanId("p1"),
        gpu_uuid=uuid(),
        kind=OutcomeKind.FAILED,
        reason=OutcomeReason.NOT_VERIFIED,
        explanation="put back 7g.40gb@0",
        layout=layout(A100, "7g@0"),
        started_at=NOW,
        duration=timedelta(milliseconds=2500),
        rolled_back=True,
        direction=Direction.FINER,
    )

    assert outcome_view(outcome, snapshot(gpu_state(A100, "7g@0"))) == {
        "plan_id": "p1",
        "gpu": 0,
        "gpu_uuid": uuid(),
        "outcome": "failed",
        "reason": "not_verified",
        "explanation": "put back 7g.40gb@0",
        "layout": "7g.40gb@0",
        "started_at": "2026-03-02T12:00:00+00:00",
        "seconds": 2.5,
        "rolled_back": True,
    }


def test_hold_shows_its_reason_and_still_what_is_wanted() -> None:
    rules = policy(
        rule("notebooks", "1g", minimum=2),
        gpus=(gpu_entry(Mode.RECOMMEND),),
        idle=IdlePolicy(),
    )
    inp = decision_input(snapshot(gpu_state(A100, "7g@0")), rules)

    view = decision_view(decide(inp), inp.snapshot)

    assert (view["outcome"], view["reason"], view["gpu_plans"]) == ("hold", "mode", [])
    assert isinstance(view["wanted"], list)
    assert [gpu_plan["before"] for gpu_plan in view["wanted"]] == ["7g.40gb@0"]
    assert view["nvidia_smi"] != []
    assert json.loads(json.dumps(view)) == view


def test_plan_shows_what_is_carried_out() -> None:
    rules = policy(rule("notebooks", "1g", minimum=2))
    inp = decision_input(snapshot(gpu_state(A100, "7g@0")), rules)

    view = decision_view(decide(inp), inp.snapshot)

    assert (view["outcome"], view["reason"]) == ("plan", None)
    assert view["gpu_plans"] == view["wanted"] != []
