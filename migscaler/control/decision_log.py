"""Records decisions that say something new, with their complete input."""

import logging
from dataclasses import replace

from migscaler.control.fingerprint import fingerprint
from migscaler.errors import StoreError
from migscaler.model.decision import Decision, DecisionInput
from migscaler.model.plan import Gate, GateReason, Hold
from migscaler.policy.gates import in_order
from migscaler.store.store import Store

_log = logging.getLogger("migscaler.loop")


class DecisionLog:
    """Remembers what was recorded last; used by the thread that decides."""

    def __init__(self) -> None:
        """Nothing was recorded yet."""
        self._recorded: str | None = None
        self._number: int | None = None
        self._told: str | None = None

    def record(self, store: Store, inp: DecisionInput, decision: Decision) -> int | None:
        """Record input and decision if it says something new; return its number.

        None if it can't be written: then it is tried again the next time.
        """
        said = fingerprint(decision)
        if said == self._recorded:
            return self._number
        try:
            number = store.record_decision(inp, decision)
        except StoreError as error:
            if said != self._told:  # a full disk is told once
                _log.warning("decision_not_recorded error=%s", error)
                _tell(None, decision)
            self._told = said
            return None
        self._recorded, self._number, self._told = said, number, said
        _tell(number, decision)
        return number


def unrecorded(decision: Decision) -> Decision:
    """Return the hold in place of a plan whose input could not be recorded.

    Nobody could say later why such a plan was carried out.
    """
    words = "the plan and what it was decided from could not be recorded"
    gate = Gate(reason=GateReason.JOURNAL_UNWRITABLE, explanation=words, blocks=True)
    return replace(
        decision,
        outcome=Hold(reason=gate.reason, explanation=words),
        gates=in_order([*decision.gates, gate]),
        sentence=f"Hold: {words}",
    )


def _tell(number: int | None, decision: Decision) -> None:
    """Log what was decided."""
    held = decision.outcome if isinstance(decision.outcome, Hold) else None
    _log.info(
        "decided decision=%s outcome=%s reason=%s sentence=%s",
        "none" if number is None else number,
        "plan" if held is None else "hold",
        "none" if held is None else held.reason.value,
        decision.sentence,
    )
