"""Scrapes a daemon while somebody attacks it; what the scraper saw, and the daemon's memory."""

import contextlib
import http.client
import json
import os
import ssl
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from tests.e2e.processes import Daemon, wait_until

KEPT = 6
# What Prometheus waits for an answer, if it is not told otherwise.
SCRAPE_SECONDS = 10.0
# However slow the machine is, an attack ends.
_LONGEST_SECONDS = 60.0
ATTACKER = Path(__file__).with_name("attacker.py")


@dataclass
class Scraper:
    """Scrapes at a fixed pace; `kept`: on one connection, as Prometheus does."""

    port: int
    source: str
    kept: bool
    every: float = 0.05
    tls: ssl.SSLContext | None = None
    seconds: list[float] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)

    def run(self, stop: threading.Event) -> None:
        connection = self._connect()
        while not stop.wait(self.every):
            if not self.kept:
                connection.close()
                connection = self._connect()
            began = time.perf_counter()
            try:
                connection.request("GET", "/metrics", headers={"accept-encoding": "gzip"})
                answer = connection.getresponse()
                answer.read()
            except (OSError, http.client.HTTPException) as error:
                self.failures.append(repr(error))
                connection.close()
                connection = self._connect()
                continue
            self.seconds.append(time.perf_counter() - began)
            if answer.status != 200:
                self.failures.append(str(answer.status))
        connection.close()

    def _connect(self) -> http.client.HTTPConnection:
        source = (self.source, 0)
        if self.tls is None:
            return http.client.HTTPConnection(
                "127.0.0.1", self.port, timeout=SCRAPE_SECONDS, source_address=source
            )
        return http.client.HTTPSConnection(
            "127.0.0.1",
            self.port,
            timeout=SCRAPE_SECONDS,
            source_address=source,
            context=self.tls,
        )


@dataclass(frozen=True)
class Scrapes:
    """How long scrapes took in milliseconds, in order, and which failed."""

    times: list[float]
    failures: list[str]

    @classmethod
    def of(cls, *scrapers: Scraper) -> "Scrapes":
        """Return the scrapes of some scrapers together."""
        times = sorted(1000 * taken for one in scrapers for taken in one.seconds)
        return cls(times, [failure for one in scrapers for failure in one.failures])

    def percentile(self, share: float) -> float:
        """Return a percentile in milliseconds."""
        return self.times[min(len(self.times) - 1, int(share * len(self.times)))]


@dataclass(frozen=True)
class Seen:
    """What an attack did, and what scrapers saw meanwhile; memory in MiB.

    `cpu` is the share of a core that the daemon's process used.
    """

    attack: dict[str, float]
    kept: Scrapes
    anew: Scrapes
    rss_before: float
    rss_most: float
    cpu: float


@contextlib.contextmanager
def scraping(*scrapers: Scraper) -> Iterator[None]:
    """Scrape until the block ends."""
    stop = threading.Event()
    threads = [threading.Thread(target=one.run, args=(stop,)) for one in scrapers]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        stop.set()
        for thread in threads:
            thread.join()


def attacked(
    daemon: Daemon,
    kind: str,
    seconds: float,
    source: str,
    tls: ssl.SSLContext | None = None,
    enough: Callable[[Counter[str]], bool] = bool,
) -> Seen:
    """Attack a daemon for some seconds, with scrapers beside it; `tls`: they speak it.

    The attack lasts longer on a machine so busy that it has not done `enough` by then, or that the
    scrapers have seen hardly anything of it.

    Some share the attacker's address and keep their connections, as Prometheus servers behind the
    same proxy would; another has an address of its own and connects anew for each scrape.
    """
    kept = [Scraper(daemon.port, source, kept=True, every=0.6, tls=tls) for _ in range(KEPT)]
    anew = Scraper(daemon.port, "127.0.0.9", kept=False, tls=tls)
    before = memory(daemon.process.pid)
    most = before
    with scraping(*kept, anew):
        everybody = (*kept, anew)
        wait_until("all are served", lambda: all(len(one.seconds) > 1 for one in everybody))
        for one in everybody:
            one.seconds.clear()
        worked, began = cpu_seconds(daemon.process.pid), time.monotonic()
        attack = Attack(kind, daemon.port, source)
        for done in attack.told():
            most = max(most, memory(daemon.process.pid))
            passed = time.monotonic() - began
            is_enough = passed >= seconds and len(anew.seconds) >= 3 and enough(Counter(done))
            if is_enough or passed > _LONGEST_SECONDS:
                attack.end()
        worked = cpu_seconds(daemon.process.pid) - worked
        cpu = worked / (time.monotonic() - began)
    return Seen(done, Scrapes.of(*kept), Scrapes.of(anew), before, most, cpu)


class Attack:
    """An attacker at work until it is told to end."""

    def __init__(self, kind: str, port: int, source: str) -> None:
        command = [sys.executable, str(ATTACKER), kind, "127.0.0.1", str(port), source]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)

    def told(self) -> Iterator[dict[str, float]]:
        """Yield what it has done so far, last what it has done in all."""
        assert self._process.stdout is not None
        with self._process, self._process.stdout as lines:
            for line in lines:
                yield json.loads(line)
        assert self._process.returncode == 0

    def end(self) -> None:
        """Tell it to end; again does nothing."""
        assert self._process.stdin is not None
        self._process.stdin.close()


def cpu_seconds(pid: int) -> float:
    """Return the processor time that a process has used."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def memory(pid: int) -> float:
    """Return the resident memory of a process in MiB."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmRSS:")) / 1024
