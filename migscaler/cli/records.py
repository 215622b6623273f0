"""Reads what people hand in as files: recorded inputs, sketches of nodes, snapshots."""

import json

from migscaler.errors import ParseError
from migscaler.model.decision import DecisionInput
from migscaler.model.gpu import NodeSnapshot


def snapshot_of(encoded: object) -> NodeSnapshot:
    """Return the snapshot that a `snapshot` command answered.

    Raises:
        ParseError: it is not one, or of another version.
    """
    from migscaler.store.codec import decode_input

    if not isinstance(encoded, dict):
        raise ParseError("not a snapshot of a node")
    # The codec reads whole inputs; a snapshot is one with nothing wanted.
    whole = {
        "now": encoded.get("taken_at"),
        "now_monotonic": encoded.get("taken_monotonic"),
        "snapshot": encoded,
        "policy": {},
    }
    return decode_input(json.dumps(whole)).snapshot


def read_snapshot(written: str) -> NodeSnapshot:
    """Return the node of a file: `status --snapshot`, a recorded input, or a sketch.

    Raises:
        ParseError: it is none of them.
    """
    value = _json(written)
    if isinstance(value, dict) and "snapshot" in value and "policy" not in value:
        return snapshot_of(value["snapshot"])
    return read_input(written).snapshot


def read_input(written: str) -> DecisionInput:
    """Read a recorded input, or a node sketched by hand.

    Raises:
        ParseError: it is neither; the message names the place.
    """
    from migscaler.cli.sketch import input_of_sketch, is_sketch

    value = _json(written)
    if is_sketch(value):
        return input_of_sketch(written)
    if not isinstance(value, dict) or "snapshot" not in value:
        raise ParseError(
            "neither a recorded input (migscaler history ID --output json) nor a node written by"
            ' hand, which has "gpus" (migscaler plan --schema)'
        )
    from migscaler.store.codec import decode_input

    return decode_input(written)


def schema_of_input() -> dict[str, object]:
    """Return the JSON schema of what `--input` takes: a record, or a sketch."""
    from migscaler.cli.sketch import SCHEMA
    from migscaler.store.codec import input_schema

    record = dict(input_schema())
    head: dict[str, object] = {k: record.pop(k) for k in ("$schema", "$id") if k in record}
    definitions = record.pop("$defs", {})
    known = {
        **(definitions if isinstance(definitions, dict) else {}),
        "NodeSketch": SCHEMA,
        "DecisionInput": record,
    }
    either = [{"$ref": "#/$defs/NodeSketch"}, {"$ref": "#/$defs/DecisionInput"}]
    return {**head, "anyOf": either, "$defs": known}


def _json(written: str) -> object:
    """Read JSON."""
    try:
        value: object = json.loads(written)
    except json.JSONDecodeError as error:
        raise ParseError(f"line {error.lineno}: not JSON: {error.msg}") from error
    return value
