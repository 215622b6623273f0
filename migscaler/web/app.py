"""The Starlette application: page, API, health and exposition."""

from collections.abc import Awaitable, Callable
from pathlib import Path

from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import HTMLResponse, PlainTextResponse, Response
from starlette.routing import BaseRoute, Mount, Route
from starlette.staticfiles import StaticFiles

from migscaler.model.status import Status
from migscaler.web import views
from migscaler.web.access import Access
from migscaler.web.answers import JsonAnswer, page_body
from migscaler.web.command_route import CommandRoute, problem
from migscaler.web.explanation import explanation_view, paragraphs_of
from migscaler.web.guard import Guard, actor_of
from migscaler.web.headers import HeadLimit, SecurityHeaders
from migscaler.web.page import page
from migscaler.web.ports import Commands, Render, WebOptions
from migscaler.web.words import unread_words

_STATIC = Path(__file__).parent / "static"
_View = Callable[[Status, bool], dict[str, object]]


def create_app(
    render: Render,
    status: Callable[[], Status | None],
    commands: Commands | None = None,
    options: WebOptions | None = None,
) -> Starlette:
    """Return the application.

    `render` gives the exposition, `status` the last status (None before the first); both are called
    in the server's event loop and must not block. `commands` are called in worker threads; None
    where nothing can be asked for.
    """
    chosen = options or WebOptions()
    site = _Site(render, status, chosen)
    routes: list[BaseRoute] = [
        Route("/", site.page),
        Route("/metrics", site.metrics),
        Route("/-/healthy", site.healthy),
        Route("/-/ready", site.ready),
        Route("/api/v1/commands/{name}", CommandRoute(commands, chosen).serve, methods=["POST"]),
        *(Route(f"/api/v1/{name}", site.api(view)) for name, view in _VIEWS.items()),
        Mount("/static", StaticFiles(directory=_STATIC)),
    ]
    middleware = [
        Middleware(SecurityHeaders, protection=chosen.protection),
        Middleware(HeadLimit),
        Middleware(Guard, options=chosen, access=Access(chosen)),
    ]
    return Starlette(routes=routes, middleware=middleware)


class _Shown:
    """Answers made from one status, each made once: a status lasts seconds, a page takes 5 ms."""

    def __init__(self) -> None:
        self._status: Status | None = None
        self._bodies: dict[tuple[object, bool], bytes] = {}

    def body(
        self, status: Status | None, kind: object, trusted: bool, make: Callable[[], bytes]
    ) -> bytes:
        """Return the answer of a kind for trusted callers or for others."""
        if status is not self._status:
            self._status = status
            self._bodies.clear()
        key = (kind, trusted)
        if key not in self._bodies:
            self._bodies[key] = make()
        return self._bodies[key]


class _Site:
    """What the routes share."""

    def __init__(
        self,
        render: Render,
        status: Callable[[], Status | None],
        options: WebOptions,
    ) -> None:
        self._render = render
        self._status = status
        self._options = options
        self._shown = _Shown()

    async def page(self, request: Request) -> Response:
        """Show the node to a person."""
        status, trusted = self._status(), actor_of(request).trusted

        def make() -> bytes:
            return page_body(page(status, trusted=trusted))

        return HTMLResponse(self._shown.body(status, page, trusted, make))

    async def metrics(self, request: Request) -> Response:
        """Serve the exposition in the format and compression the client prefers."""
        headers = request.headers
        rendered = self._render(headers.get("accept", ""), headers.get("accept-encoding", ""))
        more = {"vary": "accept, accept-encoding", "content-type": rendered.content_type}
        if rendered.encoding is not None:
            more["content-encoding"] = rendered.encoding
        return Response(rendered.body, headers=more)

    async def healthy(self, _request: Request) -> Response:
        """Say whether the daemon's loops tick."""
        wrong = self._options.health()
        return PlainTextResponse(f"{wrong or 'ok'}\n", 503 if wrong else 200)

    async def ready(self, _request: Request) -> Response:
        """Say whether the GPUs were read and what an earlier process left is put right."""
        status = self._status()
        if status is None or status.snapshot is None:
            unread = None if status is None else views.told_of(unread_words(status), trusted=False)
            return PlainTextResponse(f"{unread or 'the GPUs have not been read yet'}\n", 503)
        missing = self._options.ready()
        return PlainTextResponse(f"{missing or 'ok'}\n", 503 if missing else 200)

    def api(self, view: _View) -> Callable[[Request], Awaitable[Response]]:
        """Return a route that shows part of the status as JSON."""

        async def serve(request: Request) -> Response:
            status = self._status()
            if status is None:
                return problem(503, "NotReady", "nothing is known yet; try again")
            trusted = actor_of(request).trusted

            def make() -> bytes:
                return bytes(JsonAnswer(view(status, trusted)).body)

            body = self._shown.body(status, view, trusted, make)
            return Response(body, media_type=JsonAnswer.media_type)

        return serve


def _decisions(status: Status, trusted: bool) -> dict[str, object]:
    """Return the last decision and the plans that ended."""
    outcomes = [views.outcome_view(o, status.snapshot, trusted=trusted) for o in status.outcomes]
    decision = views.decision_view(status, trusted=trusted)
    return {"decision": decision, "gpu_plans": outcomes}


def _explain(status: Status, trusted: bool) -> dict[str, object]:
    """Return the reasons behind the last decision: in words, per rule, and every closed gate."""
    return {
        **explanation_view(paragraphs_of(status, trusted=trusted)),
        "decision": views.decision_view(status, trusted=trusted),
        "rules": views.rules_view(status),
        "gates": views.gates_view(status, trusted=trusted),
    }


def _demand(status: Status, _trusted: bool) -> dict[str, object]:
    """Return what the sources say and what the rules make of it."""
    sources = [views.source_view(source) for source in status.demand]
    return {"sources": sources, "rules": views.rules_view(status)}


_VIEWS: dict[str, _View] = {
    "status": lambda status, trusted: views.status_view(status, trusted=trusted),
    "layout": lambda status, trusted: views.layout_view(status, trusted=trusted),
    "plan": lambda status, trusted: views.plan_view(status, trusted=trusted),
    "demand": _demand,
    "decisions": _decisions,
    "explain": _explain,
}
