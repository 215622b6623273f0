"""A fake node that remembers what it was asked, and a way to call commands on it."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

import pytest
from click.testing import CliRunner, Result

from migscaler.cli.main import cli
from migscaler.cli.session import Node, Options, Session
from migscaler.errors import CommandRefused

Json = dict[str, object]
Reply = Json | Exception | Callable[[Json], Json]


class FakeNode:
    """Answers commands from a table; `asked` are the commands in order."""

    def __init__(self, replies: Mapping[str, Reply]) -> None:
        self.replies = dict(replies)
        self.asked: list[tuple[str, Json]] = []

    def execute(self, name: str, arguments: Json) -> Json:
        self.asked.append((name, arguments))
        reply = self.replies[name]
        if isinstance(reply, Exception):
            raise reply
        return reply(arguments) if callable(reply) else reply


class Terminal:
    """Calls the command line with a fake node behind it."""

    def __init__(self) -> None:
        self.node = FakeNode({})
        self.has_daemon = True

    def run(
        self, *words: str, stdin: str | None = None, environ: Mapping[str, str] | None = None
    ) -> Result:
        return CliRunner(env={"COLUMNS": None, **(environ or {})}).invoke(
            cli,
            list(words),
            input=stdin,
            obj=Session(Options(), self._open),
            auto_envvar_prefix="MIGSCALER",
            prog_name="migscaler",
        )

    def replies(self, **replies: Reply) -> None:
        self.node = FakeNode(replies)

    @contextmanager
    def _open(self, _options: Options, daemon_only: bool) -> Iterator[Node]:
        if daemon_only and not self.has_daemon:
            raise CommandRefused("no daemon answers here; start one with `migscaler run`")
        yield self.node


@pytest.fixture
def terminal() -> Terminal:
    return Terminal()
