"""A whole simulated day: one node, one daemon process after another, people, jobs and faults."""

import hashlib
import json
import random
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

from migscaler.errors import MigscalerError
from migscaler.metrics.exposition import Renderer
from migscaler.model.decision import GpuHistory
from migscaler.model.demand import Counts
from migscaler.model.gpu import NodeSnapshot
from migscaler.model.ids import GpuUuid
from migscaler.model.plan import Direction
from migscaler.model.status import Status
from migscaler.policy.decide import decide
from migscaler.sim.node import build_node
from migscaler.sim.state import GpuState, InstanceState
from migscaler.store.codec import decode_input, encode_decision
from migscaler.store.store import Store
from tests.simulation.acting import Crash
from tests.simulation.clockwork import VirtualClock
from tests.simulation.events import Events
from tests.simulation.judge import Judge
from tests.simulation.process import Objection, Outside, Process, Queue
from tests.simulation.scenarios import LEASES, QUEUE, TOTALS, Scenario
from tests.simulation.shown import Shown, instance_series, present
from tests.simulation.truth import Ledger, aimed_at, usable_by_rule

MAX_AGE = timedelta(minutes=3)
# Silent for longer than this, a source may have lapsed, and the rule may fall back to its floor.
_BEFORE_LAPSE = timedelta(minutes=38)
_LAST_MINUTES_QUIET = 40
_DURING_PLAN = ("start_job", "hold", "lease", "release", "give_back", "pause", "foreign", "end_job")


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """How a day went: broken promises, how much there was to judge, and its fingerprint."""

    seed: int
    minutes: int
    problems: tuple[str, ...]
    counts: Counter[str]
    log: tuple[str, ...]
    digest: str


