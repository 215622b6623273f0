"""Commands over HTTP: who may give them, what their body must be, how their errors read."""

import asyncio
import json
import logging
from collections.abc import Callable
from functools import partial

from starlette.concurrency import run_in_threadpool
from starlette.requests import ClientDisconnect, Request

from migscaler.errors import CommandRefused, MigscalerError, NotFound, ParseError
from migscaler.model.stats import Refused
from migscaler.web.access import may_command
from migscaler.web.answers import JsonAnswer
from migscaler.web.guard import actor_of
from migscaler.web.ports import Actor, Commands, WebOptions

logger = logging.getLogger(__name__)


class CommandRoute:
    """Serves `POST /api/v1/commands/{name}`; at most `commands_at_once` run at a time."""

    def __init__(self, commands: Commands | None, options: WebOptions) -> None:
        self._commands = commands
        self._options = options
        self._running = 0

    async def serve(self, request: Request) -> JsonAnswer:
        """Check the caller and the body, carry out the command, answer with its values."""
        actor = actor_of(request)
        refusal = self._refusal(request, actor)
        if refusal is not None:
            return refusal
        try:
            arguments = await asyncio.wait_for(self._arguments(request), self._options.body_seconds)
        except TimeoutError:
            return problem(408, "Timeout", "the body did not arrive in time")
        except ClientDisconnect:
            return problem(400, "Disconnected", "the caller went away")
        except ParseError as error:
            return problem(400, "ParseError", str(error))
        return await self._carry_out(request.path_params["name"], arguments, actor)

    def _refusal(self, request: Request, actor: Actor) -> JsonAnswer | None:
        """Return the answer to a request that is not even read, None for a proper one."""
        if not may_command(actor, request.path_params["name"]):
            if actor.trusted:
                words = "commands over TCP are switched off, or this proof is for reading only"
                return problem(403, "Forbidden", words)
            if actor.uid is not None:
                words = f"only root and the daemon's account may do this, not uid {actor.uid}"
                return problem(403, "Forbidden", words)
            words = "commands need the Unix socket (root or the daemon's account) or a token"
            return problem(401, "Forbidden", words)
        content_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
        if content_type != "application/json":
            return problem(415, "UnsupportedMediaType", "send application/json")
        length = request.headers.get("content-length", "0")
        if not length.isdigit() or int(length) > self._options.body_bytes:
            return problem(413, "TooLarge", f"more than {self._options.body_bytes} bytes")
        kept = 0 if actor.writes else self._options.commands_kept
        if self._running + kept >= self._options.commands_at_once:
            self._options.refusals.add(Refused.COMMAND)
            return problem(503, "Busy", "too many commands at once; try again")
        return None

    async def _arguments(self, request: Request) -> dict[str, object]:
        """Read the body as a JSON object; an empty body is an empty object.

        Raises:
            ParseError: it is something else, or too long.
        """
        if request.url.query:
            # Who writes `?dry_run=true` must not be taken at an empty body's word.
            raise ParseError("arguments belong into the JSON body, not behind a ? in the address")
        body = bytearray()
        async for chunk in request.stream():
            body += chunk
            if len(body) > self._options.body_bytes:
                raise ParseError(f"more than {self._options.body_bytes} bytes")
        if not body:
            return {}
        try:
            arguments = json.loads(bytes(body), object_pairs_hook=_each_once)
        except (ValueError, RecursionError) as error:
            raise ParseError(f"the body can't be read: {error}") from error
        if not isinstance(arguments, dict):
            raise ParseError("arguments must be one JSON object")
        return arguments

    async def _carry_out(self, name: str, arguments: dict[str, object], actor: Actor) -> JsonAnswer:
        """Run the command in a thread; the caller's wait is bounded, the command is not cut off."""
        if self._commands is None:
            return problem(503, "Unavailable", "no commands here: the daemon only exports")
        self._running += 1
        call = asyncio.ensure_future(
            run_in_threadpool(answered, partial(self._commands.execute, name, arguments, actor))
        )
        call.add_done_callback(self._finished)
        try:
            return await asyncio.wait_for(asyncio.shield(call), self._options.command_seconds)
        except TimeoutError:
            return problem(504, "Timeout", "the command is still running")

    def _finished(self, _call: object) -> None:
        self._running -= 1


def _each_once(pairs: list[tuple[str, object]]) -> dict[str, object]:
    """Return a JSON object; of a name given twice nobody knows which one was meant."""
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError("a name is given twice in one object")
    return found


def problem(status: int, kind: str, message: str) -> JsonAnswer:
    """Return an error as JSON: its kind and a message for people."""
    headers = {401: {"www-authenticate": "Bearer"}, 503: {"retry-after": "1"}}.get(status)
    return JsonAnswer({"error": {"kind": kind, "message": message}}, status, headers)


def answered(call: Callable[[], dict[str, object]]) -> JsonAnswer:
    """Return the answer of a call, or its error as the class says: caller's, state's or ours."""
    try:
        return JsonAnswer(call())
    except NotFound as error:
        return problem(404, "NotFound", str(error))
    except ParseError as error:
        return problem(400, "ParseError", str(error))
    except CommandRefused as error:
        return problem(409, "CommandRefused", str(error))
    except MigscalerError as error:
        logger.exception("command_failed")
        return problem(500, type(error).__name__, str(error))
