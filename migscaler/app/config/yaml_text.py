"""Read YAML into plain values and remember the place of every key and value.

YAML 1.1, which PyYAML speaks, reads `22:30` as 1350, `off` as false, `0755` as 493 and keeps the
last of two equal keys without a word (all measured with PyYAML 6.0). Here plain words stay words,
only `true` and `false` are booleans, only decimal figures are numbers, and equal keys are findings.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

import yaml

from migscaler.errors import Finding
from migscaler.model.printable import no_text_in

_TAGS = "tag:yaml.org,2002:"

MAX_NODES = 50_000
"""Aliases can multiply a small file into billions of values; a real configuration has hundreds."""
MAX_DEPTH = 40
"""Deepest nesting of a real configuration is six."""

_INT = re.compile(r"^-?(?:0|[1-9][0-9]*)$")
_FLOAT = re.compile(r"^-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][-+]?[0-9]+)?$")
_AMBIGUOUS = re.compile(r"^[-+]?(?:0[0-9_]+|0[xob][0-9a-fA-F_]+|[1-9][0-9]*(?:_[0-9]+)+|\+[0-9]+)$")

Path = tuple[str | int, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """A place in the file; line and column count from 1."""

    line: int
    column: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Document:
    """Plain values (dict, tuple, str, int, float, bool, None) and where each stands.

    `findings` are what is wrong with the text itself; `value` then holds what could still be read.
    """

    value: object
    places: Mapping[Path, Place]
    findings: tuple[Finding, ...]

    def place(self, path: Path) -> Place | None:
        """Return the place of a path, or of the nearest enclosing value that has one."""
        for length in range(len(path), -1, -1):
            found = self.places.get(path[:length])
            if found is not None:
                return found
        return None


class _Loader(yaml.SafeLoader):
    """SafeLoader whose plain scalars are resolved as in YAML 1.2's core schema."""


_Loader.yaml_implicit_resolvers = {}
_Loader.add_implicit_resolver(
    _TAGS + "null", re.compile(r"^(?:~|null|Null|NULL|)$"), ["~", "n", "N", ""]
)
_Loader.add_implicit_resolver(
    _TAGS + "bool", re.compile(r"^(?:true|True|TRUE|false|False|FALSE)$"), list("tTfF")
)
_Loader.add_implicit_resolver(_TAGS + "int", _INT, list("-0123456789"))
_Loader.add_implicit_resolver(_TAGS + "float", _FLOAT, list("-0123456789"))


def read_yaml(text: str) -> Document:
    """Read one YAML document; never raises for what the text contains."""
    reading = _Reading()
    try:
        node = _Loader(text).get_single_node()
    except yaml.MarkedYAMLError as error:
        return Document(value=None, places={}, findings=(_syntax_finding(error),))
    except (yaml.YAMLError, RecursionError) as error:
        return Document(value=None, places={}, findings=(_unreadable(error, text),))
    value = None if node is None else reading.value_of(node, ())
    if value is None and not reading.findings:
        value = {}
    return Document(value=value, places=reading.places, findings=tuple(reading.findings))


def path_text(path: Path) -> str:
    """Return a path as people write it: `rules[0].at_least[1].when`."""
    text = ""
    for part in path:
        text += f"[{part}]" if isinstance(part, int) else f".{part}" if text else part
    return text or "(file)"


