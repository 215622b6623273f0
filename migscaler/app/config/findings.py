"""From pydantic's errors to findings with line and remedy, in our words."""

import types
import typing
from collections.abc import Iterable, Mapping
from typing import Annotated

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from migscaler.app.config.model import Config
from migscaler.app.config.quoting import holds_private_key
from migscaler.app.config.texts import SettingRefused, did_you_mean, shown
from migscaler.app.config.yaml_text import Document, Path, path_text
from migscaler.errors import Finding

_OFF_WORDS = {"off", "no", "false", "none", "disabled"}
_BOOLEAN_WORDS = {"yes": "true", "on": "true", "no": "false", "off": "false"}


def findings_of(
    error: ValidationError, document: Document, root: type[BaseModel] = Config
) -> tuple[Finding, ...]:
    """Translate every error of one validation, each at its place in the file.

    `root` is what the whole file was validated against.
    """
    found = []
    for details in error.errors(include_url=False):
        path = _yaml_path(details["loc"], document.value)
        problem, remedy = _words(details, path, root)
        found.append(finding_at(document, path, problem, remedy))
    return tuple(found)


def finding_at(document: Document, path: Path, problem: str, remedy: str) -> Finding:
    """Return a finding at a path's place; one that would quote a private key quotes nothing."""
    place = document.place(path)
    if holds_private_key(problem + remedy):
        problem, remedy = "holds a private key, which does not belong here", "write what does"
    return Finding(
        where=path_text(path),
        problem=problem,
        remedy=remedy,
        line=place.line if place else None,
        column=place.column if place else None,
    )


def _yaml_path(location: Iterable[str | int], value: object) -> Path:
    """Return pydantic's location without the parts that are not in the file (kind of a source)."""
    path: list[str | int] = []
    parts = list(location)
    for number, part in enumerate(parts):
        if isinstance(value, Mapping) and part in value:
            value = value[part]
        elif isinstance(value, tuple) and isinstance(part, int):
            value = value[part] if part < len(value) else None
        elif number != len(parts) - 1 or part == "[key]":
            continue
        path.append(part)
    return tuple(path)


def _words(details: ErrorDetails, path: Path, root: type[BaseModel]) -> tuple[str, str]:
    """Return problem and remedy of one error."""
    kind, given, context = details["type"], details["input"], details.get("ctx", {})
    own = context.get("error")
    if isinstance(own, SettingRefused):
        return own.problem, own.remedy
    if kind == "extra_forbidden":
        return _unknown_key(str(path[-1]), path, root)
    if kind == "missing":
        return f"{path[-1]!r} is missing", f"add {path[-1]}: {_meaning(path, root)}"
    if kind == "union_tag_not_found":
        return "'type' is missing", "add type: prometheus, push or scheduler"
    if kind == "union_tag_invalid":
        tag = context.get("tag", "")
        return f"there is no source of type {tag!r}", "write type: prometheus, push or scheduler"
    if kind == "literal_error":
        return _wrong_word(given, str(context.get("expected", "")), path)
    return _wrong_kind(kind, given, context)


def _wrong_word(given: object, expected: str, path: Path) -> tuple[str, str]:
    """Return the words for a value outside a closed set."""
    words = [word.strip(" '") for word in expected.replace(" or ", ",").split(",")]
    choice = " or ".join(words) if len(words) < 3 else "one of " + ", ".join(words)
    if path[-1] == "mode" and str(given).lower() in _OFF_WORDS:
        return f"{given!r} is not a mode", "write observe: it measures and never acts"
    if path[-1] == "scheduler" and given in ("slurm", "kubernetes", "docker"):
        return f"scheduler {given!r} is not supported yet", "write bare, the only one so far"
    near = did_you_mean(given, words) if isinstance(given, str) else None
    return (
        f"{shown(given)} is not one of {', '.join(words)}",
        f"did you mean {near}?" if near else f"write {choice}",
    )


def _wrong_kind(kind: str, given: object, context: Mapping[str, object]) -> tuple[str, str]:
    """Return the words for a value of the wrong kind or out of range."""
    what = shown(given)
    if kind == "bool_type":
        word = _BOOLEAN_WORDS.get(str(given).lower())
        return f"{what} is not true or false", f"write {word}" if word else "write true or false"
    if kind in ("int_type", "int_from_float"):
        return f"{what} is not a whole number", "write a whole number without quotes"
    if kind == "float_type":
        return f"{what} is not a number", "write a number without quotes"
    if kind == "tuple_type":
        return (
            f"{what} is not a list",
            f"write a list: [{given if isinstance(given, str) else '...'}]",
        )
    if kind in ("model_type", "dict_type", "model_attributes_type"):
        return f"{what} is not a group of keys", "write key: value lines below it"
    limits = {
        "greater_than_equal": ("ge", "at least"),
        "greater_than": ("gt", "above"),
        "less_than_equal": ("le", "at most"),
        "less_than": ("lt", "below"),
    }
    if kind in limits:
        key, words = limits[kind]
        return f"{what} is out of range", f"write a number {words} {context.get(key)}"
    return f"{what} can't be used ({kind})", "see docs/configuration.md"


def _unknown_key(key: str, path: Path, root: type[BaseModel]) -> tuple[str, str]:
    """Return the words for a key that is not there: the near one, or the section it belongs to."""
    known = keys_at(path[:-1], root)
    near = did_you_mean(key, known)
    if near:
        return f"unknown key {key!r}", f"did you mean {near}?"
    homes = [name for name, field in root.model_fields.items() if key in _keys(field.annotation)]
    if homes:
        return f"unknown key {key!r} here", f"it belongs under {homes[0]}:"
    return f"unknown key {key!r}", f"remove it; known here: {', '.join(sorted(known))}"


def keys_at(path: Path, root: type[BaseModel] = Config) -> frozenset[str]:
    """Return the keys that the model knows at a path."""
    models = _models_at(path, root)
    return frozenset(f.alias or n for model in models for n, f in model.model_fields.items())


def _models_at(path: Path, root: type[BaseModel]) -> list[type[BaseModel]]:
    """Return the sections that can stand at a path."""
    here: object = root
    for part in path:
        models = _models(here)
        fields = [f for m in models for n, f in m.model_fields.items() if part in (n, f.alias)]
        if fields:
            here = fields[0].annotation
        # An index into a list, or the free name of a source: the annotation's models stay the same.
    return _models(here)


def _meaning(path: Path, root: type[BaseModel]) -> str:
    """Return the first sentence about the key at a path."""
    for model in _models_at(path[:-1], root):
        for name, field in model.model_fields.items():
            if path[-1] in (name, field.alias):
                return " ".join((field.description or "").split()).split(". ")[0]
    return "see docs/configuration.md"


def _keys(annotation: object) -> frozenset[str]:
    return frozenset(f.alias or n for m in _models(annotation) for n, f in m.model_fields.items())


def _models(annotation: object) -> list[type[BaseModel]]:
    """Return every pydantic model that an annotation speaks of."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    origin = typing.get_origin(annotation)
    if origin is None:
        return []
    arguments = typing.get_args(annotation)
    inner = arguments[:1] if origin is Annotated else arguments
    if origin in (tuple, dict, typing.Union, types.UnionType, Annotated):
        return [model for argument in inner for model in _models(argument)]
    return []
