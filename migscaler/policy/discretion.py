"""What a decision may tell those who are not to learn whose jobs and holds there are.

Texts of some gates name a holder, an owner or whoever paused the node. For strangers their reason
stands in the text's place; numbers, layouts and times stay.
"""

from migscaler.model.decision import Decision
from migscaler.model.ids import GpuUuid
from migscaler.model.plan import Gate, GateReason, Hold

NAMING_GATES = frozenset(
    {
        GateReason.HELD_BY_CLIENT,
        GateReason.FOREIGN_OWNER,
        GateReason.PAUSED,
        GateReason.PROTECTED,
    }
)
"""Gates whose explanation may name somebody. That of `not_idle` counts and names nobody."""


def names_somebody(gate: Gate) -> bool:
    """Say whether the explanation of a gate may name somebody."""
    return gate.reason in NAMING_GATES


def sentence_for(decision: Decision, *, names: bool) -> str:
    """Return the decision's sentence; without `names` a plain one where it might name somebody.

    The sentence of a hold is made of the texts of all gates that block.
    """
    outcome = decision.outcome
    if names or not isinstance(outcome, Hold):
        return decision.sentence
    blocking = [gate for gate in decision.gates if gate.blocks]
    if outcome.reason not in NAMING_GATES and not any(map(names_somebody, blocking)):
        return decision.sentence
    return f"Hold: {outcome.reason.value.replace('_', ' ')}"


def gates_of(decision: Decision, gpu_uuid: GpuUuid) -> tuple[Gate, ...]:
    """Return the closed gates of one GPU."""
    return tuple(gate for gate in decision.gates if gate.gpu_uuid == gpu_uuid)
