"""Soak: a real daemon at work for hours, watched for what grows and for ticks that do not come.

    python -m tests.e2e.soak --minutes 120 --directory DIR

A simulated node of two A100s and one H100 gets a day of jobs every 24 minutes; what waits is told
by a queue's exporter through a real Prometheus, and pushed. All the while the daemon is scraped,
its page and commands are used, its configuration is rewritten, the source falls silent in two
ways, and its NVML worker is killed. State that grows until retention cuts it (decisions, plans) is
filled up to that first, so that a file which still grows does so for another reason.
"""

import argparse
import contextlib
import json
import math
import os
import signal
import sqlite3
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import httpx
from prometheus_client.parser import text_string_to_metric_families

from migscaler.sim.node import build_node, open_node
from migscaler.sim.workload import Workload
from tests.e2e.processes import Queue, free_port, prometheus, queue_exporter, running, wait_until
from tests.e2e.trend import Trend, trend

MIGSCALER = str(Path(sys.executable).parent / "migscaler")
GPUS = "2xA100-SXM4-40GB,1xH100-80GB"
TICK_SECONDS = 5.0
CONFIG = """
mode: enforce
sampling: {{interval: 5s}}
tick: 5s
gpus: [{{model: "*"}}]
idle: {{after: 20s}}
sources:
  queue:
    type: prometheus
    url: "http://127.0.0.1:{port}"
    query: "sum by (profile) (jobs_waiting)"
    alive: 'min(up{{job="queue"}}) == 1'
    interval: 5s
    timeout: 2s
    max_age: 20s
  desk: {{type: push}}
rules:
  - {{name: notebooks, size: 1g, from: [queue, desk], spare: {spare}}}
  - {{name: pairs, size: 2g, from: [queue]}}
  - {{name: imaging, size: 3g, from: [queue]}}
  - {{name: training, size: 7g, from: [queue]}}
pace: {{raise_after: 5s, lower_after: 10s, rest: 5s, gpus_at_once: 2, per_day: 10000}}
"""
# The first part is left out: caches of planner, interpreter and allocator fill for half an hour.
WARM_UP_SHARE = 1 / 3
# Growth per hour that the interval must not show, in the unit of each quantity.
LIMITS = {
    "daemon resident MiB": 1.0,
    "worker resident MiB": 1.0,
    "daemon threads": 0.5,
    "daemon descriptors": 0.5,
    "worker descriptors": 0.5,
    "state file MiB": 0.5,
}
# SQLite starts its log anew after 1,000 pages, which takes longer than the warm-up.
CEILINGS = {"state WAL MiB": 5.0}
QUANTITIES = (*LIMITS, *CEILINGS)
_LOOK_SECONDS = 5.0
# A machine that stands still this long also keeps a scheduler from being on time.
_STALL_SECONDS = 1.0


