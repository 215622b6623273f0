"""What the documents name exists: links, files, commands and options, metrics, settings, gates."""

import re
import shlex
import textwrap
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from migscaler.app.config.load import load_text
from migscaler.cli.main import cli
from migscaler.metrics.families import FAMILIES
from migscaler.model.plan import GateReason

ROOT = Path(__file__).parents[2]
PAGES = (
    ROOT / "README.md",
    ROOT / "CHANGELOG.md",
    ROOT / "SECURITY.md",
    *sorted((ROOT / "docs").rglob("*.md")),
)
GUIDES = tuple(page for page in PAGES if "decisions" not in page.parts)
# Below this directory of docs/architecture.md stand the files that its tables name.
_PACKAGE = ROOT / "migscaler"
_EXAMPLE = re.compile(r"^( *)```yaml migscaler\n(.*?)^ *```", re.DOTALL | re.MULTILINE)


def _name(page: Path) -> str:
    return str(page.relative_to(ROOT))


def _anchor(heading: str) -> str:
    """Return the anchor that Markdown viewers give a heading."""
    return re.sub(r"[^a-z0-9 -]", "", heading.lower()).strip().replace(" ", "-")


def _snippets(text: str) -> Iterator[str]:
    """Yield every piece of code of a page, one line each: inline and indented blocks."""
    for line in text.splitlines():
        if line.startswith(("    ", "       ")):
            yield line.strip()
    yield from re.findall(r"`([^`\n]+)`", text)


def _invocations(page: Path) -> Iterator[list[str]]:
    """Yield the words after `migscaler` of every command line in a page."""
    for snippet in _snippets(page.read_text("utf-8")):
        code = snippet.split("#")[0].strip()
        if re.match(r"(sudo )?migscaler [a-z-]", code):
            yield shlex.split(code.replace("...", "")[code.index("migscaler") :])[1:]


def _resolve(words: list[str]) -> tuple[click.Command, list[str]]:
    """Return the command that words name, and what follows it; KeyError if there is none."""
    command: click.Command = cli
    rest = list(words)
    while isinstance(command, click.Group) and rest and re.fullmatch(r"[a-z-]+", rest[0]):
        found = command.get_command(click.Context(command), rest[0])
        if found is None:
            raise KeyError(" ".join(words))
        command, rest = found, rest[1:]
    return command, rest


@pytest.mark.parametrize("page", PAGES, ids=_name)
def test_link_leads_to_a_file_and_a_heading(page: Path) -> None:
    text = page.read_text("utf-8")
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if re.match(r"[a-z]+:", target):
            continue
        path, _, anchor = target.partition("#")
        found = (page.parent / path).resolve() if path else page
        assert found.exists(), f"{_name(page)}: {target}"
        if anchor:
            headings = re.findall(r"^#+ (.*)$", found.read_text("utf-8"), re.MULTILINE)
            assert anchor in map(_anchor, headings), f"{_name(page)}: {target}"


@pytest.mark.parametrize("page", PAGES, ids=_name)
def test_command_line_in_a_page_exists_with_its_options(page: Path) -> None:
    for words in _invocations(page):
        command, rest = _resolve(words)
        own = rest[: rest.index("--")] if "--" in rest else rest
        known = {option for one in command.params for option in one.opts}
        named = {word.partition("=")[0] for word in own if re.match(r"--[a-z]", word)}
        assert named <= known | {"--help"}, f"{_name(page)}: migscaler {' '.join(words)}"


def test_command_lines_are_found_at_all() -> None:
    named = {words[0] for words in _invocations(ROOT / "README.md")}

    assert named >= {"doctor", "run", "status", "layouts", "plan", "explain", "lease", "pause"}


def test_changelog_names_exactly_the_commands_there_are() -> None:
    text = (ROOT / "CHANGELOG.md").read_text("utf-8")
    line = re.split(r"\.\s+`--output", text[text.index("**Command line**") :])[0]
    assert isinstance(cli, click.Group)

    assert set(re.findall(r"`([a-z-]+)`", line)) == set(cli.list_commands(click.Context(cli)))


@pytest.mark.parametrize("page", PAGES, ids=_name)
def test_metric_in_a_page_is_in_the_table(page: Path) -> None:
    exported = {name for one in FAMILIES for name in _series_names(one.name)}
    mentioned = set(re.findall(r"\bmigscaler_[a-z][a-z_]*[a-z]\b", page.read_text("utf-8")))

    assert mentioned - exported - {"migscaler_api"} == set()


def _series_names(name: str) -> set[str]:
    """Return the names under which a family's series may be asked for."""
    return {name, *(f"{name}_{end}" for end in ("bucket", "sum", "count"))}


@pytest.mark.parametrize("page", GUIDES, ids=_name)
def test_example_configuration_loads(page: Path) -> None:
    for _indent, example in _EXAMPLE.findall(page.read_text("utf-8")):
        loaded = load_text(textwrap.dedent(example), _name(page))

        assert loaded.warnings == ()


def test_readme_has_an_example_configuration() -> None:
    assert len(_EXAMPLE.findall((ROOT / "README.md").read_text("utf-8"))) == 1


def test_operating_explains_every_gate_in_the_order_in_which_they_are_asked() -> None:
    text = (ROOT / "docs" / "operating.md").read_text("utf-8")
    table = text[text.index("| gate | means | do |") :].split("\n\n")[0]
    first_cells = [line.split("|")[1] for line in table.splitlines()[2:]]
    words = [word for cell in first_cells for word in re.findall(r"`([a-z_]+)`", cell)]

    assert words == [reason.value for reason in GateReason]


def test_architecture_names_files_that_exist() -> None:
    text = (ROOT / "docs" / "architecture.md").read_text("utf-8")
    missing = []
    for cell in re.split(r"[|\n]", text):
        folder = ""
        for named in re.findall(r"`([a-z_/*]+\.py)`", cell):
            folder = named.rpartition("/")[0] or folder
            path = named if "/" in named else f"{folder}/{named}"
            base = ROOT if path.startswith("tests/") else _PACKAGE
            missing += [] if list(base.glob(path)) else [path]

    assert missing == []


def test_decision_numbers_are_given_once_and_stand_in_the_title() -> None:
    records = sorted((ROOT / "docs" / "decisions").glob("*.md"))
    numbers = Counter(record.name[:4] for record in records)

    assert [number for number, count in numbers.items() if count > 1] == []
    for record in records:
        assert record.read_text("utf-8").startswith(f"# {record.name[:4]}: "), record.name


@pytest.mark.parametrize("page", PAGES, ids=_name)
def test_table_rows_of_a_page_have_as_many_cells_as_their_head(page: Path) -> None:
    width = 0
    for line in page.read_text("utf-8").splitlines():
        cells = len(re.findall(r"(?<!\\)\|", line)) if line.startswith("|") else 0
        width = width or cells
        assert cells in (0, width), f"{_name(page)}: {line}"
        width = width if cells else 0
