"""Who may do what: any account of this host may lease, and only root or the daemon the rest."""

import asyncio
import socket
import threading
from pathlib import Path

import httpx
import pytest
from starlette.requests import HTTPConnection

from migscaler.metrics.exposition import Renderer
from migscaler.web.access import ANONYMOUS, OPEN_TO_ALL, Access, may_command
from migscaler.web.app import create_app
from migscaler.web.door import peer_name
from migscaler.web.ports import Actor, WebOptions
from tests.unit.web.sites import Recorded

OPTIONS = WebOptions(daemon_uid=200)
ADA = ("unix:uid=1000", 777)
DAEMON = ("unix:uid=200", 12)
ROOT = ("unix:uid=0", 13)
TCP = ("192.0.2.7", 41234)


def connection(client: tuple[str, int] | None, token: str | None = None) -> HTTPConnection:
    headers = [] if token is None else [(b"authorization", token.encode())]
    return HTTPConnection({"type": "http", "client": client, "headers": headers})


def identify(connection: HTTPConnection, options: WebOptions) -> Actor:
    return asyncio.run(Access(options).identify(connection))


def post(client: tuple[str, int], name: str, options: WebOptions = OPTIONS) -> tuple[int, Recorded]:
    """Give a command from this address; return the status and what the node was asked."""
    commands = Recorded()
    app = create_app(Renderer().render, lambda: None, commands, options)

    async def ask() -> int:
        transport = httpx.ASGITransport(app=app, client=client)
        async with httpx.AsyncClient(transport=transport, base_url="http://node") as asking:
            answer = await asking.post(f"/api/v1/commands/{name}", json={"owner": "root"})
            return answer.status_code

    return asyncio.run(ask()), commands


def test_commands_open_to_all_are_those_of_leasing_and_no_others() -> None:
    assert sorted(OPEN_TO_ALL) == [
        "lease_cancel",
        "lease_poll",
        "lease_release",
        "lease_renew",
        "lease_take",
    ]


def test_peer_of_the_socket_is_named_by_its_account_and_process() -> None:
    assert identify(connection(ADA), OPTIONS) == Actor(
        name="uid 1000", trusted=False, uid=1000, pid=777
    )


@pytest.mark.parametrize(("client", "uid"), [(ROOT, 0), (DAEMON, 200)])
def test_root_and_the_daemons_account_are_trusted(client: tuple[str, int], uid: int) -> None:
    actor = identify(connection(client), OPTIONS)

    assert (actor.uid, actor.trusted) == (uid, True)


def test_caller_over_tcp_is_nobody_without_a_token() -> None:
    assert identify(connection(TCP), OPTIONS) == ANONYMOUS
    assert identify(connection(None), OPTIONS) == ANONYMOUS
    assert identify(connection(TCP, "Bearer guess"), OPTIONS) == ANONYMOUS


@pytest.mark.parametrize(
    ("header", "trusted"),
    [
        ("Bearer secret", True),
        ("bearer  secret ", True),
        ("Bearer secret2", False),
        ("Basic secret", False),
        ("secret", False),
        ("Bearer", False),
    ],
)
def test_token_is_compared_whole(tmp_path: Path, header: str, trusted: bool) -> None:
    token = tmp_path / "token"
    token.write_text("secret\n")

    assert identify(connection(TCP, header), WebOptions(token_file=token)).trusted is trusted


@pytest.mark.parametrize(
    ("content", "given", "trusted"),
    [
        (b"# of the backup\nsecret\n", "secret", True),
        (b"# of the backup\nsecret\n", "# of the backup", False),
        (b"\xef\xbb\xbfsecret\r\nother\r\n", "secret", True),
        ("sécret\n".encode(), "sécret", True),
        (b"a" * 65_530 + b"\nsecret\n", "secr", False),
        (b"a" * 65_530 + b"\nsecret\n", "a" * 65_530, True),
        (b"a" * 70_000, "a" * 65_536, False),
        (b"a" * 65_536, "a" * 65_536, True),
    ],
    ids=["plain", "comment", "bom", "utf-8", "cut", "before the cut", "too long", "as long"],
)
def test_tokens_are_the_lines_of_their_file_as_people_write_it(
    tmp_path: Path, content: bytes, given: str, trusted: bool
) -> None:
    token = tmp_path / "token"
    token.write_bytes(content)

    found = identify(connection(TCP, f"Bearer {given}"), WebOptions(token_file=token))

    assert found.trusted is trusted


