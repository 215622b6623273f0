"""Commands sent to a running daemon over its Unix socket."""

from pathlib import Path

import httpx

from migscaler.errors import CommandRefused, DaemonSilent, NotFound, ParseError
from migscaler.web.ports import Actor
from migscaler.web.unix_path import short_path

# A plan of several GPUs may run while the caller waits; the server gives up at 120 s itself.
_ANSWER_SECONDS = 130.0
_CONNECT_SECONDS = 3.0


class RemoteCommands:
    """The command set of a daemon, as the account that runs this process."""

    def __init__(self, socket: Path) -> None:
        """Take the socket's path; nothing is sent yet."""
        self._socket = socket
        timeout = httpx.Timeout(_ANSWER_SECONDS, connect=_CONNECT_SECONDS)
        self._client = httpx.Client(
            transport=httpx.HTTPTransport(uds=short_path(socket)),
            base_url="http://migscaler",
            timeout=timeout,
        )

    def execute(
        self,
        name: str,
        arguments: dict[str, object],
        _actor: Actor | None = None,
    ) -> dict[str, object]:
        """Have the daemon carry out one command; who asks, it sees from the socket.

        Raises:
            DaemonSilent: nobody answers there.
            NotFound, ParseError, CommandRefused: as the daemon answered.
        """
        try:
            answer = self._client.post(f"/api/v1/commands/{name}", json=arguments)
        except httpx.HTTPError as error:
            raise DaemonSilent(f"no daemon answers at {self._socket}: {error}") from error
        body = _decoded(answer)
        if answer.is_success:
            return body
        problem = body.get("error")
        message = problem.get("message") if isinstance(problem, dict) else None
        message = str(message or f"the daemon answered {answer.status_code}")
        match answer.status_code:
            case 400:
                raise ParseError(message)
            case 404:
                raise NotFound(message)
        raise CommandRefused(message)

    def check(self) -> None:
        """Ask for a sign of life.

        Raises:
            DaemonSilent: nobody answers there.
        """
        try:
            self._client.get("/-/healthy")
        except httpx.HTTPError as error:
            raise DaemonSilent(f"no daemon answers at {self._socket}: {error}") from error

    def close(self) -> None:
        """Close the connection."""
        self._client.close()


def connect(socket: Path) -> RemoteCommands | None:
    """Return the commands of the daemon that listens on this socket, None if nobody does.

    Raises:
        CommandRefused: a daemon is there, but this account may not use its socket.
    """
    if not socket.exists():
        return None
    commands = RemoteCommands(socket)
    try:
        commands.check()
    except DaemonSilent as error:
        commands.close()
        if isinstance(error.__cause__, httpx.ConnectError) and "ermission" in str(error):
            raise CommandRefused(
                f"{socket} belongs to the daemon; run as root or its user"
            ) from error
        return None
    return commands


def _decoded(answer: httpx.Response) -> dict[str, object]:
    """Return the JSON object of an answer, empty if it has none."""
    try:
        body = answer.json()
    except ValueError:
        return {}
    return body if isinstance(body, dict) else {}
