"""`migscaler config`: check the file, show what is in force, print its schema."""

import os
from pathlib import Path
from typing import TYPE_CHECKING

import click

from migscaler.cli.output import (
    DIFFERS,
    FAILED,
    USAGE,
    Failed,
    leave,
    note,
    output_option,
    show,
    show_json,
)
from migscaler.cli.session import Session, pass_session
from migscaler.errors import ConfigError, Finding

if TYPE_CHECKING:
    from migscaler.app.config.load import LoadedConfig
    from migscaler.app.config.web_file import WebReading
    from migscaler.model.gpu import NodeSnapshot

_NO_FILE = "no migscaler.yaml in ~/.config/migscaler or /etc/migscaler"
_FILE = click.Path(path_type=Path, dir_okay=False)


@click.group()
def config() -> None:
    """Check and show the configuration file."""


@config.command(short_help="Check a file as a whole, with a remedy for every finding.")
@click.argument("file", type=_FILE, required=False)
@click.option(
    "--against",
    type=_FILE,
    help="Also check it against a node: the file of `migscaler status --snapshot`.",
)
@output_option
@pass_session
def check(session: Session, file: Path | None, against: Path | None, output: str) -> None:
    """Check FILE as a whole; every finding comes with its line and a remedy.

    The web configuration file that it names is checked too, if it is on this machine.

    Exit codes: 0 fine, 1 it can't be used, 2 it can't be read, 3 it can be used, but does not fit
    the node of --against.
    """
    from migscaler.app.config.load import load_file
    from migscaler.cli.records import read_snapshot

    path = _path(session, file)
    try:
        loaded = load_file(path)
    except ConfigError as error:
        _report(path, error.findings, (), output)
        leave(FAILED if os.access(path, os.R_OK) else USAGE)
    web = _web_reading(loaded)
    if web is not None and web.findings:
        _report(web.path, web.findings, web.warnings, output)
        leave(FAILED)
    misfits: tuple[Finding, ...] = ()
    if against is not None:
        misfits = misfits_of(loaded, read_snapshot(_text_of(against)))
    doubts = () if web is None else web.warnings
    _report(path, (), (*loaded.warnings, *doubts, *misfits), output)
    if misfits:
        leave(DIFFERS)


@config.command("show", short_help="Print the configuration with every default.")
@click.argument("file", type=_FILE, required=False)
@output_option
@pass_session
def show_config(session: Session, file: Path | None, output: str) -> None:
    """Print the configuration with every default written out; without a file, the defaults."""
    from migscaler.app.config.load import effective_yaml, load_file, load_text
    from migscaler.app.start import NOTHING_CONFIGURED

    path = _found(session, file)
    if path is None:
        note(f"{_NO_FILE}; these are the defaults")
    loaded = load_text(NOTHING_CONFIGURED, "built-in") if path is None else load_file(path)
    if output == "json":
        show_json(loaded.config.model_dump(mode="json", by_alias=True))
    else:
        click.echo(effective_yaml(loaded), nl=False)


@config.command()
def schema() -> None:
    """Print the JSON schema of the file, for editors and CI."""
    from migscaler.app.config.reference import json_schema

    show_json(json_schema())


def misfits_of(loaded: "LoadedConfig", snapshot: "NodeSnapshot") -> tuple[Finding, ...]:
    """Return what the configuration asks for and the node can't give."""
    from migscaler.app.config.against import warnings_against

    gpus = tuple(gpu.reading for gpu in snapshot.gpus)
    return warnings_against(loaded, gpus, snapshot.taken_at)


def _text_of(against: Path) -> str:
    """Return what a node's file says."""
    try:
        return against.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        why = error.strerror if isinstance(error, OSError) else "not UTF-8"
        raise Failed(f"{against}: can't be read: {why}", USAGE) from error


def _path(session: Session, file: Path | None) -> Path:
    """Return the file that is meant; it must be named or found."""
    found = _found(session, file)
    if found is None:
        raise Failed(f"{_NO_FILE}; name the file to check", USAGE)
    return found


def _found(session: Session, file: Path | None) -> Path | None:
    """Return the file that is meant, None if none is named and none lies where they are found."""
    from migscaler.app.config.load import find_file

    return find_file(file or session.options.config, os.environ)


def _web_reading(loaded: "LoadedConfig") -> "WebReading | None":
    """Return how the web configuration file reads, None without one or on another machine."""
    from migscaler.app.config.web_file import read_web_file

    web = loaded.settings.web
    if web.config_file is None or not web.config_file.exists():
        return None
    return read_web_file(web.config_file, open_to=web.open_to)


def _report(
    path: Path, errors: tuple[Finding, ...], warnings: tuple[Finding, ...], output: str
) -> None:
    """Print what was found."""
    if output == "json":
        shown = {"errors": _as_json(errors), "warnings": _as_json(warnings)}
        show_json({"file": str(path), "usable": not errors, **shown})
        return
    for kind, findings in (("error", errors), ("warning", warnings)):
        for finding in findings:
            place = f"{path}:{finding.line}" if finding.line else str(path)
            show(f"{place}: {kind}: {finding.where}: {finding.problem}; {finding.remedy}")
    if not errors and not warnings:
        show(f"{path} is fine")
    elif errors:
        note(f"{len(errors)} error(s); the file can't be used")


def _as_json(findings: tuple[Finding, ...]) -> list[dict[str, object]]:
    return [
        {
            "line": finding.line,
            "column": finding.column,
            "where": finding.where,
            "problem": finding.problem,
            "remedy": finding.remedy,
        }
        for finding in findings
    ]
