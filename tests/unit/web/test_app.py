"""The HTTP interface over real sockets."""

import concurrent.futures
import json
import os
import time
from collections.abc import Iterator
from dataclasses import replace
from email.utils import parsedate_to_datetime
from pathlib import Path

import httpx
import pytest

from migscaler.model.status import ConfigStatus
from migscaler.web.ports import WebOptions
from tests.unit.metrics.statuses import full_status
from tests.unit.web.sites import Site, running

TOKEN = "s3cret-token-of-the-node"
# Names of people and jobs in the full status; strangers must not see one of them.
NAMES = ("lease 4", "ada", "profiling", "python3", "root")


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """Serve the full, paused status; commands over TCP are off and there is no token."""
    with running(full_status(paused=True), tmp_path_factory.mktemp("web")) as made:
        yield made


@pytest.fixture(scope="module")
def open_site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """Serve with commands over TCP for the bearer of the token."""
    directory = tmp_path_factory.mktemp("open")
    token = directory / "token"
    token.write_text(TOKEN + "\n")
    options = WebOptions(
        writes_over_tcp=True, token_file=token, commands_at_once=2, body_bytes=2_000
    )
    with running(full_status(), directory, options) as made:
        yield made


def test_metrics_are_those_of_the_renderer_with_its_headers(site: Site) -> None:
    answer = site.tcp.get("/metrics", headers={"accept-encoding": "gzip"})

    assert answer.status_code == 200
    assert answer.headers["content-type"] == "text/plain; version=0.0.4; charset=utf-8"
    assert answer.headers["content-encoding"] == "gzip"
    assert answer.content == site.renderer.render().body
    assert "accept" in answer.headers["vary"]


@pytest.mark.parametrize(
    "path", ["/", "/metrics", "/-/healthy", "/api/v1/status", "/static/app.js", "/nowhere"]
)
def test_every_answer_carries_the_security_headers(site: Site, path: str) -> None:
    headers = site.tcp.get(path).headers

    assert headers["content-security-policy"].startswith("default-src 'none'; script-src 'self'")
    assert "unsafe" not in headers["content-security-policy"]
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["x-frame-options"] == "DENY"
    assert "server" not in headers
    assert abs(parsedate_to_datetime(headers["date"]).timestamp() - time.time()) < 10


def test_status_shows_gpus_rules_gates_and_outcomes(site: Site) -> None:
    status = site.tcp.get("/api/v1/status").json()

    assert [gpu["layout"] for gpu in status["gpus"]][:3] == [
        "3g.20gb@0 2g.10gb@4 1g.5gb@6",
        "1g.5gb@0 1g.5gb@1 1g.5gb@2 1g.5gb@3 1g.5gb@4 1g.5gb@5 1g.5gb@6",
        "3g.20gb@0 3g.20gb@4",
    ]
    assert status["decision"]["reason"] == "resting"
    assert status["rules"][0]["unmet"] == 2
    assert status["gates"][0]["opens_at"] == "2026-03-02T12:01:15Z"
    assert status["modes"] == {"observe": 1, "recommend": 0, "enforce": 7, "not_managed": 0}
    assert [one["kind"] for one in status["outcomes"]] == ["done", "abandoned"]
    assert status["pause"]["why"] == "driver upgrade"


@pytest.mark.parametrize("name", ["layout", "decisions", "plan", "explain", "demand"])
def test_every_reading_route_answers_an_object(site: Site, name: str) -> None:
    answer = site.tcp.get(f"/api/v1/{name}")

    assert answer.status_code == 200
    assert isinstance(answer.json(), dict)


@pytest.mark.parametrize("path", ["/", "/api/v1/status"])
def test_path_that_is_no_utf_8_is_shown_all_the_same(tmp_path: Path, path: str) -> None:
    config = ConfigStatus(path=os.fsdecode(b"/etc/m\xff.yaml"), warnings=("\ud800",))
    with running(replace(full_status(), config=config), tmp_path) as made:
        answer = made.tcp.get(path)

    assert answer.status_code == 200
    if path != "/":
        assert answer.json()["config"]["path"] == os.fsdecode(b"/etc/m\xff.yaml")


def test_plan_says_before_after_and_what_stays_unmet(site: Site) -> None:
    plan = site.tcp.get("/api/v1/plan").json()

    assert plan["gpu_plans"][0]["after"] == "3g.20gb@0 2g.10gb@4 1g.5gb@6"
    assert plan["gpu_plans"][0]["direction"] == "finer"
    assert plan["unmet"] == [{"rule": "training", "count": 1, "cause": "capacity"}]
    assert plan["acting"] is False


def test_explanation_is_told_in_paragraphs_and_lines(site: Site) -> None:
    told = site.unix.get("/api/v1/explain").json()

    assert told["paragraphs"][2]["title"] == "Rule training (7g)"
    assert told["lines"][0] == "Decision"
    assert told["lines"][1].startswith("  Waiting to make GPU 2 finer")
    assert any("process 1001 (python3)" in line for line in told["lines"])


