"""`migscaler doctor --fix`: removes GPU instances on which nothing can run, each on a yes."""

import sys

import click

from migscaler.cli.answers import Answer, lines, rows, text
from migscaler.cli.output import DIFFERS, FAILED, leave, note, show, show_json
from migscaler.cli.session import Node, Session
from migscaler.errors import CommandRefused


def fix(session: Session, output: str, *, yes: bool) -> None:
    """Show what would be removed; on a terminal ask for each, with `yes` remove them all.

    Leaves with 3 where something was only shown, with 1 where one could not be removed: also where
    something keeps it.
    """
    asks = not yes and output == "human" and sys.stdin.isatty()
    with session.node() as node:
        found = rows(node.execute("orphans", {}), "orphans")
        free = [one for one in found if not text(one, "kept", "")]
        if output == "human":
            _print(found)
        if not (yes or asks):
            _end_of_dry_run(found, output, len(free))
            return
        wanted = [one for one in free if yes or _is_wanted(one)]
        ended = [_removed(node, one) for one in wanted]
    if output == "json":
        show_json({"orphans": found, "outcomes": ended})
    else:
        for row in ended:
            show(f"GPU {text(row, 'gpu')} {text(row, 'instance')}: {text(row, 'explanation')}")
    if len(free) < len(found) or any(row.get("outcome") != "done" for row in ended):
        leave(FAILED)


def _print(found: list[Answer]) -> None:
    """Say of each orphan what would be done, or what keeps it."""
    if not found:
        note("no GPU instance without compute instance; nothing to fix")
    for one in found:
        kept = text(one, "kept", "")
        what = f"kept: {kept}" if kept else ", then ".join(lines(one, "steps"))
        show(f"GPU {text(one, 'gpu')} {text(one, 'instance')} (GI {text(one, 'gi_id')}): {what}")


def _end_of_dry_run(found: list[Answer], output: str, count: int) -> None:
    """End a run that only showed."""
    if output == "json":
        show_json({"orphans": found, "outcomes": []})
    elif count:
        note("nothing was changed; add --yes to do it")
    if count:
        leave(DIFFERS)


def _is_wanted(one: Answer) -> bool:
    """Ask the person."""
    return click.confirm(f"Remove {text(one, 'instance')} of GPU {text(one, 'gpu')}?", err=True)


def _removed(node: Node, one: Answer) -> Answer:
    """Have one removed; return how that ended, with the instance it was about."""
    asked: Answer = {"gpu": text(one, "gpu_uuid"), "instance": text(one, "instance")}
    named: Answer = {"gpu": one.get("gpu"), "instance": one.get("instance")}
    try:
        outcomes = rows(node.execute("remove_orphan", asked), "outcomes")
    except CommandRefused as refusal:
        return {**named, "outcome": "refused", "explanation": str(refusal)}
    return {**named, **(outcomes[0] if outcomes else {"outcome": "failed"})}
