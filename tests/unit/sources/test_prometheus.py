import gzip
import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import httpx
import pytest
import trustme

from migscaler.model.demand import Counts, Fetched, RawRow, Reading, VetoStatus, Want
from migscaler.model.ids import SourceName
from migscaler.sources.prometheus import (
    PrometheusSettings,
    PrometheusSource,
    PrometheusVeto,
    VetoSettings,
    shows_data,
)
from migscaler.sources.prometheus_api import MAX_BYTES, Connection, open_client

NOW = datetime(2026, 3, 2, 12, 0, tzinfo=UTC)
STAMP = NOW.timestamp()
URL = "http://prom:9090/base"
CONNECTION = Connection(url=URL, timeout=timedelta(seconds=5))
SETTINGS = PrometheusSettings(
    name=SourceName("queue"),
    connection=CONNECTION,
    query="sum by (profile) (jobs_waiting)",
    label="profile",
    counts=Counts.WAITING,
    interval=timedelta(seconds=15),
    max_age=timedelta(minutes=2),
)
ALIVE = replace(SETTINGS, alive="up == 1")


class VirtualClock:
    """Time that moves only when told, or by a step at each look at the monotonic clock."""

    def __init__(self, step: float = 0.0) -> None:
        self.seconds = 0.0
        self.step = step

    def now(self) -> datetime:
        return NOW + timedelta(seconds=self.seconds)

    def monotonic(self) -> float:
        self.seconds += self.step
        return self.seconds

    def sleep(self, seconds: float) -> None:
        self.seconds += seconds


def vector(*series: tuple[dict[str, str], str], at: float = STAMP) -> dict[str, object]:
    result = [{"metric": labels, "value": [at, value]} for labels, value in series]
    return {"status": "success", "data": {"resultType": "vector", "result": result}}


def scalar(value: str) -> dict[str, object]:
    return {"status": "success", "data": {"resultType": "scalar", "result": [STAMP, value]}}


Answer = dict[str, object] | httpx.Response | Exception


class Server:
    """Answers queries as told, and keeps the requests."""

    def __init__(self, answers: dict[str, Answer]) -> None:
        self.answers = answers
        self.requests: list[httpx.Request] = []

    def __call__(self, request: httpx.Request) -> httpx.Response:
        self.requests.append(request)
        answer = self.answers[request.url.params["query"]]
        if isinstance(answer, Exception):
            raise answer
        if isinstance(answer, httpx.Response):
            return answer
        return httpx.Response(200, json=answer)

    def client(self) -> httpx.Client:
        return httpx.Client(transport=httpx.MockTransport(self))


def fetch(
    answer: Answer, settings: PrometheusSettings = SETTINGS, alive: Answer | None = None
) -> Fetched:
    answers: dict[str, Answer] = {settings.query: answer}
    if settings.alive is not None:
        answers[settings.alive] = alive or vector(({}, "1"))
    with Server(answers).client() as client:
        return PrometheusSource(settings=settings, client=client, clock=VirtualClock()).fetch()


def wants(fetched: Fetched) -> list[tuple[str, int]]:
    assert fetched.reading is not None, fetched.problem
    return [(want.size, want.count) for want in fetched.reading.wants]


def test_answer_becomes_a_reading_true_for_its_evaluation() -> None:
    fetched = fetch(vector(({"profile": "3g"}, "2"), ({"profile": "1g"}, "7"), at=STAMP - 10))

    assert fetched == Fetched(
        reading=Reading(
            counts=Counts.WAITING,
            true_at=NOW - timedelta(seconds=10),
            expires_at=NOW + timedelta(seconds=110),
            wants=(Want(size="1g", count=7), Want(size="3g", count=2)),
            absent_is_zero=False,
        ),
        rows=(
            RawRow(labels='{profile="3g"}', value="2"),
            RawRow(labels='{profile="1g"}', value="7"),
        ),
    )


def test_request_goes_below_the_address_with_query_and_timeout() -> None:
    server = Server({SETTINGS.query: vector()})
    with server.client() as client:
        PrometheusSource(settings=SETTINGS, client=client, clock=VirtualClock()).fetch()

    (request,) = server.requests
    assert request.url.path == "/base/api/v1/query"
    assert dict(request.url.params) == {"query": SETTINGS.query, "timeout": "5s"}
    assert "authorization" not in request.headers


