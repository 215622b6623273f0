"""The two ways to a node: the daemon's socket, and this process on the hardware."""

import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from migscaler.app.accounts import account_name
from migscaler.cli.answers import Answer
from migscaler.cli.session import Node, Options
from migscaler.errors import CommandRefused
from migscaler.web.ports import Actor, Commands

if TYPE_CHECKING:
    from migscaler.app.runtime import Runtime

# The systemd unit's socket, `SERVICE_SOCKET` of app.config.settings, without what that imports.
_SERVICE_SOCKET = Path("/run/migscaler/migscaler.sock")
_SYSTEM_STATE = Path("/var/lib/migscaler")
# Commands that say nothing, or nothing true, while the GPUs can't be read.
_NEED_HARDWARE = frozenset(
    {"status", "snapshot", "plan", "explain", "apply", "orphans", "remove_orphan", "mig_mode"}
    | {"hold"}
)


def daemon_at(options: Options) -> Node | None:
    """Return the daemon that answers on the node's socket, None if there is none.

    Raises:
        CommandRefused: a daemon is there, but this account may not use its socket.
    """
    from migscaler.app.client import connect

    found = first_answer(sockets_of(options), connect)
    return None if found is None else AsAccount(found)


def first_answer(
    places: Iterable[Path], connect: Callable[[Path], Commands | None]
) -> Commands | None:
    """Return the first daemon that answers, None if none does.

    A place that is closed to this account says nothing of the next one: the state directory is its
    daemon's alone, and the socket for everybody lies elsewhere.

    Raises:
        CommandRefused: none answered, and a place was closed.
    """
    closed: CommandRefused | None = None
    for place in places:
        try:
            found = connect(place)
        except CommandRefused as refusal:
            closed = closed or refusal
            continue
        if found is not None:
            return found
    if closed is not None:
        raise closed
    return None


def sockets_of(options: Options) -> Iterator[Path]:
    """Yield where the daemon may listen, likeliest first, each once."""
    if options.socket is not None:
        yield options.socket
        return
    # Reading the configuration, which may name another place, costs half a second.
    tried: list[Path] = []
    if options.state_dir is not None:
        tried = [options.state_dir / "migscaler.sock"]
    elif options.config is None:
        tried = [_SERVICE_SOCKET, _SYSTEM_STATE / "migscaler.sock"]
    yield from tried
    from migscaler.app.local import usual_sockets

    for usual in usual_sockets(options.config, options.state_dir):
        if usual not in tried:
            yield usual


@contextmanager
def in_process(options: Options) -> Iterator[Node]:
    """Give the node to commands of this process, which reads the hardware once.

    Raises:
        NodeLocked: a daemon or another command holds the node.
    """
    from migscaler.app.local import LocalOptions, open_local
    from migscaler.cli.simulated import hardware_of

    local = LocalOptions(
        config=options.config,
        state_dir=options.state_dir,
        hardware=hardware_of(os.environ),
    )
    with open_local(local) as runtime:
        yield OnHardware(runtime)


class AsAccount:
    """Gives commands in the name of the account that runs this process."""

    def __init__(self, commands: Commands) -> None:
        """Take who carries them out."""
        self._commands = commands
        self._actor = Actor(
            name=account_name(os.geteuid()),
            trusted=True,
            writes=True,
            uid=os.geteuid(),
            pid=os.getpid(),
        )

    def execute(self, name: str, arguments: Answer) -> Answer:
        """Carry out one command."""
        return self._commands.execute(name, arguments, self._actor)


class OnHardware(AsAccount):
    """The same without a daemon."""

    def __init__(self, runtime: "Runtime") -> None:
        """Take the node as opened for this command."""
        super().__init__(runtime.commands)
        self._runtime = runtime

    def execute(self, name: str, arguments: Answer) -> Answer:
        """Carry out one command.

        Raises:
            CommandRefused: also where the GPUs can't be read; the message says why.
        """
        status = self._runtime.loop.status()
        if name in _NEED_HARDWARE and status.snapshot is None:
            whys = [one.problem for one in status.collectors if one.name == "nvml" and one.problem]
            why = whys[0] if whys else "no answer"
            raise CommandRefused(f"the GPUs can't be read: {why} (see `migscaler doctor`)")
        return super().execute(name, arguments)