@dataclass
class Record:
    """What was seen: one sample a minute, what was done, and what went wrong."""

    minutes: list[float] = field(default_factory=list)
    values: dict[str, list[float]] = field(
        default_factory=lambda: {name: [] for name in QUANTITIES}
    )
    done: dict[str, int] = field(default_factory=dict)
    stalls: list[float] = field(default_factory=list)
    ticks: dict[str, float] = field(default_factory=dict)
    wrongs: list[str] = field(default_factory=list)

    def count(self, what: str) -> None:
        """Count something that was done."""
        self.done[what] = self.done.get(what, 0) + 1

    @property
    def warm_up(self) -> float:
        """Return the minutes that are left out."""
        return self.minutes[-1] * WARM_UP_SHARE

    def trends(self) -> dict[str, Trend]:
        """Return the trend of each quantity after the warm-up, per hour."""
        kept = [n for n, minute in enumerate(self.minutes) if minute > self.warm_up]
        hours = [self.minutes[n] / 60 for n in kept]
        return {name: trend(hours, [self.values[name][n] for n in kept]) for name in QUANTITIES}

    def growing(self) -> list[str]:
        """Return what is shown to grow beyond its limit."""
        return [
            f"{name} grows by {found.slope:.3f} an hour, at least {found.low:.3f}"
            for name, found in self.trends().items()
            if found.low > LIMITS.get(name, math.inf)
        ] + [
            f"{name} reached {max(self.values[name]):.2f}"
            for name, ceiling in CEILINGS.items()
            if max(self.values[name]) > ceiling
        ]

    def problems(self) -> list[str]:
        """Return everything that must not be."""
        return [*self.wrongs, *self.growing(), *self.missed()]

    def missed(self) -> list[str]:
        """Return the ticks that did not come, beyond those that the machine stood still for."""
        found = []
        for job in ("tick", "sample"):
            if self.ticks.get(f"{job} missed", 0) > 0:
                found.append(f"{job}: the scheduler counts {self.ticks[f'{job} missed']:g} missed")
            excused = sum(stall / TICK_SECONDS + 1 for stall in self.stalls)
            due = self.ticks["seconds"] / TICK_SECONDS - 1
            if self.ticks[f"{job} runs"] < due - excused:
                found.append(f"{job}: {self.ticks[f'{job} runs']:g} runs where {due:.0f} were due")
        return found

    @staticmethod
    def _bar(name: str) -> str:
        """Return what a quantity is judged by, in words."""
        return f"{LIMITS[name]:g}" if name in LIMITS else f"at most {CEILINGS[name]:g} in all"

    def report(self) -> str:
        """Return everything as markdown."""
        lines = [
            f"{self.minutes[-1]:.0f} minutes, the first {self.warm_up:.0f} as warm-up, "
            f"{len(self.minutes)} samples",
            "",
            "| quantity | first, last, highest after the warm-up | slope per hour, 95 % interval "
            "| limit | counted samples |",
            "|---|---|---|---|---|",
        ]
        for name, found in self.trends().items():
            kept = [v for m, v in zip(self.minutes, self.values[name]) if m > self.warm_up]
            lines.append(
                f"| {name} | {kept[0]:.2f}, {kept[-1]:.2f}, {max(kept):.2f} "
                f"| {found.slope:+.3f} ({found.low:+.3f} .. {found.high:+.3f}) "
                f"| {self._bar(name)} | {found.samples:.0f} |"
            )
        told = [f"{what}: {count:g}" for what, count in sorted({**self.done, **self.ticks}.items())]
        longest = max(self.stalls, default=0.0)
        stalls = f"stalls of the machine: {len(self.stalls)}, longest {longest:.1f} s"
        problems = self.problems() or ["none"]
        return "\n".join([*lines, "", *told, stalls, "", "problems: " + "; ".join(problems)])