def test_token_is_read_at_every_request(tmp_path: Path) -> None:
    token = tmp_path / "token"
    connection = replace(CONNECTION, bearer_token_file=token)
    settings = replace(SETTINGS, connection=connection)
    server = Server({SETTINGS.query: vector(({"profile": "1g"}, "1"))})
    with server.client() as client:
        source = PrometheusSource(settings=settings, client=client, clock=VirtualClock())
        missing = source.fetch()
        token.write_text("first\n")
        source.fetch()
        token.write_text("second\n")
        source.fetch()

    assert missing.reading is None
    assert "bearer token can't be read" in str(missing.problem)
    assert [r.headers["authorization"] for r in server.requests] == [
        "Bearer first",
        "Bearer second",
    ]


def test_authorities_that_can_not_be_read_make_a_source_unknown_until_they_can(
    tmp_path: Path,
) -> None:
    """Read at once, a file that was missing ended the daemon at its start (2026-11-29)."""
    file = tmp_path / "ca.pem"
    connection = replace(CONNECTION, url="https://127.0.0.1:1", ca_file=file)
    settings = replace(SETTINGS, connection=connection)
    with open_client(connection) as client:
        source = PrometheusSource(settings=settings, client=client, clock=VirtualClock())
        missing = source.fetch().problem
        file.write_text("no certificate\n")
        wrong = source.fetch().problem
        trustme.CA().cert_pem.write_to_path(file)
        nobody = source.fetch().problem

    begins = "https://127.0.0.1:1 did not answer: "
    assert missing == f"{begins}ca_file can't be read: No such file or directory"
    assert str(wrong).startswith(f"{begins}ca_file can't be read: ")
    assert str(nobody).startswith(begins)
    assert "ca_file" not in str(nobody)


@pytest.mark.parametrize("content", [b"s3cr3t\nother", b"s3cr3t other", "s3cr3t\u00e9".encode()])
def test_file_with_more_than_a_token_is_told_without_what_is_in_it(
    tmp_path: Path, content: bytes
) -> None:
    """The HTTP library's own error quotes the header; a source's problem is shown to everybody."""
    token = tmp_path / "s3cr3t-token"
    token.write_bytes(content)
    settings = replace(SETTINGS, connection=replace(CONNECTION, bearer_token_file=token))
    server = Server({SETTINGS.query: vector(({"profile": "1g"}, "1"))})
    with server.client() as client:
        source = PrometheusSource(settings=settings, client=client, clock=VirtualClock())
        told = source.fetch().problem
        token.unlink()
        missing = source.fetch().problem

    assert "bearer token can't be read: it" in str(told)
    assert "s3cr3t" not in f"{told} {missing}"
    assert not server.requests


@pytest.mark.parametrize(
    ("value", "count"),
    [
        ("0", 0),
        ("3", 3),
        ("2.5", 3),
        ("0.01", 1),
        ("2.0000000001", 2),
        ("1e1", 10),
        ("-0", 0),
    ],
)
def test_fractions_are_rounded_up_and_noise_is_not(value: str, count: int) -> None:
    assert wants(fetch(vector(({"profile": "1g"}, value)))) == [("1g", count)]


@pytest.mark.parametrize("value", ["NaN", "+Inf", "-Inf", "-1", "1e30", "abc", ""])
def test_value_that_is_no_count_makes_the_source_unknown(value: str) -> None:
    fetched = fetch(vector(({"profile": "1g"}, "1"), ({"profile": "2g"}, value)))

    assert fetched.reading is None
    assert '{profile="2g"}' in str(fetched.problem)
    assert fetched.rows[1] == RawRow(labels='{profile="2g"}', value=value)


def test_single_number_speaks_of_the_size_that_is_set() -> None:
    settings = replace(SETTINGS, size="2g")

    assert wants(fetch(scalar("4"), settings)) == [("2g", 4)]
    assert wants(fetch(vector(({}, "4")), settings)) == [("2g", 4)]
    assert wants(fetch(vector(({"job": "q"}, "4")), settings)) == [("2g", 4)]


def test_single_number_without_a_size_is_unknown() -> None:
    fetched = fetch(scalar("4"))

    assert fetched.reading is None
    assert fetched.problem == "no label profile in the answer, and no size set for this source"


def test_label_beats_the_size_that_is_set() -> None:
    assert wants(fetch(vector(({"profile": "3g"}, "4")), replace(SETTINGS, size="2g"))) == [
        ("3g", 4)
    ]


