"""`migscaler history`: decisions and what came of them; one whole decision as JSON."""

import json

import click

from migscaler.cli.answers import part, rows, text
from migscaler.cli.output import note, output_option, show, show_json, table
from migscaler.cli.plan import decide_from, print_plan
from migscaler.cli.session import Session, pass_session


@click.command()
@click.argument("decision_id", metavar="[ID]", type=int, required=False)
@click.option("--limit", type=click.IntRange(1, 10_000), default=20, show_default=True)
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
    found = rows(answer, "decisions")
    if not found:
        note("nothing was decided yet")
        return
    fields = ("id", "at", "sentence")
    show(
        table(
            ("id", "at", "decided"),
            ([text(row, field) for field in fields] for row in found),
            right=["id"],
        )
    )
    plans = rows(answer, "gpu_plans")
    if plans:
        shown = ("begun_at", "gpu_uuid", "before", "after", "outcome", "explanation")
        show(
            "",
            table(
                ("begun", "GPU", "from", "to", "ended", "in words"),
                ([text(row, field) for field in shown] for row in plans),
            ),
        )


def _one(session: Session, decision_id: int, output: str) -> None:
    """Show one decision."""
    answer = session.ask("decision", {"id": decision_id})
    if output == "json":
        show_json(part(answer, "input"))
        return
    again = decide_from(json.dumps(part(answer, "input")))
    show(f"decision {decision_id}, made {text(part(answer, 'input'), 'now')}", "")
    print_plan(again, output, nvidia_smi=False)
    show("", f"its complete input: migscaler history {decision_id} --output json")