@pytest.mark.parametrize("path", ["/", "/api/v1/status", "/api/v1/layout", "/api/v1/explain"])
def test_strangers_are_not_shown_who_holds_what(site: Site, path: str) -> None:
    text = site.tcp.get(path).text

    assert [name for name in NAMES if name in text] == []


def test_daemon_s_own_account_is_shown_who_holds_what(site: Site) -> None:
    status = site.unix.get("/api/v1/status").json()

    assert status["gpus"][0]["instances"][2]["holder"] == "lease 4"
    assert status["holds"][0]["owner"] == "ada"
    assert status["pause"]["who"] == "root"


def test_status_says_since_when_a_kept_instance_is_unused(site: Site) -> None:
    used, idle, allocated = site.tcp.get("/api/v1/status").json()["gpus"][0]["instances"]

    assert (used["quiet_since"], used["held_unused_since"]) == (None, None)
    assert idle["held_unused_since"] is None
    assert idle["quiet_since"] is not None
    assert allocated["held_unused_since"] == "2026-03-02T09:00:00Z"


def test_command_over_the_unix_socket_knows_its_peer(site: Site) -> None:
    site.commands.asked.clear()
    answer = site.unix.post("/api/v1/commands/pause", json={"why": "upgrade"})

    assert (answer.status_code, answer.json()) == (200, {"done": "pause"})
    name, arguments, actor = site.commands.asked[-1]
    assert (name, arguments) == ("pause", {"why": "upgrade"})
    assert (actor.uid, actor.pid, actor.trusted) == (os.geteuid(), os.getpid(), True)
    assert actor.name == f"uid {os.geteuid()}"


def test_command_over_tcp_is_refused_without_token(site: Site) -> None:
    site.commands.asked.clear()
    answer = site.tcp.post("/api/v1/commands/pause", json={})

    assert answer.status_code == 401
    assert answer.headers["www-authenticate"] == "Bearer"
    assert site.commands.asked == []


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        (f"Bearer {TOKEN}", 200),
        (f"bearer {TOKEN}", 200),
        ("Bearer wrong", 401),
        (f"Basic {TOKEN}", 401),
        ("Bearer", 401),
        ("Bearer tök", 401),
    ],
)
def test_command_over_tcp_needs_the_very_token(open_site: Site, header: str, expected: int) -> None:
    answer = open_site.tcp.post(
        "/api/v1/commands/resume", json={}, headers=[(b"authorization", header.encode())]
    )

    assert answer.status_code == expected


def test_token_alone_reads_but_does_not_command(tmp_path: Path) -> None:
    (tmp_path / "token").write_text(TOKEN)
    bearer = {"authorization": f"Bearer {TOKEN}"}
    with running(full_status(), tmp_path, WebOptions(token_file=tmp_path / "token")) as made:
        shown = made.tcp.get("/api/v1/status", headers=bearer).json()
        refused = made.tcp.post("/api/v1/commands/pause", json={}, headers=bearer)

    assert shown["holds"][0]["owner"] == "ada"
    assert refused.status_code == 403


@pytest.mark.parametrize("content", [b"", b"\n"])
def test_empty_or_missing_token_file_lets_nobody_in(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "token").write_bytes(content)
    options = WebOptions(writes_over_tcp=True, token_file=tmp_path / "token")
    with running(full_status(), tmp_path, options) as made:
        empty = {"authorization": "Bearer"}
        first = made.tcp.post("/api/v1/commands/pause", json={}, headers=empty)
        (tmp_path / "token").unlink()
        second = made.tcp.post("/api/v1/commands/pause", json={}, headers=empty)

    assert (first.status_code, second.status_code) == (401, 401)


def test_other_accounts_on_the_socket_may_read_and_not_command(tmp_path: Path) -> None:
    other = WebOptions(daemon_uid=os.geteuid() + 1)
    with running(full_status(), tmp_path, other) as made:
        # Only root is trusted whatever the daemon's account is.
        expected = 200 if os.geteuid() == 0 else 403
        assert made.unix.get("/api/v1/status").status_code == 200
        assert made.unix.post("/api/v1/commands/pause", json={}).status_code == expected


@pytest.mark.parametrize(
    ("name", "status", "kind", "message"),
    [
        ("missing", 404, "NotFound", "no such thing"),
        ("wrong", 400, "ParseError", "count must be a number"),
        ("refused", 409, "CommandRefused", "paused by root"),
        ("broken", 500, "StoreUnwritable", "disk full"),
    ],
)
def test_command_errors_say_whose_fault_it_is(
    site: Site, name: str, status: int, kind: str, message: str
) -> None:
    answer = site.unix.post(f"/api/v1/commands/{name}", json={})

    assert answer.status_code == status
    assert answer.json() == {"error": {"kind": kind, "message": message}}


