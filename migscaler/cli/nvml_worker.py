"""`migscaler nvml-worker`: the privileged half, for a daemon that runs without privileges."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import click

from migscaler.cli.output import leave

if TYPE_CHECKING:
    from migscaler.app.nvml_worker import Served

Function = TypeVar("Function", bound=Callable[..., object])

WORKER_SOCKET = Path("/run/migscaler-nvml/worker.sock")
"""Where the unit's worker listens."""


def nvml_socket_option(command: Function) -> Function:
    """Add `--nvml-socket`, where the worker of another account listens."""
    return click.option(
        "--nvml-socket",
        type=click.Path(path_type=Path, dir_okay=False),
        help="Socket of `migscaler nvml-worker`. [default: none; NVML runs in a child process]",
    )(command)


def serving_options(command: Function) -> Function:
    """Add `--listen` and `--user`, for whom and where is served."""
    for option in (
        click.option(
            "--user", required=True, help="Account of the daemon, name or number; nobody else."
        ),
        click.option(
            "--listen",
            type=click.Path(path_type=Path, dir_okay=False),
            default=WORKER_SOCKET,
            show_default=True,
            help="Unix socket to listen at; made for our uid and gid.",
        ),
    ):
        command = option(command)
    return command


def serve_until_told(served: "Served", listen: Path, user: str) -> None:
    """Listen until SIGTERM and leave."""
    from migscaler.app.config.settings import LogSettings
    from migscaler.app.logs import set_up_logging
    from migscaler.app.nvml_server import NvmlServer, account

    set_up_logging(LogSettings(level="info", format="logfmt"))
    account(user)
    leave(NvmlServer(served, listen, user).run())


@click.command("nvml-worker")
@serving_options
def nvml_worker(listen: Path, user: str) -> None:
    """Make NVML calls for a daemon that runs as USER without privileges, until SIGTERM.

    It takes a closed set of commands, destroys nothing that a process is on, and logs each change.
    """
    from migscaler.app.clock import RealClock, read_boot_id
    from migscaler.app.device_nodes import make_device_nodes
    from migscaler.app.nvml_worker import Served
    from migscaler.cli.simulated import hardware_of

    served = Served(
        clock=RealClock(),
        hardware=hardware_of(os.environ) or read_boot_id(),
        make_device_nodes=make_device_nodes,
    )
    serve_until_told(served, listen, user)
