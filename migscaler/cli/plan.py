"""`migscaler plan` and `explain`: what would be changed, and why something is not."""

from typing import TYPE_CHECKING, TextIO

import click

from migscaler.cli.answers import Answer, lines, moment, rows, text
from migscaler.cli.demand import rule_table
from migscaler.cli.output import (
    DIFFERS,
    Failed,
    leave,
    note,
    output_option,
    show,
    show_json,
    table,
    tell_old,
)
from migscaler.cli.records import read_input, schema_of_input
from migscaler.cli.session import Session, pass_session

if TYPE_CHECKING:
    from rich.console import RenderableType


@click.command()
@click.option(
    "--input",
    "source",
    type=click.File(encoding="utf-8"),
    help="Decide from this recorded input or hand-written node (JSON), not from this node.",
)
@click.option("--nvidia-smi", is_flag=True, help="Print only the nvidia-smi commands of the plan.")
@click.option("--schema", is_flag=True, help="Print the JSON schema of --input and end.")
@output_option
@pass_session
def plan(
    session: Session,
    source: TextIO | None,
    nvidia_smi: bool,  # click passes it by name
    schema: bool,
    output: str,
) -> None:
    """Show what would be changed now; nothing is done.

    Exit code 3 if something would be changed, 0 if not. With --input the decision is made on this
    machine from the file alone: the same file gives the same decision.
    """
    if schema:
        show_json(schema_of_input())
        return
    if source is not None:
        answer = decide_from(source.read())
    else:
        answer = session.ask("plan")
        tell_old(answer)
    print_plan(answer, output, nvidia_smi=nvidia_smi)
    if rows(answer, "wanted"):
        leave(DIFFERS)


@click.command()
@click.option("--input", "source", type=click.File(encoding="utf-8"), help="As in `plan`.")
@output_option
@pass_session
def explain(session: Session, source: TextIO | None, output: str) -> None:
    """Say for each rule and GPU what is wanted, what was decided, and what stands in the way."""
    if source is None:
        answer = session.ask("explain")
        tell_old(answer)
    else:
        answer = {"lines": list(_explained(source.read()))}
    if output == "json":
        show_json(answer)
    else:
        show(*(lines(answer, "lines") or ["nothing was decided yet"]))


def decide_from(written: str) -> Answer:
    """Return the decision for a recorded or hand-written input, as the daemon would answer it."""
    from migscaler.app.plan_view import decision_view
    from migscaler.policy.decide import decide

    found = read_input(written)
    return decision_view(decide(found), found.snapshot)


def print_plan(answer: Answer, output: str, *, nvidia_smi: bool) -> None:
    """Print a decision: the sentence, what each GPU becomes, rules, and the closed gates."""
    if nvidia_smi:
        if "nvidia_smi" not in answer:
            raise Failed("only root and the daemon's account are told the nvidia-smi commands")
        commands = lines(answer, "nvidia_smi")
        if output == "json":
            show_json(commands)
        elif commands:
            click.echo("\n".join(commands))
        else:
            note("nothing would be changed")
        return
    if output == "json":
        show_json(answer)
        return
    show(text(answer, "sentence", "nothing was decided yet"))
    wanted = rows(answer, "wanted")
    if wanted:
        show("", gpu_plan_table(wanted))
    if rows(answer, "rules"):
        show("", rule_table(rows(answer, "rules")))
    gates = [gate for gate in rows(answer, "gates") if gate.get("blocks")]
    if gates:
        show("", gate_table(gates))


def gpu_plan_table(plans: list[Answer]) -> "RenderableType":
    """Return what each GPU is and becomes, in the order of the plan."""
    return table(
        ("GPU", "now", "becomes", "steps"),
        (
            (
                text(row, "gpu"),
                text(row, "before"),
                text(row, "after"),
                ", ".join(f"{text(s, 'action')} {text(s, 'spec')}" for s in rows(row, "steps")),
            )
            for row in plans
        ),
        right=["GPU"],
    )


def gate_table(gates: list[Answer]) -> "RenderableType":
    """Return the closed gates: why, where, and when each opens."""
    return table(
        ("closed gate", "where", "why", "opens at"),
        (
            (text(g, "reason"), _where(g), text(g, "explanation"), moment(g, "opens_at"))
            for g in gates
        ),
    )


def _where(gate: Answer) -> str:
    if gate.get("gpu") is not None:
        return f"GPU {text(gate, 'gpu')}"
    return f"rule {text(gate, 'rule')}" if gate.get("rule") else "node"


def _explained(written: str) -> list[str]:
    """Return the explanation of the decision for an input."""
    from migscaler.policy.decide import decide
    from migscaler.policy.explain import explain as paragraphs

    found = read_input(written)
    said: list[str] = []
    for paragraph in paragraphs(found, decide(found)):
        said += [paragraph.title, *(f"  {line}" for line in paragraph.lines)]
    return said