@pytest.mark.parametrize(
    ("body", "content_type", "expected"),
    [
        (b"{}", "text/plain", 415),
        (b"why=x", "application/x-www-form-urlencoded", 415),
        (b"{", "application/json", 400),
        (b"[]", "application/json", 400),
        (b"\xff\xfe\xfd", "application/json", 400),
        (b"[" * 100_000, "application/json", 413),
        (b"[" * 30_000, "application/json", 400),
        (b"", "application/json; charset=utf-8", 200),
    ],
)
def test_body_must_be_a_small_json_object(
    site: Site, body: bytes, content_type: str, expected: int
) -> None:
    answer = site.unix.post(
        "/api/v1/commands/x", content=body, headers={"content-type": content_type}
    )

    assert answer.status_code == expected


@pytest.mark.parametrize(
    "body", ['{"dry_run": true, "dry_run": false}', '{"wants": {"1g": 1, "1g": 2}}']
)
def test_name_given_twice_is_refused(site: Site, body: str) -> None:
    asked = len(site.commands.asked)
    answer = site.unix.post(
        "/api/v1/commands/x", content=body, headers={"content-type": "application/json"}
    )

    assert answer.status_code == 400
    assert (
        answer.json()["error"]["message"]
        == "the body can't be read: a name is given twice in one object"
    )
    assert len(site.commands.asked) == asked


def test_arguments_in_the_address_are_refused(site: Site) -> None:
    """`apply?dry_run=true` with an empty body would have acted."""
    asked = len(site.commands.asked)
    answer = site.unix.post("/api/v1/commands/x?dry_run=true", json={})

    assert answer.status_code == 400
    assert answer.json()["error"]["message"] == (
        "arguments belong into the JSON body, not behind a ? in the address"
    )
    assert len(site.commands.asked) == asked


def test_body_without_length_is_bounded_too(open_site: Site) -> None:
    def chunks() -> Iterator[bytes]:
        for _ in range(40):
            yield b" " * 100

    answer = open_site.unix.post(
        "/api/v1/commands/x", content=chunks(), headers={"content-type": "application/json"}
    )

    assert answer.status_code == 400
    assert "more than 2000 bytes" in answer.json()["error"]["message"]


def test_head_that_is_too_long_is_refused(site: Site) -> None:
    answer = site.tcp.get("/-/healthy", headers={"x-long": "x" * 20_000})

    # 431 if it arrived at once, 400 from the parser if in pieces.
    assert answer.status_code in (400, 431)


def test_commands_at_once_are_bounded_and_reads_go_on(open_site: Site) -> None:
    def ask() -> int:
        return httpx.post(
            f"http://{open_site.address[0]}:{open_site.address[1]}/api/v1/commands/wait",
            json={},
            headers={"authorization": f"Bearer {TOKEN}"},
            timeout=20,
        ).status_code

    open_site.commands.asked.clear()
    open_site.commands.gate.clear()
    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        waiting = [pool.submit(ask), pool.submit(ask)]
        deadline = time.monotonic() + 30
        while len(open_site.commands.asked) < 2 and time.monotonic() < deadline:
            time.sleep(0.01)
        third = ask()
        reading = open_site.tcp.get("/metrics").status_code
        open_site.commands.gate.set()
        finished = [one.result() for one in waiting]

    assert (third, reading, finished) == (503, 200, [200, 200])


def test_slow_command_does_not_keep_its_caller(tmp_path: Path) -> None:
    with running(full_status(), tmp_path, WebOptions(command_seconds=0.05)) as made:
        answer = made.unix.post("/api/v1/commands/wait", json={})

    assert answer.status_code == 504


def test_commands_take_no_get(site: Site) -> None:
    assert site.unix.get("/api/v1/commands/pause").status_code == 405


def test_probes_follow_the_daemon(tmp_path: Path) -> None:
    wrong: list[str | None] = [None]
    with running(None, tmp_path, WebOptions(health=lambda: wrong[0])) as made:
        fresh = made.tcp.get("/-/healthy").status_code
        wrong[0] = "the sampler has not run for 60 s"
        sick = made.tcp.get("/-/healthy")
        ready = made.tcp.get("/-/ready").status_code
        api = made.tcp.get("/api/v1/status").status_code
        page = made.tcp.get("/")
        metrics = made.tcp.get("/metrics").status_code

    assert (fresh, sick.status_code, ready, api, metrics) == (200, 503, 503, 503, 200)
    assert "the sampler has not run" in sick.text
    assert "The daemon is starting." in page.text


def test_ready_once_something_was_read(site: Site) -> None:
    assert site.tcp.get("/-/ready").status_code == 200


def test_status_is_valid_json_for_any_reader(site: Site) -> None:
    text = site.unix.get("/api/v1/status").text

    assert "NaN" not in text
    assert json.loads(text)["version"] == "0.1.0"


def test_not_ready_while_the_start_is_not_done(tmp_path: Path) -> None:
    waits = ["what was left open is being settled"]
    options = WebOptions(ready=lambda: waits[0] if waits else None)
    with running(full_status(), tmp_path, options) as made:
        early = made.tcp.get("/-/ready")
        waits.clear()
        later = made.tcp.get("/-/ready")

    assert (early.status_code, early.text) == (503, "what was left open is being settled\n")
    assert (later.status_code, later.text) == (200, "ok\n")
