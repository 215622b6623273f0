"""`migscaler hold`, `release` and `holds`: keep a GPU or one instance as it is, for a while."""

from datetime import timedelta

import click

from migscaler.cli.answers import Answer, gpu_name, kept_where, moment, rows, text
from migscaler.cli.output import note, output_option, show, show_json, table
from migscaler.cli.params import DURATION, GPU
from migscaler.cli.session import Session, pass_session


@click.command()
@click.argument("gpu", type=GPU)
@click.argument("instance", required=False)
@click.option("--reason", required=True, help="Why; shown to whoever asks what is in the way.")
@click.option("--ttl", type=DURATION, help="End by itself after this long. [default: never]")
@output_option
@pass_session
def hold(
    session: Session,
    gpu: int | str,
    instance: str | None,
    reason: str,
    ttl: timedelta | None,
    output: str,
) -> None:
    """Keep GPU (index or UUID) as it is, or only INSTANCE of it, e.g. 3g.20gb@4.

    A held instance keeps its place and counts neither as supply nor as demand.
    """
    asked: Answer = {"gpu": gpu, "reason": reason}
    if instance is not None:
        asked["spec"] = instance
    if ttl is not None:
        asked["ttl_seconds"] = ttl.total_seconds()
    answer = session.ask("hold", asked)
    if output == "json":
        show_json(answer)
        return
    number = text(answer, "hold_id")
    show(f"hold {number} is in force; end it with: migscaler release {number}{kept_where(answer)}")


@click.command()
@click.argument("hold_id", type=int)
@output_option
@pass_session
def release(session: Session, hold_id: int, output: str) -> None:
    """End a hold by its number (see `migscaler holds`)."""
    answer = session.ask("release", {"hold_id": hold_id})
    if output == "json":
        show_json(answer)
    else:
        show(f"hold {hold_id} ended{kept_where(answer)}")


@click.command()
@output_option
@pass_session
def holds(session: Session, output: str) -> None:
    """List the holds of people and the leases of jobs."""
    answer = session.ask("holds")
    if output == "json":
        show_json(answer)
        return
    found = rows(answer, "holds")
    if not found:
        note("nothing is held")
        return
    show(
        table(
            ("id", "kind", "GPU", "instance", "owner", "reason", "until"),
            (
                (
                    text(row, "hold_id"),
                    text(row, "kind"),
                    gpu_name(row),
                    text(row, "spec", "all"),
                    text(row, "owner"),
                    text(row, "reason"),
                    moment(row, "expires_at"),
                )
                for row in found
            ),
            right=["id"],
        )
    )
