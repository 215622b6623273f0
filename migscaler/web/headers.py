"""Middleware for every request: security headers, its date, and a bound on the size of its head."""

from collections.abc import Callable
from email.utils import formatdate

from starlette.datastructures import MutableHeaders
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from migscaler.web.protection import Protection

# No inline script or style, no frame, no form and no outside origin: the page needs none.
CONTENT_SECURITY_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self';"
    " base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
HEADERS = (
    ("content-security-policy", CONTENT_SECURITY_POLICY),
    ("x-content-type-options", "nosniff"),
    ("x-frame-options", "DENY"),
    ("referrer-policy", "no-referrer"),
    ("cross-origin-opener-policy", "same-origin"),
    ("cross-origin-resource-policy", "same-origin"),
)


class SecurityHeaders:
    """ASGI middleware; what a response sets itself is kept. Nothing is cached unless it says so.

    Headers of the web configuration file replace ours of the same name.
    """

    def __init__(self, app: ASGIApp, protection: Callable[[], Protection] = Protection) -> None:
        self._app = app
        self._protection = protection

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve the request with the headers added."""

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                headers.setdefault("date", formatdate(usegmt=True))
                for name, value in self._protection().headers:
                    headers[name] = value
                for name, value in (*HEADERS, ("cache-control", "no-store")):
                    headers.setdefault(name, value)
            await send(message)

        await self._app(scope, receive, send_with_headers)


class HeadLimit:
    """ASGI middleware that refuses requests with too much head.

    The parser bounds only what is still incomplete: a longer head that arrives at once would pass.
    """

    def __init__(self, app: ASGIApp, head_bytes: int = 16_384) -> None:
        self._app = app
        self._head_bytes = head_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve the request if its head is of a sane size."""
        size = sum(len(name) + len(value) for name, value in scope.get("headers", ()))
        size += len(scope.get("path", "")) + len(scope.get("query_string", b""))
        if size > self._head_bytes:
            await PlainTextResponse("request head too large\n", 431)(scope, receive, send)
        else:
            await self._app(scope, receive, send)
