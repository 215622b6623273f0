"""The `migscaler` command: finds the subcommand, and turns every expected failure into one line."""

import difflib
import importlib
import io
import keyword
import os
import sys
from pathlib import Path
from types import TracebackType

import click

from migscaler import __version__
from migscaler.cli.output import FAILED, USAGE, Failed, note
from migscaler.cli.session import Options, Session
from migscaler.errors import ConfigError, MigscalerError, ParseError

# Command -> module and one line of help. Written out, so that `--help` and each command import only
# their own module.
_COMMANDS: dict[str, tuple[str, str]] = {
    "run": ("run", "Run the daemon on this node."),
    "nvml-worker": ("nvml_worker", "Make the NVML calls for a daemon without privileges."),
    "demo": ("demo", "Watch it at work on a simulated node, without GPU, root or network."),
    "status": ("status", "Show GPUs, instances, demand and the last decision."),
    "layouts": ("layouts", "Draw the layouts of a GPU model, or of the node's GPUs."),
    "plan": ("plan", "Show what would be changed now; reproduce a recorded decision."),
    "explain": ("plan", "Say in words why something is, or is not, being done."),
    "apply": ("apply", "Carry out the plan now, or set one GPU's layout."),
    "history": ("history", "List decisions and what came of them, or print one whole."),
    "lease": ("lease", "Run a command on a free instance of a size; give it back after."),
    "hold": ("holds", "Keep a GPU, or one instance of it, as it is."),
    "release": ("holds", "End a hold."),
    "holds": ("holds", "List holds and leases."),
    "pause": ("pause", "Stop all changes; measuring goes on."),
    "resume": ("pause", "Allow changes again."),
    "breaker": ("pause", "Close a GPU's breaker after repeated failures."),
    "demand": ("demand", "Push, override, show or clear demand."),
    "source": ("source", "Ask a demand source and show its answer."),
    "doctor": ("doctor", "Say what is missing on this node, and the way out."),
    "mig-mode": ("mig_mode", "Switch MIG mode of GPUs on or off, one at a time."),
    "config": ("config", "Check and show the configuration."),
    "export": ("mig_export", "Write the node's layout for mig-parted."),
    "import": ("mig_import", "Show, or make, what a file of mig-parted's wants."),
    "sim": ("sim", "Use the simulated NVML library: run a command on it, start jobs."),
}


class _Commands(click.Group):
    """A group that imports a command when it is called."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the commands in the order in which people meet them."""
        return list(_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import the module of a command."""
        known = _COMMANDS.get(cmd_name)
        if known is None:
            return None
        module = importlib.import_module(f"migscaler.cli.{known[0]}")
        name = cmd_name.replace("-", "_")
        command = getattr(module, f"{name}_" if keyword.iskeyword(name) else name)
        assert isinstance(command, click.Command)  # noqa: S101  # the table above is ours
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Find the command; for a word that is none, name the one it looks like."""
        try:
            return super().resolve_command(ctx, args)
        except click.UsageError as error:
            near = difflib.get_close_matches(args[0], _COMMANDS, n=1)
            if not near:
                raise
            raise click.UsageError(f"{error.message} Did you mean {near[0]!r}?", ctx) from error

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """List the commands without importing them."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, line) for name, (_, line) in _COMMANDS.items()])

    def invoke(self, ctx: click.Context) -> object:
        """Run the command; every expected failure becomes one line that says what to do."""
        try:
            return super().invoke(ctx)
        except click.NoSuchOption as error:
            if error.option_name not in {name for own in self.params for name in own.opts}:
                raise
            raise click.UsageError(
                f"{error.option_name} goes before the command: migscaler {error.option_name} ...",
                error.ctx,
            ) from error
        except MigscalerError as error:
            if ctx.params.get("debug"):
                raise
            code = USAGE if isinstance(error, ParseError) else FAILED
            raise Failed(in_one_message(error), code) from error


def in_one_message(error: MigscalerError) -> str:
    """Return what a person should read of an error; a configuration's findings one per line."""
    if not isinstance(error, ConfigError):
        return str(error) or type(error).__name__
    found = [f"{error.source} can't be used:"]
    found += [f"  {finding.found}; {finding.remedy}" for finding in error.findings]
    return "\n".join(found)


@click.group(
    cls=_Commands,
    context_settings={
        "auto_envvar_prefix": "MIGSCALER",
        "help_option_names": ["-h", "--help"],
        "max_content_width": 100,
    },
)
@click.option(
    "--socket",
    # Whether this account may use it, connecting says; nothing is read there.
    type=click.Path(path_type=Path, readable=False),
    envvar="MIGSCALER_SOCKET",
    help="Unix socket of the daemon. [default: in the state directory]",
)
@click.option(
    "--config",
    type=click.Path(path_type=Path, dir_okay=False),
    envvar="MIGSCALER_CONFIG",
    help="Configuration file. [default: the documented places]",
)
@click.option(
    "--state-dir",
    type=click.Path(path_type=Path, file_okay=False),
    envvar="MIGSCALER_STATE_DIR",
    help="Directory of the state file and the socket.",
)
@click.option("--debug", is_flag=True, envvar="MIGSCALER_DEBUG", help="Show tracebacks.")
@click.version_option(__version__, "-V", "--version", message="migscaler %(version)s")
@click.pass_context
def cli(
    ctx: click.Context,
    socket: Path | None,
    config: Path | None,
    state_dir: Path | None,
    debug: bool,  # click passes it by name
) -> None:
    """Export and reshape the MIG instances of this node's NVIDIA GPUs.

    Exit codes: 0 fine, 1 failed, 2 wrong usage, 3 something differs or would be changed. Every
    option can be set in the environment as MIGSCALER_COMMAND_OPTION, e.g. MIGSCALER_LEASE_TTL.
    """
    if debug:
        sys.excepthook = sys.__excepthook__
    if ctx.obj is None:
        ctx.obj = Session(Options(socket=socket, config=config, state_dir=state_dir))


def _one_line(
    kind: type[BaseException], error: BaseException, _trace: TracebackType | None
) -> None:
    """Print an unexpected error without its traceback."""
    note(f"migscaler: unexpected {kind.__name__}: {error}; run again with --debug to see where")


def main() -> None:
    """Run the command line and exit."""
    sys.excepthook = _one_line
    _open_output()
    cli(prog_name="migscaler")


def _open_output() -> None:
    """Let every text be printed: also without a place for it (`>&-`), or a letter in its encoding.

    A command that was carried out must not end as a failure for want of a letter.
    """
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))  # noqa: SIM115 - until the end
        elif isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


if __name__ == "__main__":
    main()
