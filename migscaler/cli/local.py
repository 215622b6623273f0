"""The two ways to a node: the daemon's socket, and this process on the hardware."""

import logging
import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from migscaler.app.accounts import account_name
from migscaler.cli.answers import Answer
from migscaler.cli.session import Node, Options
from migscaler.errors import CommandRefused
from migscaler.web.ports import Actor, Commands
from migscaler.web.words import unread_words

if TYPE_CHECKING:
    from migscaler.app.local import LocalOptions
    from migscaler.app.runtime import Runtime

# The systemd unit's socket, `SERVICE_SOCKET` of app.config.settings, without what that imports.
_SERVICE_SOCKET = Path("/run/migscaler/migscaler.sock")
_SYSTEM_STATE = Path("/var/lib/migscaler")
# Commands that say nothing, or nothing true, while the GPUs can't be read.
_NEED_HARDWARE = frozenset(
    {"status", "snapshot", "plan", "explain", "apply", "orphans", "remove_orphan", "mig_mode"}
    | {"hold"}
)
# Commands whose whole effect is what the state keeps, for the daemon that starts on it.
_KEPT = frozenset(
    {"hold", "release", "pause", "resume", "breaker_reset"}
    | {"demand_push", "demand_override", "demand_clear"}
)
# Commands that tell what the state keeps, and nothing else.
_TELL_KEPT = frozenset({"holds", "leases", "history", "decision"})
_ONLY_LOOK = frozenset(
    {"status", "snapshot", "plan", "explain", "history", "decision", "source_test"}
    | {"demand", "holds", "leases", "orphans"}
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
    """Give the node to commands of this process, which reads the hardware once."""
    from migscaler.app.local import LocalOptions
    from migscaler.cli.simulated import hardware_of

    local = LocalOptions(
        config=options.config,
        state_dir=options.state_dir,
        hardware=hardware_of(os.environ),
    )
    with _without_warnings(), ExitStack() as opened:
        yield WithoutDaemon(local, opened)


@contextmanager
def _without_warnings() -> Iterator[None]:
    """Keep the daemon's log lines from standard error: the command says itself what is the case.

    Errors, which nobody expects, stay.
    """
    logger = logging.getLogger("migscaler")
    before = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(before)


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

    def __init__(self, runtime: "Runtime", directory: Callable[[], Path]) -> None:
        """Take the node as opened for this command, and the way to its state directory."""
        super().__init__(runtime.commands)
        self._runtime = runtime
        self._directory = directory

    def execute(self, name: str, arguments: Answer) -> Answer:
        """Carry out one command.

        What is only kept names where: another daemon may have another state.

        Raises:
            CommandRefused: also where the GPUs can't be read, what is to be in force afterwards
                can't be kept, or what is kept can't be read; the message says why.
        """
        status = self._runtime.loop.status()
        if name in _NEED_HARDWARE and status.snapshot is None:
            raise CommandRefused(f"{unread_words(status)}; see `migscaler doctor`")
        in_memory = status.config.state_problem
        if name in _TELL_KEPT and in_memory is not None:
            raise CommandRefused(f"what is kept can't be read: {in_memory}")
        if name not in _KEPT:
            return super().execute(name, arguments)
        if in_memory is not None:
            raise CommandRefused(f"nothing can be kept, so nothing is in force: {in_memory}")
        return {**super().execute(name, arguments), "kept_in": str(self._directory())}


class WithoutDaemon:
    """Opens the node at the first command; what only looks leaves no state where none was."""

    def __init__(self, local: "LocalOptions", opened: ExitStack) -> None:
        """Take where the node lies, and what closes it in the end."""
        self._local = local
        self._opened = opened
        self._node: OnHardware | None = None
        self._keeps = False

    def execute(self, name: str, arguments: Answer) -> Answer:
        """Carry out one command.

        Raises:
            NodeLocked: a daemon or another command holds the node.
            CommandRefused: as `OnHardware.execute`.
        """
        from migscaler.app.local import has_state, local_directory, open_local

        if self._node is None or not (self._keeps or name in _ONLY_LOOK):
            self._opened.close()
            self._keeps = name not in _ONLY_LOOK or has_state(self._local)
            runtime = self._opened.enter_context(open_local(self._local, keeps=self._keeps))
            self._node = OnHardware(runtime, lambda: local_directory(self._local))
        return self._node.execute(name, arguments)
