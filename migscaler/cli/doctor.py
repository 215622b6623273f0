"""`migscaler doctor`: what keeps this node from being measured or reshaped, and the way out."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import click

from migscaler.cli import checks
from migscaler.cli.answers import part, picture_problem, rows, text
from migscaler.cli.checks import Check, Verdict, fine, problem, warning
from migscaler.cli.nvml_worker import WORKER_SOCKET
from migscaler.cli.orphans import fix
from migscaler.cli.output import FAILED, leave, output_option, show, show_json, table
from migscaler.cli.records import snapshot_of
from migscaler.cli.session import Node, Session, pass_session
from migscaler.errors import CommandRefused, ConfigError, HardwareError, MigscalerError
from migscaler.web.words import UNREAD

if TYPE_CHECKING:
    from migscaler.app.config.settings import WebSettings
    from migscaler.model.gpu import NodeSnapshot

_STYLES = {Verdict.FINE: "green", Verdict.WARNING: "yellow", Verdict.PROBLEM: "bold red"}
_ROOT = click.Path(path_type=Path, file_okay=False, exists=True)


@click.command()
@click.option("--proc", type=_ROOT, default="/proc", show_default=True, help="The host's /proc.")
@click.option("--dev", type=_ROOT, default="/dev", show_default=True, help="The host's /dev.")
@click.option(
    "--fix",
    "only_fix",
    is_flag=True,
    help="Show which GPU instances without compute instance would go; ask for each.",
)
@click.option("--yes", is_flag=True, help="With --fix: do not ask, do it.")
@output_option
@pass_session
def doctor(
    session: Session,
    proc: Path,
    dev: Path,
    only_fix: bool,  # click passes it by name
    yes: bool,
    output: str,
) -> None:
    """Look at driver, permissions, processes, other owners, sources, configuration and state.

    Exit code 1 if there is a problem; warnings alone are 0. With --fix: 3 if something was only
    shown, 1 if something could not be done.
    """
    if yes and not only_fix:
        raise click.UsageError("--yes goes with --fix only")
    if only_fix:
        fix(session, output, yes=yes)
        return
    found = list(examine(session, proc, dev, os.geteuid()))
    if output == "json":
        show_json({"checks": [_as_json(check) for check in found]})
    else:
        _print(found)
    if any(check.verdict is Verdict.PROBLEM for check in found):
        leave(FAILED)


def examine(session: Session, proc: Path, dev: Path, euid: int) -> Iterator[Check]:
    """Yield every check; nothing that fails keeps the others from being made.

    Where the daemon tells this account nothing, what the account itself may do says nothing of the
    node, and is left out.
    """
    from migscaler.app.clients import known_services

    snapshot: NodeSnapshot | None = None
    in_force: Path | None = None
    is_stranger = False
    try:
        with session.node() as node:
            answer = node.execute("snapshot", {})
            snapshot = snapshot_of(answer.get("snapshot"))
            in_force = _file_of(node)
            yield from checks.node_checks(snapshot, picture_problem(answer))
            yield from checks.together(
                check for gpu in snapshot.gpus for check in checks.gpu_checks(gpu)
            )
            yield checks.capability_nodes(dev, snapshot)
            yield from _sources(node)
    except (HardwareError, CommandRefused) as error:
        if isinstance(error, HardwareError) or str(error).startswith(UNREAD):
            yield checks.driver_missing(str(error).removesuffix("; see `migscaler doctor`"))
        else:
            is_stranger = euid != 0
            yield _refused(error, is_stranger=is_stranger)
    except MigscalerError as error:
        yield problem("node", str(error), "see the log of the daemon")
    yield checks.held_by(known_services(proc))
    if is_stranger:
        yield from _configuration(session, snapshot, in_force, own=False)
        return
    yield checks.permission(euid, proc, dev, WORKER_SOCKET)
    yield from _configuration(session, snapshot, in_force)


def _refused(error: CommandRefused, *, is_stranger: bool) -> Check:
    """Return the check for a node of which nobody tells anything."""
    remedy = "run the doctor as root or the daemon's account" if is_stranger else "try again"
    return problem("daemon", str(error), remedy)


def _file_of(node: Node) -> Path | None:
    """Return the configuration file in force, None if there is none."""
    path = text(part(node.execute("status", {}), "config"), "path", "")
    return Path(path) if path else None


def _sources(node: Node) -> Iterator[Check]:
    """Ask every demand source once."""
    for row in rows(node.execute("demand", {}), "sources"):
        name = text(row, "source")
        answer = node.execute("source_test", {"source": name})
        wrong = text(answer, "problem", "")
        if wrong:
            yield warning(
                f"source {name}",
                wrong,
                f"its rules keep what they have meanwhile; try: migscaler source test {name}",
            )
        else:
            yield fine(f"source {name}", "answers")


def _configuration(
    session: Session, snapshot: "NodeSnapshot | None", in_force: Path | None, *, own: bool = True
) -> Iterator[Check]:
    """Check the configuration file, whether it fits the node, and the state directory.

    Unless it is this account's `own` node, what only the daemon may read or write is left out.
    """
    from migscaler.app.config.load import find_file, load_file
    from migscaler.app.config.settings import state_directory
    from migscaler.cli.config import misfits_of

    path = in_force or find_file(session.options.config, os.environ)
    directory = session.options.state_dir
    if path is None:
        yield warning("configuration", "none found: everything is observed, nothing managed")
    else:
        try:
            loaded = load_file(path)
        except ConfigError as error:
            yield problem(
                "configuration",
                f"{path}: {len(error.findings)} error(s)",
                f"migscaler config check {path}",
            )
        else:
            yield fine("configuration", str(path))
            directory = directory or state_directory(loaded.settings, os.environ, os.geteuid())
            misfits = () if snapshot is None else misfits_of(loaded, snapshot)
            for finding in (*loaded.warnings, *misfits):
                yield warning("configuration", finding.found, finding.remedy)
            if own:
                yield from _web_configuration(loaded.settings.web)
    if own and directory is not None:
        yield _state(directory)


def _web_configuration(web: "WebSettings") -> Iterator[Check]:
    """Check the file that protects the TCP side, and the certificates that it names."""
    from migscaler.app.config.web_file import read_web_file

    if web.config_file is None:
        return
    subject = "web configuration"
    reading = read_web_file(web.config_file, open_to=web.open_to)
    for finding in reading.findings:
        yield problem(subject, f"{web.config_file}: {finding.found}", finding.remedy)
    for finding in reading.warnings:
        yield warning(subject, f"{web.config_file}: {finding.found}", finding.remedy)
    if not reading.findings and not reading.warnings:
        yield fine(subject, str(web.config_file))


def _state(directory: Path) -> Check:
    """Check that the journal can be written."""
    place = directory
    while not os.path.exists(place) and place != place.parent:
        place = place.parent
    if os.access(place, os.W_OK):
        return fine("state", f"{directory} is writable")
    return problem(
        "state", f"{directory} is not writable", "without a journal nothing is changed; chown it"
    )


def _print(found: list[Check]) -> None:
    """Print the checks, and the remedies below what is wrong."""
    from rich.text import Text

    lines = []
    for check in found:
        style = _STYLES[check.verdict]
        said = check.found + (f"\n-> {check.remedy}" if check.remedy else "")
        lines.append((Text(check.verdict.value, style=style), check.subject, said))
    show(table(("", "subject", "found"), lines))


def _as_json(check: Check) -> dict[str, object]:
    return {
        "subject": check.subject,
        "verdict": check.verdict.value,
        "found": check.found,
        "remedy": check.remedy or None,
    }
