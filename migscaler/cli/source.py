"""`migscaler source test`: ask a demand source once, and show what it says."""

import click

from migscaler.cli.answers import Answer, moment, part, rows, text
from migscaler.cli.demand import wants_line
from migscaler.cli.output import FAILED, leave, output_option, show, show_json, table
from migscaler.cli.session import Session, pass_session


@click.group()
def source() -> None:
    """Demand sources of the configuration."""


@source.command(short_help="Ask a source now, and show what is read from it.")
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
        made = _what_is_made(part(answer, "reading"))
        show("", *([f"problem: {problem}; counts as unknown"] if problem else made))
    if problem:
        leave(FAILED)


def _what_is_made(reading: Answer) -> list[str]:
    """Return what is read from the rows, and until when it holds."""
    counts = text(reading, "counts")
    means = {"waiting": "wanted beyond those in use", "total": "wanted altogether"}.get(counts)
    absent = "0" if reading.get("absent_is_zero") else "unknown"
    return [
        f"read as: {wants_line(reading)}",
        f"counts: {counts}" + (f" ({means})" if means else ""),
        f"a size that is not named counts as {absent}",
        f"true at {moment(reading, 'true_at')}, unknown after {moment(reading, 'expires_at')}",
    ]
