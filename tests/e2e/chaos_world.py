"""The world around a daemon that is killed: random layouts, jobs that come and go, and the judge.

The judge looks at the simulated node's own books: its state, its log of calls, and who started
which job when. What migscaler recorded is asked for one thing only, whether plans are open.
"""

import json
import random
import sys
import time
from collections import Counter
from dataclasses import asdict, dataclass
from pathlib import Path

from migscaler.app.clock import RealClock
from migscaler.model.layout import GpuModel, Layout
from migscaler.sim.node import SimNode, build_node, open_node
from migscaler.sim.state import GpuState
from migscaler.store.store import opened

GPUS = "5xA100-SXM4-40GB,3xH100-80GB"
GPU_COUNT = 8
VARIANTS = ("normal", "mirrored") * 4
DRIVER = "580.65.06"
# An instance that a job has used for so long must not even be tried; a younger job may have come
# between the last look and a call that was slow, or a process that was paused.
_LONG_IN_USE_SECONDS = 5.0


@dataclass(frozen=True, slots=True, kw_only=True)
class JobEvent:
    """A job began on an instance, or ended; `at` in seconds of the node's clock."""

    pid: int
    gpu_uuid: str
    gi_id: int
    born: int
    at: float
    began: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """What was asked of a GPU: layouts before and after; `old` is the last birth before it."""

    gpu: int
    before: Layout
    after: Layout
    old: int


