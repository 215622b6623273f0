"""Listening: addresses that are taken, sockets that are left over, clients that stay silent."""

import contextlib
import http.client
import os
import socket
import threading
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
from starlette.applications import Starlette

from migscaler.errors import AddressTaken
from migscaler.metrics.exposition import Renderer
from migscaler.web.app import create_app
from migscaler.web.places import Limits
from migscaler.web.protection import Protection
from migscaler.web.server import Deadlines, WebServer
from migscaler.web.unix_path import short_path
from tests.unit.busy_socket import busy_socket


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


def test_what_is_lacking_is_told_and_had_later_while_the_rest_is_served(tmp_path: Path) -> None:
    path = tmp_path / "s.sock"
    other = socket.socket()
    other.bind(("127.0.0.1", 0))
    other.listen()
    host, port = other.getsockname()
    web = server(f"{host}:{port}", path)

    web.start(whole=False)

    assert [f"cannot listen on {host}:{port}: Address already" in why for why in web.lacking] == [
        True
    ]
    nowhere = web.address
    assert nowhere is None
    assert asked(socket.AF_UNIX, str(path)).startswith(b"HTTP/1.1 404")
    web.try_again()
    still = web.lacking
    assert len(still) == 1

    other.close()
    web.try_again()

    assert not web.lacking
    assert web.address == (host, port)
    assert asked(socket.AF_INET, (host, port)).startswith(b"HTTP/1.1 404")
    web.stop()


def test_address_that_another_listens_on_before_the_file_is_mended_is_had_later() -> None:
    """Any account may bind beside a socket that does not listen; it was never tried again."""
    web = WebServer(Starlette(), "127.0.0.1:0", None, protection=None)
    web.start(whole=False)
    address = web.address or ("", 0)
    other = socket.socket()
    other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    other.bind(address)
    other.listen()

    web.protect(Protection())

    refused = web.lacking
    other.close()
    web.try_again()
    served = asked(socket.AF_INET, address)
    left = web.lacking
    web.stop()
    assert refused == ("cannot listen: Address already in use; stop who listens at web.listen",)
    assert (left, served[:12]) == ((), b"HTTP/1.1 404")


def test_unix_socket_that_can_not_be_had_keeps_nobody_from_tcp(tmp_path: Path) -> None:
    """And a path too long for the kernel, opened by its directory, leaves no descriptor behind."""
    folder = tmp_path / ("x" * 120)
    web = server("127.0.0.1:0", folder / "s.sock")
    web.start(whole=False)
    assert web.address is not None
    assert asked(socket.AF_INET, web.address).startswith(b"HTTP/1.1 404")
    (folder / "s.sock").mkdir(parents=True)
    before = len(os.listdir("/proc/self/fd"))
    web.try_again()
    assert "a file of another kind" in web.lacking[0]
    assert len(os.listdir("/proc/self/fd")) <= before  # the connection above may end meanwhile

    (folder / "s.sock").rmdir()
    web.try_again()

    assert not web.lacking
    assert asked(socket.AF_UNIX, short_path(folder / "s.sock")).startswith(b"HTTP/1.1 404")
    web.stop()


def test_address_that_this_host_does_not_have_says_so() -> None:
    """192.0.2.0/24 is nobody's (RFC 5737)."""
    web = server("192.0.2.1:0")

    with pytest.raises(AddressTaken, match="or give this host the address"):
        web.start()


