"""What a foreign page in a real Chromium can have the daemon do, and what it can read there."""

import contextlib
import functools
import http.server
import socket
import ssl
import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import bcrypt
import pytest
from playwright.sync_api import Browser, Page, sync_playwright
from starlette.types import Receive, Scope, Send

from migscaler.metrics.exposition import Renderer
from migscaler.web.app import create_app
from migscaler.web.ports import WebOptions
from migscaler.web.protection import Protection
from migscaler.web.server import WebServer
from tests.e2e.processes import wait_until
from tests.e2e.test_page import ARGUMENTS
from tests.unit.metrics.statuses import full_status
from tests.unit.web.certificates import Authority
from tests.unit.web.sites import Recorded

pytestmark = pytest.mark.xdist_group("chromium")

# Every way in which a page can post across origins without asking first, and the one with asking.
POSTS = """async (url) => {
  const body = JSON.stringify({why: "x"});
  const seen = [];
  const types = [
    "text/plain", "application/x-www-form-urlencoded", "multipart/form-data", "application/json",
    "text/plain; application/json", "text/plain;a=application/json", "",
  ];
  for (const type of types)
    for (const mode of ["cors", "no-cors"])
      for (const data of [body, new Blob([body], {type}), new Blob([body])]) {
        try {
          const headers = type && data === body ? {"content-type": type} : {};
          const method = "POST", credentials = "include";
          const answer = await fetch(url, {method, mode, credentials, headers, body: data});
          if (answer.type !== "opaque") seen.push([type, mode, answer.status]);
        } catch {}
      }
  for (const type of types)
    try { navigator.sendBeacon(url, new Blob([body], {type})); } catch {}
  return seen;
}"""
FORMS = """(url) => {
  const types = ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data"];
  for (const enctype of types) {
    const frame = document.createElement("iframe");
    frame.name = enctype;
    const form = document.createElement("form");
    Object.assign(form, {method: "POST", action: url, enctype, target: enctype});
    const field = document.createElement("input");
    Object.assign(field, {name: '{"why": "', value: '"}'});
    form.append(field);
    document.body.append(frame, form);
    form.submit();
  }
}"""
ASK = """async ([url, options, seconds]) => {
  try {
    const answer = await fetch(url, {...options, signal: AbortSignal.timeout(1000 * seconds)});
    return [answer.status, await answer.text()];
  } catch { return [0, ""]; }
}"""
GIVEN = {"method": "POST", "headers": {"content-type": "application/json"}, "body": "{}"}


@dataclass
class Node:
    """A served node; `as_admin` gives every caller a certificate that may command."""

    as_admin: bool = False
    users: dict[str, bytes] = field(default_factory=dict)
    commands: Recorded = field(default_factory=Recorded)
    requests: list[tuple[str, bool]] = field(default_factory=list)

    def __post_init__(self) -> None:
        renderer, status = Renderer(), full_status()
        renderer.publish(status)
        options = WebOptions(
            writes_over_tcp=True,
            write_names=frozenset({"admin"}),
            protection=lambda: Protection(users=self.users),
        )
        self._app = create_app(renderer.render, lambda: status, self.commands, options)
        self.server = WebServer(self, "127.0.0.1:0")
        self.server.start()
        assert self.server.address is not None
        self.port = self.server.address[1]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Do as a browser and TLS do, that show a person's certificate whoever's page asks."""
        self.requests.append((scope["method"], b"authorization" in dict(scope["headers"])))
        if self.as_admin:
            scope.setdefault("state", {})["names"] = frozenset({"admin"})
        await self._app(scope, receive, send)


@pytest.fixture
def made() -> Iterator[list[Node]]:
    nodes: list[Node] = []
    yield nodes
    for node in nodes:
        node.server.stop()


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """Return a browser to which every name below .test is this host."""
    arguments = [*ARGUMENTS, "--host-resolver-rules=MAP *.test 127.0.0.1"]
    with sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path="/usr/bin/chromium", args=arguments)
        yield started
        started.close()


@pytest.fixture
def page(browser: Browser) -> Iterator[Page]:
    context = browser.new_context()
    yield context.new_page()
    context.close()


@pytest.fixture
def foreign(tmp_path: Path) -> Iterator[str]:
    """Serve a page of somebody else's, and return its address."""
    (tmp_path / "index.html").write_text("<!doctype html><title>foreign</title>")

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, format: str, *args: object) -> None:
            pass

    answer = functools.partial(Quiet, directory=str(tmp_path))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), answer) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://evil.test:{server.server_port}/"
        server.shutdown()


def posts(node: Node) -> int:
    """Return how many posts have arrived."""
    return sum(method == "POST" for method, _ in node.requests)


