"""Whoever is turned away for being too much is counted, each by why; nobody else is."""

import asyncio
import concurrent.futures
import socket
import threading
from pathlib import Path

import bcrypt
import httpx

from migscaler.metrics.exposition import Renderer
from migscaler.model.stats import Refused
from migscaler.web.app import create_app
from migscaler.web.places import Limits
from migscaler.web.ports import WebOptions
from migscaler.web.protection import Protection, RateLimit
from migscaler.web.refusals import Refusals
from migscaler.web.server import WebServer
from tests.unit.web.sites import Recorded, running

NONE = {"connection": 0, "request": 0, "password": 0, "rate_limit": 0, "command": 0}


def counts(refusals: Refusals) -> dict[str, int]:
    return dict(refusals.stats().refused)


def test_every_reason_is_there_before_anything_happened() -> None:
    assert counts(Refusals()) == NONE == {reason.value: 0 for reason in Refused}


def test_requests_and_connections_beyond_the_budget_are_counted() -> None:
    refusals = Refusals()
    limits = Limits(own_per_second=0.001, peer_per_second=0.001, peer_burst=5)
    app = create_app(Renderer().render, lambda: None, options=WebOptions(refusals=refusals))
    web = WebServer(app, "127.0.0.1:0", limits=limits, refusals=refusals)
    web.start()
    assert web.address is not None
    with socket.create_connection(web.address, timeout=20) as client:
        client.sendall(b"GET /-/healthy HTTP/1.1\r\nhost: x\r\n\r\n" * 20)
        while client.recv(65_536):
            pass
    assert counts(refusals) == {**NONE, "request": 1}
    for _ in range(3):
        with socket.create_connection(web.address, timeout=20) as client:
            assert client.recv(1000).startswith(b"HTTP/1.1 503 ")
    web.stop()

    assert counts(refusals) == {**NONE, "request": 1, "connection": 3}


def test_requests_beyond_the_rate_limit_are_counted_and_wrong_proofs_are_not(
    tmp_path: Path,
) -> None:
    limit = RateLimit(interval_seconds=3600, burst=2)
    options = WebOptions(
        protection=lambda: Protection(rate_limit=limit), read_token_file=tmp_path / "token"
    )
    with running(None, tmp_path, options) as site:
        codes = [site.tcp.get("/metrics").status_code for _ in range(4)]

    assert codes == [401, 401, 429, 429]
    assert counts(options.refusals) == {**NONE, "rate_limit": 2}


def test_passwords_beyond_what_can_be_checked_are_counted(tmp_path: Path) -> None:
    users = {"ada": bcrypt.hashpw(b"right", bcrypt.gensalt(11))}
    options = WebOptions(protection=lambda: Protection(users=users))
    with running(None, tmp_path, options) as site:
        url = f"http://{site.address[0]}:{site.address[1]}/metrics"

        together = threading.Barrier(12)

        def ask(number: int) -> int:
            with httpx.Client(auth=("ada", f"wrong {number}"), timeout=60) as client:
                together.wait(60)
                return client.get(url).status_code

        with concurrent.futures.ThreadPoolExecutor(12) as pool:
            codes = list(pool.map(ask, range(12)))

    assert set(codes) == {401, 503}
    assert counts(options.refusals) == {**NONE, "password": codes.count(503)}


def test_commands_beyond_those_at_once_are_counted() -> None:
    options = WebOptions(daemon_uid=200, commands_at_once=1, commands_kept=0)
    commands = Recorded()
    app = create_app(Renderer().render, lambda: None, commands, options)

    async def give() -> int:
        transport = httpx.ASGITransport(app=app, client=("unix:uid=200", 7))
        async with httpx.AsyncClient(transport=transport, base_url="http://node") as asking:
            return (await asking.post("/api/v1/commands/wait", json={})).status_code

    async def story() -> list[int]:
        first = asyncio.ensure_future(give())
        while not commands.asked and not first.done():
            await asyncio.sleep(0.001)
        second = await give()
        commands.gate.set()
        return [second, await first]

    codes = asyncio.run(story())

    assert codes == [503, 200]
    assert counts(options.refusals) == {**NONE, "command": 1}
