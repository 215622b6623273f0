"""`migscaler run`: the daemon of this node."""

import os
import sys
from pathlib import Path

import click

from migscaler.cli.nvml_worker import nvml_socket_option
from migscaler.cli.output import leave, note
from migscaler.cli.session import Session, pass_session


@click.command()
@click.option(
    "--listen", help="Address and port of page and metrics, instead of those in the configuration."
)
@nvml_socket_option
@pass_session
def run(session: Session, listen: str | None, nvml_socket: Path | None) -> None:
    """Run the daemon until SIGTERM or Ctrl-C; SIGHUP reloads the configuration.

    Without a configuration it measures and exports the GPUs it finds, and changes nothing.
    """
    from migscaler.app.memory import put_off_collecting

    put_off_collecting()  # before the daemon's modules are loaded
    from migscaler.app.daemon import DaemonOptions, run_daemon
    from migscaler.cli.simulated import hardware_of

    options = session.options
    leave(
        run_daemon(
            DaemonOptions(
                config=options.config,
                state_dir=options.state_dir,
                listen=listen,
                on_ready=note,
                hardware=hardware_of(os.environ),
                nvml_socket=nvml_socket,
                attended=sys.stderr.isatty(),
            )
        )
    )
