"""Commands sent to a daemon's socket: its answers come back as the same errors."""

import socket
import threading
from pathlib import Path

import pytest

from migscaler.app.client import RemoteCommands, _as_command, connect
from migscaler.errors import CommandRefused, DaemonSilent, NotFound, ParseError
from tests.unit.web.sites import running


def test_answer_comes_back_as_it_was_given(tmp_path: Path) -> None:
    with running(None, tmp_path) as site:
        remote = connect(tmp_path / "migscaler.sock")
        assert remote is not None

        answer = remote.execute("hold", {"gpu": 0, "reason": "measuring"})

        assert answer == {"done": "hold"}
        ((name, arguments, actor),) = site.commands.asked
        assert (name, arguments) == ("hold", {"gpu": 0, "reason": "measuring"})
        assert (actor.trusted, actor.uid is not None) == (True, True)
        remote.close()


@pytest.mark.parametrize(
    ("name", "kind", "words"),
    [
        ("missing", NotFound, "no such thing"),
        ("wrong", ParseError, "count must be a number"),
        ("refused", CommandRefused, "paused by root"),
        ("broken", CommandRefused, "disk full"),
    ],
)
def test_errors_keep_their_class_and_words(
    tmp_path: Path, name: str, kind: type[Exception], words: str
) -> None:
    with running(None, tmp_path):
        remote = RemoteCommands(tmp_path / "migscaler.sock")

        with pytest.raises(kind) as problem:
            remote.execute(name, {})

        assert str(problem.value) == words
        remote.close()


@pytest.mark.parametrize("name", ["plan", "explain"])
def test_stranger_is_refused_where_nothing_was_read_and_told_of_an_old_picture(name: str) -> None:
    """Both said that nothing was decided yet, and ended as if all were well."""
    never: dict[str, object] = {
        "snapshot_problem": "the GPUs can't be read: no driver",
        "snapshot_at": None,
    }
    with pytest.raises(CommandRefused, match="no driver; see `migscaler doctor`"):
        _as_command(name, [{}, never])

    old: dict[str, object] = {
        "snapshot_problem": "not read for 40 s",
        "snapshot_at": "2026-11-29T18:00:00Z",
    }
    assert _as_command(name, [{}, old])["snapshot_problem"] == "not read for 40 s"


def test_text_that_has_no_encoding_gets_to_the_daemon_which_refuses_it(tmp_path: Path) -> None:
    """An argument that is no UTF-8 ended the command in a fault of its own."""
    with running(None, tmp_path) as site:
        remote = RemoteCommands(tmp_path / "migscaler.sock")

        remote.execute("pause", {"why": "a\udcffb"})

        assert [arguments for _, arguments, _ in site.commands.asked] == [{"why": "a\udcffb"}]
        remote.close()


def test_no_socket_means_no_daemon(tmp_path: Path) -> None:
    assert connect(tmp_path / "migscaler.sock") is None


def test_socket_that_a_dead_daemon_left_means_no_daemon(tmp_path: Path) -> None:
    path = tmp_path / "migscaler.sock"
    with socket.socket(socket.AF_UNIX) as link:
        link.bind(str(path))

    assert path.exists()
    assert connect(path) is None


def test_daemon_that_goes_away_before_it_answers_is_told_as_silent(tmp_path: Path) -> None:
    path = tmp_path / "migscaler.sock"
    with socket.socket(socket.AF_UNIX) as dying:
        dying.bind(str(path))
        dying.listen()

        def hang_up() -> None:
            link, _ = dying.accept()
            link.close()

        ending = threading.Thread(target=hang_up)
        ending.start()
        remote = RemoteCommands(path)

        with pytest.raises(DaemonSilent) as problem:
            remote.execute("status", {})

        ending.join()
        remote.close()
    assert str(problem.value).startswith(f"no daemon answers at {path}: ")
