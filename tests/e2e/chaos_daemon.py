"""Kills the daemon, mostly with its NVML worker, and starts it again on the same node.

    python -m tests.e2e.chaos_daemon DIRECTORY SEED ROUNDS

A round is a kill while layouts asked for by `apply` are being made, and in every other round one
more at a random moment of the start that settles what the first left. Prints one JSON object.
"""

import contextlib
import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path

import httpx

from migscaler.app.client import RemoteCommands
from migscaler.app.clock import RealClock
from migscaler.errors import CommandRefused, DaemonSilent
from migscaler.sim.faults import slow
from migscaler.store.store import opened
from tests.e2e.chaos_executor import CHANGES
from tests.e2e.chaos_world import GPU_COUNT, Asked, World
from tests.e2e.processes import free_port

_MIGSCALER = Path(sys.executable).parent / "migscaler"
_CONFIG = """
mode: enforce
sampling: {interval: 2s}
tick: 2s
gpus: [{model: "*A100*"}, {model: "*H100*"}]
idle: {after: 10s}
pace: {rest: 0s, rest_after_failure: 10s}
"""
_IDLE_SECONDS = 12.5
# A job that comes just then, or a sample that a loaded machine was late with, refuses a layout.
_TRIES = 15
_ASKED_AT_ONCE = 3
_PATIENCE_SECONDS = 120.0
# A start waits 1.5 s for a call that outlives the daemon before; after that it settles only once
# the call has come back, as on a machine that pauses the worker.
_LEFT_BEHIND = b"has ended, but not its call into the driver"


@dataclass(slots=True, kw_only=True)
class Tally:
    """What was counted; `settled_seconds` from exec until ready, which comes after settling.

    `plain_seconds` are those of the starts that found no open plan.
    """

    kills: int = 0
    with_open_plan: int = 0
    kills_while_starting: int = 0
    kills_without_worker: int = 0
    applied: int = 0
    refused: list[str] = field(default_factory=list)
    excused: int = 0
    jobs_begun: int = 0
    settled_seconds: list[float] = field(default_factory=list)
    plain_seconds: list[float] = field(default_factory=list)
    wrongs: list[str] = field(default_factory=list)


def family(pid: int) -> list[int]:
    """Return a process and all that descend from it."""
    found = [pid]
    for one in found:
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            for task in Path(f"/proc/{one}/task").iterdir():
                found += map(int, (task / "children").read_text().split())
    return found


