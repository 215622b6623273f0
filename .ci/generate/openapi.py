"""Write docs/openapi.json, read off the routes and the commands' own code; --check compares.

A command says what it takes by reading it: `arguments.text("reason")`. That is what is read here.
"""

import ast
import inspect
import json
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path
from types import MethodType
from typing import cast

from starlette.routing import Route

from migscaler import __version__
from migscaler.app.arguments import MOST, MOST_INSTANCES
from migscaler.app.commands import table
from migscaler.app.node import Node
from migscaler.metrics.exposition import Renderer
from migscaler.web.app import create_app

TARGET = Path(__file__).parents[2] / "docs" / "openapi.json"
COMMANDS = "/api/v1/commands/{name}"

# What a log, an answer or a terminal can show: no control character but tab and line ends.
_SHOWN = r"^[^\u0000-\u0008\u000b\u000c\u000e-\u001f\u007f-\u0084\u0086-\u009f]+$"
_TEXT: dict[str, object] = {"type": "string", "minLength": 1, "pattern": _SHOWN}
_GPU = {
    "anyOf": [{"type": "integer"}, _TEXT],
    "description": "A GPU's index or UUID.",
}
_KINDS: dict[str, dict[str, object]] = {
    "text": _TEXT,
    "flag": {"type": "boolean"},
    "number": {"type": "integer", "minimum": -MOST, "maximum": MOST},
    "count": {"type": "integer", "minimum": 0, "maximum": MOST_INSTANCES},
    "duration": {"type": "number", "exclusiveMinimum": 0, "exclusiveMaximum": 1e9},
    "gpu": _GPU,
    "gpus": {"type": "array", "items": _GPU, "minItems": 1},
    "counts": {
        "type": "object",
        "minProperties": 1,
        "additionalProperties": {"type": "integer", "minimum": 0, "maximum": MOST_INSTANCES},
        "description": "Counts by size or profile.",
    },
}
_ERRORS = {
    "400": "the body can't be read, or an argument is wrong",
    "401": "somebody has to be proved: user, token or client certificate",
    "403": "this caller may not give this command",
    "404": "no such command, or what it names is not there",
    "408": "the body did not arrive in time",
    "409": "not possible in the present state; nothing was changed",
    "413": "the body is too large",
    "415": "not application/json",
    "429": "the rate limit of the web configuration file is reached",
    "431": "the head is too large",
    "503": "too much at once, not ready yet, or no commands here; try again",
    "504": "the command is still running",
}
_READ_ERRORS = ("400", "401", "429", "431", "503")


def description() -> dict[str, object]:
    """Return the OpenAPI document of the HTTP interface."""
    app = create_app(Renderer().render, lambda: None)
    paths: dict[str, object] = {}
    for route in app.routes:
        if isinstance(route, Route) and route.path != COMMANDS:
            paths[route.path] = {"get": _reading(route.path)}
    for name, takes in commands():
        paths[COMMANDS.replace("{name}", name)] = {"post": _command(name, takes)}
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "migscaler",
            "version": __version__,
            "description": "Served on web.listen and on the Unix socket; see security.md for who "
            "may do what. Answers to GET show holders only to trusted callers.",
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "paths": paths,
        "components": {
            "securitySchemes": {
                "token": {"type": "http", "scheme": "bearer"},
                "user": {"type": "http", "scheme": "basic"},
                "certificate": {"type": "mutualTLS"},
            },
            "responses": {code: _error(words) for code, words in _ERRORS.items()},
            "schemas": {
                "Problem": {
                    "type": "object",
                    "required": ["error"],
                    "properties": {
                        "error": {
                            "type": "object",
                            "required": ["kind", "message"],
                            "properties": {
                                "kind": {"type": "string"},
                                "message": {"type": "string"},
                            },
                        }
                    },
                }
            },
        },
        "security": [{}, {"token": []}, {"user": []}, {"certificate": []}],
    }


