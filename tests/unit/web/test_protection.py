"""TLS, client certificates, users and scopes on a real server; rotation while it runs."""

import contextlib
import socket
import ssl
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import bcrypt
import httpx
import pytest
import trustme

from migscaler.app.web_watch import WebWatch
from migscaler.metrics.exposition import Renderer
from migscaler.web.app import create_app
from migscaler.web.ports import WebOptions
from migscaler.web.protection import Protection, canonical, names_of
from migscaler.web.server import Deadlines, WebServer
from tests.unit.metrics.statuses import full_status
from tests.unit.web.certificates import CLIENTS, PAIR, Authority
from tests.unit.web.sites import Recorded

USERS = f"basic_auth_users:\n  ada: {bcrypt.hashpw(b'secret', bcrypt.gensalt(4)).decode()}\n"
ADA = ("ada", "secret")
HOLDER = "lease 4"


@dataclass
class Site:
    """A server under a web configuration file; `look` is what the daemon does every second."""

    authority: Authority
    folder: Path
    watch: WebWatch
    server: WebServer
    commands: Recorded = field(default_factory=Recorded)

    def write(self, text: str) -> None:
        (self.folder / "web.yml").write_text(text)
        self.look()

    def look(self) -> None:
        if self.watch.look() and self.watch.protection is not None:
            self.server.protect(self.watch.protection)

    def get(
        self,
        path: str = "/metrics",
        *,
        pair: tuple[str, str] | None = None,
        auth: tuple[str, str] | None = None,
        token: str | None = None,
    ) -> httpx.Response:
        with self.client(pair) as client:
            return client.get(path, auth=auth, headers=bearer(token))

    def post(
        self,
        *,
        pair: tuple[str, str] | None = None,
        auth: tuple[str, str] | None = None,
        token: str | None = None,
    ) -> int:
        with self.client(pair) as client:
            path = "/api/v1/commands/pause"
            chosen = auth if auth is not None else httpx.USE_CLIENT_DEFAULT
            return client.post(path, json={}, auth=chosen, headers=bearer(token)).status_code

    def client(self, pair: tuple[str, str] | None = None) -> httpx.Client:
        assert self.server.address is not None
        protection = self.watch.protection
        scheme = "http" if protection is None or protection.tls is None else "https"
        base = f"{scheme}://127.0.0.1:{self.server.address[1]}"
        return httpx.Client(base_url=base, verify=self.authority.client(pair), timeout=10)

    def certificate(self) -> bytes:
        """Return the certificate that a new connection is shown."""
        assert self.server.address is not None
        with (
            socket.create_connection(self.server.address, timeout=10) as raw,
            self.authority.client().wrap_socket(raw, server_hostname="localhost") as secure,
        ):
            shown = secure.getpeercert(binary_form=True)
            assert shown is not None
            return shown


def bearer(token: str | None) -> dict[str, str]:
    return {} if token is None else {"authorization": f"Bearer {token}"}


@contextlib.contextmanager
def site(folder: Path, text: str, **options: object) -> Iterator[Site]:
    """Serve under a web configuration file of this text."""
    authority = Authority(folder)
    (folder / "web.yml").write_text(text)
    watch = WebWatch(folder / "web.yml", None)
    status, commands = full_status(), Recorded()
    renderer = Renderer()
    renderer.publish(status)
    chosen = WebOptions(
        protection=lambda: watch.protection or Protection(),
        **options,  # type: ignore[arg-type] # each test gives what the fields take
    )
    app = create_app(renderer.render, lambda: status, commands, chosen)
    server = WebServer(app, "127.0.0.1:0", folder / "s.sock", protection=watch.protection)
    server.start()
    try:
        yield Site(authority, folder, watch, server, commands)
    finally:
        server.stop()