class World:
    """Runs one scenario; `run` may be called once."""

    def __init__(self, scenario: Scenario, directory: Path) -> None:
        self.scenario = scenario
        self.dice = random.Random(f"world {scenario.seed}")
        self.clock = VirtualClock(scenario.start)
        self.node = build_node(
            scenario.spec_text,
            "580.65.06",
            variant=scenario.variants,
            seed=scenario.seed,
            clock=self.clock.monotonic,
        )
        self.store = Store.open(directory / "state" if scenario.on_disk else None, self.clock)
        self.ledger = Ledger(self.node, self.clock, scenario.policy)
        self.judge = Judge(scenario, self.node, self.clock, self.ledger, self.store)
        self.renderer = Renderer()
        self.queue = Queue(self.clock, Counts.WAITING, MAX_AGE)
        self.totals = Queue(self.clock, Counts.TOTAL, MAX_AGE)
        self.objection = Objection()
        self.events = Events(
            dice=self.dice,
            node=self.node,
            clock=self.clock,
            store=self.store,
            ledger=self.ledger,
            judge=self.judge,
            queue=self.queue,
            totals=self.totals,
            objection=self.objection,
        )
        self.outside = Outside(
            scenario=scenario,
            node=self.node,
            clock=self.clock,
            directory=directory,
            queue=self.queue,
            totals=self.totals,
            objection=self.objection,
            around=self._around,
            publish=self._publish,
            store=self.store,
        )
        self.chances = dict(scenario.chances)
        self.sentences = hashlib.sha256()
        self.dead = False
        self.points_to_death: int | None = None
        self.silent_since = self.clock.now()
        self.seen: NodeSnapshot | None = None
        self.shown: frozenset[Shown] = frozenset()
        self.calm = False
        self._lay_out()
        self.process = Process(self.outside)

    def run(self) -> Report:
        """Live through the lively minutes and the quiet ones; judge all the while."""
        try:
            self.start()
            end = self.clock.monotonic() + self.scenario.lively * 60
            while self.clock.monotonic() < end:
                self.turn()
                self._incidents()
            self._quiet()
            self._replay()
        finally:
            self.process.close()
            self.store.close()
        lines = self.node.store.lines()
        digest = hashlib.sha256("\n".join(lines).encode())
        digest.update(self.sentences.digest())
        return Report(
            seed=self.scenario.seed,
            minutes=self.scenario.minutes,
            problems=tuple(self.judge.problems),
            counts=self.judge.counts,
            log=lines,
            digest=digest.hexdigest(),
        )

    def _lay_out(self) -> None:
        """Give each GPU some layout of somebody else's."""
        self.clock.on_sleep = self._while_waiting
        for _ in range(3 * len(self.node.state.gpus)):
            self.events.foreign()

    # One period

    def turn(self) -> None:
        period = self.scenario.policy.sampling.total_seconds()
        part = self.dice.uniform(0, period)
        self.clock.advance(part)
        if not self.calm:
            for name, happen in self.events.by_name.items():
                if self.dice.random() < self.chances[name]:
                    happen()
        self.clock.advance(period - part)
        loop = self.process.loop
        try:
            for name in (QUEUE, TOTALS, LEASES):
                loop.gather(name)
            if self.scenario.has_veto:
                loop.gather_veto("objection")
            self.ledger.note_sample()
            if loop.sample() is None:
                self.ledger.undo_sample()
            self._work()
        except Crash:
            self.judge.counts["crashes"] += 1
            self.start()

    def _work(self) -> None:
        """Let housekeeping and the tick run; both finish what a start could not."""
        self.judge.begin_recovery()
        if self.store.open_plans() or self.dice.random() < 0.1:
            self.process.runtime.housekeeping()
        self._note_conditions()
        try:
            decision = self.process.runtime.tick()
        except MigscalerError:  # counted by the daemon's jobs; the next tick tries again
            self.judge.counts["failed ticks"] += 1
            decision = None
        self.judge.end_recovery(must_settle=False)
        status = self.process.loop.status()
        self.judge.after_tick(status)
        if decision is not None:
            self.sentences.update(decision.sentence.encode())
        if self.dice.random() < 0.04:
            self._judge_metrics(status)

    def _note_conditions(self) -> None:
        """Tell the judge what forbids changes at this tick, by the harness's own reckoning."""
        judge, scenario, now = self.judge, self.scenario, self.clock.now()
        judge.node_closed = None
        if scenario.has_veto and self.objection.active is not False:
            judge.node_closed = f"the veto is {self.objection.active}"
        read = () if self.seen is None else self.seen.gpus
        answering = {gpu.uuid for gpu in read if gpu.instances is not None}
        if any(plan.gpu_uuid in answering for plan in self.store.open_plans()):
            judge.node_closed = "a plan is open"
        opened = {window.text for window in scenario.windows if window.is_open(now)}
        closed: set[Direction] = set()
        for freeze in scenario.policy.freezes:
            if freeze.window in opened:
                closed.update(Direction if freeze.only is None else (freeze.only,))
        judge.closed_directions = frozenset(closed)
        if self.queue.known() or self.totals.known():
            self.silent_since = now
        judge.silent = self._is_silent(opened)
        judge.counts["silent ticks"] += judge.silent

    def _is_silent(self, opened: set[str]) -> bool:
        """Say whether nothing is known to be wanted beyond floors, and these are met."""
        now = self.clock.now()
        silent = not self.queue.known() and not self.totals.known()
        waits = self.store.lease_waits(now - timedelta(minutes=2))
        whole = not self.node.state.faults and not any(gpu.lost for gpu in self.node.state.gpus)
        empty = any(
            not gpu.instances and self.scenario.policy.gpus[gpu.index].baseline
            for gpu in self.node.state.gpus
        )
        if not silent or waits or not whole or empty:
            return False
        if now - self.silent_since > _BEFORE_LAPSE:
            return False
        there = usable_by_rule(self.node, self.scenario.policy, self.ledger)
        return all(
            there[rule.name]
            >= max(rule.minimum, *(a.count for a in rule.at_least if a.window in opened), 0)
            for rule in self.scenario.policy.rules
        )

    # What migscaler does meanwhile

    def _publish(self, status: Status) -> None:
        if self.dead:
            return
        if status.snapshot is not self.seen:
            # Published at the moment of sampling: what is there now is what the sample could see.
            self.seen, self.shown = status.snapshot, present(self.node)
        self.renderer.publish(status)
        self.judge.on_publish(status)

    def _around(self, name: str, arguments: tuple[object, ...], call: Callable[[], int]) -> int:
        """Stand between migscaler and the driver at one changing call."""
        self._point()
        gpu, gi = aimed_at(self.node, arguments)
        first = self.judge.plan is not None and not self.judge.plan.calls
        if first and gpu is not None:
            self._judge_withheld(gpu.uuid)
        self.judge.before_call(name, gpu, gi)
        if not self.calm:
            if gpu is not None and gi is not None and self.dice.random() < 0.03:
                self._race(name, (gpu, gi))
            if self.dice.random() < 0.05:
                self.clock.advance(self.dice.uniform(1, 20))
        before = len(self.node.store.lines())
        code = call()
        answers = [json.loads(line)["code"] for line in self.node.store.lines()[before:]]
        self.judge.after_call(name, gpu, code, refused=answers == [code] != [0], done=0 in answers)
        self._point()
        return code

    def _race(self, name: str, on: tuple[GpuState, InstanceState]) -> None:
        """Let somebody come between the last look and the call."""
        match self.dice.choice(("job", "hold", "client")):
            case "job":
                if self.events.start_job(on) is not None:
                    self.judge.counts["jobs in the last moment"] += 1
            case "hold":
                self.events.hold("hold", on)
            case _:
                self.node.hold_instance(on[0].index, on[1].id)

    def _while_waiting(self) -> None:
        """Let something happen while migscaler waits in the middle of a plan."""
        self._point()
        if self.calm or self.dice.random() > 0.2:
            return
        self.events.by_name[self.dice.choice(_DURING_PLAN)]()

    def _point(self) -> None:
        """Pass a point at which the process may die."""
        if self.dead:
            raise Crash
        if self.points_to_death is None:
            return
        self.points_to_death -= 1
        if self.points_to_death <= 0:
            self.dead, self.points_to_death = True, None
            raise Crash

    # Between periods

    def _incidents(self) -> None:
        """Crash, restart or reboot now and then."""
        if self.dice.random() < self.chances["crash"]:
            self.points_to_death = self.dice.randint(1, 12)
        if self.dice.random() < self.chances["restart"]:
            self.start()
        if self.dice.random() < self.chances["reboot"]:
            self.judge.meddle(None)
            self.node.reboot()
            self.ledger.leaks.clear()
            self.judge.counts["reboots"] += 1
            self.start()
            self._switch_on()

    def _switch_on(self) -> None:
        """Let an administrator switch MIG on where it is off and nobody restores it."""
        with self.node.changing() as state:
            for gpu in state.gpus:
                gpu.mig_current = gpu.mig_pending = 1

    def start(self) -> None:
        """Start a process, again and again if it dies at once."""
        while True:
            self.process.close()
            self.dead = False
            self.ledger.forget()
            self.judge.begin_process()
            self.silent_since = self.clock.now()
            try:
                self.process = Process(self.outside)
                self.ledger.note_sample()
                begun = self._begin()
            except Crash:
                continue
            self.judge.counts["starts"] += 1
            status = self.process.loop.status()
            self.judge.counts["recovered"] += len(status.outcomes)
            self.judge.end_recovery(must_settle=status.snapshot is not None and begun)
            return

    def _begin(self) -> bool:
        """Do what a start does; say whether all of it could be done."""
        try:
            self.process.runtime.begin()
        except MigscalerError:  # the daemon logs it and goes on to tick
            return False
        return True

    def _quiet(self) -> None:
        """Nothing happens any more: soon nothing must be changed any more."""
        self.events.calm()
        self.points_to_death = None
        self.calm = True
        self.start()
        for gpu in self.node.state.gpus:
            uuid = GpuUuid(gpu.uuid)
            self.store.update_gpu_history(uuid, lambda before: GpuHistory(gpu_uuid=before.gpu_uuid))
        start = self.clock.now()
        deadline = self.clock.monotonic() + self.scenario.quiet * 60
        calls = 0
        while self.clock.monotonic() < deadline:
            if self.clock.monotonic() < deadline - _LAST_MINUTES_QUIET * 60:
                calls = len(self.node.store.lines())
            self.turn()
        edge = any(
            window.is_open(start + timedelta(minutes=m)) != window.is_open(start)
            for window in self.scenario.windows
            for m in range(self.scenario.quiet + 1)
        )
        late = self.node.store.lines()[calls:]
        self.judge.counts["quiet ends"] += not edge
        if late and not edge:
            self.judge.wrong(f"{len(late)} changing calls long after everything stood still")

    # Judging by records

    def _judge_withheld(self, uuid: str) -> None:
        """Before the first call, no series of the GPU's instances may be shown."""
        text = self.renderer.render().body.decode()
        if any(one[0] == uuid for one in instance_series(text)):
            self.judge.wrong(f"series of {uuid} are shown when its change begins")

    def _judge_metrics(self, status: Status) -> None:
        """No series of an instance that the last snapshot does not have."""
        self.judge.counts["scrapes"] += 1
        strange = instance_series(self.renderer.render().body.decode()) - self.shown
        if strange:
            self.judge.wrong(f"series of instances that are not there: {sorted(strange)}")
        if status.snapshot is None and self.shown:
            self.judge.wrong("series without a snapshot")

    def _replay(self) -> None:
        """A recorded input must give the recorded decision."""
        records = self.store.decisions(10_000)
        for record in self.dice.sample(records, min(len(records), 8)):
            inp = decode_input(self.store.decision_input_text(record.seq))
            self.judge.counts["replays"] += 1
            if encode_decision(decide(inp)) != self.store.decision_text(record.seq):
                self.judge.wrong(f"decision {record.seq} is another one when made again")
