"""The two ways to a node: the daemon's socket, and this process on the hardware."""

import os
import pwd
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from migscaler.cli.answers import Answer
from migscaler.cli.daemon_client import DaemonClient
from migscaler.cli.session import Node, Options
from migscaler.errors import CommandRefused, ConfigError
from migscaler.web.ports import Actor, Commands

_SYSTEM_SOCKET = Path("/var/lib/migscaler/migscaler.sock")


def daemon_at(options: Options) -> Node | None:
    """Return the daemon that answers on the node's socket, None if there is none."""
    for path in _sockets(options):
        client = DaemonClient(path)
        if client.answers():
            return client
    return None


def _sockets(options: Options) -> Iterator[Path]:
    """Yield where the socket may be; the configuration is read only if it is not in a usual place."""
    if options.socket is not None:
        yield options.socket
        return
    if options.state_dir is not None:
        yield options.state_dir / "migscaler.sock"
    elif options.config is None:
        yield _SYSTEM_SOCKET
    from migscaler.app.config.load import find_file, load_file
    from migscaler.app.config.settings import socket_path, state_directory

    path = find_file(options.config, os.environ)
    if path is None:
        return
    try:
        settings = load_file(path).settings
    except ConfigError:
        return
    directory = options.state_dir or state_directory(settings, os.environ, os.geteuid())
    yield socket_path(settings, directory)


@contextmanager
def in_process(options: Options) -> Iterator[Node]:
    """Give the node to commands of this process.

    Raises:
        CommandRefused: the hardware can't be read.
    """
    raise CommandRefused("no daemon answers here; start one with `migscaler run`")


class _As:
    """Gives commands in the name of the account that runs this process."""

    def __init__(self, commands: Commands) -> None:
        """Take who carries them out."""
        self._commands = commands
        self._actor = Actor(name=_account(), trusted=True, uid=os.geteuid(), pid=os.getpid())

    def execute(self, name: str, arguments: Answer) -> Answer:
        """Carry out one command."""
        return self._commands.execute(name, arguments, self._actor)


def _account() -> str:
    """Return the account's name."""
    try:
        return pwd.getpwuid(os.geteuid()).pw_name
    except KeyError:
        return f"uid {os.geteuid()}"
