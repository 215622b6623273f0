"""Speaks to the running daemon over its Unix socket, with the standard library alone.

A lease has to start in milliseconds; an HTTP client library takes ten times as long to import.
"""

import http.client
import json
import socket
from pathlib import Path

from migscaler.cli.answers import Answer, part, text
from migscaler.errors import CommandRefused, MigscalerError, NotFound, ParseError

# Carrying out a plan on 8 GPUs takes seconds to minutes; the daemon bounds its answer itself.
_ANSWER_SECONDS = 150.0
_PROBE_SECONDS = 5.0
_ERRORS: dict[str, type[MigscalerError]] = {"NotFound": NotFound, "ParseError": ParseError}


class DaemonClient:
    """Gives commands to the daemon of a socket."""

    def __init__(self, path: Path) -> None:
        """Take the socket's path; a connection is made per command."""
        self._path = path

    def answers(self) -> bool:
        """Say whether a daemon listens on the socket."""
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
                probe.settimeout(_PROBE_SECONDS)
                probe.connect(str(self._path))
        except OSError:
            return False
        return True

    def execute(self, name: str, arguments: Answer) -> Answer:
        """Carry out one command.

        Raises:
            CommandRefused: it can't be done now, we may not ask, or the daemon went away.
            NotFound: what it names is not there.
            ParseError: an argument can't be read.
        """
        connection = _UnixConnection(self._path)
        body = json.dumps(arguments)
        try:
            connection.request(
                "POST",
                f"/api/v1/commands/{name}",
                body,
                {"Content-Type": "application/json", "Host": "localhost"},
            )
            response = connection.getresponse()
            answer = _decoded(response.read())
        except (OSError, http.client.HTTPException) as error:
            raise CommandRefused(f"the daemon on {self._path} does not answer: {error}") from error
        finally:
            connection.close()
        if response.status == http.HTTPStatus.OK:
            return answer
        problem = part(answer, "error")
        kind = _ERRORS.get(text(problem, "kind"), CommandRefused)
        raise kind(text(problem, "message", f"the daemon answered {response.status}"))


class _UnixConnection(http.client.HTTPConnection):
    """An HTTP connection over a Unix socket."""

    def __init__(self, path: Path) -> None:
        super().__init__("localhost", timeout=_ANSWER_SECONDS)
        self._path = path

    def connect(self) -> None:
        """Connect to the socket."""
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(str(self._path))


def _decoded(body: bytes) -> Answer:
    """Read the answer; what is not a JSON object is an empty one."""
    try:
        value = json.loads(body or b"{}")
    except ValueError:
        return {}
    return value if isinstance(value, dict) else {}
