"""A node written by hand in a few lines, made into the complete input of a decision.

Everything that is not written has a quiet default: MIG on, instances long idle unless named busy,
every GPU managed, no pace. The result depends on nothing but the text.
"""

import json
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import TypeVar

from migscaler.errors import ParseError
from migscaler.model.catalog import load_catalog
from migscaler.model.decision import DecisionInput
from migscaler.model.demand import Counts, Reading, SourceStatus, Want
from migscaler.model.gpu import (
    ComputeInstance,
    GpuInstance,
    GpuProcess,
    GpuReading,
    GpuState,
    InstanceReading,
    InstanceState,
    NodeSnapshot,
    PinReason,
)
from migscaler.model.ids import CiId, GiId, GpuUuid, MigUuid, RuleName, SourceName
from migscaler.model.layout import GpuModel
from migscaler.model.policy import GpuEntry, Mode, Pace, Policy, Rule, SourcePolicy
from migscaler.model.profile import InstanceSpec, check_size_text
from migscaler.sim.node import find_board

T = TypeVar("T")

# Any moment will do; it only has to be the same each time.
_NOW = datetime(2026, 1, 1, 12, 0, tzinfo=UTC)
_MONOTONIC = 1_000_000.0
_LONG = timedelta(days=1)
_SOURCE = SourceName("sketch")

SCHEMA: dict[str, object] = {
    "title": "NodeSketch",
    "description": "A node written by hand; `migscaler plan --input` plans for it.",
    "type": "object",
    "additionalProperties": False,
    "required": ["gpus"],
    "properties": {
        "gpus": {
            "type": "array",
            "minItems": 1,
            "items": {
                "type": "object",
                "additionalProperties": False,
                "required": ["model"],
                "properties": {
                    "model": {"type": "string", "description": "as in `migscaler layouts MODEL`"},
                    "count": {"type": "integer", "minimum": 1, "default": 1},
                    "layout": {
                        "type": "string",
                        "default": "",
                        "description": "instances there are: profile or size @ first memory slice",
                        "examples": ["3g@0 3g@4", "2g.10gb@0 1g@2"],
                    },
                    "busy": {
                        "type": "string",
                        "default": "",
                        "description": "those of them that are in use",
                    },
                    "driver": {"type": "integer", "minimum": 450, "default": 580},
                },
            },
        },
        "wants": {
            "type": "object",
            "description": "instances wanted beyond the busy ones, by size, most important first",
            "additionalProperties": {"type": "integer", "minimum": 0},
            "examples": [{"1g": 3, "3g": 1}],
        },
        "spare": {
            "type": "object",
            "description": "idle instances to keep beyond that, by size",
            "additionalProperties": {"type": "integer", "minimum": 0},
        },
    },
}
"""JSON schema of a sketch."""

_GPU_FIELDS = {"model", "count", "layout", "busy", "driver"}


def is_sketch(value: object) -> bool:
    """Say whether decoded JSON is a sketch rather than a recorded input."""
    return isinstance(value, dict) and "gpus" in value and "snapshot" not in value


def input_of_sketch(text: str) -> DecisionInput:
    """Return the input of a decision for a sketched node.

    Raises:
        ParseError: what is wrong, and where.
        NotFound: a GPU model that the catalog does not have.
    """
    sketch = _object(json.loads(text), "the sketch", {"gpus", "wants", "spare"})
    gpus: list[GpuState] = []
    entries = sketch["gpus"]
    if not isinstance(entries, list) or not entries:
        raise ParseError("gpus must be a list of at least one GPU")
    for number, entry in enumerate(entries):
        fields = _object(entry, f"gpus[{number}]", _GPU_FIELDS)
        for _ in range(_number(fields.get("count", 1), f"gpus[{number}].count", least=1)):
            gpus.append(_gpu(len(gpus), fields, f"gpus[{number}]"))
    wants, spare = _counts(sketch, "wants"), _counts(sketch, "spare")
    return DecisionInput(
        now=_NOW,
        now_monotonic=_MONOTONIC,
        snapshot=NodeSnapshot(
            taken_at=_NOW, taken_monotonic=_MONOTONIC, boot_id="sketch", gpus=tuple(gpus)
        ),
        policy=_policy(wants, spare, len(gpus)),
        demand=(_demand(wants),),
    )


