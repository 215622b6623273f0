"""Asks the gates again between two GPU plans of one decision: minutes may lie between them."""

from migscaler.model.decision import DecisionInput
from migscaler.model.plan import Gate, GateReason, GpuPlan, OutcomeReason
from migscaler.policy.gates import freezes, gpu_gates, in_order, node_gates
from migscaler.policy.supply import survey

_REASONS = {
    GateReason.PAUSED: OutcomeReason.PAUSED,
    GateReason.PROTECTED: OutcomeReason.HELD,
    GateReason.JOURNAL_UNWRITABLE: OutcomeReason.JOURNAL_UNWRITABLE,
}


def closed_since(inp: DecisionInput, plan: GpuPlan, *, asked: bool) -> Gate | None:
    """Return the first gate that is closed now for a GPU plan decided earlier, None if none is.

    `asked`: a person did, past the mode. Pace is not weighed again: it was for the whole decision.
    """
    found = survey(inp)
    frozen, freeze_gates = freezes(inp)
    gates = [*node_gates(inp), *(freeze_gates if plan.direction in frozen else ())]
    gates += [gate for gate in gpu_gates(inp, found) if gate.gpu_uuid == plan.gpu_uuid]
    if all(gpu.uuid != plan.gpu_uuid for gpu in found.gpus):
        words = "no line of the configuration manages it any more"
        gates.append(Gate(reason=GateReason.MODE, explanation=words, gpu_uuid=plan.gpu_uuid))
    if asked:
        gates = [gate for gate in gates if gate.reason is not GateReason.MODE]
    return next(iter(in_order(gates)), None)


def reason_of(gate: Gate) -> OutcomeReason:
    """Return how a plan ends that a gate keeps from being begun."""
    return _REASONS.get(gate.reason, OutcomeReason.GATE_CLOSED)
