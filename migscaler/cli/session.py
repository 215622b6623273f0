"""Finds who answers a command: the running daemon, or without one this process on the hardware."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import click

from migscaler.cli.answers import Answer
from migscaler.errors import CommandRefused


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """What the command line says about the node; None means the usual place."""

    socket: Path | None = None
    config: Path | None = None
    state_dir: Path | None = None


class Node(Protocol):
    """Whoever answers commands."""

    def execute(self, name: str, arguments: Answer) -> Answer:
        """Carry out one command.

        Raises:
            CommandRefused: it can't be done now.
            NotFound: what it names is not there.
            ParseError: an argument can't be read.
        """


Opener = Callable[[Options, bool], AbstractContextManager[Node]]
"""Opens the node; the flag says that only a running daemon will do."""


@contextmanager
def open_node(options: Options, daemon_only: bool) -> Iterator[Node]:  # an Opener
    """Give the daemon if one answers on its socket, else this process on the hardware.

    A socket that was named means its daemon and no other: a pause kept for another state would be a
    brake that does not hold.

    Raises:
        CommandRefused: a daemon is needed, or was named, and does not answer.
    """
    from migscaler.cli.local import daemon_at, in_process

    found = daemon_at(options)
    if found is not None:
        yield found
        return
    if options.socket is not None:
        raise CommandRefused(
            f"no daemon answers at {options.socket}; start it, or leave out --socket and"
            " MIGSCALER_SOCKET to do without one"
        )
    if daemon_only:
        raise CommandRefused("no daemon answers here; start one with `migscaler run`")
    with in_process(options) as node:
        yield node


@dataclass(frozen=True, slots=True)
class Session:
    """The options of this call, and the way to the node (tests pass their own)."""

    options: Options = Options()
    opener: Opener = open_node

    def node(self, *, daemon_only: bool = False) -> AbstractContextManager[Node]:
        """Open the node."""
        return self.opener(self.options, daemon_only)

    def ask(
        self, name: str, arguments: Answer | None = None, *, daemon_only: bool = False
    ) -> Answer:
        """Carry out one command on the node and return its answer."""
        with self.node(daemon_only=daemon_only) as node:
            return node.execute(name, arguments or {})


pass_session = click.make_pass_decorator(Session)
"""Gives a command its Session."""
