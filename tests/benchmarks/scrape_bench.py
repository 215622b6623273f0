"""Times scrapes of 8 GPUs x 7 instances with every family; prints the rows of docs/benchmarks.md.

Run it with `make bench`, or alone: `python -m tests.benchmarks.scrape_bench`.
"""

import gzip
import http.client
import multiprocessing
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, replace

from starlette.types import Receive, Scope, Send

from migscaler.metrics.exposition import Renderer
from migscaler.model.gpu import GpuState, PinReason
from migscaler.model.status import Status
from migscaler.web.app import create_app
from migscaler.web.places import Limits
from migscaler.web.server import WebServer
from tests.builders import H100, NOW, gpu_state, snapshot
from tests.unit.metrics.statuses import GAUGES, dressed, full_status

SEVEN = "1g@0 1g@1 1g@2 1g@3 1g@4 1g@5 1g@6"
SCRAPERS = 16
# Sixteen scrapers that never rest are what the server would shed.
NO_LIMITS = Limits(peer_per_second=1e9, peer_burst=1e9)
HEADERS = {
    "accept": "application/openmetrics-text;version=1.0.0,text/plain;version=0.0.4;q=0.5",
    "accept-encoding": "gzip",
}


@dataclass(frozen=True)
class Figures:
    """Milliseconds, and the size of what was scraped."""

    series: int
    bytes_plain: int
    bytes_gzip: int
    first_p50: float
    first_p99: float
    cached_p50: float
    cached_p99: float
    floor_p50: float
    floor_p99: float
    parallel_p50: float
    parallel_p99: float


def full_node(round_: int) -> Status:
    """Return a status of 56 instances whose figures differ from round to round."""
    return replace(full_status(), snapshot=snapshot(*(_gpu(index, round_) for index in range(8))))


def _gpu(index: int, round_: int) -> GpuState:
    pins = {f"1g@{n}": PinReason.PROCESS for n in range(7) if (n + round_) % 3}
    gpu = dressed(gpu_state(H100, SEVEN, pins, index=index, gpm=True, changed_at=NOW))
    gauges = replace(GAUGES, power_watts=200.0 + round_ % 97, utilization_ratio=0.5)
    return replace(gpu, reading=replace(gpu.reading, gauges=gauges))


def percentile(times: list[float], share: float) -> float:
    """Return a percentile by nearest rank, in milliseconds."""
    ordered = sorted(times)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))] * 1_000


def timed(call: Callable[[], object]) -> float:
    """Return how long a call took, in seconds."""
    begin = time.perf_counter()
    call()
    return time.perf_counter() - begin


def scrape(connection: http.client.HTTPConnection) -> bytes:
    """Scrape once over a kept connection."""
    connection.request("GET", "/metrics", headers=HEADERS)
    return connection.getresponse().read()


async def fixed_answer(_scope: Scope, receive: Receive, send: Send) -> None:
    """Answer 16 kB that are always the same: what the server and the client cost alone."""
    await receive()
    await send({"type": "http.response.start", "status": 200, "headers": _FIXED_HEADERS})
    await send({"type": "http.response.body", "body": _FIXED_BODY})


_FIXED_BODY = b"x" * 16_000
_FIXED_HEADERS = [(b"content-length", b"16000"), (b"content-type", b"text/plain")]


def one_after_another(
    address: tuple[str, int],
    floor: tuple[str, int],
    publish: Callable[[Status], None],
    rounds: int,
) -> tuple[list[float], list[float], list[float]]:
    """Return the times of the first and second scrape of each new status, and of a fixed answer.

    They take turns, so that whatever else the machine does meets all three alike.
    """
    connection, other = http.client.HTTPConnection(*address), http.client.HTTPConnection(*floor)
    first, cached, fixed = [], [], []
    for status in [full_node(n) for n in range(rounds)]:
        publish(status)
        first.append(timed(lambda: scrape(connection)))
        cached.append(timed(lambda: scrape(connection)))
        fixed.append(timed(lambda: scrape(other)))
    connection.close()
    other.close()
    return first[5:], cached[5:], fixed[5:]