class Soak:
    """One soak in a directory."""

    def __init__(self, directory: Path, minutes: float, seed: int = 1) -> None:
        """Make the node; nothing runs yet."""
        self.directory = directory
        self.minutes = minutes
        self.seed = seed
        self.record = Record()
        self.port, self.prometheus_port = free_port(), free_port()
        self.config = directory / "migscaler.yaml"
        self.state = directory / "state"
        build_node(GPUS, directory=directory / "node")
        for gpu in range(3):
            open_node(directory / "node").foreign_create(gpu, "7g@0", actor="setup")
        self._configure(0)
        self._end = threading.Event()

    def run(self) -> Record:
        """Warm the state up, fill it, and watch a daemon for the time given."""
        with (
            queue_exporter() as queue,
            prometheus(
                self.directory / "prometheus", {"queue": queue.port}, self.prometheus_port
            ) as server,
            self._in_thread(lambda: self._work(queue)),
        ):
            with self._daemon():
                wait_until("decisions are recorded", lambda: self._rows("decisions") >= 20, 300)
                wait_until("plans are recorded", lambda: self._rows("plans") >= 5, 300)
            fill_to_retention(self.state / "state.sqlite")
            with (
                self._daemon() as process,
                self._in_thread(self._scrape),
                self._in_thread(self._time),
            ):
                self._watch(process.pid, queue, server.process.pid)
                self.record.wrongs += self._judged()
        return self.record

    def _watch(self, pid: int, queue: Queue, prometheus_pid: int) -> None:
        """Take a sample a minute and let things happen, until the time is over."""
        began, before = time.monotonic(), self._counts()
        for minute in range(1, round(self.minutes) + 1):
            self._happen(minute, pid, queue, prometheus_pid)
            looks: list[dict[str, float]] = []
            while time.monotonic() - began < 60 * minute:
                with contextlib.suppress(OSError, StopIteration):
                    looks.append(look(pid, self.state))
                time.sleep(_LOOK_SECONDS)
            self.record.minutes.append((time.monotonic() - began) / 60)
            for name in QUANTITIES:
                self.record.values[name].append(statistics.median(one[name] for one in looks))
            self._keep()
        after = self._counts()
        self.record.ticks = {key: after[key] - before[key] for key in after}
        self.record.ticks["seconds"] = time.monotonic() - began

    def _happen(self, minute: int, pid: int, queue: Queue, prometheus_pid: int) -> None:
        """Let this minute's trouble happen."""
        if minute % 5 == 0:
            self._configure(minute)
            self.record.count("configurations reloaded")
        if minute % 10 == 3:
            self._later(30, lambda: os.kill(prometheus_pid, signal.SIGCONT))
            os.kill(prometheus_pid, signal.SIGSTOP)
            self.record.count("outages: Prometheus stopped for 30 s")
        if minute % 10 == 8:
            queue.down = True
            self._later(30, lambda: setattr(queue, "down", False))
            self.record.count("outages: the queue's exporter failed for 30 s")
        if minute % 7 == 4:
            os.kill(worker_of(pid), signal.SIGKILL)
            self.record.count("workers killed")
        self._command("demand", "push", "desk", "1g=1", "--ttl", "40s")
        self._command("explain")
        if minute % 3 == 0:
            self._command("hold", "0", "--reason", "soak", "--ttl", "20s")
            self._command("history")

    def _command(self, *words: str) -> None:
        """Use the command line against the daemon."""
        done = subprocess.run(
            [MIGSCALER, "--state-dir", str(self.state), *words, "--output", "json"],
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        self.record.count("commands")
        if done.returncode not in (0, 3):
            self.record.wrongs.append(f"{' '.join(words)}: {done.returncode} {done.stderr.strip()}")

    def _configure(self, number: int) -> None:
        """Write the configuration, a little different each time."""
        text = CONFIG.format(port=self.prometheus_port, spare=number // 5 % 2)
        new = self.config.with_suffix(".new")
        new.write_text(text)
        new.replace(self.config)

    @contextlib.contextmanager
    def _daemon(self) -> Iterator[subprocess.Popen[bytes]]:
        """Run the daemon for one block."""
        words = ["--config", str(self.config), "--state-dir", str(self.state), "sim", "run"]
        words += ["--directory", str(self.directory / "node")]
        words += ["--listen", f"127.0.0.1:{self.port}"]
        with running([MIGSCALER, *words], self.directory / "daemon.log") as process:
            url = f"http://127.0.0.1:{self.port}/-/ready"
            wait_until("the daemon is ready", lambda: httpx.get(url).is_success, 60)
            yield process

    def _work(self, queue: Queue) -> None:
        """Let jobs come and go; tell the queue how many wait."""
        load = Workload(node=open_node(self.directory / "node"), seed=self.seed, speed=60.0)
        while not self._end.wait(1.0):
            load.step(time.monotonic())
            queue.waiting = load.waiting()
            self.record.done["jobs started"] = load.tally.started

    def _scrape(self) -> None:
        """Scrape as two Prometheis would, and look at the page."""
        accepts = ("text/plain;version=0.0.4", "application/openmetrics-text;version=1.0.0")
        with httpx.Client(base_url=f"http://127.0.0.1:{self.port}", timeout=20) as client:
            number = 0
            while not self._end.wait(2.5):
                number += 1
                headers = {"Accept": accepts[number % 2], "Accept-Encoding": "gzip"}
                try:
                    self.record.count("scrapes")
                    if not client.get("/metrics", headers=headers).is_success:
                        self.record.wrongs.append("a scrape failed")
                    if number % 8 == 0:
                        for path in ("/", "/api/v1/status", "/api/v1/explain"):
                            client.get(path).raise_for_status()
                            self.record.count("pages and API answers")
                except httpx.HTTPError as error:
                    if not self._end.is_set():
                        self.record.wrongs.append(f"not served: {error!r}")

    def _time(self) -> None:
        """Note when this machine stood still."""
        last = time.monotonic()
        while not self._end.wait(0.2):
            now = time.monotonic()
            if now - last > _STALL_SECONDS:
                self.record.stalls.append(now - last)
            last = now

    @contextlib.contextmanager
    def _in_thread(self, work: Callable[[], None]) -> Iterator[None]:
        """Do something beside the block; the first block to end ends all of it."""
        thread = threading.Thread(target=work, daemon=True)
        thread.start()
        try:
            yield
        finally:
            self._end.set()
            thread.join(30)

    @staticmethod
    def _later(seconds: float, act: Callable[[], None]) -> None:
        """Do something after a while."""
        timer = threading.Timer(seconds, act)
        timer.daemon = True
        timer.start()

    def _counts(self) -> dict[str, float]:
        """Return what the daemon counts of itself."""
        text = httpx.get(f"http://127.0.0.1:{self.port}/metrics", timeout=20).text
        values = {
            (sample.name, sample.labels.get("task", "")): sample.value
            for family in text_string_to_metric_families(text)
            for sample in family.samples
        }
        restarts = values.get(("migscaler_nvml_worker_restarts_total", ""), 0.0)
        counts = {"worker restarts": restarts}
        for job in ("tick", "sample"):
            for what in ("runs", "failures", "missed"):
                series = (f"migscaler_scheduler_job_{what}_total", job)
                counts[f"{job} {what}"] = values.get(series, 0.0)  # no tick so far
        return counts

    def _rows(self, table: str) -> int:
        """Count the rows of a table (with a condition) of the state file."""
        with contextlib.closing(sqlite3.connect(self.state / "state.sqlite")) as file:
            return int(file.execute(f"SELECT count(*) FROM {table}").fetchone()[0])

    def _judged(self) -> list[str]:
        """Return what the simulated library's own books hold against the daemon."""
        node = open_node(self.directory / "node")
        calls = [c for c in node.call_log() if c.actor.startswith("nvml/") and c.code == 0]
        self.record.done["layout calls"] = len(calls)
        wrongs = ["an instance in use was destroyed" for call in calls if call.in_use]
        plans = self._rows("plans WHERE begun_at > '2021'")
        self.record.done["GPU plans"] = plans
        if plans < self.minutes / 4:
            wrongs.append(f"only {plans} GPU plans: nothing much was soaked")
        return wrongs

    def _keep(self) -> None:
        """Write what was seen so far."""
        seen = {"minutes": self.record.minutes, **self.record.values}
        (self.directory / "samples.json").write_text(json.dumps(seen))


def fill_to_retention(path: Path, *, decisions: int = 4_000, plans: int = 5_000) -> None:
    """Copy a state file's decisions and closed plans until retention keeps no more of them."""
    with contextlib.closing(sqlite3.connect(path)) as file, file:
        columns = "at, kind, reason, sentence, input, decision"
        while (left := decisions - _count(file, "decisions")) > 0:
            file.execute(
                f"INSERT INTO decisions ({columns}) SELECT {columns} FROM decisions LIMIT ?",
                (left,),
            )
        names = [row[1] for row in file.execute("PRAGMA table_info(plans)") if row[1] != "seq"]
        columns = ", ".join(names)
        chosen = ", ".join("'2020-01-01T00:00:00+00:00'" if n == "begun_at" else n for n in names)
        while (left := plans - _count(file, "plans")) > 0:
            file.execute(
                f"INSERT INTO plans ({columns}) SELECT {chosen} FROM plans"
                " WHERE state = 'closed' LIMIT ?",
                (left,),
            )
        file.execute(
            "INSERT INTO steps (plan_seq, gpu_uuid, action, spec, purpose, state, begun_at)"
            " SELECT seq, gpu_uuid, 'create_gi', '1g.5gb@0:1', 'forward', 'done', begun_at"
            " FROM plans, (SELECT 1 UNION ALL SELECT 2 UNION ALL SELECT 3 UNION ALL SELECT 4)"
            " WHERE begun_at < '2021'"
        )


def _count(file: sqlite3.Connection, table: str) -> int:
    """Count rows."""
    return int(file.execute(f"SELECT count(*) FROM {table}").fetchone()[0])


def worker_of(pid: int) -> int:
    """Return the process that a daemon asks NVML with.

    Raises:
        StopIteration: there is none at the moment.
    """
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    threads = (
        Path(f"/proc/{pid}/task/{task}/children") for task in os.listdir(f"/proc/{pid}/task")
    )
    for one in (*children, *(word for file in threads for word in file.read_text().split())):
        return int(one)
    raise StopIteration


def look(pid: int, state: Path) -> dict[str, float]:
    """Return what a daemon and its worker take up now.

    Raises:
        OSError: a process is gone.
        StopIteration: there is no worker at the moment.
    """
    worker = worker_of(pid)
    return {
        "daemon resident MiB": _status(pid, "VmRSS") / 1024,
        "worker resident MiB": _status(worker, "VmRSS") / 1024,
        "daemon threads": _status(pid, "Threads"),
        "daemon descriptors": float(len(os.listdir(f"/proc/{pid}/fd"))),
        "worker descriptors": float(len(os.listdir(f"/proc/{worker}/fd"))),
        "state file MiB": (state / "state.sqlite").stat().st_size / 2**20,
        "state WAL MiB": (state / "state.sqlite-wal").stat().st_size / 2**20,
    }


def _status(pid: int, name: str) -> float:
    """Return a number of /proc/PID/status."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith(f"{name}:"):
            return float(line.split()[1])
    raise OSError(f"process {pid} shows no {name}")


def main() -> None:
    """Run one soak and print what it found."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=120.0)
    parser.add_argument("--directory", type=Path, required=True)
    given = parser.parse_args()
    given.directory.mkdir(parents=True, exist_ok=True)
    record = Soak(given.directory, given.minutes).run()
    print(record.report(), flush=True)
    sys.exit(1 if record.problems() else 0)


if __name__ == "__main__":
    main()