class Rounds:
    """One node and its daemon's lives."""

    def __init__(self, directory: Path, seed: int) -> None:
        self.directory, self.draw, self.tally = directory, random.Random(seed), Tally()
        self._kills_starts = seed % 2
        self.world = World.build(directory, self.draw)
        for function in CHANGES:
            self.world.node.add_fault(slow(function, 0.03))
        self.port = free_port()
        (directory / "migscaler.yaml").write_text(_CONFIG)

    def run(self, rounds: int) -> Tally:
        """Go through the rounds; end at the first broken promise."""
        with self._jobs():
            try:
                self._start_and_wait()
                for number in range(rounds):
                    if not self._is_kept(number):
                        break
            finally:
                self._kill()
        self.tally.jobs_begun = self.world.jobs_begun()
        return self.tally

    def _is_kept(self, number: int) -> bool:
        """Go through one round; say whether every promise was kept."""
        asked = self._kill_while_applying()
        if (number + self._kills_starts) % 2:
            self._kill_while_starting()
        self._start_and_wait()
        found, excused = self.world.wrongs(asked)
        self.tally.wrongs += [f"round {number}: {wrong}" for wrong in found]
        self.tally.excused += excused
        self.world.end_most(self.draw)
        return not self.tally.wrongs

    @contextlib.contextmanager
    def _jobs(self) -> Iterator[None]:
        """Let another process start and end jobs, most while a layout is being changed."""
        (self.directory / "old").write_text("0")
        words = [str(self.directory), str(self.draw.randrange(1 << 30)), "5", "0.15"]
        mover = subprocess.Popen([sys.executable, "-m", "tests.e2e.chaos_world", *words])
        try:
            yield
        finally:
            (self.directory / "enough").touch()
            assert mover.wait(120) == 0

    def _start(self) -> None:
        options = ["--config", str(self.directory / "migscaler.yaml")]
        options += ["--state-dir", str(self.directory / "state")]
        node = ["--directory", str(self.directory / "node"), "--listen", f"127.0.0.1:{self.port}"]
        with (self.directory / "daemon.log").open("ab") as log:
            self._process = subprocess.Popen(
                [str(_MIGSCALER), *options, "sim", "run", *node],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )

    def _start_and_wait(self) -> None:
        """Start and wait until it has settled; time it from exec."""
        left_open, began = self._is_open(), time.monotonic()
        log = self.directory / "daemon.log"
        told = log.stat().st_size if log.exists() else 0
        self._start()
        self._wait("ready", self._is_ready)
        taken = time.monotonic() - began
        if _LEFT_BEHIND in log.read_bytes()[told:]:
            self._wait("settled", lambda: not self._is_open())
            return
        (self.tally.settled_seconds if left_open else self.tally.plain_seconds).append(taken)

    def _wait(self, what: str, holds: Callable[[], bool]) -> None:
        """Wait until something holds; that it never does is a broken promise."""
        end = time.monotonic() + _PATIENCE_SECONDS
        while not holds():
            if time.monotonic() > end:
                self.tally.wrongs.append(f"not {what} within {_PATIENCE_SECONDS:g} s")
                return
            time.sleep(0.02)

    def _is_ready(self) -> bool:
        with contextlib.suppress(httpx.HTTPError):
            return httpx.get(f"http://127.0.0.1:{self.port}/-/ready").is_success
        return False

    def _is_open(self) -> bool:
        state = self.directory / "state" / "state.sqlite"
        if not state.exists():
            return False
        with opened(state, RealClock(), read_only=True) as store:
            return bool(store.open_plans())

    def _kill_while_applying(self) -> tuple[Asked, ...]:
        """Ask for a layout of each GPU when something is idle, and kill in the middle."""
        time.sleep(_IDLE_SECONDS)
        for _ in range(_TRIES):
            gpus = self.draw.sample(range(GPU_COUNT), _ASKED_AT_ONCE)
            drawn = [self.world.ask(gpu, self.draw) for gpu in gpus]
            asked = tuple(one for one in drawn if one is not None)
            applying = threading.Thread(target=self._apply, args=(asked,))
            if self._is_cut(asked, applying):
                break
            applying.join()
            time.sleep(2.0)
        else:
            raise AssertionError(f"nothing was ever idle: {self.tally.refused[-3:]}")
        applying.join()
        self.tally.with_open_plan += self._is_open()
        return asked

    def _is_cut(self, asked: tuple[Asked, ...], applying: threading.Thread) -> bool:
        """Kill after a random number of calls; False, and alive, if all GPUs were refused."""
        size, grown = self.world.log_size(), 0
        calls = sum(2 * len(set(one.before.specs) ^ set(one.after.specs)) for one in asked)
        wanted = self.draw.randint(1, max(1, calls // 2))
        applying.start()
        while applying.is_alive() and grown < wanted:
            if self.world.log_size() != size:
                size, grown = self.world.log_size(), grown + 1
            time.sleep(0.001)
        if not grown:
            return False
        time.sleep(self.draw.uniform(0.0, 0.05))
        self._kill()
        return True

    def _apply(self, asked: tuple[Asked, ...]) -> None:
        """Ask GPU by GPU; a job that came meanwhile refuses one, the kill cuts one off."""
        commands = RemoteCommands(self.directory / "state" / "migscaler.sock")
        for one in asked:
            layout = " ".join(map(str, one.after.specs))
            try:
                commands.execute("apply", {"gpu": one.gpu, "layout": layout})
                self.tally.applied += 1
            except DaemonSilent:
                break
            except CommandRefused as refusal:
                self.tally.refused.append(str(refusal))
        commands.close()

    def _kill_while_starting(self) -> None:
        """Start, and kill before or while or after it settles."""
        self._start()
        time.sleep(self.draw.uniform(0.2, 2.5))
        self._kill()
        self.tally.kills_while_starting += 1

    def _kill(self) -> None:
        """Kill daemon and worker at once, in either order; now and then the daemon alone.

        Its worker then ends the call it is in, at which the next daemon must not stumble.
        """
        pids = family(self._process.pid)
        if self.draw.random() < 0.3:
            del pids[1:]
            self.tally.kills_without_worker += 1
        self.draw.shuffle(pids)
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self.tally.kills += self._process.wait() == -signal.SIGKILL


if __name__ == "__main__":
    result = Rounds(Path(sys.argv[1]), int(sys.argv[2])).run(int(sys.argv[3]))
    sys.stdout.write(json.dumps(asdict(result)))
