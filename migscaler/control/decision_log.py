"""Records decisions that say something new, with their complete input."""

import logging

from migscaler.control.fingerprint import fingerprint
from migscaler.errors import StoreError
from migscaler.model.decision import Decision, DecisionInput
from migscaler.model.plan import Hold
from migscaler.store.store import Store

_log = logging.getLogger("migscaler.loop")


class DecisionLog:
    """Remembers what was recorded last; used by the thread that decides."""

    def __init__(self) -> None:
        """Nothing was recorded yet."""
        self._recorded: str | None = None

    def record(self, store: Store, inp: DecisionInput, decision: Decision) -> int | None:
        """Record input and decision if it says something new; None if nothing was written."""
        if fingerprint(decision) == self._recorded:
            return None
        number: int | None = None
        self._recorded = fingerprint(decision)  # also if not written: a full disk is told once
        try:
            number = store.record_decision(inp, decision)
        except StoreError as error:
            _log.warning("decision_not_recorded error=%s", error)
        held = decision.outcome if isinstance(decision.outcome, Hold) else None
        _log.info(
            "decided decision=%s outcome=%s reason=%s sentence=%s",
            "none" if number is None else number,
            "plan" if held is None else "hold",
            "none" if held is None else held.reason.value,
            decision.sentence,
        )
        return number
