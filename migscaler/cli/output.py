"""How results are printed: tables for people, JSON for programs, and what the exit codes mean."""

import json
import os
import sys
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, NoReturn, TypeVar

import click

from migscaler.cli.answers import Answer, picture_problem

if TYPE_CHECKING:
    from rich.console import Console, RenderableType

FINE = 0
FAILED = 1
USAGE = 2
DIFFERS = 3
"""A dry run or a plan would change something, or two things that should agree differ."""

# A pipe has no width: one row, one line, as long as anything we say. COLUMNS sets another.
_PIPE_COLUMNS = 1000

Function = TypeVar("Function", bound=Callable[..., object])


def output_option(command: Function) -> Function:
    """Add `--output human|json` (MIGSCALER_OUTPUT sets it for every command)."""
    return click.option(
        "--output",
        type=click.Choice(["human", "json"]),
        default="human",
        show_default=True,
        envvar="MIGSCALER_OUTPUT",
        help="Tables for people, or JSON.",
    )(command)


def console(*, error: bool = False) -> "Console":
    """Return a console on the present standard output: no color and no cut lines in a pipe."""
    from rich.console import Console

    stream = sys.stderr if error else sys.stdout
    width = None
    if not stream.isatty():
        columns = os.environ.get("COLUMNS", "")
        width = int(columns) if columns.isdecimal() and int(columns) > 0 else _PIPE_COLUMNS
    return Console(file=stream, width=width, highlight=False, markup=False, soft_wrap=False)


def show(*parts: "RenderableType") -> None:
    """Print tables or lines of text on standard output."""
    out = console()
    if sys.stdout.isatty():
        for one in parts:
            out.print(one)
        return
    for one in parts:
        if isinstance(one, str):
            click.echo(one)
            continue
        with out.capture() as captured:
            out.print(one)
        # Tables pad their last column, which only a terminal needs.
        click.echo("\n".join(line.rstrip() for line in captured.get().splitlines()))


def show_json(value: object) -> None:
    """Print a value as JSON on standard output."""
    click.echo(json.dumps(value, indent=2, ensure_ascii=False))


def note(message: str) -> None:
    """Tell the person something that is not part of the result, on standard error."""
    click.echo(message, err=True)


def tell_old(answer: Answer) -> None:
    """Tell, beside a result, why the picture of the node that it rests on is old, if it is."""
    problem = picture_problem(answer)
    if problem is not None:
        note(f"migscaler: an old picture: {problem}")


def table(
    headers: Sequence[str], rows: Iterable[Sequence[object]], *, right: Sequence[str] = ()
) -> "RenderableType":
    """Return a table without frame; the columns named in `right` are numbers."""
    from migscaler.cli.sheet import Sheet

    return Sheet(headers, rows, right)


def leave(code: int) -> NoReturn:
    """End the command with this exit code."""
    click.get_current_context().exit(code)


class Failed(click.ClickException):
    """An expected failure: one line on standard error, and its exit code."""

    def __init__(self, message: str, exit_code: int = FAILED) -> None:
        """Keep the line and the code."""
        super().__init__(message)
        # click declares it for the class, and reads it from the instance.
        self.exit_code = exit_code  # type: ignore[misc]

    def show(self, file: object = None) -> None:
        """Print the line."""
        note(f"migscaler: {self.message}")
