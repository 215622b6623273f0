"""Kills a process that carries out a plan, over and over, and settles in a fresh one.

    python -m tests.e2e.chaos_executor DIRECTORY SEED KILLS

Each process is forked from this one, which has loaded the modules and opened nothing, does its
work with a store and a simulated node on disk, and dies by SIGKILL. Prints one JSON object.
"""

import contextlib
import json
import os
import random
import signal
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path

from migscaler.app.clock import RealClock
from migscaler.cli.simulated import SimulatedHost
from migscaler.control.executor import Executor
from migscaler.control.recovery import settle
from migscaler.control.request import plan_layout
from migscaler.control.site import Site
from migscaler.errors import CommandRefused
from migscaler.hardware.nvml import NvmlReader, NvmlWriter
from migscaler.hardware.nvml_calls import install_library
from migscaler.model.gpu import GpuState, InstanceState, PinReason
from migscaler.model.ids import GpuUuid, PlanId
from migscaler.model.policy import Pace, Policy
from migscaler.sim.faults import slow
from migscaler.sim.node import SimNode, open_node
from migscaler.sim.nvml_library import NvmlLibrary
from migscaler.store.store import Store, opened
from tests.e2e.chaos_world import GPU_COUNT, Asked, World, move_jobs
from tests.simulation.acting import Death, DeskScheduler

CHANGES = (
    "nvmlDeviceCreateGpuInstanceWithPlacement",
    "nvmlGpuInstanceCreateComputeInstance",
    "nvmlComputeInstanceDestroy",
    "nvmlGpuInstanceDestroy",
)
_CASES_PER_NODE = 25
_REFUSED = 4


@dataclass(slots=True, kw_only=True)
class Tally:
    """What was counted; `settle_seconds` from fork to the end of settling."""

    kills: int = 0
    with_open_plan: int = 0
    kills_while_settling: int = 0
    ended_first: int = 0
    refused: int = 0
    excused: int = 0
    jobs_begun: int = 0
    settle_seconds: list[float] = field(default_factory=list)
    wrongs: list[str] = field(default_factory=list)


def forked(work: Callable[[], int | None]) -> int:
    """Run something in a child process; return its pid."""
    pid = os.fork()
    if pid:
        return pid
    code = 1
    try:
        code = work() or 0
    except CommandRefused:
        code = _REFUSED
    except BaseException:  # noqa: BLE001 - a child must never run on in its parent's code
        sys.excepthook(*sys.exc_info())
    finally:
        sys.stderr.flush()
        os._exit(code)


def ended(pid: int) -> int:
    """Wait for a child; return its exit code, negative if a signal ended it."""
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def opened_node(directory: Path) -> tuple[SimNode, Site]:
    """Open what a process that acts on the node needs."""
    clock, node = RealClock(), open_node(directory / "node")
    install_library(NvmlLibrary(node))
    reader = NvmlReader(clock, SimulatedHost(directory / "node"))
    return node, Site(
        store=Store.open(directory / "state" / "state.sqlite", clock),
        reader=reader,
        writer=NvmlWriter(reader),
        scheduler=DeskScheduler(Death()),
        clock=clock,
        boot_id=node.boot_id,
    )


def state_of(site: Site, uuid: GpuUuid) -> GpuState:
    """Return a GPU with everything idle on which no process runs."""
    reading = site.reader.read_gpu(uuid)
    instances = tuple(
        InstanceState(reading=one, born=1, pin=PinReason.PROCESS if one.processes else None)
        for one in reading.instances or ()
    )
    return GpuState(reading=reading, generation=1, instances=instances)


def act(directory: Path, asked: Asked, name: str) -> None:
    """Carry out what was asked, as the daemon does."""
    node, site = opened_node(directory)
    state = state_of(site, GpuUuid(node.state.gpus[asked.gpu].uuid))
    plan = plan_layout(state, " ".join(map(str, asked.after.specs)))
    if plan is None:
        raise CommandRefused("nothing to do")
    Executor(site).execute(PlanId(name), plan, state, Policy())


