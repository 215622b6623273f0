"""Bytes of /metrics: the formats, their negotiation, and what is rendered when."""

import gzip
import subprocess
import threading
from collections.abc import Iterable
from dataclasses import replace

import pytest
from prometheus_client import CollectorRegistry, Metric
from prometheus_client.exposition import generate_latest
from prometheus_client.openmetrics.exposition import generate_latest as generate_openmetrics
from prometheus_client.openmetrics.parser import text_string_to_metric_families
from prometheus_client.registry import Collector as LibraryCollector

from migscaler.metrics.collector import Collector, collect
from migscaler.metrics.exposition import Renderer, accepts_gzip, wants_openmetrics
from migscaler.metrics.writer import Writer
from migscaler.model.status import Status
from tests.builders import NOW
from tests.unit.metrics.statuses import full_status

PROMETHEUS_ACCEPT = (
    "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.6,"
    "application/openmetrics-text;version=0.0.1;q=0.5,"
    "text/plain;version=1.0.0;escaping=allow-utf-8;q=0.4,text/plain;version=0.0.4;q=0.3,*/*;q=0.2"
)


class Fixed(LibraryCollector):
    """The library's view of one status."""

    def __init__(self, status: Status) -> None:
        self.status = status

    def collect(self) -> Iterable[Metric]:
        return collect(self.status)


def registry(status: Status) -> CollectorRegistry:
    made = CollectorRegistry(auto_describe=False)
    made.register(Fixed(status))
    return made


def awkward_status() -> Status:
    """Return the full status with texts that must be quoted."""
    status = full_status(paused=True)
    config = replace(status.config, sha256='quote " backslash \\ line\nend')
    return replace(status, config=config)


def test_text_format_is_byte_for_byte_the_library_s() -> None:
    status = awkward_status()
    writer = Writer()
    samples = Collector().samples(status)

    expected = generate_latest(registry(status))
    assert writer.write(samples, openmetrics=False) == expected
    assert writer.write(samples, openmetrics=False) == expected  # again, from kept label texts


def test_openmetrics_is_byte_for_byte_the_library_s() -> None:
    status = awkward_status()
    expected: bytes = generate_openmetrics(registry(status))  # type: ignore[no-untyped-call] # untyped there

    written = Writer().write(Collector().samples(status), openmetrics=True)

    assert written + b"# EOF\n" == expected


def test_openmetrics_body_is_read_by_the_library_s_strict_parser() -> None:
    renderer = Renderer()
    renderer.publish(full_status(paused=True))
    body = renderer.render(PROMETHEUS_ACCEPT).body.decode()

    families = {family.name for family in text_string_to_metric_families(body)}  # type: ignore[no-untyped-call] # untyped there

    assert {"migscaler_gpu", "migscaler_plans", "process_cpu_seconds"} <= families
    assert body.endswith("# EOF\n")


def test_promtool_finds_nothing_to_say() -> None:
    renderer = Renderer()
    renderer.publish(full_status(paused=True))

    done = subprocess.run(
        ["promtool", "check", "metrics"], input=renderer.render().body, capture_output=True
    )

    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")


def test_body_is_rendered_once_per_status_and_format() -> None:
    renderer = Renderer()
    renderer.publish(full_status())

    first = renderer.render().body

    assert renderer.render().body is first
    assert renderer.render(PROMETHEUS_ACCEPT).body is renderer.render(PROMETHEUS_ACCEPT).body
    zipped = renderer.render("", "gzip")
    assert renderer.render("", "gzip").body is zipped.body
    assert gzip.decompress(zipped.body) == first
    assert zipped.encoding == "gzip"
    renderer.publish(full_status())
    assert renderer.render().body is not first


def test_before_the_first_status_there_are_the_process_s_own_series() -> None:
    rendered = Renderer().render()

    assert b"process_resident_memory_bytes" in rendered.body
    assert b"migscaler_" not in rendered.body


def test_scrapers_at_once_are_given_the_same_bytes() -> None:
    renderer = Renderer()
    renderer.publish(full_status())
    bodies: list[bytes] = []
    threads = [
        threading.Thread(target=lambda: bodies.append(renderer.render().body)) for _ in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert len(bodies) == 8
    assert len({id(body) for body in bodies}) == 1


def test_label_texts_of_gone_instances_are_forgotten() -> None:
    writer = Writer()
    writer.write(Collector().samples(full_status()), openmetrics=False)
    before = writer.kept()
    bare = Status(version="0.1.0", started_at=NOW, now=NOW)
    writer.write(Collector().samples(bare), openmetrics=False)

    assert before > 1_000
    assert writer.kept() < 120


@pytest.mark.parametrize(
    ("accept", "expected"),
    [
        (PROMETHEUS_ACCEPT, True),
        ("application/openmetrics-text", True),
        ("application/openmetrics-text;version=1.0.0,text/plain;q=0.5", True),
        ("text/plain", False),
        ("*/*", False),
        ("", False),
        ("application/openmetrics-text;q=0.2,text/plain;q=0.9", False),
        ("application/openmetrics-text;q=0", False),
        ("application/openmetrics-text;version=0.0.1", False),
        ("application/openmetrics-text;q=much", False),
    ],
)
def test_format_follows_the_accept_header(accept: str, expected: bool) -> None:
    assert wants_openmetrics(accept) is expected


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        ("gzip", True),
        ("br, gzip;q=0.5", True),
        ("gzip;q=0", False),
        ("identity", False),
        ("", False),
    ],
)
def test_compression_follows_the_accept_encoding_header(header: str, expected: bool) -> None:
    assert accepts_gzip(header) is expected


def test_snapshot_that_grows_old_is_hidden_though_nobody_publishes() -> None:
    """The thread that was to publish it as stale waited in a reload, behind a sample that hung."""
    now = 100.0
    renderer = Renderer(lambda: now)
    status = replace(full_status(), stale_from=115.0)
    renderer.publish(status)
    fresh = renderer.render().body

    now = 115.5
    hidden = renderer.render().body
    again = renderer.render().body
    renderer.publish(replace(status, stale_from=130.0))
    new = renderer.render().body

    assert b"migscaler_snapshot_stale 0.0" in fresh
    assert b"migscaler_instance_info{" in fresh
    assert b"migscaler_snapshot_stale 1.0" in hidden
    assert b"migscaler_instance_info{" not in hidden
    assert again is hidden
    assert b"migscaler_instance_info{" in new
