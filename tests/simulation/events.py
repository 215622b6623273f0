"""What happens to a simulated node in a day: jobs, people, clients, faults; all by a seed."""

import random
from collections.abc import Callable
from datetime import timedelta

from migscaler.errors import CommandRefused
from migscaler.model.decision import PauseRecord
from migscaler.model.ids import GpuUuid
from migscaler.model.profile import InstanceSpec
from migscaler.sim.codes import Code
from migscaler.sim.faults import fails, loses_answer
from migscaler.sim.node import SimNode
from migscaler.sim.state import GpuState, InstanceState
from migscaler.sim.telemetry import settle
from migscaler.store.store import Store
from tests.simulation.clockwork import CHANGING, VirtualClock
from tests.simulation.judge import Judge
from tests.simulation.process import Objection, Queue
from tests.simulation.scenarios import SIZES
from tests.simulation.truth import Held, Ledger, instances, key_of, layout_of, model_of, spec_of

_READS = (
    "nvmlDeviceGetMemoryInfo",
    "nvmlDeviceGetGpuInstances",
    "nvmlDeviceGetCount_v2",
    "nvmlDeviceGetMigMode",
    "nvmlDeviceGetComputeRunningProcesses_v3",
    "nvmlGpuInstanceGetInfo",
    "nvmlGpmMigSampleGet",
)
_PROBLEMS = ("no answer", "value is NaN", "value is negative", "several series without the label")