def settle_all(directory: Path) -> None:
    """End what is open, as a start does."""
    _node, site = opened_node(directory)
    settle(site, act=True, pace=Pace())


class Campaign:
    """Case after case, a new node now and then."""

    def __init__(self, directory: Path, seed: int, kills: int) -> None:
        self.directory, self.draw, self.kills = directory, random.Random(seed), kills
        self.tally = Tally()
        self._nodes = 0

    def run(self) -> Tally:
        """Kill as often as wanted; end at the first broken promise."""
        cases = 0
        world = self._world()
        while self.tally.kills < self.kills and not self.tally.wrongs:
            cases += 1
            if cases % _CASES_PER_NODE == 0:
                world = self._world()
            asked = world.ask(self.draw.randrange(GPU_COUNT), self.draw)
            if asked is not None:
                self._case(world, asked, f"p{cases}")
            world.end_most(self.draw)
        return self.tally

    def _world(self) -> World:
        self._nodes += 1
        directory = self.directory / f"node{self._nodes}"
        (directory / "state").mkdir(parents=True)
        Store.open(directory / "state" / "state.sqlite", RealClock()).close()
        world = World.build(directory, self.draw)
        if self._nodes % 2:
            for function in CHANGES:
                world.node.add_fault(slow(function, self.draw.uniform(0.002, 0.02)))
        return world

    def _case(self, world: World, asked: Asked, name: str) -> None:
        """Act, kill, settle (perhaps killed too), judge; jobs come and go all the while."""
        enough, before = world.directory / "enough", world.jobs_begun()
        seed = self.draw.randrange(1 << 30)
        jobs = forked(lambda: move_jobs(world.directory, seed, 0.03, 0.015))
        actor = forked(lambda: act(world.directory, asked, name))
        self._kill_in_the_middle(world, actor, asked)
        if self.draw.random() < 0.25:
            settler = forked(lambda: settle_all(world.directory))
            time.sleep(self.draw.uniform(0.0, 0.06))
            os.kill(settler, signal.SIGKILL)
            died = ended(settler) < 0
            self.tally.kills_while_settling += died
            self.tally.kills += died
        began = time.monotonic()
        code = ended(forked(lambda: settle_all(world.directory)))
        self.tally.settle_seconds.append(time.monotonic() - began)
        enough.touch()
        if ended(jobs) != 0 or code != 0:
            self.tally.wrongs.append(f"{name}: settling ended with {code}")
        enough.unlink()
        found, excused = world.wrongs((asked,))
        self.tally.wrongs += [f"{name} in {world.directory.name}: {wrong}" for wrong in found]
        self.tally.excused += excused
        self.tally.jobs_begun += world.jobs_begun() - before

    def _kill_in_the_middle(self, world: World, actor: int, asked: Asked) -> None:
        """Kill after a random number of calls and a random pause, or after a random time."""
        size, grown = world.log_size(), 0
        calls = 2 * len(set(asked.before.specs) ^ set(asked.after.specs))
        wanted = self.draw.randint(0, calls) if self.draw.random() < 0.75 else 1_000
        end = time.monotonic() + (self.draw.uniform(0.0, 0.3) if wanted > calls else 10.0)
        while grown < wanted and time.monotonic() < end:
            if os.waitid(os.P_PID, actor, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None:
                break
            if world.log_size() != size:
                size, grown = world.log_size(), grown + 1
            time.sleep(0.0005)
        time.sleep(self.draw.uniform(0.0, 0.012))
        os.kill(actor, signal.SIGKILL)
        code = ended(actor)
        self.tally.refused += code == _REFUSED
        self.tally.ended_first += code == 0
        self.tally.kills += code < 0
        if code > 0 and code != _REFUSED:
            self.tally.wrongs.append(f"acting ended with {code}")
        state = world.directory / "state" / "state.sqlite"
        with opened(state, RealClock(), read_only=True) as store:
            self.tally.with_open_plan += bool(store.open_plans())


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        result = Campaign(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])).run()
        sys.stdout.write(json.dumps(asdict(result)))
