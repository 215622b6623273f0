"""`migscaler history`: decisions and what came of them; one whole decision as JSON."""

import json

import click

from migscaler.cli.answers import Answer, gpu_name, moment, part, rows, sizes, text
from migscaler.cli.output import note, output_option, show, show_json, table
from migscaler.cli.plan import decide_from, print_plan
from migscaler.cli.session import Session, pass_session


@click.command()
@click.argument("decision_id", metavar="[ID]", type=int, required=False)
@click.option(
    "--limit",
    type=click.IntRange(1, 10_000),
    default=20,
    show_default=True,
    help="Most decisions, and most changes, to list.",
)
@output_option
@pass_session
def history(session: Session, decision_id: int | None, limit: int, output: str) -> None:
    """List the last decisions, newest first; with ID show that one.

    `history ID --output json` is the complete recorded input; `plan --input` takes it anywhere.
    """
    if decision_id is not None:
        _one(session, decision_id, output)
        return
    answer = session.ask("history", {"limit": limit})
    if output == "json":
        show_json(answer)
        return
    found, plans = rows(answer, "decisions"), rows(answer, "gpu_plans")
    if found:
        show(
            table(
                ("id", "at", "decided"),
                ((text(row, "id"), moment(row, "at"), text(row, "sentence")) for row in found),
                right=["id"],
            ),
            *([""] if plans else []),
        )
    else:
        # What was asked for by hand, or restored, is in the journal all the same.
        note("nothing was decided yet")
    if plans:
        headers = ("begun", "GPU", "from", "to", "plan", "ended")
        show(table(headers, (_plan_row(row) for row in plans)))


def _plan_row(row: Answer) -> tuple[str, ...]:
    """Return one GPU plan; how it ended in words only where there is something to say."""
    ended = text(row, "outcome")
    if ended != "done":
        ended = f"{ended}: {text(row, 'explanation', text(row, 'reason'))}"
    return (
        moment(row, "begun_at"),
        gpu_name(row),
        sizes(text(row, "before")),
        sizes(text(row, "after")),
        text(row, "plan_id"),
        ended,
    )


def _one(session: Session, decision_id: int, output: str) -> None:
    """Show one decision."""
    answer = session.ask("decision", {"id": decision_id})
    if output == "json":
        show_json(part(answer, "input"))
        return
    again = decide_from(json.dumps(part(answer, "input")))
    show(f"decision {decision_id}, made {moment(part(answer, 'input'), 'now')}", "")
    print_plan(again, output, nvidia_smi=False)
    show("", f"its complete input: migscaler history {decision_id} --output json")