def asked(family: int, address: object) -> bytes:
    """Return the first bytes of an answer."""
    with socket.socket(family) as link:
        link.settimeout(20)
        link.connect(address)  # type: ignore[arg-type] # as the family has it
        link.sendall(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n")
        return link.recv(64)


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


def test_socket_of_somebody_who_is_too_busy_to_answer_is_left_alone(tmp_path: Path) -> None:
    """A daemon that was held up under a flood of clients lost its socket to the next one."""
    path = tmp_path / "s.sock"
    with busy_socket(path):
        there = path.stat().st_ino

        with pytest.raises(AddressTaken, match="another migscaler answers there"):
            server(None, path).start()

        assert path.stat().st_ino == there


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
    # On a busy machine a few more tries; held back, none of them is fast.
    times = [fastest_of_eight(web.address)]
    while times[-1] >= 0.03 and len(times) < 10:
        times.append(fastest_of_eight(web.address))
    web.stop()

    assert times[-1] < 0.03


def fastest_of_eight(address: tuple[str, int]) -> float:
    """Return the seconds of the fastest answer on a kept connection, the first one left out."""
    connection = http.client.HTTPConnection(*address)
    times = []
    for _ in range(9):
        begin = time.perf_counter()
        connection.request("GET", "/")
        connection.getresponse().read()
        times.append(time.perf_counter() - begin)
    connection.close()
    return min(times[1:])


def test_idle_server_sleeps_and_stops_at_once() -> None:
    """Regression: Uvicorn's own loop woke ten times a second to see whether it was to stop."""
    web = server("127.0.0.1:0")
    web.start()
    begin = time.perf_counter()
    web.stop()

    assert time.perf_counter() - begin < 9.0  # not woken, it is given up on after 10 s
    assert not web._thread.is_alive()


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
    with socket.create_connection(web.address, timeout=20) as client:
        client.sendall(said)

        assert client.recv(100) == b""
    web.stop()


def test_client_that_lingers_after_a_request_is_sent_away_too() -> None:
    web = WebServer(Starlette(), "127.0.0.1:0", deadlines=Deadlines(head_seconds=0.2))
    web.start()
    assert web.address is not None
    with answered(web.address) as client:
        client.sendall(b"GET /")

        assert client.recv(100) == b""
    web.stop()


def answered(address: tuple[str, int]) -> socket.socket:
    """Return a connection that got one answer; one held up on its way is sent away unheard."""
    for _ in range(20):
        client = socket.create_connection(address, timeout=20)
        answer = b""
        with contextlib.suppress(ConnectionError):
            client.sendall(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n")
            while more := client.recv(4096):
                answer += more
                if answer.endswith(b"Not Found"):
                    return client
        client.close()
    raise AssertionError("never answered")


@pytest.mark.parametrize(
    "rest", [b"GET / HTTP/1.1\r\nho", b"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 999\r\n\r\n"]
)
def test_client_that_sent_half_a_request_behind_a_whole_one_is_sent_away(rest: bytes) -> None:
    """It was kept as long as an idle connection, 30 s, whatever had come of the next request."""
    deadlines = Deadlines(head_seconds=0.2, body_seconds=0.2)
    web = WebServer(Starlette(), "127.0.0.1:0", deadlines=deadlines)
    web.start()
    assert web.address is not None
    got, tries = b"", 0
    while not got and tries < 20:  # one held up on its way is sent away unheard
        tries += 1
        with (
            contextlib.suppress(ConnectionError),
            socket.create_connection(web.address, timeout=20) as client,
        ):
            client.sendall(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n" + rest)
            got = read_all(client)
    web.stop()

    assert got.startswith(b"HTTP/1.1 404")


class Large:
    """Answers with more than any socket buffers."""

    def __init__(self) -> None:
        self.asked = threading.Event()

    async def __call__(
        self, _scope: object, _receive: object, send: Callable[[object], Awaitable[None]]
    ) -> None:
        self.asked.set()
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"x" * 30_000_000})


def read_all(client: socket.socket) -> bytes:
    """Read until the other end closes."""
    got = b""
    while more := client.recv(65_536):
        got += more
    return got


def trickle(client: socket.socket) -> None:
    """Send a byte a hundred times a second, for 20 s at most."""
    for _ in range(2000):
        client.sendall(b"x")
        time.sleep(0.01)


def wait_for_nobody(web: WebServer) -> bool:
    """Wait until the server has no connection left."""
    deadline = time.monotonic() + 20
    while web._server.server_state.connections and time.monotonic() < deadline:
        time.sleep(0.02)
    return not web._server.server_state.connections


def test_client_that_does_not_read_its_answer_is_cut_off() -> None:
    app, deadlines = Large(), Deadlines(head_seconds=2.0, write_seconds=0.3)
    web = WebServer(app, "127.0.0.1:0", deadlines=deadlines)  # type: ignore[arg-type] # ASGI, untyped
    web.start()
    assert web.address is not None
    with socket.create_connection(web.address, timeout=20) as client:
        client.sendall(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n")
        assert app.asked.wait(20)
        assert wait_for_nobody(web)
        with pytest.raises(ConnectionResetError):  # what lay in the kernel's buffer is gone too
            read_all(client)
    web.stop()


def test_body_that_trickles_in_to_a_route_that_reads_none_ends() -> None:
    """Regression: Uvicorn has no deadline for what nobody reads, and each byte put off idleness."""
    deadlines = Deadlines(head_seconds=0.4, body_seconds=0.4)
    web = WebServer(Starlette(), "127.0.0.1:0", deadlines=deadlines)
    web.start()
    assert web.address is not None
    with socket.create_connection(web.address, timeout=20) as client:
        client.sendall(b"GET / HTTP/1.1\r\nhost: x\r\ncontent-length: 99999\r\n\r\n")
        with pytest.raises((ConnectionResetError, BrokenPipeError)):
            trickle(client)
    assert wait_for_nobody(web)
    web.stop()


def test_places_are_bounded_and_come_back() -> None:
    limits = Limits(connections=20, per_peer=10, peer_per_second=1000, peer_burst=1000)
    web = WebServer(Starlette(), "127.0.0.1:0", limits=limits)
    web.start()
    assert web.address is not None
    crowd = [socket.create_connection(web.address, timeout=20) for _ in range(60)]
    connection = http.client.HTTPConnection(*web.address)
    connection.request("GET", "/")
    assert connection.getresponse().status == 404
    assert len(web._server.server_state.connections) <= 10
    for one in crowd:
        one.close()
    connection.close()
    assert wait_for_nobody(web)
    web.stop()


def test_excess_requests_of_one_connection_are_answered_503_and_it_ends() -> None:
    limits = Limits(own_per_second=0.001, peer_per_second=0.001, peer_burst=5)
    web = WebServer(create_app(Renderer().render, lambda: None), "127.0.0.1:0", limits=limits)
    web.start()
    assert web.address is not None
    with socket.create_connection(web.address, timeout=20) as client:
        client.sendall(b"GET /-/healthy HTTP/1.1\r\nhost: x\r\n\r\n" * 20)
        answers = read_all(client)
    with socket.create_connection(web.address, timeout=20) as client:
        refused = client.recv(1000)
    web.stop()

    assert answers.count(b"HTTP/1.1 200") == 5  # the first of the six is the connection itself
    assert answers.count(b"HTTP/1.1 503") == 1
    assert b"connection: close" in answers.lower()
    assert refused.startswith(b"HTTP/1.1 503 ")