def _scraper(address: tuple[str, int], scrapes: int, times: list[float]) -> None:
    connection = http.client.HTTPConnection(*address)
    for _ in range(scrapes):
        times.append(timed(lambda: scrape(connection)))
        time.sleep(0.05)
    connection.close()


def _scrapers(
    address: tuple[str, int], scrapes: int, out: "multiprocessing.Queue[list[float]]"
) -> None:
    """Scrape from threads of a process of its own, so that clients don't slow the server."""
    times: list[float] = []
    threads = [
        threading.Thread(target=_scraper, args=(address, scrapes, times)) for _ in range(SCRAPERS)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    out.put(times)


def in_parallel(
    address: tuple[str, int], publish: Callable[[Status], None], scrapes: int
) -> list[float]:
    """Return the times of 16 scrapers at once while a new status comes every 200 ms."""
    context = multiprocessing.get_context("spawn")
    out: multiprocessing.Queue[list[float]] = context.Queue()
    statuses = [full_node(n) for n in range(20)]
    process = context.Process(target=_scrapers, args=(address, scrapes, out))
    process.start()
    number = 0
    while out.empty() and process.is_alive():
        publish(statuses[number % len(statuses)])
        number += 1
        time.sleep(0.2)
    times = out.get(timeout=60)
    process.join(60)
    return times[SCRAPERS * 2 :]


def measure(rounds: int = 300, scrapes: int = 60) -> Figures:
    """Measure through the real server."""
    renderer = Renderer()
    renderer.publish(full_node(0))
    server = WebServer(create_app(renderer.render, lambda: None), "127.0.0.1:0", limits=NO_LIMITS)
    server.start()
    floor = WebServer(fixed_answer, "127.0.0.1:0")
    floor.start()
    assert server.address is not None
    assert floor.address is not None
    try:
        first, cached, fixed = one_after_another(
            server.address, floor.address, renderer.publish, rounds
        )
        parallel = in_parallel(server.address, renderer.publish, scrapes)
    finally:
        server.stop()
        floor.stop()
    plain = renderer.render().body
    return Figures(
        series=sum(not line.startswith(b"#") for line in plain.splitlines()),
        bytes_plain=len(plain),
        bytes_gzip=len(gzip.compress(plain, 1)),
        first_p50=percentile(first, 0.5),
        first_p99=percentile(first, 0.99),
        cached_p50=percentile(cached, 0.5),
        cached_p99=percentile(cached, 0.99),
        floor_p50=percentile(fixed, 0.5),
        floor_p99=percentile(fixed, 0.99),
        parallel_p50=percentile(parallel, 0.5),
        parallel_p99=percentile(parallel, 0.99),
    )


def report(figures: Figures) -> str:
    """Return the figures as a markdown table."""
    size = f"{figures.bytes_plain / 1000:.0f} kB, {figures.bytes_gzip / 1000:.0f} kB with gzip"
    return f"""\
| scrape of 8 GPUs x 7 instances, {figures.series} series ({size}) | p50 | p99 | to hold |
|---|---|---|---|
| first of a snapshot, over HTTP | {figures.first_p50:.1f} ms | {figures.first_p99:.1f} ms | 30 ms |
| cached, over HTTP | {figures.cached_p50:.1f} ms | {figures.cached_p99:.1f} ms | 3 ms |
| a fixed answer of 16 kB by the same server, for comparison | {figures.floor_p50:.1f} ms \
| {figures.floor_p99:.1f} ms | |
| {SCRAPERS} at once | {figures.parallel_p50:.1f} ms | {figures.parallel_p99:.1f} ms | 50 ms |
"""


if __name__ == "__main__":
    print(report(measure()))
