"""Benchmark: the daemon at rest (CPU, memory, start), beside nvitop-exporter on the same library.

    python -m tests.benchmarks.daemon_bench [--seconds 60]

Each has a simulated node of its own: 8 GPUs with 7 instances each, a process on every second one.
All run side by side in the same minute, so that whatever else the machine does meets them alike:
sampling every 5 s, scraped every 15 s. CPU is what the kernel accounts to all their threads; the
simulated library measures its own part, which a real driver would not cost so. A third subject is
the daemon looking at this machine's real /proc for holders of instances, as it does on a real node.
"""

import argparse
import os
import re
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path

import httpx

from migscaler.sim.node import build_node
from migscaler.sim.timing import TIMES_VARIABLE
from tests.e2e.processes import free_port, running, wait_until

GPUS = "4xA100-SXM4-40GB,4xH100-80GB"
SCRAPE_SECONDS = 15.0
SAMPLE_SECONDS = 5.0
_SETTLE_SECONDS = 12.0
_BIN = Path(sys.executable).parent
_BENCH_BIN = Path(__file__).parents[2] / ".venv-bench" / "bin"


@dataclass(frozen=True, slots=True, kw_only=True)
class Cost:
    """What one exporter costs: start in seconds, CPU in seconds over the window, memory in MiB."""

    name: str
    start_seconds: float
    cpu_seconds: float
    library_seconds: float
    library_calls: int
    resident_mib: float
    series: int


@dataclass(frozen=True, slots=True)
class Bars:
    """What must hold on any machine: share of a core, MiB. docs/benchmarks.md has the rest."""

    cpu_percent: float = 3.0
    resident_mib: float = 160.0


OURS = "migscaler"
REAL_PROC = "migscaler, real /proc"
THEIRS = "nvitop-exporter"


@dataclass(slots=True)
class _Subject:
    """A running exporter under measurement."""

    name: str
    pid: int
    url: str
    times: Path
    start_seconds: float
    series: int = 0

    def scrape(self) -> None:
        """Scrape it as Prometheus does."""
        text = httpx.get(self.url, headers={"Accept-Encoding": "gzip"}).text
        self.series = sum(1 for line in text.splitlines() if line and line[0] != "#")

    def spent(self) -> tuple[float, float, int]:
        """Return (CPU seconds, seconds in the library, calls of it) so far."""
        return (_cpu(self.pid), *_library(self.times))


def main() -> None:
    """Measure and print a markdown table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=60.0)
    seconds = parser.parse_args().seconds
    print(report(measure_all(seconds), seconds))


def measure_all(seconds: float) -> list[Cost]:
    """Measure side by side; nvitop-exporter only if its environment is there (`make bench`)."""
    names = [OURS, REAL_PROC]
    if (_BENCH_BIN / "nvitop-exporter").exists():
        names.append(THEIRS)
    with tempfile.TemporaryDirectory(prefix="migscaler-bench-") as folder, ExitStack() as stack:
        subjects = []
        for number, name in enumerate(names):
            directory = Path(folder) / str(number)
            directory.mkdir()
            subjects.append(_start(name, directory, stack))
        time.sleep(_SETTLE_SECONDS)
        before = [subject.spent() for subject in subjects]
        _scrape_for(seconds, subjects)
        after = [subject.spent() for subject in subjects]
        return [
            Cost(
                name=subject.name,
                start_seconds=subject.start_seconds,
                cpu_seconds=end[0] - begin[0],
                library_seconds=end[1] - begin[1],
                library_calls=end[2] - begin[2],
                resident_mib=sum(map(_resident_mib, _family(subject.pid))),
                series=subject.series,
            )
            for subject, begin, end in zip(subjects, before, after, strict=True)
        ]


def report(costs: list[Cost], seconds: float) -> str:
    """Return the markdown table and the ratios."""
    lines = [
        f"8 GPUs x 7 instances, {seconds:.0f} s side by side, sampled every 5 s, scraped every "
        f"{SCRAPE_SECONDS:.0f} s, {len(os.listdir('/proc'))} entries in /proc",
        "",
        "| exporter | ready s | CPU % of a core | of it simulator % | own CPU % | NVML calls/s "
        "| own us per call | own us per series and sample | resident MiB | series |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    lines += [_row(cost, seconds) for cost in costs]
    by_name = {cost.name: cost for cost in costs}
    if THEIRS not in by_name:
        return "\n".join([*lines, "", "nvitop-exporter is missing; `make bench` installs it"])
    whole, own = times_less(by_name[OURS], by_name[THEIRS])
    return "\n".join(
        [*lines, "", f"nvitop-exporter / migscaler: {whole:.1f} x CPU, {own:.1f} x own CPU"]
    )


def times_less(ours: Cost, theirs: Cost) -> tuple[float, float]:
    """Return how many times more CPU the other takes: in all, and without the simulator."""
    own = [cost.cpu_seconds - cost.library_seconds for cost in (ours, theirs)]
    return theirs.cpu_seconds / ours.cpu_seconds, own[1] / own[0]


def _row(cost: Cost, seconds: float) -> str:
    own = cost.cpu_seconds - cost.library_seconds
    samples = seconds / SAMPLE_SECONDS
    return (
        f"| {cost.name} | {cost.start_seconds:.2f} | {100 * cost.cpu_seconds / seconds:.2f} "
        f"| {100 * cost.library_seconds / seconds:.2f} | {100 * own / seconds:.2f} "
        f"| {cost.library_calls / seconds:.0f} | {1e6 * own / max(1, cost.library_calls):.0f} "
        f"| {1e6 * own / samples / max(1, cost.series):.0f} "
        f"| {cost.resident_mib:.0f} | {cost.series} |"
    )


def _start(name: str, directory: Path, stack: ExitStack) -> _Subject:
    """Start one exporter on a new node and wait until it serves."""
    _populate(directory / "node")
    times = directory / "times"
    times.mkdir()
    port = free_port()
    environment = {TIMES_VARIABLE: str(times)}
    began = time.monotonic()
    process = stack.enter_context(
        running(_command(name, directory, port), directory / "log", environment)
    )
    url = f"http://127.0.0.1:{port}/metrics"
    wait_until(f"{name} serves", lambda: httpx.get(url).is_success, 60)
    seconds = time.monotonic() - began
    return _Subject(name=name, pid=process.pid, url=url, times=times, start_seconds=seconds)


def _scrape_for(seconds: float, subjects: list[_Subject]) -> None:
    """Scrape all of them until the time is over."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        for subject in subjects:
            subject.scrape()
        time.sleep(max(0.0, min(SCRAPE_SECONDS, end - time.monotonic())))


