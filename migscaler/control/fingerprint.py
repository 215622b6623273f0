"""Tells whether a decision differs from the one recorded last."""

from migscaler.model.decision import Decision
from migscaler.model.plan import Hold


def fingerprint(decision: Decision) -> str:
    """Return what makes two decisions the same to a reader of the history."""
    outcome = decision.outcome
    if isinstance(outcome, Hold):
        return f"{outcome.reason.value} {decision.wanted}"
    return str(outcome.gpu_plans)