class Events:
    """Everything that can happen, by name; each draws what it needs."""

    def __init__(
        self,
        *,
        dice: random.Random,
        node: SimNode,
        clock: VirtualClock,
        store: Store,
        ledger: Ledger,
        judge: Judge,
        queue: Queue,
        totals: Queue,
        objection: Objection,
    ) -> None:
        self._dice = dice
        self._node = node
        self._clock = clock
        self._store = store
        self._ledger = ledger
        self._judge = judge
        self._queue = queue
        self._totals = totals
        self._objection = objection
        self.by_name: dict[str, Callable[[], None]] = {
            "start_job": self.job,
            "end_job": self.end_job,
            "short_job": self.short_job,
            "leak": self.leak,
            "plug_leaks": self.plug_leaks,
            "demand": self.change_demand,
            "silence": self.silence,
            "speak": self.speak,
            "hold": lambda: self.hold("hold"),
            "release": lambda: self.release("hold"),
            "lease": lambda: self.hold("lease"),
            "give_back": lambda: self.release("lease"),
            "wait": self.wait_for_lease,
            "pause": self.pause,
            "resume": self.resume,
            "client": self.client,
            "let_go": self.let_go,
            "fault": self.fault,
            "lose": self.lose,
            "find": self.find,
            "foreign": self.foreign,
            "step_clock": self.step_clock,
            "veto": self.veto,
        }

    def _pick(self) -> tuple[GpuState, InstanceState] | None:
        """Draw an instance with a compute instance."""
        whole = [(gpu, gi) for gpu, gi in instances(self._node) if gi.compute]
        return self._dice.choice(whole) if whole else None

    def start_job(self, on: tuple[GpuState, InstanceState] | None = None) -> int | None:
        found = on or self._pick()
        if found is None:
            return None
        try:
            return self._node.start_job(
                found[0].index,
                found[1].id,
                memory_mib=self._dice.choice((0, 10, 900)),
                activity=self._dice.choice((0.0, 0.3, 0.9)),
            )
        except CommandRefused:
            return None

    def job(self) -> None:
        self.start_job()

    def end_job(self) -> None:
        pids = [job.pid for gpu in self._node.state.gpus for job in gpu.jobs]
        if pids:
            self._node.end_job(self._dice.choice(pids))

    def short_job(self) -> None:
        """Run a job that begins and ends between two samples."""
        pid = self.start_job()
        if pid is not None:
            self._clock.advance(self._dice.uniform(1, 10))
            self._node.end_job(pid)

    def leak(self) -> None:
        """Let memory be in use though no process is listed."""
        found = self._pick()
        if found is None or key_of(*found) in self._ledger.leaks:
            return
        gpu, gi = found
        with self._node.changing():
            gi.baseline_mib += 700
        self._ledger.leaks[key_of(gpu, gi)] = 700

    def plug_leaks(self) -> None:
        with self._node.changing():
            for gpu, gi in instances(self._node):
                gi.baseline_mib -= self._ledger.leaks.pop(key_of(gpu, gi), 0)
        self._ledger.leaks.clear()

    def change_demand(self) -> None:
        queue = self._dice.choice((self._queue, self._queue, self._totals))
        queue.wants = {size: self._dice.choice((0, 0, 1, 2, 3, 6)) for size in SIZES}
        if self._dice.random() < 0.2:
            queue.wants.pop(self._dice.choice(SIZES))
        queue.absent_is_zero = self._dice.random() < 0.8

    def silence(self) -> None:
        """Let one source fall silent, mostly both."""
        both = (self._queue, self._totals)
        for queue in self._dice.choice(((self._queue,), both, both)):
            queue.problem = self._dice.choice(_PROBLEMS)

    def speak(self) -> None:
        self._queue.problem = self._totals.problem = None

    def hold(self, kind: str, on: tuple[GpuState, InstanceState] | None = None) -> None:
        """Hold or lease an instance, sometimes a whole GPU."""
        found = on or self._pick()
        if found is None:
            return
        gpu, gi = found
        lasts = timedelta(minutes=self._dice.choice((5, 20, 60)))
        until = self._clock.now() + lasts
        spec = model_of(self._node, gpu).spec(spec_of(gi))
        uuid, whole = GpuUuid(gpu.uuid), kind == "hold" and self._dice.random() < 0.3
        made = (
            self._store.add_hold(
                uuid, None if whole else spec, owner="ada", reason="looking", expires_at=until
            )
            if kind == "hold"
            else self._store.take_lease(uuid, spec, owner="ada", expires_at=until)
        )
        if made is not None:
            text = None if whole else spec_of(gi)
            end = self._clock.monotonic() + lasts.total_seconds()
            held = Held(hold_id=made.hold_id, gpu=gpu.uuid, spec=text, kind=kind, until=end)
            self._ledger.held.append(held)

    def release(self, kind: str) -> None:
        held = [one for one in self._ledger.held if one.kind == kind]
        if held:
            one = self._dice.choice(held)
            self._store.release_hold(one.hold_id)
            self._ledger.held.remove(one)

    def wait_for_lease(self) -> None:
        until = self._clock.now() + timedelta(minutes=self._dice.choice((3, 15)))
        self._store.add_lease_wait(self._dice.choice(SIZES), "ben", expires_at=until)

    def pause(self) -> None:
        now, lasts = self._clock.now(), self._dice.choice((None, timedelta(minutes=10)))
        until = None if lasts is None else now + lasts
        self._store.write_pause(PauseRecord(who="ada", why="upgrade", since=now, until=until))
        seconds = float("inf") if lasts is None else lasts.total_seconds()
        self._ledger.paused_until = self._clock.monotonic() + seconds

    def resume(self) -> None:
        self._store.write_pause(None)
        self._ledger.paused_until = None

    def client(self) -> None:
        """Let a client without process keep an instance or its GPU's handle."""
        found = self._pick()
        if found is not None:
            self._node.hold_instance(found[0].index, found[1].id)

    def let_go(self) -> None:
        for gpu in self._node.state.gpus:
            self._node.release(gpu.index)

    def fault(self) -> None:
        """Make some of the next calls fail, or lose their answers."""
        if self._dice.random() < 0.4:
            function = self._dice.choice(_READS)
            code = self._dice.choice((Code.UNKNOWN, Code.GPU_IS_LOST, Code.TIMEOUT))
            fault = fails(function, code, times=self._dice.randint(1, 6))
        elif self._dice.random() < 0.5:
            codes = (Code.UNKNOWN, Code.IN_USE, Code.INSUFFICIENT_RESOURCES, Code.NO_PERMISSION)
            fault = fails(
                self._changing(), self._dice.choice(codes), times=self._dice.randint(1, 4)
            )
        else:
            fault = loses_answer(self._changing(), times=self._dice.randint(1, 3))
        fault.skip = self._dice.choice((0, 0, 1, 2))
        self._node.add_fault(fault)

    def _changing(self) -> str:
        return self._dice.choice(sorted(CHANGING - {"nvmlDeviceSetMigMode"}))

    def lose(self) -> None:
        gpu = self._dice.choice(self._node.state.gpus)
        self._node.lose_gpu(gpu.index)
        self._judge.meddle(gpu.uuid)

    def find(self) -> None:
        for gpu in self._node.state.gpus:
            if gpu.lost:
                self._node.lose_gpu(gpu.index, lost=False)

    def foreign(self) -> None:
        """Let an administrator make or remove an instance by hand."""
        gpu = self._dice.choice(self._node.state.gpus)
        if gpu.lost or not gpu.mig_current:
            return
        self._judge.meddle(gpu.uuid)
        self._judge.counts["foreign changes"] += 1
        idle = [gi for gi in gpu.instances.values() if not any(j.gi_id == gi.id for j in gpu.jobs)]
        try:
            if idle and self._dice.random() < 0.5:
                gone = self._dice.choice(idle)
                self._judge.foreign_opened(gpu, gone)
                self._node.foreign_destroy(gpu.index, gone.id)
                return
            model, there = model_of(self._node, gpu), layout_of(self._node, gpu)
            every = [
                InstanceSpec(placement, profile.name)
                for profile in model.profiles
                for placement in profile.placements()
            ]
            free = [one for one in every if not one.mask & there.mask]
            specs = [one for one in free if model.violation(there.with_specs([one])) is None]
            if specs:
                self._node.foreign_create(gpu.index, str(self._dice.choice(specs)))
        except CommandRefused:
            return

    def step_clock(self) -> None:
        self._clock.step_wall(self._dice.choice((-90.0, -5.0, 5.0, 90.0)))
        self._judge.forget_rests()

    def veto(self) -> None:
        self._objection.active = self._dice.choice((True, None, False, False))

    def calm(self) -> None:
        """End everything that is going on but the jobs: from now on nothing changes any more."""
        self._node.clear_faults()
        self.find()
        self.let_go()
        self.plug_leaks()
        self.resume()
        for one in tuple(self._ledger.held):
            self._store.release_hold(one.hold_id)
        self._ledger.held.clear()
        self._objection.active = False
        for queue in (self._queue, self._totals):
            queue.absent_is_zero = True
        self.speak()
        with self._node.changing():
            for gpu in self._node.state.gpus:
                settle(gpu, self._clock.monotonic())