@dataclass(slots=True)
class _Reading:
    """One pass over the node tree, collecting places and findings."""

    places: dict[Path, Place] = field(default_factory=dict)
    findings: list[Finding] = field(default_factory=list)
    nodes: int = 0

    def value_of(self, node: yaml.Node, path: Path) -> object:
        """Return the plain value of a node; keys keep the place of the key where it has one."""
        self.nodes += 1
        if self.nodes > MAX_NODES or len(path) > MAX_DEPTH:
            if self.nodes <= MAX_NODES + 1:
                self.nodes = MAX_NODES + 1
                self.add(
                    node,
                    path,
                    "the file unfolds into too many values",
                    "write it without aliases (*)",
                )
            return None
        if not (isinstance(node, yaml.CollectionNode) and path in self.places):
            self.places[path] = _place(node.start_mark)
        if isinstance(node, yaml.MappingNode) and node.tag == _TAGS + "map":
            return self.mapping_of(node, path)
        if isinstance(node, yaml.SequenceNode) and node.tag == _TAGS + "seq":
            return tuple(self.value_of(item, (*path, i)) for i, item in enumerate(node.value))
        if isinstance(node, yaml.ScalarNode):
            return self.scalar_of(node, path)
        self.refuse_tag(node, path)
        return None

    def mapping_of(self, node: yaml.MappingNode, path: Path) -> dict[str, object]:
        """Return a mapping; a key that stands twice is a finding and keeps its first value."""
        values: dict[str, object] = {}
        for key_node, value_node in node.value:
            key = key_node.value
            if not isinstance(key_node, yaml.ScalarNode) or key == "<<":
                self.add(
                    key_node, path, "a key must be a plain word", "write the keys out, without <<"
                )
                continue
            if self.has_no_text(key_node, path):
                continue
            here = (*path, key)
            if key in values:
                first = self.places[here].line
                self.add(
                    key_node,
                    here,
                    f"key {key!r} stands twice (first in line {first})",
                    "keep one of the two",
                )
                continue
            self.places[here] = _place(key_node.start_mark)
            values[key] = self.value_of(value_node, here)
        return values

    def scalar_of(self, node: yaml.ScalarNode, path: Path) -> object:
        """Return text, number, boolean or None; refuse tags and figures with two readings."""
        kind = node.tag.removeprefix(_TAGS)
        text: str = node.value
        if kind == "str":
            if self.has_no_text(node, path):
                return None
            if node.style is None and _AMBIGUOUS.match(text):
                self.add(
                    node,
                    path,
                    f"{text} can be read as two different numbers",
                    f'write a plain decimal number, or "{text}" in quotes if it is a text',
                )
            return text
        if kind == "null":
            return None
        if kind == "bool":
            return text.lower() == "true"
        if kind == "int":
            return int(text) if len(text) < 19 else float(text)
        if kind == "float":
            return float(text)
        self.refuse_tag(node, path)
        return None

    def has_no_text(self, node: yaml.ScalarNode, path: Path) -> bool:
        """Say whether a text can't be one in a path, a log or an answer; a finding tells where."""
        found = no_text_in(node.value)
        if found is not None:
            problem = f"holds a character that is no text ({found})"
            self.add(node, path, problem, "remove it; it was written as an escape in quotes")
        return found is not None

    def refuse_tag(self, node: yaml.Node, path: Path) -> None:
        """Keep a finding for a value whose tag asks for more than plain data."""
        tag = str(node.tag).replace(_TAGS, "!!")
        self.add(node, path, f"tag {tag} is not allowed", "write the plain value without a tag")

    def add(self, node: yaml.Node, path: Path, problem: str, remedy: str) -> None:
        """Keep a finding at a node's place."""
        place = _place(node.start_mark)
        self.findings.append(
            Finding(
                where=path_text(path),
                problem=problem,
                remedy=remedy,
                line=place.line,
                column=place.column,
            )
        )


def _place(mark: yaml.Mark) -> Place:
    return Place(line=mark.line + 1, column=mark.column + 1)


def _syntax_finding(error: yaml.MarkedYAMLError) -> Finding:
    """Translate PyYAML's own words; the place is where it could not go on."""
    mark, begun = error.problem_mark or error.context_mark, error.context_mark
    problem = error.problem or "not YAML"
    if begun and mark and begun.line != mark.line:
        problem += f" (in what begins in line {begun.line + 1})"
    remedy = "check indentation, colons and quotes around this line"
    if "\\t" in problem:
        remedy = "indent with blanks; YAML forbids tabs there"
    elif "document" in problem or "document" in (error.context or ""):
        remedy = "keep one document in the file, without a second ---"
    elif "alias" in problem:
        remedy = "define the anchor (&name) before it is used, or quote a text that begins with *"
    return Finding(
        where="(file)",
        problem=f"not readable as YAML: {problem}",
        remedy=remedy,
        line=mark.line + 1 if mark else None,
        column=mark.column + 1 if mark else None,
    )


def _unreadable(error: Exception, text: str) -> Finding:
    """Describe text that is no YAML at all: control characters, endless nesting."""
    words = "nested too deeply" if isinstance(error, RecursionError) else str(error).splitlines()[0]
    line = None
    if isinstance(error, yaml.reader.ReaderError):
        line = text.count("\n", 0, error.position) + 1
    return Finding(
        where="(file)",
        problem=f"not readable as YAML: {words}",
        remedy="write plain UTF-8 text without control characters",
        line=line,
    )
