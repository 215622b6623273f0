"""Model values as JSON and back: the format of recorded decisions and of hand-written nodes.

Writing needs nothing but the values. Reading builds pydantic adapters at first use, so that
importing this module costs nothing: settling a plan at start must not wait for it.
"""

import dataclasses
import enum
import functools
import json
from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, TypeVar

from migscaler.errors import ParseError
from migscaler.model.decision import Decision, DecisionInput

if TYPE_CHECKING:
    from pydantic import TypeAdapter

T = TypeVar("T")

Json = None | bool | int | float | str | list["Json"] | dict[str, "Json"]

SCHEMA_ID = "https://migscaler.dev/schema/decision-input-1.json"


def encode(value: object) -> Json:
    """Return a model value as `json.dumps` takes it: fields by name, sets sorted, times ISO 8601.

    Raises:
        TypeError: a value of a kind that the model does not use.
    """
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, enum.Enum):
        return encode(value.value)
    if isinstance(value, datetime):
        return value.isoformat()
    if isinstance(value, timedelta):
        return _duration(value)
    if isinstance(value, frozenset):
        return sorted((encode(item) for item in value), key=str)
    if isinstance(value, tuple | list):
        return [encode(item) for item in value]
    if isinstance(value, Mapping):
        return {str(key): encode(item) for key, item in value.items()}
    if dataclasses.is_dataclass(value):
        return {name: encode(getattr(value, name)) for name in value.__dataclass_fields__}
    raise TypeError(f"{type(value).__name__} is no value of the model")


def encode_input(inp: DecisionInput) -> str:
    """Return the complete input of a decision as JSON; equal inputs give equal texts."""
    return json.dumps(encode(inp), allow_nan=False, separators=(",", ":"))


def encode_decision(decision: Decision) -> str:
    """Return a decision as JSON; the same decision always gives the same text."""
    return json.dumps(encode(decision), allow_nan=False, separators=(",", ":"))


def decode_input(text: str) -> DecisionInput:
    """Read an input that was recorded or written by hand; fields with defaults may be left out.

    Raises:
        ParseError: not JSON, a field missing, misspelled or of the wrong type, or an illegal value;
            the message names every place.
    """
    return _decode(_input_reader(), text)


def input_schema() -> dict[str, object]:
    """Return the JSON schema (2020-12) of a decision's input; unknown fields are refused."""
    schema: dict[str, object] = _input_reader().json_schema()
    _closed(schema)
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "$id": SCHEMA_ID,
        **schema,
    }


@functools.cache
def _input_reader() -> "TypeAdapter[DecisionInput]":
    """Build the reader of inputs once; pydantic is imported here, at first use."""
    from pydantic import TypeAdapter

    return TypeAdapter(DecisionInput)


def _decode(reader: "TypeAdapter[T]", text: str) -> T:
    """Read a value strictly: no text for a number, nothing unknown."""
    from pydantic import ValidationError

    try:
        value = reader.validate_json(text, strict=True)
    except ValidationError as problem:
        lines = [f"{_place(error['loc'])}: {error['msg']}" for error in problem.errors()]
        raise ParseError("; ".join(lines)) from problem
    unknown = _unknown(json.loads(text), encode(value), "")
    if unknown:
        raise ParseError("; ".join(f"{place}: unknown field" for place in unknown))
    return value


def _place(location: tuple[int | str, ...]) -> str:
    """Return a dotted path, `input` for the whole."""
    return ".".join(map(str, location)) or "input"


def _unknown(given: Json, known: Json, place: str) -> list[str]:
    """Return the paths of fields that were given but are no part of the value read."""
    found: list[str] = []
    if isinstance(given, dict) and isinstance(known, dict):
        for key, item in given.items():
            path = f"{place}.{key}" if place else key
            found += _unknown(item, known[key], path) if key in known else [path]
    elif isinstance(given, list) and isinstance(known, list):
        for number, (one, other) in enumerate(zip(given, known)):
            found += _unknown(one, other, f"{place}.{number}")
    return found


def _duration(value: timedelta) -> str:
    """Return an ISO 8601 duration, exact to the microsecond."""
    sign = "-" if value < timedelta() else ""
    rest = abs(value)
    fraction = f".{rest.microseconds:06d}" if rest.microseconds else ""
    return f"{sign}P{rest.days}DT{rest.seconds}{fraction}S"


def _closed(node: object) -> None:
    """Refuse unknown fields in every object of a schema."""
    if isinstance(node, dict):
        if node.get("type") == "object" and "properties" in node:
            node["additionalProperties"] = False
        for item in node.values():
            _closed(item)
    elif isinstance(node, list):
        for item in node:
            _closed(item)
