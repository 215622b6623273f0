"""`migscaler import`: what a file of mig-parted's would make of this node, and making it so."""

from typing import TYPE_CHECKING, TextIO

import click

from migscaler.cli.answers import Answer, rows, text
from migscaler.cli.output import (
    DIFFERS,
    FAILED,
    leave,
    note,
    output_option,
    show,
    show_json,
    table,
    tell_old,
)
from migscaler.cli.session import Node, Session, pass_session
from migscaler.errors import CommandRefused

if TYPE_CHECKING:
    from migscaler.cli.mig_targets import Target
    from migscaler.model.gpu import NodeSnapshot


@click.command(name="import")
@click.argument("file", type=click.File(encoding="utf-8"))
@click.option("--name", help="Configuration to take, where the file has several.")
@click.option("--apply", "applies", is_flag=True, help="Ask for the layouts, as a dry run.")
@click.option("--yes", is_flag=True, help="With --apply: do it.")
@output_option
@pass_session
def import_(
    session: Session, file: TextIO, name: str | None, applies: bool, yes: bool, output: str
) -> None:
    """Show what mig-parted's FILE (configuration or checkpoint; - for standard input) means here.

    Placements are those of a checkpoint; for a configuration they are chosen so that the fewest
    instances change and those in use stay. Without --apply the equivalent lines for migscaler's
    own configuration follow. --apply goes the way of `migscaler apply`: instances in use and GPUs
    that are only observed stay as they are. Exit codes: 0 everything is as in the file, 1 a GPU
    could not be changed, 3 something differs or would be changed.
    """
    from migscaler.cli.mig_parted import read_mig_parted
    from migscaler.cli.mig_targets import targets
    from migscaler.cli.records import snapshot_of

    if yes and not applies:
        raise click.UsageError("--yes goes with --apply only")
    read = read_mig_parted(file.name, file.read())
    with session.node() as node:
        answer = node.execute("snapshot", {})
        tell_old(answer)
        snapshot = snapshot_of(answer.get("snapshot"))
        if yes:
            _must_be_ours(snapshot)
        found, unused = targets(read, name, snapshot)
        ended = _carried_out(node, found, yes=yes) if applies else []
    _print(found, unused, ended, output, snippet=not applies)
    if any(text(one, "outcome", "done") != "done" for one in ended):
        leave(FAILED)
    left = [one for one in found if one.differs and not (yes and one.changes)]
    if left and output == "human" and applies:
        named = ", ".join(str(one.gpu.reading.index) for one in left if not one.changes)
        if named:
            note(f"not as in the file, and not to be made so from here (see its note): GPU {named}")
    if left:
        leave(DIFFERS)


def _must_be_ours(snapshot: "NodeSnapshot") -> None:
    """Refuse beside another owner: mig-parted's files are taken over once it has gone."""
    if snapshot.foreign_owner is not None:
        raise CommandRefused(
            f"{snapshot.foreign_owner} shapes these GPUs; end that first:"
            f" {snapshot.foreign_owner_remedy}"
        )
    if snapshot.foreign_owner_unknown is not None:
        raise CommandRefused(
            f"it is not known who else shapes the GPUs: {snapshot.foreign_owner_unknown}"
        )


def _carried_out(node: Node, found: "tuple[Target, ...]", *, yes: bool) -> list[Answer]:
    """Ask for the layouts, GPU by GPU; none is begun after one that failed."""
    ended: list[Answer] = []
    for one in found:
        if one.changes:
            ended.append(_asked(node, one, yes=yes))
            if ended[-1].get("outcome") == "failed":
                break
    return ended


def _asked(node: Node, target: "Target", *, yes: bool) -> Answer:
    """Ask for one GPU's layout, as `apply` does; return what would happen, or what did."""
    reading = target.gpu.reading
    asked: Answer = {"gpu": reading.uuid, "layout": str(target.layout), "dry_run": not yes}
    row: Answer = {"gpu": reading.index, "gpu_uuid": reading.uuid}
    try:
        answer = node.execute("apply", asked)
    except CommandRefused as refusal:
        return {**row, "outcome": "refused", "explanation": str(refusal)}
    outcomes = rows(answer, "outcomes")
    if outcomes:
        return {**row, **outcomes[0]}
    return {**row, "would": text(answer, "sentence")}


def _print(
    found: "tuple[Target, ...]",
    unused: tuple[str, ...],
    ended: list[Answer],
    output: str,
    *,
    snippet: bool,
) -> None:
    """Show every GPU under the file, then the outcomes or our own configuration."""
    lines = _configuration(found)
    if output == "json":
        gpus = [_row(one) for one in found]
        show_json({"gpus": gpus, "unused": unused, "outcomes": ended, "configuration": lines})
        return
    headers = ("GPU", "layout now", "in the file", "note")
    cells = ([_cell(value) for key, value in _row(one).items() if key in _SHOWN] for one in found)
    show(table(headers, cells))
    for what in unused:
        note(f"not used: {what}")
    for row in ended:
        said = text(row, "would", text(row, "explanation"))
        show(f"GPU {text(row, 'gpu')}: {text(row, 'outcome', 'would be changed')}: {said}")
    if snippet and lines:
        show("", "# The same for migscaler: what a GPU without instances gets.", *lines)
    elif not snippet and not any(one.differs for one in found):
        note("nothing to change")


_SHOWN = ("gpu", "before", "after", "note")


def _row(target: "Target") -> Answer:
    """Return one GPU for people and programs."""
    before = target.gpu.layout
    return {
        "gpu": target.gpu.reading.index,
        "gpu_uuid": target.gpu.uuid,
        "before": None if before is None else str(before),
        "after": None if target.layout is None else str(target.layout),
        "changes": target.changes,
        "differs": target.differs,
        "note": target.note,
    }


def _cell(value: object) -> str:
    return "-" if value is None else str(value)


def _configuration(found: "tuple[Target, ...]") -> list[str]:
    """Return the lines of our configuration that stand for the layouts: baselines."""
    lines = []
    for one in found:
        if one.layout is None:
            continue
        sizes = ", ".join(f'"{spec.profile}"' for spec in one.layout.specs)
        lines.append(f"  - {{uuid: {one.gpu.uuid}, mode: recommend, baseline: [{sizes}]}}")
    return ["gpus:", *lines] if lines else []