class World:
    """A simulated node in a directory, beside the state file `state/state.sqlite`."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.node: SimNode = open_node(directory / "node")
        self._book = directory / "jobs.jsonl"
        self._old = directory / "old"
        self._judged = 0

    @classmethod
    def build(cls, directory: Path, draw: random.Random) -> "World":
        """Make a node whose GPUs have random layouts and nothing running."""
        node = build_node(GPUS, DRIVER, directory / "node", variant=VARIANTS)
        for gpu in node.state.gpus:
            for spec in random_layout(node.rules(gpu).model, Layout(), draw).specs:
                node.foreign_create(gpu.index, str(spec), actor="setup")
        world = cls(directory)
        world._book.write_text("")
        world._judged = len(node.call_log())
        return world

    def model(self, gpu: int) -> GpuModel:
        """Return what a GPU allows."""
        return self.node.rules(self.node.state.gpus[gpu]).model

    def layout(self, gpu: int, *, busy: bool = False) -> Layout:
        """Return what a GPU has; with `busy` only what jobs run on."""
        found, model = self.node.state.gpus[gpu], self.model(gpu)
        used = {job.gi_id for job in found.jobs}
        return Layout(
            tuple(
                model.spec(f"{gi.profile}@{gi.start}")
                for gi in found.instances.values()
                if not busy or gi.id in used
            )
        )

    def ask(self, gpu: int, draw: random.Random) -> Asked | None:
        """Draw another layout for a GPU around what is in use; None where it is as it was."""
        before = self.layout(gpu)
        after = random_layout(self.model(gpu), self.layout(gpu, busy=True), draw)
        self._note_old()
        if set(after.specs) == set(before.specs):
            return None
        return Asked(gpu=gpu, before=before, after=after, old=self.node.state.born)

    def _note_old(self) -> None:
        """Write down the last birth in one piece: the process that moves jobs reads it any time."""
        draft = self._old.with_suffix(".new")
        draft.write_text(str(self.node.state.born))
        draft.replace(self._old)

    def log_size(self) -> int:
        """Return how many bytes the call log has; it grows with each changing call."""
        return (self.directory / "node" / "calls.jsonl").stat().st_size

    # Jobs

    def jobs_begun(self) -> int:
        """Return how many jobs began on this node so far."""
        return sum('"began": true' in line for line in self._book.read_text().splitlines())

    def start_one(self, draw: random.Random) -> None:
        """Start a job on a random instance that nobody uses."""
        with self.node.changing() as state:
            free = [
                (gpu, gi)
                for gpu in state.gpus
                for gi in gpu.instances.values()
                if gi.compute and all(job.gi_id != gi.id for job in gpu.jobs)
            ]
            if free:
                gpu, gi = draw.choice(free)
                pid = self.node.start_job(gpu.index, gi.id, memory_mib=64)
                self._note(pid, gpu, gi.id, began=True)

    def end_one(self, draw: random.Random) -> None:
        """End a random job, but none on an instance that was made since the last request.

        Such a job can be why something before could not be made again; the judge must see it.
        """
        with self.node.changing() as state:
            old = int(self._old.read_text())
            ending = [
                (gpu, job)
                for gpu in state.gpus
                for job in gpu.jobs
                if job.gi_id is not None and gpu.instances[job.gi_id].born <= old
            ]
            if ending:
                gpu, job = draw.choice(ending)
                assert job.gi_id is not None
                self._note(job.pid, gpu, job.gi_id, began=False)
                self.node.end_job(job.pid)

    def end_most(self, draw: random.Random) -> None:
        """End jobs until few are left, so that the next request finds something idle."""
        self._note_old()
        while sum(len(gpu.jobs) for gpu in self.node.state.gpus) > draw.randint(1, 4):
            self.end_one(draw)

    def _note(self, pid: int, gpu: GpuState, gi_id: int, *, began: bool) -> None:
        born = gpu.instances[gi_id].born
        event = JobEvent(
            pid=pid,
            gpu_uuid=gpu.uuid,
            gi_id=gi_id,
            born=born,
            at=self.node.clock(),
            began=began,
        )
        with self._book.open("a") as book:
            book.write(json.dumps(asdict(event)) + "\n")

    # The judge

    def wrongs(self, asked: tuple[Asked, ...]) -> tuple[list[str], int]:
        """Return every broken promise, and how many losses a job excuses that stands there now.

        The node stands still meanwhile: jobs that end between two looks are no lost ones.
        """
        with self.node.changing():
            return self._wrongs(asked)

    def _wrongs(self, asked: tuple[Asked, ...]) -> tuple[list[str], int]:
        found, excused = self._destroyed(), 0
        for gpu in self.node.state.gpus:
            model, layout = self.model(gpu.index), self.layout(gpu.index)
            violation = model.violation(layout)
            found += [] if violation is None else [f"GPU {gpu.index} illegal: {violation}"]
            found += [
                f"GPU {gpu.index}: {gi.profile}@{gi.start} has {len(gi.compute)} compute instances"
                for gi in gpu.instances.values()
                if len(gi.compute) != 1
            ]
        for one in asked:
            gpu = self.node.state.gpus[one.gpu]
            whole = Counter(gi.profile for gi in gpu.instances.values() if len(gi.compute) == 1)
            short = (one.before.profiles() & one.after.profiles()) - whole
            in_the_way = {gpu.instances[job.gi_id].born for job in gpu.jobs if job.gi_id}
            if short and max(in_the_way, default=0) > one.old:
                excused += 1
            elif short:
                found.append(f"GPU {one.gpu} lost {dict(short)}: {one.before} -> {one.after}")
        with opened(
            self.directory / "state" / "state.sqlite", RealClock(), read_only=True
        ) as store:
            found += [f"plan {plan.seq} still open" for plan in store.open_plans()]
        return found, excused

    def _destroyed(self) -> list[str]:
        """Return what was destroyed in use, or tried although it had long been in use."""
        events = [JobEvent(**json.loads(line)) for line in self._book.read_text().splitlines()]
        ended = {event.pid: event.at for event in events if not event.began}
        begun = [event for event in events if event.began]
        log = self.node.call_log()
        found = []
        for call in log[self._judged :]:
            if not call.in_use or "Destroy" not in call.function:
                continue
            since = [
                call.at - job.at
                for job in begun
                if (job.gpu_uuid, job.gi_id) == (call.gpu_uuid, call.gi_id)
                and job.at <= call.at <= ended.get(job.pid, call.at)
            ]
            if call.code == 0:
                found.append(f"destroyed in use: {call.spec}")
            elif max(since, default=0.0) > _LONG_IN_USE_SECONDS:
                found.append(f"tried although in use for {max(since):.1f} s: {call.spec}")
        self._judged = len(log)
        there = {
            job.pid: gpu.instances[job.gi_id].born
            for gpu in self.node.state.gpus
            for job in gpu.jobs
            if job.gi_id in gpu.instances
        }
        found += [
            f"job {job.pid} lost its instance"
            for job in begun
            if job.pid not in ended and there.get(job.pid) != job.born
        ]
        return found


def random_layout(model: GpuModel, fixed: Layout, draw: random.Random) -> Layout:
    """Fill a GPU at random around what is fixed; never empty."""
    places = [
        model.spec(f"{profile.name}@{start}")
        for profile in model.profiles
        for start in profile.starts
    ]
    made = fixed
    for spec in draw.sample(places, draw.randint(len(places) // 2, len(places))):
        if not spec.mask & made.mask and model.violation(made.with_specs((spec,))) is None:
            made = made.with_specs((spec,))
    return made


def move_jobs(directory: Path, seed: int, quiet: float, busy: float) -> None:
    """Start and end jobs at random until a file `enough` is there.

    One every `busy` seconds or so while the node's layout is being changed, else every `quiet`.
    """
    world, draw = World(directory), random.Random(seed)
    size, grown_at, next_at = world.log_size(), 0.0, 0.0
    while not (directory / "enough").exists():
        now = time.monotonic()
        if world.log_size() != size:
            size, grown_at = world.log_size(), now
            next_at = min(next_at, now + busy)
        if now >= next_at:
            (world.start_one if draw.random() < 0.6 else world.end_one)(draw)
            next_at = now + draw.uniform(0.2, 1.8) * (busy if now - grown_at < 0.5 else quiet)
        time.sleep(0.002 if busy < 0.02 else 0.01)


if __name__ == "__main__":
    move_jobs(Path(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3]), float(sys.argv[4]))
