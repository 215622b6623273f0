"""DCGM's series as the exporter and Prometheus tell them."""

import json
from datetime import UTC, datetime, timedelta

import httpx
import pytest

from migscaler.model.ids import GiId, GpuUuid
from migscaler.sources.dcgm import DcgmFetch, DcgmRow, DcgmSettings, DcgmSource
from migscaler.sources.dcgm_series import selector_query
from migscaler.sources.prometheus_api import Connection
from tests.unit.store.fixed_clock import FixedClock

GPU = GpuUuid("GPU-93c79230-7e5a-5017-b221-20223483402c")
OTHER = GpuUuid("GPU-00000000-7e5a-5017-b221-20223483402c")
PAGE = "http://127.0.0.1:9400/metrics"
SERVER = "http://prom:9090"
STAMP = datetime(2026, 3, 2, 12, 0, tzinfo=UTC).timestamp()


def line(name: str, value: object, *, gi: str = "3", profile: str = "1g.5gb", **more: str) -> str:
    labels = {"gpu": "0", "UUID": GPU, "GPU_I_ID": gi, "GPU_I_PROFILE": profile}
    labels = {k: v for k, v in {**labels, "Hostname": "node7", **more}.items() if v}
    inside = ",".join(f'{key}="{text}"' for key, text in labels.items())
    return f"{name}{{{inside}}} {value}"


def source(
    answer: httpx.Response | Exception, *, host: str | None = None, prometheus: bool = False
) -> DcgmSource:
    def transport(_request: httpx.Request) -> httpx.Response:
        if isinstance(answer, Exception):
            raise answer
        return answer

    settings = DcgmSettings(
        connection=Connection(
            url=SERVER if prometheus else PAGE,
            timeout=timedelta(seconds=5),
        ),
        interval=timedelta(seconds=15),
        max_age=timedelta(minutes=1),
        through_prometheus=prometheus,
        host=host,
    )
    client = httpx.Client(transport=httpx.MockTransport(transport))
    return DcgmSource(settings=settings, client=client, clock=FixedClock())


def page(*lines: str, host: str | None = None) -> DcgmFetch:
    body = "# HELP DCGM_FI_DEV_SM_CLOCK x\n" + "\n".join(lines) + "\n"
    return source(httpx.Response(200, text=body), host=host).fetch({GPU})


def values(*lines: str, host: str | None = None) -> list[tuple[int, str, dict[str, float]]]:
    fetch = page(*lines, host=host)
    assert fetch.problem is None
    return [(row.key[1], row.key[2], dict(row.values)) for row in fetch.rows]


def test_page_gives_a_row_per_instance_with_all_fields() -> None:
    fetch = page(
        line("DCGM_FI_PROF_GR_ENGINE_ACTIVE", 0.5),
        line("DCGM_FI_PROF_SM_ACTIVE", 0.45),
        line("DCGM_FI_PROF_PIPE_TENSOR_ACTIVE", 0.25),
        line("DCGM_FI_PROF_DRAM_ACTIVE", 0.3),
        line("DCGM_FI_DEV_FB_USED", 512),
    )

    assert fetch.rows == (
        DcgmRow(
            key=(GPU, GiId(3), "1g.5gb"),
            values=(("graphics", 0.5), ("sm", 0.45), ("tensor", 0.25), ("dram", 0.3)),
            measured=FixedClock().monotonic(),
        ),
    )


def test_names_of_dcgm_4_6_mean_the_same() -> None:
    assert values(
        line("DCGM_FI_PROF_GR_ENGINE_UTIL_RATIO", 0.5),
        line("DCGM_FI_PROF_SM_UTIL_RATIO", 0.45),
        line("DCGM_FI_PROF_TENSOR_UTIL_RATIO", 0.25),
        line("DCGM_FI_PROF_DRAM_UTIL_RATIO", 0.3),
    ) == [(3, "1g.5gb", {"graphics": 0.5, "sm": 0.45, "tensor": 0.25, "dram": 0.3})]


def test_rows_of_whole_gpus_and_of_others_are_passed_over() -> None:
    name = "DCGM_FI_PROF_GR_ENGINE_ACTIVE"

    assert values(
        line(name, 0.9, gi="", profile=""),
        line(name, 0.8, UUID=OTHER),
        line(name, 0.7, gi="x"),
        line(name, 0.6, gi="5", profile="2g.10gb"),
    ) == [(5, "2g.10gb", {"graphics": 0.6})]


def test_one_series_per_pod_makes_one_row_of_the_busiest() -> None:
    name = "DCGM_FI_PROF_GR_ENGINE_ACTIVE"

    assert values(line(name, 0.2, pod="a"), line(name, 0.6, pod="b"), line(name, 0.4, pod="c")) == [
        (3, "1g.5gb", {"graphics": 0.6})
    ]


