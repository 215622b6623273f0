"""Commands sent to a running daemon over its Unix socket."""

import json
import socket
from pathlib import Path

import httpx

from migscaler.errors import CommandRefused, DaemonSilent, NotFound, ParseError
from migscaler.web.ports import Actor
from migscaler.web.protocol import peer_of
from migscaler.web.unix_path import short_path

# A plan of several GPUs may run while the caller waits; the server gives up at 120 s itself.
_ANSWER_SECONDS = 130.0
_CONNECT_SECONDS = 3.0
_FORBIDDEN = 403
_JSON = {"content-type": "application/json"}
# Commands that only look, and the views of the API that say the same without naming anybody.
_SHOWN_TO_ALL = {
    "status": ("status",),
    "explain": ("explain", "status"),
    "demand": ("demand",),
    "plan": ("plan", "status"),
}


class RemoteCommands:
    """The command set of a daemon, as the account that runs this process."""

    def __init__(self, path: Path) -> None:
        """Take the socket's path; nothing is sent yet."""
        self._path = path
        timeout = httpx.Timeout(_ANSWER_SECONDS, connect=_CONNECT_SECONDS)
        self._client = httpx.Client(
            transport=httpx.HTTPTransport(uds=short_path(path)),
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

        An account that may not command is given what the API shows to everybody, if it does.

        Raises:
            DaemonSilent: nobody answers there.
            NotFound, ParseError, CommandRefused: as the daemon answered.
        """
        answer = self._asked("POST", f"/api/v1/commands/{name}", arguments)
        if answer.status_code == _FORBIDDEN and name in _SHOWN_TO_ALL:
            views = [self._asked("GET", f"/api/v1/{view}") for view in _SHOWN_TO_ALL[name]]
            return _as_command(name, [_body_of(view) for view in views])
        return _body_of(answer)

    def _asked(
        self, method: str, path: str, arguments: dict[str, object] | None = None
    ) -> httpx.Response:
        """Send one request and return its answer, whatever that says."""
        try:
            # In ASCII: half a character (os.fsdecode) gets to the daemon, which refuses it.
            body = None if arguments is None else json.dumps(arguments)
            return self._client.request(method, path, content=body, headers=_JSON)
        except httpx.HTTPError as error:
            raise DaemonSilent(f"no daemon answers at {self._path}: {error}") from error

    def check(self) -> None:
        """Ask for a sign of life.

        Raises:
            DaemonSilent: nobody answers there.
        """
        try:
            self._client.get("/-/healthy")
        except httpx.HTTPError as error:
            raise DaemonSilent(f"no daemon answers at {self._path}: {error}") from error

    def close(self) -> None:
        """Close the connection."""
        self._client.close()


def connect(path: Path) -> RemoteCommands | None:
    """Return the commands of the daemon that listens on this socket, None if nobody does.

    Raises:
        CommandRefused: a daemon is there, but this account may not use its socket.
    """
    if not _is_listening(path):
        return None
    commands = RemoteCommands(path)
    try:
        commands.check()
    except DaemonSilent:
        commands.close()
        return None
    return commands


def listener_at(path: Path) -> int | None:
    """Return the process that listens on a socket, None where none answers this account."""
    with socket.socket(socket.AF_UNIX) as probe:
        probe.settimeout(_CONNECT_SECONDS)
        try:
            probe.connect(short_path(path))
        except OSError:
            return None
        peer = peer_of(probe)
    return None if peer is None else peer[1]


def _is_listening(path: Path) -> bool:
    """Say whether somebody listens; httpcore leaves its socket open where a connection fails.

    Raises:
        CommandRefused: this account may not connect.
    """
    with socket.socket(socket.AF_UNIX) as probe:
        probe.settimeout(_CONNECT_SECONDS)
        try:
            probe.connect(short_path(path))
        except PermissionError as error:
            raise CommandRefused(
                f"{path} belongs to the daemon; run as root or its user"
            ) from error
        except OSError:
            return False
    return True


def _body_of(answer: httpx.Response) -> dict[str, object]:
    """Return the values of an answer.

    Raises:
        NotFound, ParseError, CommandRefused: the answer is an error.
    """
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


def _as_command(name: str, views: list[dict[str, object]]) -> dict[str, object]:
    """Return what the API shows to everybody as the command of that name answers it.

    Raises:
        CommandRefused: the GPUs were never read, so that there is nothing to say of them.
    """
    if len(views) == 1:
        return views[0]
    shown, status = views
    problem = status.get("snapshot_problem")
    if problem is not None and status.get("snapshot_at") is None:
        raise CommandRefused(f"{problem}; see `migscaler doctor`")
    if name != "plan":
        return {**shown, "snapshot_problem": problem}
    decision, wanted = status.get("decision"), shown.get("gpu_plans")
    return {
        "sentence": decision.get("sentence") if isinstance(decision, dict) else None,
        "wanted": [_with_steps(one) for one in wanted] if isinstance(wanted, list) else [],
        **{key: status.get(key) for key in ("rules", "gates", "snapshot_problem")},
    }


def _with_steps(gpu_plan: dict[str, object]) -> dict[str, object]:
    """Return a GPU plan whose steps, `destroy 1g.5gb@0`, are values."""
    steps = gpu_plan.get("steps")
    words = [str(step).partition(" ") for step in steps] if isinstance(steps, list) else []
    return {**gpu_plan, "steps": [{"action": action, "spec": spec} for action, _, spec in words]}


def _decoded(answer: httpx.Response) -> dict[str, object]:
    """Return the JSON object of an answer, empty if it has none."""
    try:
        body = answer.json()
    except ValueError:
        return {}
    return body if isinstance(body, dict) else {}