def commands() -> Iterator[tuple[str, dict[str, tuple[str, bool]]]]:
    """Yield each command with what it takes: name to kind and whether it must be given."""
    for name, command in sorted(table(cast("Node", None)).items()):
        handler = command.handler
        assert isinstance(handler, MethodType)
        yield name, _taken(type(handler.__self__), handler.__name__, required=True)


def _taken(owner: type, method: str, *, required: bool) -> dict[str, tuple[str, bool]]:
    """Return what a method reads of its arguments, itself or by a helper that it gives them to."""
    source = textwrap.dedent(inspect.getsource(getattr(owner, method)))
    found: dict[str, tuple[str, bool]] = {}

    def look(node: ast.AST, *, sure: bool) -> None:
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
            whose = node.func.value
            if isinstance(whose, ast.Name) and whose.id == "arguments":
                name = node.args[0].value if node.args else node.func.attr  # type: ignore[attr-defined] # names are constants
                kind = node.func.attr.removeprefix("optional_").removeprefix("required_")
                must = sure and kind != "flag" and not node.func.attr.startswith("optional_")
                must = must or (sure and node.func.attr == "required_flag")
                if kind in _KINDS:
                    found.setdefault(name, (kind, must))
            elif any(isinstance(arg, ast.Name) and arg.id == "arguments" for arg in node.args):
                for name, (kind, must) in _taken(owner, node.func.attr, required=sure).items():
                    found.setdefault(name, (kind, must))
        branches = isinstance(node, ast.If | ast.IfExp | ast.BoolOp | ast.Try)
        for child in ast.iter_child_nodes(node):
            look(child, sure=sure and not branches)

    look(ast.parse(source), sure=required)
    return found


def _reading(path: str) -> dict[str, object]:
    """Return the description of a GET route."""
    is_api = path.startswith("/api/")
    kind = "application/json" if is_api else "text/html" if path == "/" else "text/plain"
    content: dict[str, object] = {kind: {"schema": {"type": "object" if is_api else "string"}}}
    if path == "/metrics":
        content["application/openmetrics-text"] = {"schema": {"type": "string"}}
    return {
        "summary": path.rpartition("/")[2] or "the page",
        "responses": {"200": {"description": "fine", "content": content}, **_errors(_READ_ERRORS)},
    }


def _command(name: str, takes: dict[str, tuple[str, bool]]) -> dict[str, object]:
    """Return the description of a command."""
    schema: dict[str, object] = {
        "type": "object",
        "properties": {one: _KINDS[kind] for one, (kind, _) in sorted(takes.items())},
        "additionalProperties": False,
    }
    required = sorted(one for one, (_, must) in takes.items() if must)
    if required:
        schema["required"] = required
    return {
        "summary": name,
        "requestBody": {
            "required": bool(required),
            "content": {"application/json": {"schema": schema}},
        },
        "responses": {
            "200": {
                "description": "carried out",
                "content": {"application/json": {"schema": {"type": "object"}}},
            },
            **_errors(tuple(_ERRORS)),
        },
    }


def _errors(codes: tuple[str, ...]) -> dict[str, object]:
    """Return references to errors."""
    return {code: {"$ref": f"#/components/responses/{code}"} for code in codes}


def _error(words: str) -> dict[str, object]:
    """Return the description of an error: JSON from a route, text from what stands before it."""
    problem = {"schema": {"$ref": "#/components/schemas/Problem"}}
    text = {"schema": {"type": "string"}}
    return {"description": words, "content": {"application/json": problem, "text/plain": text}}


def main() -> int:
    """Return 0 if the file is (now) as it should be, 1 if --check finds a difference."""
    wanted = json.dumps(description(), indent=1) + "\n"
    present = TARGET.read_text("utf-8") if TARGET.exists() else ""
    if "--check" in sys.argv[1:]:
        if wanted != present:
            print("docs/openapi.json is not what `make generate` writes", file=sys.stderr)
        return int(wanted != present)
    if wanted != present:
        TARGET.write_text(wanted, "utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
