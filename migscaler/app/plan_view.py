"""Plans, decisions and outcomes as JSON values; times in ISO 8601, durations in seconds."""

from migscaler.app.nvidia_smi import command_lines
from migscaler.model.decision import Decision
from migscaler.model.gpu import NodeSnapshot
from migscaler.model.plan import GpuPlan, Hold, Outcome, Plan
from migscaler.web.views import gate_view, index_of, rule_view


def decision_view(decision: Decision, snapshot: NodeSnapshot) -> dict[str, object]:
    """Return a decision: what is done now, what is wanted, rules and gates."""
    outcome = decision.outcome
    wanted = decision.wanted
    return {
        "outcome": "hold" if isinstance(outcome, Hold) else "plan",
        "reason": outcome.reason.value if isinstance(outcome, Hold) else None,
        "sentence": decision.sentence,
        "gpu_plans": [] if isinstance(outcome, Hold) else plan_view(outcome, snapshot),
        "wanted": plan_view(wanted, snapshot) if wanted else [],
        "rules": [rule_view(rule) for rule in decision.rules],
        "gates": [gate_view(gate, snapshot, trusted=True) for gate in decision.gates],
        "nvidia_smi": list(command_lines(wanted, snapshot)) if wanted else [],
    }


def plan_view(plan: Plan, snapshot: NodeSnapshot) -> list[dict[str, object]]:
    """Return the GPU plans in order."""
    return [_gpu_plan_view(gpu_plan, snapshot) for gpu_plan in plan.gpu_plans]


def outcome_view(outcome: Outcome, snapshot: NodeSnapshot | None) -> dict[str, object]:
    """Return how a GPU plan ended."""
    return {
        "plan_id": outcome.plan_id,
        "gpu": index_of(snapshot, outcome.gpu_uuid),
        "gpu_uuid": outcome.gpu_uuid,
        "outcome": outcome.kind.value,
        "reason": outcome.reason.value,
        "explanation": outcome.explanation,
        "layout": str(outcome.layout) if outcome.layout is not None else None,
        "started_at": outcome.started_at.isoformat(),
        "seconds": outcome.duration.total_seconds(),
        "rolled_back": outcome.rolled_back,
    }


def _gpu_plan_view(plan: GpuPlan, snapshot: NodeSnapshot) -> dict[str, object]:
    """Return one GPU's change."""
    return {
        "gpu": index_of(snapshot, plan.gpu_uuid),
        "gpu_uuid": plan.gpu_uuid,
        "before": str(plan.before),
        "after": str(plan.after),
        "direction": plan.direction.value,
        "steps": [{"action": s.action.value, "spec": str(s.spec)} for s in plan.steps],
    }