def ask(
    page: Page, url: str, options: Mapping[str, object] | None = None, *, seconds: int = 20
) -> tuple[int, str]:
    """Have the page's script fetch an address; 0 where the browser gives it no answer."""
    status, text = page.evaluate(ASK, [url, options or {}, seconds])
    return status, text


@contextlib.contextmanager
def connected(
    address: tuple[str, int], context: ssl.SSLContext, name: str
) -> Iterator[ssl.SSLSocket]:
    """Connect by TLS as a browser does that was told this name."""
    with (
        socket.create_connection(address, timeout=10) as plain,
        context.wrap_socket(plain, server_hostname=name) as secured,
    ):
        yield secured


def test_foreign_page_commands_nothing_with_the_certificate_of_who_looks_at_it(
    page: Page, made: list[Node], foreign: str
) -> None:
    """The browser shows the certificate of its own accord: only the form of the request helps."""
    node = Node(as_admin=True)
    made.append(node)
    url = f"http://node.test:{node.port}/api/v1/commands/pause"
    page.goto(foreign)

    seen = page.evaluate(POSTS, url)
    posted = posts(node)
    page.evaluate(FORMS, url)
    wait_until("three forms arrive", lambda: posts(node) >= posted + 3)
    page.wait_for_timeout(500)  # for what else may come: beacons are sent when it suits the browser

    assert seen == []
    assert node.commands.asked == []
    assert {method for method, _ in node.requests} == {"POST", "OPTIONS"}  # they did arrive
    page.goto(f"http://node.test:{node.port}/")
    assert ask(page, url, GIVEN)[0] == 200  # what the daemon's own page could do
    assert len(node.commands.asked) == 1


def test_foreign_page_reads_nothing(page: Page, made: list[Node], foreign: str) -> None:
    node = Node(as_admin=True)
    made.append(node)
    page.goto(foreign)

    for path in ("metrics", "api/v1/status", "", "-/healthy"):
        url = f"http://node.test:{node.port}/{path}"
        assert ask(page, url, {"credentials": "include"}) == (0, "")
        assert ask(page, url, {"mode": "no-cors", "credentials": "include"}) == (0, "")
    assert node.requests == [("GET", False)] * 8  # they did arrive


def test_page_whose_name_was_turned_to_the_node_reads_what_everybody_may_and_no_more(
    page: Page, made: list[Node]
) -> None:
    """DNS rebinding: to the browser the node is then of the page's own origin."""
    node = Node()
    made.append(node)
    page.goto(f"http://evil.test:{node.port}/")

    status, text = ask(page, "/api/v1/status")
    command, _ = ask(page, "/api/v1/commands/pause", GIVEN)
    lease, _ = ask(page, "/api/v1/commands/lease_take", GIVEN)

    assert (status, '"gpus"' in text) == (200, True)
    assert '"ada"' not in text
    assert (command, lease, node.commands.asked) == (401, 401, [])


def test_page_whose_name_was_turned_to_a_node_with_users_reads_nothing(
    browser: Browser, made: list[Node]
) -> None:
    """A browser keeps a password for the origin to which it was given."""
    node = Node(users={"ada": bcrypt.hashpw(b"secret", bcrypt.gensalt(4))})
    made.append(node)
    own = f"http://node.test:{node.port}"
    context = browser.new_context(
        http_credentials={"username": "ada", "password": "secret", "origin": own}
    )
    page = context.new_page()
    page.goto(f"{own}/")
    at_home = ask(page, "/api/v1/status")[0]
    page.goto(f"http://evil.test:{node.port}/-/healthy")
    node.requests.clear()

    # It asks the person for a password, hence keeps the answer, which is 401, to itself.
    found = [ask(page, path, seconds=2) for path in ("/api/v1/status", "/metrics", "/")]
    context.close()

    assert (at_home, found) == (200, [(0, "")] * 3)
    assert set(node.requests) == {("GET", False)}


def test_certificate_is_of_the_node_s_name_whichever_a_browser_asks_for(tmp_path: Path) -> None:
    """So a name turned to the node ends at the browser's check, before anything is asked."""
    authority = Authority(tmp_path)
    authority.renew("node.test")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(tmp_path / "server.crt", tmp_path / "server.key")
    app = create_app(Renderer().render, full_status)
    server = WebServer(app, "127.0.0.1:0", protection=Protection(tls=context))
    server.start()
    assert server.address is not None
    try:
        with (
            pytest.raises(ssl.SSLCertVerificationError, match="Hostname mismatch"),
            connected(server.address, authority.client(), "evil.test"),
        ):
            pass
        with connected(server.address, authority.client(), "node.test") as there:
            assert there.getpeercert() is not None
    finally:
        server.stop()
