"""`migscaler export`: the node's layout as mig-parted writes it."""

import sys

import click

from migscaler.cli.output import FAILED, leave, note, tell_old
from migscaler.cli.session import Session, pass_session


@click.command()
@click.option(
    "--format",
    "kind",
    type=click.Choice(["config", "checkpoint"]),
    default="config",
    show_default=True,
    help="Counts per GPU (YAML, mig-parted apply), or placements too (JSON, mig-parted restore).",
)
@click.option("--name", default="current", show_default=True, help="Name of the configuration.")
@pass_session
def export(session: Session, kind: str, name: str) -> None:
    """Write the present layout of every GPU for mig-parted to standard output; changes nothing.

    What the format can't say is told on standard error, with exit code 1.
    """
    from migscaler.cli.mig_parted_text import checkpoint_text, config_text
    from migscaler.cli.records import snapshot_of

    answer = session.ask("snapshot")
    tell_old(answer)
    snapshot = snapshot_of(answer.get("snapshot"))
    readings = [gpu.reading for gpu in snapshot.gpus]
    made = config_text(readings, name) if kind == "config" else checkpoint_text(readings)
    sys.stdout.write(made.text)
    for what in made.left_out:
        note(f"left out: {what}")
    if made.left_out:
        leave(FAILED)