@pytest.mark.parametrize("label", ["Hostname", "hostname"])
def test_host_is_told_in_either_spelling(label: str) -> None:
    name = "DCGM_FI_PROF_GR_ENGINE_ACTIVE"
    here = line(name, 0.2, **{"Hostname": "", label: "node7"})
    there = line(name, 0.6, **{"Hostname": "", label: "node8"})

    assert values(here, there, host="node7") == [(3, "1g.5gb", {"graphics": 0.2})]
    assert values(here, there, host="node9") == []


@pytest.mark.parametrize("value", ["NaN", "+Inf", "-0.5", "140737488355328", "9.2e18"])
def test_what_is_no_ratio_is_not_told(value: str) -> None:
    assert values(
        line("DCGM_FI_PROF_GR_ENGINE_ACTIVE", value), line("DCGM_FI_PROF_SM_ACTIVE", 0.1)
    ) == [(3, "1g.5gb", {"sm": 0.1})]


def test_more_than_one_is_told_as_it_came() -> None:
    assert values(line("DCGM_FI_PROF_SM_ACTIVE", 1.29)) == [(3, "1g.5gb", {"sm": 1.29})]


@pytest.mark.parametrize(
    ("answer", "problem"),
    [
        (httpx.Response(500, text="x"), f"{PAGE} answers with HTTP 500"),
        (httpx.ReadTimeout("slow"), f"{PAGE} did not answer: slow"),
        (httpx.Response(200, content=b"\xff"), "can't be read"),
        (httpx.Response(200, text='DCGM_FI_PROF_SM_ACTIVE{gpu="0"'), "can't be read"),
        (httpx.Response(200, text='DCGM_FI_PROF_SM_ACTIVE{gpu="0"} much'), "can't be read"),
    ],
)
def test_page_that_fails_is_a_problem(answer: httpx.Response | Exception, problem: str) -> None:
    fetch = source(answer).fetch({GPU})

    assert fetch.problem is not None
    assert problem in fetch.problem
    assert (fetch.rows, fetch.is_refused) == ((), False)


def test_refused_connection_is_told_from_other_failures() -> None:
    refused = httpx.ConnectError("refused")
    refused.__cause__ = ConnectionRefusedError(111, "Connection refused")

    assert source(refused).fetch({GPU}).is_refused
    assert not source(httpx.ConnectError("no such host")).fetch({GPU}).is_refused


def series(
    field: str, what: str, value: float, *, host: str = "node7", at: float = STAMP
) -> dict[str, object]:
    metric = {
        "UUID": GPU,
        "GPU_I_ID": "3",
        "GPU_I_PROFILE": "1g.5gb",
        "Hostname": host,
        "migscaler_field": field,
        "migscaler_what": what,
    }
    return {"metric": metric, "value": [at, str(value)]}


def asked(*result: dict[str, object], **more: object) -> DcgmFetch:
    data = {"resultType": "vector", "result": result}
    body = {"status": "success", "data": data, **more}
    answer = httpx.Response(200, content=json.dumps(body))
    return source(answer, prometheus=True).fetch({GPU})


def test_prometheus_tells_the_age_of_each_sample() -> None:
    fetch = asked(
        series("graphics", "value", 0.5),
        series("graphics", "time", STAMP - 20),
        series("sm", "value", 0.45),
        series("sm", "time", STAMP - 25),
    )

    assert [dict(row.values) for row in fetch.rows] == [{"graphics": 0.5, "sm": 0.45}]
    assert fetch.rows[0].measured == FixedClock().monotonic() - 25


def test_of_two_series_the_fresh_one_counts_even_if_it_is_less_busy() -> None:
    fetch = asked(
        series("graphics", "value", 0.9, host="old"),
        series("graphics", "time", STAMP - 200, host="old"),
        series("graphics", "value", 0.1),
        series("graphics", "time", STAMP - 10),
    )

    assert [dict(row.values) for row in fetch.rows] == [{"graphics": 0.1}]


def test_value_without_its_time_is_not_told() -> None:
    assert asked(series("graphics", "value", 0.5)).rows == ()


def test_empty_answer_of_prometheus_is_a_problem() -> None:
    assert asked().problem == "Prometheus has no DCGM series of these GPUs"


def test_warning_of_prometheus_is_a_problem() -> None:
    found = asked(series("graphics", "value", 0.5), warnings=["remote read failed"])

    assert found.problem == "Prometheus warns: ['remote read failed']"
    assert found.rows == ()


def test_query_asks_for_both_spellings_of_these_gpus_only() -> None:
    query = selector_query([GPU, OTHER])

    selector = f'{{GPU_I_ID!="",UUID=~"{GPU}|{OTHER}"}}'
    for name in ("GR_ENGINE_ACTIVE", "GR_ENGINE_UTIL_RATIO", "PIPE_TENSOR_ACTIVE"):
        assert f"(DCGM_FI_PROF_{name}{selector}, " in query
        assert f"timestamp(DCGM_FI_PROF_{name}{selector})" in query
