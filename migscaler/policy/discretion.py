"""What a decision may tell those who are not to learn whose jobs and holds there are.

Texts of some gates name a holder, an owner or whoever paused the node. For strangers their reason
stands in the text's place; numbers, layouts and times stay. Other texts are told to them without
process ids, accounts and names of programs.
"""

import re

from migscaler.model.decision import Decision
from migscaler.model.ids import GpuUuid
from migscaler.model.plan import Gate, GateReason, Hold
from migscaler.model.status import ConfigStatus

NAMING_GATES = frozenset(
    {
        GateReason.HELD_BY_CLIENT,
        GateReason.FOREIGN_OWNER,
        GateReason.ALLOCATIONS_UNKNOWN,
        GateReason.PAUSED,
        GateReason.PROTECTED,
    }
)
"""Gates whose explanation may name somebody. That of `not_idle` counts and names nobody."""


# "process 812 of uid 1007", "process 5151 (dockerd, in its environment)", "uid 1007".
_SOMEBODY = re.compile(r"\bprocess \d+(?: of uid \d+)?(?: \((?:[^()]|\([^()]*\))*\))?")
_ACCOUNT = re.compile(r"\buid \d+")


def told(text: str, *, names: bool) -> str:
    """Return a text; without `names`, somebody stands where a process or an account did."""
    return text if names else _ACCOUNT.sub("an account", _SOMEBODY.sub("a process", text))


def names_somebody(gate: Gate) -> bool:
    """Say whether the explanation of a gate may name somebody.

    An open plan of one GPU is a restore that waits for somebody's hold; one of the node names none.
    """
    return gate.reason in NAMING_GATES or (
        gate.reason is GateReason.OPEN_PLAN and gate.gpu_uuid is not None
    )


def sentence_for(decision: Decision, *, names: bool) -> str:
    """Return the decision's sentence; without `names` a plain one where it might name somebody.

    The sentence of a hold is made of the texts of all gates that block.
    """
    outcome = decision.outcome
    if names or not isinstance(outcome, Hold):
        return told(decision.sentence, names=names)
    blocking = [gate for gate in decision.gates if gate.blocks]
    if outcome.reason not in NAMING_GATES and not any(map(names_somebody, blocking)):
        return told(decision.sentence, names=names)
    return f"Hold: {outcome.reason.value.replace('_', ' ')}"


def problems_of(config: ConfigStatus, *, names: bool) -> tuple[str, ...]:
    """Return what is wrong with the files; without `names` only that something is.

    Findings quote the files, and a file may hold at any place what belongs elsewhere.
    """
    if names or not config.problems:
        return config.problems
    count = len(config.problems)
    return (f"{count} problem{'s' * (count > 1)}: see the log, or `migscaler status` as root",)


def gates_of(decision: Decision, gpu_uuid: GpuUuid) -> tuple[Gate, ...]:
    """Return the closed gates of one GPU."""
    return tuple(gate for gate in decision.gates if gate.gpu_uuid == gpu_uuid)
