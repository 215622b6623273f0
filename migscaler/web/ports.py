"""What the HTTP interface needs from the daemon, as the daemon's wiring gives it."""

import os
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from migscaler.web.protection import Protection
from migscaler.web.refusals import Refusals


@dataclass(frozen=True, slots=True, kw_only=True)
class Actor:
    """Who asks: `name` for records (`uid 1000`, `token`), and what the Unix socket says of it.

    `trusted`: root or the daemon's own account over the Unix socket, or whoever proved over TCP to
    be somebody (a token, a user, a client certificate); such a caller is shown who holds what.
    `writes`: may also give every command.
    """

    name: str
    trusted: bool
    writes: bool = False
    uid: int | None = None
    pid: int | None = None


class Commands(Protocol):
    """Commands by name, with JSON values in and out."""

    def execute(self, name: str, arguments: dict[str, object], actor: Actor) -> dict[str, object]:
        """Carry out one command; called from several threads.

        Raises:
            NotFound: no such command or object.
            ParseError: an argument can't be read.
            CommandRefused: not possible in the present state.
        """


class RenderedBody(Protocol):
    """A rendered exposition, ready to send; `encoding` is `gzip` or None."""

    @property
    def body(self) -> bytes:
        """Return the bytes."""

    @property
    def content_type(self) -> str:
        """Return the media type."""

    @property
    def encoding(self) -> str | None:
        """Return the content encoding."""


Render = Callable[[str, str], RenderedBody]
"""Renders the exposition for an Accept and an Accept-Encoding header; quick, called in the loop."""


def _nothing_wrong() -> str | None:
    return None


@dataclass(frozen=True, slots=True, kw_only=True)
class WebOptions:
    """Limits and rights of the HTTP interface.

    `token_file` holds the tokens of those who may write, `read_token_file` of those who may read
    (with it, nobody else may but by a proof of another kind). Both are read at each request, so
    that a token can be replaced without a restart; a file that can't be read or is empty lets
    nobody in. `write_names`: names of client certificates that may write. `protection` is what the
    web configuration file asks for at the moment. `health` returns what is wrong with the daemon's
    loops, `ready` what is not done yet at the start, both None if nothing. `refusals` counts who is
    turned away for being too much. Of
    `commands_at_once`, `commands_kept` are for those who may give every command. `command_seconds`
    bounds how long a caller waits for a command; the command itself goes on.
    """

    writes_over_tcp: bool = False
    token_file: Path | None = None
    read_token_file: Path | None = None
    write_names: frozenset[str] = frozenset()
    protection: Callable[[], Protection] = Protection
    daemon_uid: int = field(default_factory=os.geteuid)
    health: Callable[[], str | None] = _nothing_wrong
    ready: Callable[[], str | None] = _nothing_wrong
    refusals: Refusals = field(default_factory=Refusals)
    body_bytes: int = 65_536
    body_seconds: float = 10.0
    commands_at_once: int = 16
    commands_kept: int = 4
    command_seconds: float = 120.0