@pytest.mark.parametrize(
    ("series", "problem"),
    [
        (
            [({"profile": "1g"}, "1"), ({"job": "q"}, "2")],
            'several series, one without label profile: {job="q"}',
        ),
        (
            [({"profile": "1g"}, "1"), ({"profile": ""}, "2")],
            'several series, one without label profile: {profile=""}',
        ),
        (
            [({"profile": "1g", "job": "a"}, "1"), ({"profile": "1g", "job": "b"}, "2")],
            "two series for profile=1g; join them: sum by (profile) (...)",
        ),
    ],
)
def test_series_that_cannot_be_told_apart_are_unknown(
    series: list[tuple[dict[str, str], str]], problem: str
) -> None:
    fetched = fetch(vector(*series), replace(SETTINGS, size="1g"))

    assert (fetched.reading, fetched.problem) == (None, problem)


def test_answer_with_hundreds_of_sizes_is_unknown() -> None:
    fetched = fetch(vector(*(({"profile": f"1g.{n}gb"}, "1") for n in range(1, 258))))

    assert fetched.reading is None
    assert str(fetched.problem).startswith("257 series, more than 256; join them")


def test_label_that_is_no_size_is_unknown() -> None:
    fetched = fetch(vector(({"profile": "cpu"}, "3")))

    assert fetched.reading is None
    assert "'cpu' is neither a size class" in str(fetched.problem)


def test_other_label_can_hold_the_size() -> None:
    settings = replace(SETTINGS, label="slice")

    assert wants(fetch(vector(({"slice": "1g", "profile": "x"}, "3")), settings)) == [("1g", 3)]


def test_empty_answer_without_alive_is_unknown() -> None:
    fetched = fetch(vector())

    assert fetched.reading is None
    assert fetched.problem == "the answer is empty, and without alive that may mean anything"


def test_empty_answer_while_alive_is_zero_at_the_time_of_alive() -> None:
    fetched = fetch(vector(), ALIVE, alive=vector(({}, "1"), at=STAMP - 3))

    assert fetched.reading is not None
    assert fetched.reading.wants == ()
    assert fetched.reading.absent_is_zero is True
    assert fetched.reading.true_at == NOW - timedelta(seconds=3)


def test_absent_size_is_zero_only_with_alive() -> None:
    answer = vector(({"profile": "1g"}, "1"))
    without, with_alive = fetch(answer).reading, fetch(answer, ALIVE).reading

    assert without is not None
    assert with_alive is not None
    assert (without.absent_is_zero, with_alive.absent_is_zero) == (False, True)


@pytest.mark.parametrize(
    "alive", [vector(), vector(({}, "0")), vector(({}, "1"), ({}, "0")), vector(({}, "NaN"))]
)
def test_nothing_is_believed_while_not_alive(alive: dict[str, object]) -> None:
    fetched = fetch(vector(({"profile": "1g"}, "1")), ALIVE, alive=alive)

    assert fetched.reading is None
    assert str(fetched.problem).startswith("alive")


def test_alive_needs_a_value_other_than_zero_in_every_series() -> None:
    alive = vector(({"job": "a"}, "1"), ({"job": "b"}, "1700000000"))

    assert wants(fetch(vector(({"profile": "1g"}, "1")), ALIVE, alive=alive)) == [("1g", 1)]


def true_at(answer: dict[str, object], queue: dict[str, object] | None = None) -> Fetched:
    settings = replace(ALIVE, true_at="max(timestamp(jobs_waiting))")
    answers: dict[str, Answer] = {
        "up == 1": vector(({}, "1")),
        settings.query: vector(({"profile": "1g"}, "1")) if queue is None else queue,
        "max(timestamp(jobs_waiting))": answer,
    }
    with Server(answers).client() as client:
        return PrometheusSource(settings=settings, client=client, clock=VirtualClock()).fetch()


def test_true_time_can_be_asked_for() -> None:
    reading = true_at(vector(({}, str(STAMP - 100)))).reading

    assert reading is not None
    assert reading.true_at == NOW - timedelta(seconds=100)
    assert reading.expires_at == NOW + timedelta(seconds=20)


