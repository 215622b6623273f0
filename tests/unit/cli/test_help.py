"""What a person reads who asks for help, or mistypes."""

from collections.abc import Iterator
from pathlib import Path

import click
import pytest
import yaml

from migscaler.cli.main import cli
from tests.unit.cli.conftest import Terminal


def every_command(
    command: click.Command = cli, words: tuple[str, ...] = ()
) -> Iterator[tuple[str, ...]]:
    """Yield the words of each command and group, the root first."""
    yield words
    if isinstance(command, click.Group):
        context = click.Context(command)
        for name in command.list_commands(context):
            below = command.get_command(context, name)
            assert below is not None
            yield from every_command(below, (*words, name))


@pytest.mark.parametrize("words", list(every_command()), ids=" ".join)
def test_help_of_every_command_reads_well(terminal: Terminal, words: tuple[str, ...]) -> None:
    """Twice an example came out with its layout mark, and lists ended in the middle of a line."""
    shown = terminal.run(*words, "--help", environ={"COLUMNS": "80"})

    assert shown.exit_code == 0
    assert "\\b" not in shown.stdout
    assert not [line for line in shown.stdout.splitlines()[1:] if line.endswith("...")]
    assert max(map(len, shown.stdout.splitlines())) <= 80


def test_mistyped_command_names_the_one_it_looks_like(terminal: Terminal) -> None:
    wrong = terminal.run("statsu")

    assert wrong.exit_code == 2
    assert "No such command 'statsu'. Did you mean 'status'?" in wrong.stderr
    assert "Did you mean" not in terminal.run("xyzzy").stderr


@pytest.fixture
def no_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave no configuration file to be found; a machine that runs tests has none in /etc."""
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    monkeypatch.delenv("MIGSCALER_CONFIG", raising=False)


@pytest.mark.usefixtures("no_file")
def test_config_show_without_a_file_writes_out_the_defaults(terminal: Terminal) -> None:
    shown = terminal.run("config", "show")

    assert shown.exit_code == 0
    assert yaml.safe_load(shown.stdout)["mode"] == "observe"
    assert "these are the defaults" in shown.stderr


@pytest.mark.usefixtures("no_file")
def test_config_check_without_a_file_is_wrong_usage(terminal: Terminal) -> None:
    checked = terminal.run("config", "check")

    assert checked.exit_code == 2
    assert "/etc/migscaler; name the file to check" in checked.stderr


def test_option_of_the_root_after_the_command_says_where_it_goes(terminal: Terminal) -> None:
    wrong = terminal.run("status", "--state-dir", "x")

    assert wrong.exit_code == 2
    assert "--state-dir goes before the command: migscaler --state-dir ..." in wrong.stderr
    assert "No such option '--stat'" in terminal.run("status", "--stat").stderr


def test_config_check_against_a_file_that_is_not_there_names_it(
    terminal: Terminal, tmp_path: Path
) -> None:
    config = tmp_path / "migscaler.yaml"
    config.write_text("mode: observe\n")

    checked = terminal.run("config", "check", str(config), "--against", "/no/node.json")

    assert checked.exit_code == 2
    assert checked.stderr == "migscaler: /no/node.json: can't be read: No such file or directory\n"


def test_configuration_that_can_not_be_read_is_wrong_usage(terminal: Terminal) -> None:
    """As an unreadable file of any other command."""
    checked = terminal.run("config", "check", "/no/migscaler.yaml")

    assert checked.exit_code == 2
    assert "/no/migscaler.yaml: error: (file): can't be read" in checked.stdout
