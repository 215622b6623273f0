"""`migscaler demand`: say how many instances are wanted, by hand or from a script."""

from datetime import timedelta
from typing import TYPE_CHECKING

import click

from migscaler.cli.answers import Answer, kept_where, moment, part, rows, text
from migscaler.cli.output import note, output_option, show, show_json, table
from migscaler.cli.params import DURATION, WANT
from migscaler.cli.session import Session, pass_session

if TYPE_CHECKING:
    from rich.console import RenderableType


@click.group()
def demand() -> None:
    """Push demand to a source, override a rule, show or clear both."""


@demand.command(short_help="Tell a push source how many of each size are wanted.")
@click.argument("source")
@click.argument("wants", type=WANT, nargs=-1, required=True)
@click.option("--ttl", type=DURATION, default="2m", show_default=True, help="Holds this long.")
@click.option(
    "--counts",
    type=click.Choice(["waiting", "total"]),
    help="Wanted beyond those in use, or in total. [default: as configured]",
)
@output_option
@pass_session
def push(
    session: Session,
    source: str,
    wants: tuple[tuple[str, int], ...],
    ttl: timedelta,
    counts: str | None,
    output: str,
) -> None:
    """Tell push source SOURCE how many of each size are wanted, e.g. `push queue 1g=3 7g=0`.

    Push again before it expires: an expired number is unknown, not zero.
    """
    by_size = dict(wants)
    if len(by_size) < len(wants):
        raise click.UsageError("a size is named twice; give one count for each")
    asked: Answer = {"source": source, "wants": by_size, "ttl_seconds": ttl.total_seconds()}
    if counts is not None:
        asked["counts"] = counts
    answer = session.ask("demand_push", asked)
    if output == "json":
        show_json(answer)
    else:
        counted = ", ".join(f"{count} x {size}" for size, count in wants)
        show(f"{source}: {counted}{kept_where(answer)}")


@demand.command()
@click.argument("rule")
@click.argument("count", type=click.IntRange(min=0))
@click.option("--ttl", type=DURATION, required=True, help="Ends by itself after this long.")
@output_option
@pass_session
def override(session: Session, rule: str, count: int, ttl: timedelta, output: str) -> None:
    """Want exactly COUNT instances for RULE, whatever its sources say."""
    asked: Answer = {"rule": rule, "count": count, "ttl_seconds": ttl.total_seconds()}
    answer = session.ask("demand_override", asked)
    if output == "json":
        show_json(answer)
    else:
        end = f"end it with: migscaler demand clear --rule {rule}"
        show(f"rule {rule} wants {count}; {end}{kept_where(answer)}")


@demand.command()
@click.option("--source", help="Forget what was pushed to this source.")
@click.option("--rule", help="End the override of this rule.")
@output_option
@pass_session
def clear(session: Session, source: str | None, rule: str | None, output: str) -> None:
    """Forget pushed demand, or end an override."""
    if (source is None) == (rule is None):
        raise click.UsageError("name either --source or --rule")
    asked: Answer = {"source": source} if source is not None else {"rule": rule}
    answer = session.ask("demand_clear", asked)
    if output == "json":
        show_json(answer)
    elif answer.get("cleared"):
        done = (
            f"forgot what was pushed to {source}" if rule is None else f"rule {rule} is free again"
        )
        show(f"{done}{kept_where(answer)}")
    else:
        note(f"nothing was pushed to {source}" if rule is None else f"rule {rule} has no override")


@demand.command("show")
@output_option
@pass_session
def show_demand(session: Session, output: str) -> None:
    """Show every source's last answer."""
    answer = session.ask("demand")
    if output == "json":
        show_json(answer)
        return
    sources = rows(answer, "sources")
    if not sources:
        note("no demand source is configured")
    else:
        show(
            table(
                ("source", "state", "counts", "wants", "true at", "until"),
                (_source_row(row) for row in sources),
            )
        )


def rule_table(rules: list[Answer]) -> "RenderableType":
    """Return what each rule wants, has and lacks."""
    fields = ("rule", "size", "in_use", "supply", "wanted", "target", "unmet")
    return table(
        ("rule", "size", "in use", "free", "wanted", "target", "unmet"),
        ([text(row, field) for field in fields] for row in rules),
        right=("in use", "free", "wanted", "target", "unmet"),
    )


def wants_line(reading: Answer) -> str:
    """Return what a reading wants, in one line."""
    wants = part(reading, "wants")
    return ", ".join(f"{count} x {size}" for size, count in wants.items()) or "nothing"


def _source_row(row: Answer) -> tuple[str, ...]:
    """Return one source as a row of the table."""
    state = "known" if row.get("known") else f"unknown: {text(row, 'problem', 'no answer yet')}"
    wants = wants_line(row) if row.get("true_at") else "-"
    times = moment(row, "true_at"), moment(row, "expires_at")
    return text(row, "source"), state, text(row, "counts"), wants, *times
