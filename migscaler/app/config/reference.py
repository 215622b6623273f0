"""The JSON schema and the reference page, both generated from the model."""

import json
import types
import typing
from collections.abc import Iterable, Iterator
from datetime import timedelta
from typing import Annotated, Literal

from pydantic import BaseModel, WithJsonSchema
from pydantic.fields import FieldInfo
from pydantic.json_schema import GenerateJsonSchema

from migscaler.app.config.model import Config, IdleSection
from migscaler.app.config.source_model import (
    PrometheusSection,
    PushSection,
    SchedulerSection,
)
from migscaler.app.config.texts import format_bytes, format_duration

_SOURCES: dict[str, type[BaseModel]] = {
    "prometheus": PrometheusSection,
    "push": PushSection,
    "scheduler": SchedulerSection,
}


class _Schema(GenerateJsonSchema):
    """Defaults as they would be written in the file."""

    def encode_default(self, dft: object) -> object:
        """Return a default as JSON; durations in our own form."""
        return format_duration(dft) if isinstance(dft, timedelta) else super().encode_default(dft)


def json_schema() -> dict[str, object]:
    """Return the JSON schema (draft 2020-12) of the configuration file, for editors and CI."""
    schema = Config.model_json_schema(by_alias=True, schema_generator=_Schema)
    margin = IdleSection.model_fields["memory_margin"].default
    schema["$defs"]["IdleSection"]["properties"]["memory_margin"]["default"] = format_bytes(margin)
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        **schema,
        "title": "migscaler configuration",
    }


def schema_text() -> str:
    """Return the JSON schema as the file that is shipped."""
    return json.dumps(json_schema(), indent=2, ensure_ascii=False) + "\n"


MARK = "<!-- From here on written by `make generate`, from the model in migscaler/app/config/. -->"


def reference_page(present: str) -> str:
    """Return docs/configuration.md with its tables written anew below the mark."""
    head = present.partition(MARK)[0]
    return f"{head}{MARK}\n\n{key_tables()}"


def key_tables() -> str:
    """Return the tables of every key as Markdown: form, default, meaning and reason."""
    blocks = [_table("Top level", "", Config)]
    for name, field in Config.model_fields.items():
        if name == "sources":
            for kind, model in _SOURCES.items():
                blocks.append(_table(f"sources.NAME (type: {kind})", "sources.NAME.", model))
            continue
        for model in models_of(field.annotation):
            blocks.extend(
                _blocks(name, model, is_list=typing.get_origin(field.annotation) is tuple)
            )
    return "\n".join(blocks)


def all_sections() -> Iterator[type[BaseModel]]:
    """Yield every section of the file once."""
    pending: list[type[BaseModel]] = [Config]
    seen: set[type[BaseModel]] = set()
    while pending:
        model = pending.pop(0)
        if model not in seen:
            seen.add(model)
            yield model
            for field in model.model_fields.values():
                pending.extend(models_of(field.annotation))


def default_text(name: str, field: FieldInfo) -> str:
    """Return a default as it would be written, `required` without one, `none` for null."""
    if field.is_required():
        return "required"
    value = field.get_default(call_default_factory=True)
    if value is None:
        return "none"
    if isinstance(value, timedelta):
        return format_duration(value)
    if name == "memory_margin":
        return format_bytes(value)
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, tuple):
        return f"[{', '.join(map(str, value))}]"
    return str(value)


def models_of(annotation: object) -> list[type[BaseModel]]:
    """Return every section that an annotation speaks of."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    arguments = typing.get_args(annotation)
    if typing.get_origin(annotation) is Annotated:
        arguments = arguments[:1]
    return [model for argument in arguments for model in models_of(argument)]


def _blocks(name: str, model: type[BaseModel], *, is_list: bool) -> Iterator[str]:
    """Yield the table of a section and of the sections in it."""
    prefix = f"{name}[]" if is_list else name
    yield _table(prefix, f"{prefix}.", model)
    for key, field in model.model_fields.items():
        for inner in models_of(field.annotation):
            inner_list = typing.get_origin(field.annotation) is tuple
            yield from _blocks(f"{prefix}.{key}", inner, is_list=inner_list)


def _table(title: str, prefix: str, model: type[BaseModel]) -> str:
    """Return one section's table."""
    words = " ".join((model.__doc__ or "").split())
    lines = [
        f"### {title}",
        "",
        words,
        "",
        "| key | form | default | meaning |",
        "|---|---|---|---|",
    ]
    for name, field in model.model_fields.items():
        key, meaning = field.alias or name, " ".join((field.description or "").split())
        is_section = models_of(field.annotation) == [field.annotation]
        default = "its keys'" if is_section else f"`{default_text(name, field)}`"
        cells = (f"`{prefix}{key}`", _form(field), default, meaning)
        lines.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
    return "\n".join(lines) + "\n"


def _form(field: FieldInfo) -> str:
    """Return in words what may be written."""
    return _described(field.metadata) or _form_of(field.annotation)


def _described(metadata: Iterable[object]) -> str | None:
    """Return the description that a type of `fields.py` brings along."""
    for entry in metadata:
        if isinstance(entry, WithJsonSchema) and entry.json_schema is not None:
            return str(entry.json_schema["description"])
    return None


def _form_of(annotation: object) -> str:
    origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is Annotated:
        return _described(arguments[1:]) or _form_of(arguments[0])
    if origin is Literal:
        return ", ".join(f"`{word}`" for word in arguments)
    if origin in (typing.Union, types.UnionType):
        return " or ".join(_form_of(a) for a in arguments if a is not type(None))
    if origin is tuple:
        return f"list of {_form_of(arguments[0])}"
    if origin is dict:
        return "name: source"
    words = {bool: "true or false", int: "whole number", float: "number", str: "text"}
    for kind, word in words.items():
        if annotation is kind:
            return word
    return "section"
