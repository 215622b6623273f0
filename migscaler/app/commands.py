"""What a person or program can ask of a node, by name; one table for socket, TCP and local use."""

from migscaler.app.arguments import Arguments
from migscaler.app.commands_acting import ActingCommands
from migscaler.app.commands_holding import HoldingCommands
from migscaler.app.commands_leasing import LeasingCommands
from migscaler.app.commands_reading import ReadingCommands
from migscaler.app.node import Command, Node
from migscaler.errors import NotFound
from migscaler.web.ports import Actor

# What is to outlive the daemon, and does not where its state is in memory.
_KEPT = frozenset({"hold", "pause"})


def table(node: Node) -> dict[str, Command]:
    """Return every command of a node by its name."""
    kinds = (ReadingCommands, HoldingCommands, LeasingCommands, ActingCommands)
    return {name: one for kind in kinds for name, one in kind(node).table().items()}


class NodeCommands:
    """Carries out commands on one node; safe for several threads."""

    def __init__(self, node: Node) -> None:
        """Build the table of commands."""
        self._node = node
        self._commands = table(node)

    def names(self) -> tuple[str, ...]:
        """Return every command there is."""
        return tuple(sorted(self._commands))

    def execute(self, name: str, arguments: dict[str, object], actor: Actor) -> dict[str, object]:
        """Carry out one command and return its answer, plain JSON values.

        Raises:
            NotFound: no such command, or what it names is not there.
            ParseError: an argument is missing, unknown or can't be read; nothing was done.
            CommandRefused: not possible in the present state; nothing was changed.
        """
        command = self._commands.get(name)
        if command is None:
            raise NotFound(f"no command {name!r}; there are {', '.join(self.names())}")
        answer = command.handler(Arguments(name, arguments, command.takes), actor)
        problem = self._node.loop.parts.config.state_problem
        if name in _KEPT and problem is not None:
            return {**answer, "not_kept": problem}
        return answer
