"""Middleware that sheds what is too much and turns away whoever may not read."""

import asyncio

from starlette.requests import HTTPConnection
from starlette.responses import PlainTextResponse, Response
from starlette.types import ASGIApp, Receive, Scope, Send

from migscaler.model.bucket import Bucket
from migscaler.model.stats import Refused
from migscaler.web.access import ANONYMOUS, PROBES, Access
from migscaler.web.passwords import TooManyChecks
from migscaler.web.places import Guest
from migscaler.web.ports import Actor, WebOptions
from migscaler.web.protection import RateLimit

_CLOSE = {"connection": "close"}


class Guard:
    """ASGI middleware; behind it, `actor_of` says who asks.

    The order: what the connection and its address have left, the file's rate limit, probes, who
    it is.
    """

    def __init__(self, app: ASGIApp, options: WebOptions, access: Access) -> None:
        self._app = app
        self._options = options
        self._access = access
        self._rate: tuple[RateLimit, Bucket] | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve the request, or say why not."""
        state = scope.setdefault("state", {})
        guest: Guest | None = state.get("guest")
        if guest is None:
            await self._serve(scope, receive, send)
            return
        loop = asyncio.get_running_loop()
        if not guest.may_ask(loop.time()):
            self._options.refusals.add(Refused.REQUEST)
            refusal = _refusal(503, "too many requests from here", **_CLOSE)
            await refusal(scope, receive, send)
            return
        guest.busy = True
        try:
            await self._serve(scope, receive, send)
        finally:
            guest.finished(loop.time())

    async def _serve(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve whom the file's limits and users let in."""
        connection = HTTPConnection(scope)
        if scope["path"] in PROBES:
            scope["state"]["actor"] = ANONYMOUS
            await self._app(scope, receive, send)
            return
        refusal = None
        try:
            actor = await self._access.identify(connection)
        except TooManyChecks:
            self._options.refusals.add(Refused.PASSWORD)
            actor, refusal = ANONYMOUS, _refusal(503, "too many passwords at once")
        if refusal is None and actor.uid is None:
            refusal = self._refused(actor)
        scope["state"]["actor"] = actor
        await (refusal or self._app)(scope, receive, send)

    def _refused(self, actor: Actor) -> Response | None:
        """Return the answer to a caller over TCP that may not read now, None for all others."""
        if not self._has_turn():
            self._options.refusals.add(Refused.RATE_LIMIT)
            return _refusal(429, "more requests than the rate limit allows")
        if actor.trusted or not self._access.must_prove():
            return None
        challenge = {"www-authenticate": self._access.challenge()}
        return _refusal(401, "a user's password or a token is needed", **challenge)

    def _has_turn(self) -> bool:
        """Say whether the rate limit of the web configuration file lets one more in."""
        limit = self._options.protection().rate_limit
        if limit is None:
            return True
        now = asyncio.get_running_loop().time()
        if self._rate is None or self._rate[0] != limit:
            per_second = 1.0 / limit.interval_seconds
            self._rate = limit, Bucket(per_second, limit.burst, now)
        return self._rate[1].take(now)


def actor_of(connection: HTTPConnection) -> Actor:
    """Return who asks, as the guard found out."""
    actor: Actor = connection.scope.get("state", {}).get("actor", ANONYMOUS)
    return actor


def _refusal(status: int, words: str, **headers: str) -> Response:
    """Return a refusal as text; 503 and 429 say when to come again."""
    if status in (429, 503):
        headers["retry-after"] = "1"
    return PlainTextResponse(f"{words}\n", status, headers)