def test_plain_http_is_not_spoken_where_tls_is(tmp_path: Path) -> None:
    with site(tmp_path, PAIR) as made:
        assert made.get().status_code == 200
        assert made.server.address is not None
        host, port = made.server.address
        with pytest.raises(httpx.TransportError):
            httpx.get(f"http://{host}:{port}/metrics")


def test_old_tls_versions_are_refused(tmp_path: Path) -> None:
    with site(tmp_path, PAIR + "  min_version: TLS13\n") as made:
        old = made.authority.client()
        old.maximum_version = ssl.TLSVersion.TLSv1_2
        assert made.server.address is not None
        with (
            socket.create_connection(made.server.address, timeout=10) as raw,
            pytest.raises(ssl.SSLError),
        ):
            old.wrap_socket(raw, server_hostname="localhost")
        assert made.get().status_code == 200


def test_client_without_a_certificate_is_not_served(tmp_path: Path) -> None:
    with site(tmp_path, PAIR + CLIENTS) as made:
        with pytest.raises(httpx.TransportError):
            made.get("/-/healthy")
        shown = made.get("/api/v1/status", pair=made.authority.write("ada", "ada.example"))

    assert shown.status_code == 200
    assert HOLDER in shown.text


def test_intermediate_authority_alone_is_enough(tmp_path: Path) -> None:
    """As for Go; every client was refused, without a finding."""
    with site(tmp_path, PAIR) as made:
        between = made.authority.ca.create_child_ca(key_type=trustme.KeyType.ECDSA)
        (tmp_path / "between.crt").write_bytes(between.cert_pem.bytes())
        leaf = between.issue_cert("client.example", key_type=trustme.KeyType.ECDSA)
        leaf.private_key_pem.write_to_path(tmp_path / "c.key")
        (tmp_path / "c.crt").write_bytes(b"".join(pem.bytes() for pem in leaf.cert_chain_pems))
        made.write(PAIR + CLIENTS.replace("ca.crt", "between.crt"))

        answer = made.get(pair=(str(tmp_path / "c.crt"), str(tmp_path / "c.key")))
        stranger = made.authority.write("stranger", "client.example")
        with pytest.raises(httpx.TransportError):
            made.get(pair=stranger)

    assert answer.status_code == 200


