"""`migscaler mig-mode`: what `nvidia-smi -i 0,1 -mig 1` does, one GPU at a time and asked for."""

from collections.abc import Sequence

import click

from migscaler.cli.answers import Answer, lines, rows, text
from migscaler.cli.output import (
    DIFFERS,
    FAILED,
    FINE,
    Failed,
    leave,
    note,
    output_option,
    show,
    show_json,
)
from migscaler.cli.params import GPUS
from migscaler.cli.session import Session, pass_session


@click.command()
@click.argument("switch", metavar="on|off", type=click.Choice(["on", "off"]))
@click.option("--gpu", "gpus", type=GPUS, required=True, help="GPUs by index or UUID, e.g. 0,1.")
@click.option(
    "--layout",
    help="Layout to give each GPU once MIG is on. [default: what it has, else one whole instance]",
)
@click.option("--dry-run", is_flag=True, help="Show what would be done, and who must be stopped.")
@click.option("--yes", is_flag=True, help="Do not ask.")
@output_option
@pass_session
def mig_mode(
    session: Session,
    switch: str,
    gpus: tuple[int | str, ...],
    layout: str | None,
    dry_run: bool,  # click passes it by name
    yes: bool,
    output: str,
) -> None:
    """Switch MIG mode of GPUs on or off; refused while anything uses the GPU.

    Switching removes all instances of a GPU. On A100 and A30 the change stays pending until the
    GPU is reset, and the next GPU is asked; from H100 on it is active at once. After one that could
    not be switched, or did not get its layout, no other is tried. Exit code 1 then, and if one
    waits for a reset.
    """
    if layout is not None and switch == "off":
        raise click.UsageError("--layout goes with `on`")
    asked: Answer = {"gpus": list(gpus), "enabled": switch == "on", "dry_run": True}
    if layout is not None:
        asked["layout"] = layout
    with session.node() as node:
        if dry_run or not yes:
            foreseen = rows(node.execute("mig_mode", asked), "results")
            if dry_run:
                _print(foreseen, output)
                leave(FINE if all(map(_is_fine, foreseen)) else DIFFERS)
            _print(foreseen, "human", error=True)
            if not all(map(_is_switched, foreseen)):
                _confirm(switch, gpus)
        results: list[Answer] = []
        left = list(gpus)
        try:
            while left:
                gpu = left.pop(0)
                answer = node.execute("mig_mode", {**asked, "gpus": [gpu], "dry_run": False})
                results.extend(rows(answer, "results"))
                if not all(_is_fine(row) or row.get("pending_on") for row in results):
                    break
        finally:
            # Also when a later GPU is refused: what was switched must be known, and what was not
            # even tried.
            _print(results, output, not_tried=left)
    if left or not all(map(_is_fine, results)):
        leave(FAILED)


def _confirm(switch: str, gpus: tuple[int | str, ...]) -> None:
    """Ask; anything but yes, also an input that has ended, changes nothing."""
    named = ", ".join(map(str, gpus))
    try:
        agreed = click.confirm(f"Switch MIG mode {switch} for GPU {named}?", err=True)
    except click.Abort:
        note("")  # the question has no end of line
        raise Failed("nobody answered, so nothing was changed; --yes does not ask") from None
    if not agreed:
        raise Failed("nothing was changed")


def _is_switched(row: Answer) -> bool:
    """Say whether the mode of a GPU is as asked, with nothing pending."""
    return bool(row.get("active")) and not row.get("pending_on")


def _is_fine(row: Answer) -> bool:
    """Say whether a GPU is as asked, also the layout that it was to get."""
    return _is_switched(row) and row.get("layout_made") is not False


def _print(
    results: list[Answer],
    output: str,
    *,
    error: bool = False,
    not_tried: Sequence[int | str] = (),
) -> None:
    """Say for each GPU what happened or is pending on what, and which clients to stop."""
    if output == "json":
        show_json({"results": results, "not_tried": list(not_tried)})
        return
    for row in results:
        said = [f"GPU {text(row, 'gpu')}: {text(row, 'message')}"]
        said += [f"  stop first: {client}" for client in lines(row, "clients")]
        for line in said:
            if error:
                click.echo(line, err=True)
            else:
                show(line)
    for gpu in not_tried:
        show(f"GPU {gpu}: not tried, since one before it is not as asked")
