"""What the HTTP interface needs from the daemon, as the daemon's wiring gives it."""

import os
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol


@dataclass(frozen=True, slots=True, kw_only=True)
class Actor:
    """Who asks: `name` for records (`uid 1000`, `token`), and what the Unix socket says of it.

    `trusted`: root or the daemon's own account over the Unix socket, or the bearer of the token.
    Only such a caller may give commands and is shown who holds what.
    """

    name: str
    trusted: bool
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

    `token_file` is read at each request, so that a token can be replaced without a restart; a file
    that can't be read or is empty lets nobody in. `health` returns what is wrong with the daemon's
    loops, `ready` what is not done yet at the start, both None if nothing. `command_seconds` bounds
    how long a caller waits for a command; the command itself goes on.
    """

    writes_over_tcp: bool = False
    token_file: Path | None = None
    daemon_uid: int = field(default_factory=os.geteuid)
    health: Callable[[], str | None] = _nothing_wrong
    ready: Callable[[], str | None] = _nothing_wrong
    body_bytes: int = 65_536
    body_seconds: float = 10.0
    commands_at_once: int = 16
    command_seconds: float = 120.0