def test_empty_or_missing_token_file_lets_nobody_in(tmp_path: Path) -> None:
    empty = tmp_path / "empty"
    empty.write_text("\n")

    for path in (empty, tmp_path / "none"):
        assert identify(connection(TCP, "Bearer "), WebOptions(token_file=path)) == ANONYMOUS


@pytest.mark.parametrize("name", sorted(OPEN_TO_ALL))
def test_any_account_may_lease_over_the_socket(name: str) -> None:
    assert may_command(identify(connection(ADA), OPTIONS), name) is True


@pytest.mark.parametrize(
    "name",
    ["apply", "settle", "mig_mode", "breaker_reset", "reload", "hold", "release", "holds",
     "leases", "pause", "resume", "demand", "demand_push", "demand_override", "demand_clear",
     "status", "snapshot", "history", "decision", "plan", "explain", "source_test", "lease"],
)  # fmt: skip
def test_no_other_command_is_open_to_an_account(name: str) -> None:
    actor = identify(connection(ADA), OPTIONS)

    assert may_command(actor, name) is False
    assert may_command(identify(connection(ROOT), OPTIONS), name) is True


def test_leasing_over_tcp_needs_a_token_and_the_switch(tmp_path: Path) -> None:
    token = tmp_path / "token"
    token.write_text("secret")
    off = WebOptions(token_file=token)
    on = WebOptions(token_file=token, writes_over_tcp=True)
    bearer = connection(TCP, "Bearer secret")

    assert may_command(ANONYMOUS, "lease_take") is False
    assert may_command(identify(bearer, off), "lease_take") is False
    assert may_command(identify(bearer, on), "lease_take") is True


def test_account_reaches_the_node_as_itself_whatever_it_claims() -> None:
    status, commands = post(ADA, "lease_take")

    assert status == 200
    assert commands.asked == [
        (
            "lease_take",
            {"owner": "root"},
            Actor(name="uid 1000", trusted=False, uid=1000, pid=777),
        )
    ]


@pytest.mark.parametrize(
    ("client", "name", "status"),
    [(ADA, "apply", 403), (ADA, "leases", 403), (TCP, "lease_take", 401)],
)
def test_refused_command_never_reaches_the_node(
    client: tuple[str, int], name: str, status: int
) -> None:
    answered, commands = post(client, name)

    assert (answered, commands.asked) == (status, [])


def test_accounts_leave_some_commands_at_once_to_whoever_may_give_all() -> None:
    """Else leases of everybody that wait for the node would keep root from pausing it."""
    begun, go = threading.Event(), threading.Event()

    class Slow(Recorded):
        def execute(
            self, name: str, arguments: dict[str, object], actor: Actor
        ) -> dict[str, object]:
            begun.set()
            if name == "lease_take":
                go.wait(20)
            return super().execute(name, arguments, actor)

    options = WebOptions(daemon_uid=200, commands_at_once=2, commands_kept=1)
    app = create_app(Renderer().render, lambda: None, Slow(), options)

    async def give(client: tuple[str, int], name: str) -> int:
        transport = httpx.ASGITransport(app=app, client=client)
        async with httpx.AsyncClient(transport=transport, base_url="http://node") as asking:
            return (await asking.post(f"/api/v1/commands/{name}", json={})).status_code

    async def story() -> list[int]:
        first = asyncio.ensure_future(give(ADA, "lease_take"))
        while not begun.is_set():
            await asyncio.sleep(0.001)
        codes = [await give(ADA, "lease_poll"), await give(ROOT, "pause")]
        go.set()
        return [*codes, await first]

    assert asyncio.run(story()) == [503, 200, 200]


@pytest.mark.parametrize(
    ("host", "name"),
    [
        ("192.0.2.7", "192.0.2.7"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("2001:db8:1:2::9", "2001:db8:1:2::/64"),
        ("::ffff:192.0.2.7", "192.0.2.7"),
        ("fe80::1%eth0", "fe80::/64"),
    ],
)
def test_budget_belongs_to_an_address_or_to_a_network_of_ipv6(host: str, name: str) -> None:
    with socket.socket() as connection:
        assert peer_name(connection, (host, 4711)) == name