@pytest.mark.parametrize(
    ("answer", "problem"),
    [
        (vector(), "true_at gives 0 values instead of one"),
        (vector(({"a": "1"}, "1"), ({"a": "2"}, "2")), "true_at gives 2 values instead of one"),
        (vector(({}, "NaN")), "true_at gives NaN, not a time"),
        (vector(({}, "1e300")), "true_at gives 1e300, not a time"),
        (vector(({}, str(STAMP - 120))), "the answer was true 120 s ago; max_age is 120 s"),
    ],
)
def test_true_time_that_is_missing_or_old_is_unknown(
    answer: dict[str, object], problem: str
) -> None:
    assert true_at(answer).problem == problem


def test_true_time_of_an_empty_answer_is_its_evaluation() -> None:
    fetched = true_at(vector(), queue=vector())

    assert fetched.reading is not None
    assert fetched.reading.true_at == NOW


def test_server_with_a_clock_ahead_does_not_prolong_a_reading() -> None:
    reading = fetch(vector(({"profile": "1g"}, "1"), at=STAMP + 3600)).reading

    assert reading is not None
    assert (reading.true_at, reading.expires_at) == (NOW, NOW + timedelta(minutes=2))


BOMB = gzip.compress(gzip.compress(bytes(8 * MAX_BYTES)))


def refusal(status: int, **body: object) -> httpx.Response:
    return httpx.Response(status, json={"status": "error", **body})


@pytest.mark.parametrize(
    ("answer", "problem"),
    [
        (
            refusal(400, errorType="bad_data", error="parse error"),
            "HTTP 400, bad_data: parse error",
        ),
        (refusal(503, errorType="timeout", error="too slow"), "HTTP 503, timeout: too slow"),
        (refusal(200), "HTTP 200, error: no explanation"),
        (httpx.Response(502, text="<html>"), "HTTP 502 with something that is not JSON"),
        (httpx.Response(200, json=[1]), "HTTP 200 with JSON that is not an answer"),
        (httpx.Response(302, headers={"location": "/login"}), "HTTP 302"),
        (httpx.Response(200, json={"status": "success"}), "an answer that can't be read"),
        (
            httpx.Response(200, json={"status": "success", "data": {"resultType": "vector"}}),
            "an answer that can't be read",
        ),
        (
            {"status": "success", "data": {"resultType": "matrix", "result": []}},
            "the query gives a matrix, not a number per series",
        ),
        (
            {"status": "success", "data": {"resultType": "vector", "result": [{"metric": {}}]}},
            "an answer that can't be read",
        ),
        *(
            (
                {"status": "success", "data": {"resultType": "vector", "result": [series]}},
                "an answer that can't be read",
            )
            for series in (
                "x",
                {"metric": None, "value": [STAMP, "1"]},
                {"metric": ["a"], "value": [STAMP, "1"]},
                {"metric": {}, "value": "12"},
                {"metric": {}, "value": [1e300, "1"]},
            )
        ),
        ({"status": "success", "data": []}, "an answer that can't be read"),
        (httpx.Response(200, content=b"[" * 200_000), "something that is not JSON"),
        (
            httpx.Response(200, headers={"Content-Encoding": "gzip, gzip"}, content=iter((BOMB,))),
            "the answer is compressed (gzip, gzip), which was not asked for",
        ),
        (httpx.ConnectError("refused"), f"{URL} did not answer: refused"),
        (httpx.ReadTimeout("slow"), f"{URL} did not answer: slow"),
        (httpx.Response(200, content=b" " * (MAX_BYTES + 1)), "more than 4194304 bytes"),
    ],
)
def test_failure_is_a_problem_in_words(answer: Answer, problem: str) -> None:
    fetched = fetch(answer)

    assert fetched.reading is None
    assert problem in str(fetched.problem)


def test_text_that_can_not_be_written_is_spelled_out() -> None:
    """Half of a surrogate pair is legal JSON; it ended the tick that recorded it."""
    body = json.dumps(vector(({"profile": "1g\ud800"}, "1"))).encode()

    fetched = fetch(httpx.Response(200, content=iter((body,))))

    assert str(fetched.problem).encode()
    assert [row.labels for row in fetched.rows] == ['{profile="1g\\ud800"}']


def test_long_explanations_are_cut() -> None:
    problem = fetch(refusal(400, errorType="bad_data", error="x" * 5_000)).problem

    assert len(str(problem)) < 320


