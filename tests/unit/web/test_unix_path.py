"""Sockets in deep directories."""

import os
from pathlib import Path

import httpx
from starlette.applications import Starlette

from migscaler.web.server import WebServer
from migscaler.web.unix_path import short_path


def test_short_path_keeps_what_fits() -> None:
    assert short_path(Path("/run/migscaler/migscaler.sock")) == "/run/migscaler/migscaler.sock"


def test_server_listens_in_a_directory_too_deep_for_an_address(tmp_path: Path) -> None:
    deep = tmp_path / ("d" * 100) / "state"
    deep.mkdir(parents=True)
    socket = deep / "migscaler.sock"
    server = WebServer(Starlette(), None, socket)
    server.start()
    try:
        transport = httpx.HTTPTransport(uds=short_path(socket))
        with httpx.Client(transport=transport, base_url="http://migscaler") as client:
            assert client.get("/").status_code == 404
    finally:
        server.stop()
    assert not os.path.exists(socket)