def _populate(directory: Path) -> None:
    """Make the node: every GPU full of its smallest instances, every second one in use."""
    node = build_node(GPUS, directory=directory)
    for gpu in range(8):
        for start in range(7):
            node.foreign_create(gpu, f"1g@{start}")
        for number, gi_id in enumerate(sorted(node.state.gpus[gpu].instances)):
            if number % 2:
                node.start_job(gpu, gi_id, memory_mib=1024, activity=0.5, pid=os.getpid())


def _command(name: str, directory: Path, port: int) -> list[str]:
    """Return the command that serves on a port."""
    migscaler, node = str(_BIN / "migscaler"), str(directory / "node")
    if name == THEIRS:
        exporter = str(_BENCH_BIN / "nvitop-exporter")
        options = ["--bind-address", "127.0.0.1", "--port", str(port), "--interval", "5"]
        return [migscaler, "sim", "exec", "--directory", node, "--", exporter, *options]
    config, state = directory / "migscaler.yaml", directory / "state"
    config.write_text("mode: observe\nsampling: {interval: 5s}\ngpus: [{model: 'NVIDIA*'}]\n")
    if name == REAL_PROC:
        arguments = [node, str(config), str(state), str(port)]
        return [sys.executable, "-c", _ON_REAL_PROC, *arguments]
    own = [migscaler, "--config", str(config), "--state-dir", str(state)]
    return [*own, "sim", "run", "--directory", node, "--listen", f"127.0.0.1:{port}"]


# As `sim run`, with the default roots: this machine's /proc in place of an empty one.
_ON_REAL_PROC = """
import sys
from pathlib import Path
from migscaler.app.daemon import DaemonOptions, run_daemon
from migscaler.cli.simulated import boot_id_of, host_of, preparation
node, config, state = map(Path, sys.argv[1:4])
sys.exit(run_daemon(DaemonOptions(
    config=config, state_dir=state, listen=f"127.0.0.1:{sys.argv[4]}",
    prepare=preparation(node), make_host=host_of(node), boot_id=boot_id_of(node),
)))
"""


def _family(pid: int) -> list[int]:
    """Return a process and all its descendants."""
    listing = subprocess.run(["ps", "-eo", "pid=,ppid="], capture_output=True, check=True).stdout
    parents = {int(a): int(b) for a, b in re.findall(r"(\d+)\s+(\d+)", listing.decode())}
    family = [pid]
    for member in family:
        family += [child for child, parent in parents.items() if parent == member]
    return family


def _cpu(pid: int) -> float:
    """Return the CPU seconds of a process and its descendants, exact to the nanosecond.

    Threads that ended are missing from schedstat; none of these ends a thread while it rests.
    """
    total = 0
    for member in _family(pid):
        for task in Path(f"/proc/{member}/task").iterdir():
            with suppress(OSError):
                total += int((task / "schedstat").read_text().split()[0])
    return total / 1e9


def _resident_mib(pid: int) -> float:
    """Return the resident memory of a process."""
    found = re.search(r"VmRSS:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text())
    return int(found[1]) / 1024 if found else 0.0


def _library(times: Path) -> tuple[float, int]:
    """Return (seconds, calls) that the simulated library measured in all processes."""
    rows = [file.read_text().split() for file in times.iterdir()]
    return sum(float(r[0]) for r in rows if r), sum(int(r[1]) for r in rows if r)


if __name__ == "__main__":
    main()
