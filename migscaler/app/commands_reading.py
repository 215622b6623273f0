"""Commands that only look."""

import json

from migscaler.app.arguments import Arguments
from migscaler.app.node import Command, Node
from migscaler.app.plan_view import decision_view
from migscaler.errors import NotFound, ParseError
from migscaler.model.decision import Decision, DecisionInput
from migscaler.model.ids import SourceName
from migscaler.policy.decide import decide
from migscaler.policy.explain import explain
from migscaler.store.codec import encode
from migscaler.web.explanation import explanation_view
from migscaler.web.ports import Actor
from migscaler.web.views import index_of
from migscaler.web.words import unread_words

_MOST_ROWS = 10_000


class ReadingCommands:
    """Status, plan, explanations, history, raw demand."""

    def __init__(self, node: Node) -> None:
        """Take the node."""
        self._node = node

    def table(self) -> dict[str, Command]:
        """Return the commands by name, each with what it takes."""
        return {
            "status": Command(self._status),
            "plan": Command(self._plan),
            "explain": Command(self._explain),
            "history": Command(self._history, ("limit",)),
            "decision": Command(self._decision, ("id",)),
            "source_test": Command(self._source_test, ("source",)),
            "snapshot": Command(self._snapshot),
        }

    def decided(self) -> tuple[DecisionInput, Decision]:
        """Return what would be decided now, without acting.

        Raises:
            CommandRefused: nothing was read yet.
        """
        inp = self._node.input_of_decision()
        return inp, decide(inp)

    def _status(self, _arguments: Arguments, _actor: Actor) -> dict[str, object]:
        """Everything there is to show."""
        return self._node.state_of_the_node()

    def _snapshot(self, _arguments: Arguments, _actor: Actor) -> dict[str, object]:
        """The node's picture as a file for `config check --against`."""
        return {"snapshot": encode(self._node.snapshot()), **self._age()}

    def _plan(self, _arguments: Arguments, _actor: Actor) -> dict[str, object]:
        """What would be done now, and what would be wanted with every gate open."""
        inp, decision = self.decided()
        return {**decision_view(decision, inp.snapshot), **self._age()}

    def _explain(self, _arguments: Arguments, _actor: Actor) -> dict[str, object]:
        """The present decision in words."""
        inp, decision = self.decided()
        return {**explanation_view(explain(inp, decision)), **self._age()}

    def _age(self) -> dict[str, object]:
        """Say why the picture is old, if it is."""
        return {"snapshot_problem": unread_words(self._node.loop.status())}

    def _history(self, arguments: Arguments, _actor: Actor) -> dict[str, object]:
        """Recorded decisions and GPU plans, newest first."""
        limit = 50 if arguments.optional_number("limit") is None else arguments.number("limit")
        if not 1 <= limit <= _MOST_ROWS:
            raise ParseError(f"history: limit must be 1 to {_MOST_ROWS}, got {limit}")
        snapshot = self._node.loop.status().snapshot
        return {
            "decisions": [
                {
                    "id": row.seq,
                    "at": row.at.isoformat(),
                    "kind": row.kind,
                    "reason": row.reason,
                    "sentence": row.sentence,
                }
                for row in self._node.store.decisions(limit)
            ],
            "gpu_plans": [
                {
                    "plan_id": row.plan_id,
                    "gpu": index_of(snapshot, row.gpu_uuid),
                    "gpu_uuid": row.gpu_uuid,
                    "before": str(row.before),
                    "after": str(row.after),
                    "begun_at": row.begun_at.isoformat(),
                    "outcome": row.kind.value if row.kind else "open",
                    "reason": row.reason.value if row.reason else None,
                    "explanation": row.explanation,
                    "rolled_back": row.rolled_back,
                }
                for row in self._node.store.past_plans(limit)
            ],
        }

    def _decision(self, arguments: Arguments, _actor: Actor) -> dict[str, object]:
        """One recorded decision with its complete input."""
        number = arguments.number("id")
        text = self._node.store.decision_input_text(number)
        if text is None:
            raise NotFound(f"no decision {number} is recorded; `migscaler history` lists them")
        return {"id": number, "input": json.loads(text)}

    def _source_test(self, arguments: Arguments, _actor: Actor) -> dict[str, object]:
        """Ask one source now; its rows as they came and what was made of them."""
        name = SourceName(arguments.text("source"))
        gatherer = self._node.loop.parts.gatherer
        if name not in gatherer.names():
            known = ", ".join(gatherer.names()) or "none"
            raise NotFound(f"no source {name!r}; configured: {known}")
        fetched = self._node.loop.gather(name)
        reading = fetched.reading
        return {
            "source": name,
            "problem": fetched.problem,
            "rows": [{"labels": row.labels, "value": row.value} for row in fetched.rows],
            "reading": None
            if reading is None
            else {
                "counts": reading.counts.value,
                "true_at": reading.true_at.isoformat(),
                "expires_at": reading.expires_at.isoformat(),
                "absent_is_zero": reading.absent_is_zero,
                "wants": {want.size: want.count for want in reading.wants},
            },
        }