def test_warnings_make_the_answer_unknown_and_show_its_rows() -> None:
    answer = vector(({"profile": "1g"}, "1")) | {"warnings": ["a store is missing"]}

    fetched = fetch(answer)

    assert fetched.reading is None
    assert fetched.problem == "Prometheus warns: ['a store is missing']"
    assert fetched.rows == (RawRow(labels='{profile="1g"}', value="1"),)


def test_infos_do_not_make_the_answer_unknown() -> None:
    answer = vector(({"profile": "1g"}, "1")) | {"infos": ["metric might not be a counter"]}

    assert wants(fetch(answer)) == [("1g", 1)]


def test_answer_that_drips_is_given_up_at_the_deadline() -> None:
    body = json.dumps(vector(({"profile": "1g"}, "1"))).encode()
    answer = httpx.Response(200, content=(body[i : i + 1] for i in range(len(body))))
    with Server({SETTINGS.query: answer}).client() as client:
        clock = VirtualClock(step=1.0)
        fetched = PrometheusSource(settings=SETTINGS, client=client, clock=clock).fetch()

    assert fetched.reading is None
    assert fetched.problem == f"{URL} did not answer: not complete within 5 s"


VETO = VetoSettings(
    name="maintenance",
    connection=CONNECTION,
    query="max(maintenance) > 0",
    interval=timedelta(seconds=15),
)


def veto(answers: dict[str, Answer], settings: VetoSettings = VETO) -> VetoStatus:
    with Server(answers).client() as client:
        source = PrometheusVeto(settings=settings, client=client, clock=VirtualClock())
        return source.fetch_veto()


def test_veto_is_active_for_a_value_other_than_zero() -> None:
    status = veto({VETO.query: vector(({}, "1"))})

    assert (status.name, status.active) == ("maintenance", True)


def test_veto_is_inactive_for_zero() -> None:
    settings = replace(VETO, query="max(maintenance) > bool 0")

    assert veto({settings.query: vector(({}, "0"))}, settings).active is False


def test_veto_is_active_if_any_series_is() -> None:
    settings = replace(VETO, query="maintenance")
    answer = vector(({"rack": "1"}, "0"), ({"rack": "2"}, "1"))

    status = veto({"maintenance": answer}, settings)

    assert status.active is True
    assert status.explanation == 'maintenance gives 1 {rack="2"}'


@pytest.mark.parametrize(
    ("left", "active"),
    [(vector(({}, "0")), False), (vector(), None), (vector(({}, "NaN")), None)],
)
def test_false_comparison_is_no_veto_only_where_its_left_side_has_a_value(
    left: dict[str, object], active: bool | None
) -> None:
    assert veto({VETO.query: vector(), "max(maintenance)": left}).active is active


@pytest.mark.parametrize(
    ("alive", "active"), [(vector(({}, "1")), False), (vector(), None), (vector(({}, "0")), None)]
)
def test_alive_decides_on_an_empty_veto_if_it_is_given(
    alive: dict[str, object], active: bool | None
) -> None:
    settings = replace(VETO, alive="up == 1")

    assert veto({VETO.query: vector(), "up == 1": alive}, settings).active is active


@pytest.mark.parametrize(
    "answer",
    [
        httpx.ConnectError("refused"),
        refusal(503, errorType="timeout", error="slow"),
        vector(({}, "NaN")),
        vector(({}, "1")) | {"warnings": ["partial"]},
    ],
)
def test_veto_that_cannot_be_known_is_unknown(answer: Answer) -> None:
    status = veto({VETO.query: answer})

    assert status.active is None
    assert status.explanation


def test_empty_veto_of_another_form_is_unknown() -> None:
    settings = replace(VETO, query="a > 0 and b > 0")

    assert veto({settings.query: vector()}, settings).active is None


@pytest.mark.parametrize(
    ("query", "left"),
    [
        ("max(maintenance) > 0", "max(maintenance)"),
        ("maintenance==1", "maintenance"),
        (' up{job="a and b"} != 1 ', 'up{job="a and b"}'),
        ("a >= 0.5", "a"),
        ("max(maintenance) > bool 0", None),
        ("max(maintenance)", None),
        ("a and b > 0", None),
        ("a > 0 or b > 0", None),
        ("sum(a > 0)", None),
        ("a > b", None),
    ],
)
def test_left_side_of_a_plain_comparison_shows_that_there_is_data(
    query: str, left: str | None
) -> None:
    assert shows_data(query) == left
