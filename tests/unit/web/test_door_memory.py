"""Connections that never become one leave nothing behind, without waiting for the collector."""

import gc
import socket
import ssl
from asyncio import sslproto
from collections.abc import Iterator
from pathlib import Path

import pytest
from starlette.types import Receive, Scope, Send

from migscaler.web.protection import Protection
from migscaler.web.server import WebServer
from tests.e2e.processes import wait_until
from tests.unit.web.certificates import Authority


async def nothing(scope: Scope, receive: Receive, send: Send) -> None:
    raise AssertionError("nobody gets as far as asking")


@pytest.fixture
def address(tmp_path: Path) -> Iterator[tuple[str, int]]:
    """Serve over TLS with the collector switched off."""
    Authority(tmp_path)
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(tmp_path / "server.crt", tmp_path / "server.key")
    server = WebServer(nothing, "127.0.0.1:0", protection=Protection(tls=tls))
    server.start()
    gc.collect()
    gc.disable()
    try:
        assert server.address is not None
        yield server.address
    finally:
        gc.enable()
        server.stop()


def tls_connections() -> list[sslproto.SSLProtocol]:
    return [one for one in gc.get_objects() if isinstance(one, sslproto.SSLProtocol)]


def test_handshakes_that_clients_give_up_are_freed_at_once(address: tuple[str, int]) -> None:
    held = [socket.create_connection(address) for _ in range(20)]
    wait_until("they are in", lambda: len(tls_connections()) == 20)
    for one in held:
        one.close()

    wait_until("all are freed", lambda: tls_connections() == [], 10)


def test_handshakes_that_are_cut_off_for_others_are_freed_at_once(
    address: tuple[str, int],
) -> None:
    """One address has 32 places; each newcomer takes that of the oldest who never spoke."""
    held = [socket.create_connection(address) for _ in range(100)]

    wait_until("32 are in", lambda: len(tls_connections()) == 32, 10)
    for one in held:
        one.close()


def test_waiting_for_a_handshake_takes_the_memory_of_one_record(address: tuple[str, int]) -> None:
    with socket.create_connection(address):
        wait_until("it is in", lambda: len(tls_connections()) == 1)

        assert tls_connections()[0].max_size <= 16_384
