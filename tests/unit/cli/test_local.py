"""Where the command line looks for the daemon, and what it makes of places closed to it."""

from itertools import islice
from pathlib import Path

import pytest

from migscaler.app.config.settings import SERVICE_SOCKET
from migscaler.cli.local import first_answer, sockets_of
from migscaler.cli.session import Options
from migscaler.errors import CommandRefused
from migscaler.web.ports import Actor

STATE = Path("/var/lib/migscaler/migscaler.sock")


class Answering:
    """A daemon that somebody reached."""

    def execute(self, name: str, _arguments: dict[str, object], _actor: Actor) -> dict[str, object]:
        return {"done": name}


def test_service_socket_is_tried_first_then_the_state_directory() -> None:
    assert tuple(islice(sockets_of(Options()), 2)) == (SERVICE_SOCKET, STATE)


def test_state_directory_that_was_given_is_tried_alone(tmp_path: Path) -> None:
    options = Options(config=tmp_path / "none.yaml", state_dir=tmp_path)

    assert tuple(sockets_of(options)) == (tmp_path / "migscaler.sock",)


def test_place_that_is_closed_to_the_account_does_not_hide_the_next_one() -> None:
    """The unit's state directory is 0700: `lease` failed for everybody but root (2026-11-29)."""
    daemon = Answering()

    def connect(place: Path) -> Answering | None:
        if place == STATE:
            raise CommandRefused("closed")
        return daemon if place == SERVICE_SOCKET else None

    assert first_answer((STATE, SERVICE_SOCKET), connect) is daemon


def test_where_nothing_answers_a_closed_place_is_told() -> None:
    def connect(place: Path) -> None:
        if place == STATE:
            raise CommandRefused(f"{place} belongs to the daemon")

    with pytest.raises(CommandRefused, match="belongs to the daemon"):
        first_answer((STATE, SERVICE_SOCKET), connect)
    assert first_answer((SERVICE_SOCKET,), connect) is None
