"""A running server around a fixed status, and clients for both of its addresses."""

import contextlib
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import httpx

from migscaler.errors import CommandRefused, NotFound, ParseError, StoreUnwritable
from migscaler.metrics.exposition import Renderer
from migscaler.model.status import Status
from migscaler.web.app import create_app
from migscaler.web.ports import Actor, WebOptions
from migscaler.web.server import WebServer


@dataclass
class Recorded:
    """Commands that note what they were asked, and answer or fail by name."""

    asked: list[tuple[str, dict[str, object], Actor]] = field(default_factory=list)
    gate: threading.Event = field(default_factory=threading.Event)

    def execute(self, name: str, arguments: dict[str, object], actor: Actor) -> dict[str, object]:
        self.asked.append((name, arguments, actor))
        if name == "wait":
            self.gate.wait(30)
        failures: dict[str, Exception] = {
            "missing": NotFound("no such thing"),
            "wrong": ParseError("count must be a number"),
            "refused": CommandRefused("paused by root"),
            "broken": StoreUnwritable("disk full"),
        }
        if name in failures:
            raise failures[name]
        return {"done": name}


@dataclass(frozen=True)
class Site:
    """A running server; `tcp` and `unix` are clients of its two addresses."""

    tcp: httpx.Client
    unix: httpx.Client
    address: tuple[str, int]
    commands: Recorded
    renderer: Renderer


@contextlib.contextmanager
def running(
    status: Status | None, directory: Path, options: WebOptions | None = None
) -> Iterator[Site]:
    """Run the real server on a free port and a socket in the directory."""
    renderer, commands = Renderer(), Recorded()
    if status is not None:
        renderer.publish(status)
    path = directory / "migscaler.sock"
    app = create_app(renderer.render, lambda: status, commands, options)
    server = WebServer(app, "127.0.0.1:0", path)
    server.start()
    assert server.address is not None
    host, port = server.address
    try:
        with (
            httpx.Client(base_url=f"http://{host}:{port}", timeout=30) as tcp,
            httpx.Client(
                transport=httpx.HTTPTransport(uds=str(path)), base_url="http://node", timeout=30
            ) as unix,
        ):
            yield Site(tcp, unix, (host, port), commands, renderer)
    finally:
        commands.gate.set()
        server.stop()