def _gpu(index: int, fields: Mapping[str, object], place: str) -> GpuState:
    """Return one GPU with its instances."""
    driver = _number(fields.get("driver", 580), f"{place}.driver", least=450)
    model = find_board(load_catalog(), _text(fields.get("model"), f"{place}.model")).model(driver)
    written = _text(fields.get("layout", ""), f"{place}.layout")
    layout = _at(f"{place}.layout", lambda: model.layout(written))
    words = _text(fields.get("busy", ""), f"{place}.busy").split()
    busy = _at(f"{place}.busy", lambda: {model.spec(word) for word in words})
    for spec in sorted(busy):
        if spec not in layout:
            raise ParseError(f"{place}.busy: {spec} is not in the layout {layout}")
    uuid = GpuUuid(f"GPU-00000000-0000-0000-0000-{index:012d}")
    states = tuple(
        _instance(index, number, spec, in_use=spec in busy)
        for number, spec in enumerate(layout.specs, start=1)
    )
    return GpuState(
        reading=_reading(index, uuid, model, states),
        generation=1,
        changed_at=_NOW - _LONG,
        instances=states,
    )


def _reading(
    index: int, uuid: GpuUuid, model: GpuModel, states: tuple[InstanceState, ...]
) -> GpuReading:
    """Return the GPU as NVML would show it."""
    return GpuReading(
        index=index,
        uuid=uuid,
        name=model.name,
        model=model,
        mig_enabled=True,
        mig_pending=True,
        instances=tuple(state.reading for state in states),
    )


def _instance(index: int, number: int, spec: InstanceSpec, *, in_use: bool) -> InstanceState:
    """Return one instance: running a process, or idle for long."""
    uuid = MigUuid(f"MIG-00000000-0000-0000-{index % 10_000:04d}-{number:012d}")
    compute = ComputeInstance(ci_id=CiId(0), mig_uuid=uuid, compute_slices=None, full_width=True)
    reading = InstanceReading(
        instance=GpuInstance(gi_id=GiId(number), spec=spec, compute_instances=(compute,)),
        processes=(GpuProcess(pid=1),) if in_use else (),
    )
    pins = (PinReason.PROCESS,) if in_use else ()
    quiet_since = None if in_use else _MONOTONIC - _LONG.total_seconds()
    return InstanceState(
        reading=reading,
        born=1,
        pin=pins[0] if pins else None,
        pins=pins,
        quiet_since_monotonic=quiet_since,
        idle_at_monotonic=quiet_since,
        evidence=("process", "allocation", "memory"),
    )


def _policy(wants: Mapping[str, int], spare: Mapping[str, int], gpus: int) -> Policy:
    """Return a policy that wants this at once, on every GPU."""
    rules = tuple(
        Rule(
            name=RuleName(size),
            size=size,
            sources=(_SOURCE,),
            spare=spare.get(size, 0),
            raise_after=timedelta(0),
            lower_after=timedelta(0),
        )
        for size in dict.fromkeys((*wants, *spare))
    )
    source = SourcePolicy(name=_SOURCE, counts=Counts.WAITING, max_age=_LONG, unknown_for=_LONG)
    pace = Pace(
        raise_after=timedelta(0), lower_after=timedelta(0), gpus_at_once=gpus, per_day=1_000_000
    )
    entry = GpuEntry(mode=Mode.ENFORCE, model="*")
    return Policy(gpus=(entry,), rules=rules, sources=(source,), pace=pace)


def _demand(wants: Mapping[str, int]) -> SourceStatus:
    """Return the source that wants this."""
    reading = Reading(
        counts=Counts.WAITING,
        true_at=_NOW,
        expires_at=_NOW + _LONG,
        wants=tuple(Want(size=size, count=count) for size, count in wants.items()),
        absent_is_zero=True,
    )
    return SourceStatus(name=_SOURCE, known=True, reading=reading, asked_at=_NOW)


def _object(value: object, place: str, known: set[str]) -> dict[str, object]:
    """Return a JSON object without unknown fields."""
    if not isinstance(value, dict):
        raise ParseError(f"{place} must be an object")
    unknown = sorted(set(value) - known)
    if unknown:
        fields = ", ".join(sorted(known))
        raise ParseError(f"{place}: unknown {', '.join(unknown)}; it has {fields}")
    return value


def _counts(sketch: Mapping[str, object], key: str) -> dict[str, int]:
    """Return counts by size, in the order in which they are written."""
    value = sketch.get(key, {})
    if not isinstance(value, dict):
        raise ParseError(f'{key} must be counts by size, e.g. {{"1g": 3}}')
    return {
        _at(key, partial(check_size_text, size)): _number(count, f"{key}.{size}", least=0)
        for size, count in value.items()
    }


def _at(place: str, read: Callable[[], T]) -> T:
    """Read something; what is wrong with it is told with its place.

    Raises:
        ParseError: it can't be read.
    """
    try:
        return read()
    except ParseError as error:
        raise ParseError(f"{place}: {error}") from error


def _number(value: object, place: str, *, least: int) -> int:
    """Return a whole number."""
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise ParseError(f"{place} must be a whole number, {least} or more")
    return value


def _text(value: object, place: str) -> str:
    """Return a text."""
    if not isinstance(value, str):
        raise ParseError(f"{place} must be a text")
    return value
