"""`migscaler source test`: ask a demand source once, and show what it says."""

import click

from migscaler.cli.answers import part, rows, text
from migscaler.cli.demand import wants_line
from migscaler.cli.output import FAILED, leave, output_option, show, show_json, table
from migscaler.cli.session import Session, pass_session


@click.group()
def source() -> None:
    """Demand sources of the configuration."""


@source.command()
@click.argument("name")
@output_option
@pass_session
def test(session: Session, name: str, output: str) -> None:
    """Ask source NAME now: the rows as they came, and what is read from them.

    Exit code 1 if the answer can't be used.
    """
    answer = session.ask("source_test", {"source": name})
    problem = text(answer, "problem", "")
    if output == "json":
        show_json(answer)
    else:
        found = rows(answer, "rows")
        show(
            table(
                ("labels", "value"),
                ((text(row, "labels"), text(row, "value")) for row in found),
                right=["value"],
            )
        )
        read = f"read as: {wants_line(part(answer, 'reading'))}"
        show("", f"problem: {problem}" if problem else read)
    if problem:
        leave(FAILED)
