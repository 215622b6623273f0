"""Recorded decisions, each with its complete input, so that it can be asked again anywhere."""

import zlib

from migscaler.errors import NotFound
from migscaler.model.decision import Decision, DecisionInput
from migscaler.model.plan import Hold
from migscaler.store.codec import encode_decision, encode_input
from migscaler.store.concern import Concern
from migscaler.store.database import Row
from migscaler.store.records import DecisionRecord
from migscaler.store.text import decodes, some_time, time_text

# A decision of 8 GPUs x 7 instances takes some 8 KiB compressed: room for a month of a restless
# node.
_KEEP = 4_000
_KEEP_BYTES = 64 * 1024 * 1024


class Decisions(Concern):
    """Decisions by rising number; `prune_decisions` bounds their number and size."""

    def record_decision(self, inp: DecisionInput, decision: Decision) -> int:
        """Keep a decision with its input and return its number; the caller leaves out repetitions.

        Raises:
            StoreError: it is not written.
        """
        outcome = decision.outcome
        held = isinstance(outcome, Hold)
        values = (
            time_text(inp.now),
            "hold" if held else "plan",
            outcome.reason.value if isinstance(outcome, Hold) else "",
            decision.sentence,
            zlib.compress(encode_input(inp).encode()),
            zlib.compress(encode_decision(decision).encode()),
        )
        with self._write() as (connection, _now):
            cursor = connection.execute(
                "INSERT INTO decisions (at, kind, reason, sentence, input, decision)"
                " VALUES (?, ?, ?, ?, ?, ?)",
                values,
            )
            return int(cursor.lastrowid or 0)

    def decisions(self, limit: int) -> tuple[DecisionRecord, ...]:
        """Return the newest decisions, newest first.

        Raises:
            StoreError: the file can't be read.
        """
        rows = self._db.rows(
            "SELECT seq, at, kind, reason, sentence FROM decisions ORDER BY seq DESC LIMIT ?",
            (limit,),
        )
        return tuple(map(_record, rows))

    def decision_input_text(self, seq: int) -> str:
        """Return the complete input of a decision as JSON, exactly as recorded.

        Raises:
            NotFound: no such decision (any more).
            StoreError: the file can't be read.
        """
        return _unpacked(self._row(seq)["input"])

    def decision_text(self, seq: int) -> str:
        """Return a decision as JSON, exactly as recorded.

        Raises:
            NotFound: no such decision (any more).
            StoreError: the file can't be read.
        """
        return _unpacked(self._row(seq)["decision"])

    def prune_decisions(self, *, keep: int = _KEEP, keep_bytes: int = _KEEP_BYTES) -> int:
        """Drop the oldest decisions beyond a number or a compressed size; return how many.

        Raises:
            StoreError: the file can't be written.
        """
        return self._change(
            "DELETE FROM decisions WHERE seq IN (SELECT seq FROM (SELECT seq,"
            " row_number() OVER newest AS place,"
            " sum(length(input) + length(decision)) OVER newest AS size"
            " FROM decisions WINDOW newest AS (ORDER BY seq DESC)) WHERE place > ? OR size > ?)",
            (keep, keep_bytes),
        )

    def _row(self, seq: int) -> Row:
        """Return one row or say that it is gone."""
        rows = self._db.rows("SELECT input, decision FROM decisions WHERE seq = ?", (seq,))
        if not rows:
            raise NotFound(f"there is no decision {seq}; `migscaler history` lists those kept")
        return rows[0]


@decodes
def _record(row: Row) -> DecisionRecord:
    """Decode a row of `decisions`."""
    return DecisionRecord(
        seq=row["seq"],
        at=some_time(row["at"]),
        kind=row["kind"],
        reason=row["reason"],
        sentence=row["sentence"],
    )


@decodes
def _unpacked(blob: bytes) -> str:
    """Return the text of a compressed record."""
    return zlib.decompress(blob).decode()
