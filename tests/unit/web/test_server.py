"""Listening: addresses that are taken, sockets that are left over, clients that stay silent."""

import http.client
import socket
import time
from pathlib import Path

import pytest
from starlette.applications import Starlette

from migscaler.errors import AddressTaken
from migscaler.web.server import Deadlines, WebServer


def server(listen: str | None, unix_socket: Path | None = None) -> WebServer:
    return WebServer(Starlette(), listen, unix_socket)


def test_port_that_is_taken_is_named_in_the_error() -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]

        with pytest.raises(AddressTaken, match=rf"cannot listen on 127\.0\.0\.1:{port}: Address"):
            server(f"127.0.0.1:{port}").start()


@pytest.mark.parametrize("listen", ["nonsense", "127.0.0.1:", "127.0.0.1:http-ish", "::bad::1"])
def test_listen_that_is_no_address_is_an_error(listen: str) -> None:
    with pytest.raises(AddressTaken):
        server(listen).start()


def test_socket_file_left_over_by_a_crash_is_replaced(tmp_path: Path) -> None:
    path = tmp_path / "s.sock"
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(path))
    web = server(None, path)

    web.start()

    assert path.is_socket()
    assert path.stat().st_mode & 0o777 == 0o666
    web.stop()
    assert not path.exists()


def test_socket_that_somebody_answers_on_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "s.sock"
    first = server(None, path)
    first.start()

    with pytest.raises(AddressTaken, match="another migscaler answers there"):
        server("127.0.0.1:0", path).start()

    assert path.is_socket()
    first.stop()


def test_file_of_another_kind_is_not_removed(tmp_path: Path) -> None:
    path = tmp_path / "s.sock"
    path.write_text("mine")

    with pytest.raises(AddressTaken, match="a file of another kind"):
        server(None, path).start()

    assert path.read_text() == "mine"


def test_answers_on_a_kept_connection_do_not_wait_for_acknowledgments() -> None:
    """Regression: head and body are two writes, and Nagle's algorithm held the second for 40 ms."""
    web = server("127.0.0.1:0")
    web.start()
    assert web.address is not None
    connection = http.client.HTTPConnection(*web.address)
    times = []
    for _ in range(9):
        begin = time.perf_counter()
        connection.request("GET", "/")
        connection.getresponse().read()
        times.append(time.perf_counter() - begin)
    connection.close()
    web.stop()

    assert min(times[1:]) < 0.03


def test_idle_server_sleeps_and_stops_at_once() -> None:
    """Regression: Uvicorn's own loop woke ten times a second to see whether it was to stop."""
    web = server("127.0.0.1:0")
    web.start()
    begin = time.perf_counter()
    web.stop()

    assert time.perf_counter() - begin < 2.0


def test_stopped_server_frees_its_port() -> None:
    first = server("127.0.0.1:0")
    first.start()
    assert first.address is not None
    host, port = first.address
    first.stop()

    second = server(f"{host}:{port}")
    second.start()
    assert second.address == (host, port)
    second.stop()


def test_server_that_never_started_can_be_stopped() -> None:
    server("127.0.0.1:0").stop()


@pytest.mark.parametrize("said", [b"", b"GET / HT"])
def test_client_that_stays_silent_is_sent_away(said: bytes) -> None:
    web = WebServer(Starlette(), "127.0.0.1:0", deadlines=Deadlines(head_seconds=0.2))
    web.start()
    assert web.address is not None
    with socket.create_connection(web.address, timeout=5) as client:
        client.sendall(said)

        assert client.recv(100) == b""
    web.stop()


def test_client_that_lingers_after_a_request_is_sent_away_too() -> None:
    web = WebServer(Starlette(), "127.0.0.1:0", deadlines=Deadlines(head_seconds=0.2))
    web.start()
    assert web.address is not None
    with socket.create_connection(web.address, timeout=5) as client:
        client.sendall(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n")
        answer = b""
        while not answer.endswith(b"Not Found"):
            answer += client.recv(4096)
        client.sendall(b"GET /")

        assert client.recv(100) == b""
    web.stop()