def test_certificate_of_a_stranger_is_refused(tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    stranger = Authority(tmp_path / "other").write("ada", "ada.example")
    with site(tmp_path, PAIR + CLIENTS) as made, pytest.raises(httpx.TransportError):
        made.get(pair=stranger)


def test_only_the_names_allowed_get_in(tmp_path: Path) -> None:
    with site(tmp_path, PAIR + CLIENTS + "  client_allowed_sans: [a.example, 192.0.2.1]\n") as made:
        for name in ("a.example", "192.0.2.1"):
            assert made.get(pair=made.authority.write(name, name)).status_code == 200
        with pytest.raises(httpx.TransportError):
            made.get(pair=made.authority.write("b", "b.example", "a.example.org"))


def test_everything_but_probes_needs_a_user(tmp_path: Path) -> None:
    with site(tmp_path, PAIR + USERS) as made:
        for path in ("/", "/metrics", "/api/v1/status", "/static/app.js", "/nowhere"):
            refused = made.get(path)
            assert refused.status_code == 401, path
            assert refused.headers["www-authenticate"] == 'Basic realm="migscaler"'
            assert "migscaler_" not in refused.text
        assert made.get("/-/healthy").status_code == 200
        assert made.get("/-/ready").status_code == 200
        for wrong in (("ada", "Secret"), ("bob", "secret"), ("", "")):
            assert made.get(auth=wrong).status_code == 401
        assert made.get("/-/healthy", auth=("ada", "wrong")).status_code == 200
        shown = made.get("/api/v1/status", auth=ADA)

    assert shown.status_code == 200
    assert HOLDER in shown.text


@pytest.mark.parametrize("header", ["Basic", "Basic !!!", "Basic YWRh", "basic //8=", "Basic OnM="])
def test_broken_basic_header_is_a_refusal(tmp_path: Path, header: str) -> None:
    with site(tmp_path, USERS) as made, made.client() as client:
        assert client.get("/metrics", headers={"authorization": header}).status_code == 401


def test_certificate_is_no_substitute_for_a_user(tmp_path: Path) -> None:
    """The file asks for both then; a site that moves here must not be served more openly."""
    with site(tmp_path, PAIR + CLIENTS + USERS) as made:
        pair = made.authority.write("ada", "ada.example")
        assert made.get(pair=pair).status_code == 401
        assert made.get(pair=pair, auth=ADA).status_code == 200


def test_unix_socket_asks_for_no_password(tmp_path: Path) -> None:
    with site(tmp_path, PAIR + USERS):
        transport = httpx.HTTPTransport(uds=str(tmp_path / "s.sock"))
        with httpx.Client(transport=transport, base_url="http://node") as client:
            assert client.get("/metrics").status_code == 200


def test_read_token_reads_and_write_token_does_both(tmp_path: Path) -> None:
    (tmp_path / "read").write_text("old-reader\nreader\n")
    (tmp_path / "write").write_text("writer\n")
    options = {"read_token_file": tmp_path / "read", "token_file": tmp_path / "write"}
    with site(tmp_path, "", writes_over_tcp=True, **options) as made:
        assert made.get().status_code == 401
        assert made.get().headers["www-authenticate"] == "Bearer"
        for token in ("reader", "old-reader", "writer"):
            assert HOLDER in made.get("/api/v1/status", token=token).text
        assert made.get(token="reader old-reader").status_code == 401
        assert made.get("/-/ready").status_code == 200
        given = {token: made.post(token=token) for token in ("reader", "writer", "nobody")}
        assert (given, made.post()) == ({"reader": 403, "writer": 200, "nobody": 401}, 401)
        (tmp_path / "read").write_text("new\n")
        assert made.get(token="reader").status_code == 401
        assert made.get(token="new").status_code == 200


def test_user_reads_and_does_not_command(tmp_path: Path) -> None:
    with site(tmp_path, USERS, writes_over_tcp=True) as made:
        assert made.post(auth=ADA) == 403
        assert made.commands.asked == []


def test_certificate_with_a_name_for_writing_commands(tmp_path: Path) -> None:
    names = frozenset({"ops.example"})
    with site(tmp_path, PAIR + CLIENTS, writes_over_tcp=True, write_names=names) as made:
        assert made.post(pair=made.authority.write("ops", "ops.example")) == 200
        assert made.post(pair=made.authority.write("ada", "ada.example")) == 403
        assert made.commands.asked[-1][2].name == "certificate ops.example"


def test_certificate_commands_only_where_writing_is_switched_on(tmp_path: Path) -> None:
    names = frozenset({"ops.example"})
    with site(tmp_path, PAIR + CLIENTS, write_names=names) as made:
        assert made.post(pair=made.authority.write("ops", "ops.example")) == 403


def test_new_certificate_is_shown_to_new_connections(tmp_path: Path) -> None:
    with site(tmp_path, PAIR) as made:
        first = made.certificate()
        made.authority.renew()
        made.look()

        assert made.certificate() != first
        assert made.watch.problems == ()


def test_half_written_pair_keeps_the_old_one_and_is_reported(tmp_path: Path) -> None:
    with site(tmp_path, PAIR) as made:
        first = made.certificate()
        key = (tmp_path / "server.key").read_bytes()
        made.authority.renew()
        new_key = (tmp_path / "server.key").read_bytes()
        for half in (key, b"", new_key[:100]):
            (tmp_path / "server.key").write_bytes(half)
            made.look()
            assert made.certificate() == first
            assert len(made.watch.problems) == 1
            assert "tls_server_config.key_file" in made.watch.problems[0]
        (tmp_path / "server.key").write_bytes(new_key)
        made.look()
        assert made.certificate() != first
        assert made.watch.problems == ()


def test_user_that_is_removed_is_out_at_once(tmp_path: Path) -> None:
    with site(tmp_path, USERS) as made, made.client() as client:
        assert client.get("/metrics", auth=ADA).status_code == 200
        made.write(USERS.replace("ada:", "bob:"))
        assert client.get("/metrics", auth=ADA).status_code == 401
        made.write(USERS.replace("ada:", "bob"))
        assert made.watch.problems != ()
        assert client.get("/metrics", auth=("bob", "secret")).status_code == 200


def test_connection_of_a_name_no_longer_allowed_ends(tmp_path: Path) -> None:
    allowed = "  client_allowed_sans: [{}]\n"
    with site(tmp_path, PAIR + CLIENTS + allowed.format("a.example")) as made:
        pair = made.authority.write("a", "a.example")
        with made.client(pair) as kept:
            assert kept.get("/metrics").status_code == 200
            made.write(PAIR + CLIENTS + allowed.format("b.example"))
            # httpx opens a new connection where the old one is closed already.
            with pytest.raises(httpx.TransportError):
                kept.get("/metrics")


WRITER: dict[str, object] = {
    "writes_over_tcp": True,
    "write_names": frozenset({"admin.example"}),
}


@contextlib.contextmanager
def connected(made: Site, pair: tuple[str, str]) -> Iterator[ssl.SSLSocket]:
    """Give one connection; httpx would open another where it is closed."""
    assert made.server.address is not None
    with (
        socket.create_connection(made.server.address, timeout=10) as raw,
        made.authority.client(pair).wrap_socket(raw, server_hostname="localhost") as secure,
    ):
        yield secure


def answer_on(secure: ssl.SSLSocket) -> bytes:
    """Give a command on a connection and return its status line, nothing where it is closed."""
    head = b"POST /api/v1/commands/pause HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n"
    try:
        secure.sendall(head + b"content-length: 2\r\n\r\n{}")
        got = b""
        while not got.endswith(b"}") and (more := secure.recv(4096)):
            got += more
    except OSError:
        return b""
    return got[:12]


def test_connection_keeps_no_name_of_a_certificate_that_nobody_asks_for_any_more(
    tmp_path: Path,
) -> None:
    """It kept the right to command where the client CA was removed (2026-11-29)."""
    with site(tmp_path, PAIR + CLIENTS, **WRITER) as made:
        pair = made.authority.write("admin", "admin.example")
        with connected(made, pair) as kept:
            assert answer_on(kept) == b"HTTP/1.1 200"
            made.write(PAIR)
            assert b"200" not in answer_on(kept)
        assert made.post(pair=pair) == 401
        assert len(made.commands.asked) == 1


def test_handshake_that_lasts_over_a_change_of_the_authority_lets_nobody_in(tmp_path: Path) -> None:
    """Who was shut out came in by a connection that had not shaken hands yet (2026-11-29)."""
    other = tmp_path / "other"
    other.mkdir()
    Authority(other)
    with site(tmp_path, PAIR + CLIENTS, **WRITER) as made:
        pair = made.authority.write("admin", "admin.example")
        assert made.server.address is not None
        with socket.create_connection(made.server.address, timeout=10) as half:
            assert made.post(pair=pair) == 200  # so the half one is accepted too
            made.write(PAIR + CLIENTS.replace("ca.crt", "other/ca.crt"))
            context = made.authority.client(pair)
            with (
                contextlib.suppress(OSError),
                context.wrap_socket(half, server_hostname="localhost") as secure,
            ):
                assert answer_on(secure) == b""
        assert len(made.commands.asked) == 1


def test_connections_stay_where_a_file_that_breaks_changes_nothing(tmp_path: Path) -> None:
    with site(tmp_path, PAIR + CLIENTS, **WRITER) as made:
        pair = made.authority.write("admin", "admin.example")
        with connected(made, pair) as kept:
            assert answer_on(kept) == b"HTTP/1.1 200"
            made.write(PAIR + CLIENTS + "  no_such_key: 1\n")
            assert made.watch.problems
            assert answer_on(kept) == b"HTTP/1.1 200"


def test_without_a_good_file_nobody_is_served_over_tcp_until_there_is_one(tmp_path: Path) -> None:
    with site(tmp_path, PAIR.replace("server.key", "missing.key")) as made:
        assert made.server.address is not None
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(made.server.address, timeout=10)
        (tmp_path / "missing.key").write_bytes((tmp_path / "server.key").read_bytes())
        made.look()
        assert made.get().status_code == 200


def test_headers_of_the_file_replace_ours(tmp_path: Path) -> None:
    text = "http_server_config: {headers: {X-Frame-Options: sameorigin, X-XSS-Protection: '0'}}\n"
    with site(tmp_path, text) as made:
        headers = made.get().headers

    assert headers.get_list("x-frame-options") == ["sameorigin"]
    assert headers["x-xss-protection"] == "0"
    assert headers["x-content-type-options"] == "nosniff"


def test_rate_limit_of_the_file_holds_for_all_but_probes(tmp_path: Path) -> None:
    with site(tmp_path, "rate_limit: {interval: 1h, burst: 2}\n") as made:
        codes = [made.get().status_code for _ in range(4)]
        assert codes == [200, 200, 429, 429]
        assert made.get("/-/healthy").status_code == 200


def test_handshake_that_never_ends_keeps_nobody_waiting(tmp_path: Path) -> None:
    """Regression of others: prometheus_client 0.26 shakes hands in its accept loop."""
    with site(tmp_path, PAIR) as made:
        assert made.server.address is not None
        silent = [socket.create_connection(made.server.address, timeout=10) for _ in range(50)]
        assert made.get().status_code == 200
        for one in silent:
            one.close()


@pytest.mark.parametrize("closing", ["reader", "sender"])
def test_client_of_tls_that_stops_is_cut_off(tmp_path: Path, closing: str) -> None:
    authority = Authority(tmp_path)
    (tmp_path / "web.yml").write_text(PAIR)
    watch = WebWatch(tmp_path / "web.yml", None)

    async def large(scope: object, receive: object, send: object) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})  # type: ignore[operator]
        await send({"type": "http.response.body", "body": b"x" * 30_000_000})  # type: ignore[operator]

    server = WebServer(
        large,
        "127.0.0.1:0",
        protection=watch.protection,
        deadlines=Deadlines(head_seconds=0.4, body_seconds=0.4, write_seconds=0.4),
    )
    server.start()
    assert server.address is not None
    with (
        socket.create_connection(server.address, timeout=10) as raw,
        authority.client().wrap_socket(raw, server_hostname="localhost") as secure,
    ):
        secure.sendall(b"GET / HTTP/1.1\r\nhost: x\r\n" + (b"\r\n" if closing == "reader" else b""))
        assert wait_for_nobody(server)
    server.stop()


def wait_for_nobody(server: WebServer) -> bool:
    """Wait until the server has no connection left."""
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        if not server._server.server_state.connections:
            return True
        time.sleep(0.05)
    return False


def test_names_are_those_that_the_toolkit_compares() -> None:
    names = names_of(
        {
            "subjectAltName": (
                ("DNS", "a.example"),
                ("IP Address", "2001:DB8:0:0:0:0:0:1"),
                ("URI", "spiffe://a/b"),
                ("email", "ada@example.org"),
                ("DirName", (("commonName", "x"),)),
            )
        }
    )

    assert names == {"a.example", "2001:db8::1", "spiffe://a/b", "ada@example.org"}
    assert names_of(None) == names_of({}) == frozenset()
    assert canonical(" 192.0.2.1 ") == "192.0.2.1"
