"""Judges what migscaler does by the simulated node and the harness's own books, never by its own.

Only three things are taken from migscaler: which plan it says it is carrying out (to know what was
promised), whether its journal calls a plan open (to know when the promise falls due), and which
layout was last wanted (to know what a start owes a GPU that lost everything).
"""

from collections import Counter
from dataclasses import dataclass, field

from migscaler.model.layout import Layout
from migscaler.model.plan import Direction, direction_between
from migscaler.model.policy import Mode
from migscaler.model.status import Running, Status
from migscaler.sim.node import SimNode
from migscaler.sim.state import GpuState, InstanceState
from migscaler.store.store import Store
from tests.simulation.clockwork import VirtualClock
from tests.simulation.scenarios import Scenario
from tests.simulation.truth import (
    Key,
    Ledger,
    gpu_at,
    key_of,
    layout_of,
    model_of,
    runs_on,
    spec_of,
    usable,
)


@dataclass
class Promise:
    """A GPU plan under way: what was there, what is promised, and what happened meanwhile.

    `ours` are instances made by it. `meddled`: somebody else changed or broke the GPU; `injected`:
    the driver was made to fail.
    """

    running: Running
    before: Counter[str]
    broken: Counter[str]
    ours: set[Key] = field(default_factory=set)
    calls: int = 0
    changed: bool = False
    meddled: bool = False
    injected: bool = False

    @property
    def uuid(self) -> str:
        return self.running.gpu_uuid

    def missing(self, gpu: GpuState) -> Counter[str]:
        """Count the usable instances below min(before, after).

        What was there without being usable, and stays as it is, is no part of what is promised.
        """
        after = self.running.after.profiles() - self.broken
        return (self.before & after) - usable(gpu)


class Judge:
    """Collects `problems`; `counts` say how much there was to judge."""

    def __init__(
        self, scenario: Scenario, node: SimNode, clock: VirtualClock, ledger: Ledger, store: Store
    ) -> None:
        self._scenario = scenario
        self._node = node
        self._clock = clock
        self._ledger = ledger
        self._store = store
        self.problems: list[str] = []
        self.counts: Counter[str] = Counter()
        self.plan: Promise | None = None
        self.recovering = False
        self.recovery_injected: set[str] = set()
        self._disturbed = False
        self.debts: list[Promise] = []
        self.closed_directions: frozenset[Direction] = frozenset()
        self.node_closed: str | None = None
        self.silent = False
        self._made: set[Key] = set()
        self._opened: set[Key] = set()
        self._recovered: set[Key] = set()
        self._ended: list[tuple[Promise, Counter[str]]] = []
        self._changed_at: dict[str, float] = {}
        self._changes = 0
        self._changed_this_tick: set[str] = set()

    def wrong(self, text: str) -> None:
        """Write down a broken promise."""
        self.problems.append(f"{self._clock.now():%d. %H:%M:%S} {text}")

    # What migscaler shows

    def on_publish(self, status: Status) -> None:
        """Follow which GPU plan runs."""
        running = status.running
        if self.plan is not None and (running is None or self.plan.uuid != running.gpu_uuid):
            self._end_plan(self.plan)
        if running is not None and self.plan is None:
            gpu = gpu_at(self._node, running.gpu_uuid)
            broken = Counter(gi.profile for gi in gpu.instances.values()) - usable(gpu)
            self.plan = Promise(running=running, before=usable(gpu), broken=broken)

    def _end_plan(self, plan: Promise) -> None:
        """Judge a GPU plan at its end, or remember it as a debt while it is open."""
        self.plan = None
        gpu = gpu_at(self._node, plan.uuid)
        if any(one.gpu_uuid == plan.uuid for one in self._store.open_plans()):
            self.debts.append(plan)
            self.counts["left open"] += 1
            return
        if plan.calls:
            self.counts["plans"] += 1
            self._changed_at[plan.uuid] = self._clock.monotonic()
            self._legal(gpu)
            self._half_made(gpu, excused=plan.injected)
            excused = plan.meddled or plan.injected
            if not gpu.instances and plan.before and not excused:
                self.wrong(f"{plan.running.plan_id} left {plan.uuid} empty")
            self._put_back(plan, gpu)
        self._ended.append((plan, plan.missing(gpu)))

    def after_tick(self, status: Status) -> None:
        """Judge the plans of a tick: nothing usable is lost, or a broken driver took it."""
        if self.plan is not None:
            self._end_plan(self.plan)
        for plan, missing in self._ended:
            told: Counter[str] = Counter()
            for uuid, profile, count in status.usable_lost:
                if uuid == plan.uuid:
                    told[profile] = count
            self._lost(plan, missing, told)
        self._ended.clear()
        self._changed_this_tick.clear()

    def _lost(self, plan: Promise, missing: Counter[str], told: Counter[str] | None) -> None:
        gpu = gpu_at(self._node, plan.uuid)
        if not missing or plan.meddled or any(self._is_kept(gpu, key) for key in plan.ours):
            return
        self.counts["lost to faults"] += 1
        if not plan.injected:
            self.wrong(f"{plan.running.plan_id} on {plan.uuid} lost {dict(missing)}")
        elif told is not None and missing - told:
            self.wrong(f"{plan.running.plan_id} lost {dict(missing)} and tells of {dict(told)}")

    def _put_back(self, plan: Promise, gpu: GpuState) -> None:
        """A plan that ended left the layout that it promised, or the one before."""
        if plan.meddled or plan.injected or any(self._is_kept(gpu, key) for key in plan.ours):
            return
        found = layout_of(self._node, gpu)
        # A start gives a GPU that it finds empty what it last was to have.
        owed = None if len(plan.running.before) else self._wanted(gpu)
        if found not in (plan.running.before, plan.running.after, owed):
            self.wrong(f"{plan.running.plan_id} left {found} of {plan.running.before}")

    def _is_kept(self, gpu: GpuState, key: Key) -> bool:
        """Say whether an instance that a plan made is used by now, so that it can't be undone.

        A client that keeps a handle counts: the driver itself refuses to remove it then.
        """
        gi = gpu.instances.get(key[1])
        if gi is None or key_of(gpu, gi) != key:
            return False
        return (
            runs_on(gpu, gi)
            or key in self._ledger.leaks
            or self._ledger.holder(gpu, gi) is not None
            or bool(gi.holders)
        )

    # Calls

    def before_call(self, name: str, gpu: GpuState | None, gi: InstanceState | None) -> None:
        """Judge a changing call by what is known right before it."""
        if gpu is None:
            return
        if self.plan is None and not self.recovering:
            self.wrong(f"{name} on {gpu.uuid} outside any plan")
        if self._scenario.policy.gpus[gpu.index].mode is not Mode.ENFORCE:
            self.wrong(f"{name} on {gpu.uuid}, which is not enforced")
        if self.plan is not None:
            if gpu.uuid != self.plan.uuid:
                self.wrong(f"{name} on {gpu.uuid} during a plan of {self.plan.uuid}")
            if not self.plan.calls:
                self._first_call(self.plan, gpu)
            self.plan.calls += 1
        if gi is not None and name.endswith("Destroy"):
            self._destroy(name, gpu, gi)

    def _destroy(self, name: str, gpu: GpuState, gi: InstanceState) -> None:
        """Judge that an instance may go."""
        key, what = key_of(gpu, gi), f"{name} of {spec_of(gi)} on {gpu.uuid}"
        self.counts["destroy calls"] += 1
        if runs_on(gpu, gi):
            self.wrong(f"{what}: a process runs on it")
        holder = self._ledger.holder(gpu, gi)
        if holder is not None:
            self.wrong(f"{what}: it belongs to {holder}")
        ours = self.plan.ours if self.plan is not None else self._recovered
        if key in ours:
            self.counts["undone"] += 1
            return
        if self.plan is None:
            self.wrong(f"{what}: recovery takes what it did not make")
        if key in self._ledger.leaks:
            self.wrong(f"{what}: its memory is in use")
        why = self._ledger.why_not_idle(gpu, gi)
        if why is not None:
            self.wrong(f"{what}: {why}")

    def after_call(
        self, name: str, gpu: GpuState | None, code: int, *, refused: bool, done: bool
    ) -> None:
        """Note what a call did.

        `refused`: the driver itself says no, not a fault; `done`: it worked, whatever the answer.
        """
        if gpu is None:
            return
        if done and self.plan is not None:
            self._count_change(self.plan)
        if code and not refused and self.plan is not None:
            self.plan.injected = True
        if code and not refused:
            if self.recovering:
                self.recovery_injected.add(gpu.uuid)
            for debt in self.debts:
                debt.injected = debt.injected or debt.uuid == gpu.uuid
        if "Create" in name:
            made = {key_of(gpu, gi) for gi in gpu.instances.values()}
            newest = max(made, key=lambda key: key[2], default=None)
            if newest is not None and "WithPlacement" in name and newest not in self._made:
                self._note_made(newest)
            planned = self.plan is not None and not self.plan.meddled
            if refused and planned and not self.plan_injected():
                self.wrong(f"{name} on {gpu.uuid}: the driver refuses ({code})")
        self._legal(gpu)

    def _count_change(self, plan: Promise) -> None:
        """Count the GPU plans that changed something."""
        if plan.changed:
            return
        plan.changed = True
        self._changes += 1
        if self._changes > self._scenario.policy.pace.per_day:
            self.wrong(f"{self._changes} changes in a day")

    def plan_injected(self) -> bool:
        """Say whether the running plan met an injected fault."""
        return self.plan is not None and self.plan.injected

    def _note_made(self, key: Key) -> None:
        self._made.add(key)
        if self.plan is not None:
            self.plan.ours.add(key)
        elif self.recovering:
            self._recovered.add(key)

    def _legal(self, gpu: GpuState) -> None:
        violation = model_of(self._node, gpu).violation(layout_of(self._node, gpu))
        if violation is not None:
            self.wrong(f"{gpu.uuid} is illegal: {violation}")

    def _first_call(self, plan: Promise, gpu: GpuState) -> None:
        """Judge what must hold when a plan changes its first thing."""
        policy, now = self._scenario.policy, self._clock.monotonic()
        if self._ledger.is_paused():
            self.wrong(f"{plan.running.plan_id} begins while paused")
        if self.node_closed is not None:
            self.wrong(f"{plan.running.plan_id} begins though {self.node_closed}")
        direction = direction_between(plan.running.before, plan.running.after)
        if direction in self.closed_directions:
            self.wrong(f"{plan.running.plan_id} makes {direction.value} in a freeze")
        if self.silent:
            self.wrong(f"{plan.running.plan_id} changes {plan.uuid} though every source is silent")
        if plan.running.before != layout_of(self._node, gpu):
            self.wrong(f"{plan.running.plan_id} assumes {plan.running.before}")
        rested = now - self._changed_at.get(plan.uuid, float("-inf"))
        if rested < policy.pace.rest.total_seconds() - 1e-6:
            self.wrong(f"{plan.running.plan_id}: {plan.uuid} rested for {rested:.0f} s only")
        self._changed_this_tick.add(plan.uuid)
        if len(self._changed_this_tick) > policy.pace.gpus_at_once:
            self.wrong(f"{len(self._changed_this_tick)} GPUs changed at once")

    # The world

    def meddle(self, uuid: str | None) -> None:
        """Note that somebody else changed or broke a GPU (None: all)."""
        self._disturbed = True
        plans = [*self.debts, *([] if self.plan is None else [self.plan])]
        for plan in plans:
            plan.meddled = plan.meddled or uuid in (None, plan.uuid)

    def foreign_opened(self, gpu: GpuState, gi: InstanceState) -> None:
        """Note that somebody else took an instance's compute instance away."""
        self._opened.add(key_of(gpu, gi))

    def forget_rests(self) -> None:
        """Rests are told by the wall clock; judge none that a clock step or a crash touched."""
        self._changed_at.clear()

    # Recovery

    def begin_process(self) -> None:
        """A process starts, perhaps after a crash in the middle of a plan."""
        if self.plan is not None:
            self.debts.append(self.plan)
            self.plan = None
        self._ended.clear()
        self._changed_this_tick.clear()
        self.forget_rests()
        self.begin_recovery()

    def begin_recovery(self) -> None:
        """What was left open may be undone from here on, and nothing else."""
        opened = {one.gpu_uuid for one in self._store.open_plans()}
        if not self.recovering and opened <= {debt.uuid for debt in self.debts}:
            # Else a recovery was cut short, or left its own plan open: the next ends it too.
            self._recovered = set()
        if not self.recovering:
            self._disturbed = False
        self._disturbed |= bool(self._node.state.faults)
        self.recovering = True
        self._recovered |= set().union(*(debt.ours for debt in self.debts))

    def end_recovery(self, *, must_settle: bool) -> None:
        """Every plan left open is settled unless that was impossible; then nothing is half made."""
        self.recovering = False
        opened = {one.gpu_uuid for one in self._store.open_plans()}
        for debt in tuple(self.debts):
            gpu = gpu_at(self._node, debt.uuid)
            if debt.uuid in opened:
                able = not self._ledger.is_paused() and not gpu.lost and not self._node.state.faults
                if must_settle and able:
                    self.wrong(f"{debt.running.plan_id} on {debt.uuid} is not settled")
                continue
            self.debts.remove(debt)
            self.counts["settled"] += 1
            self._lost(debt, debt.missing(gpu), None)
            self._put_back(debt, gpu)
            self._half_made(gpu, excused=debt.injected)
        for gpu in self._node.state.gpus:
            if gpu.uuid not in opened:
                self._half_made(gpu, excused=gpu.uuid in self.recovery_injected)
                if must_settle:
                    self._restored(gpu)
        self.recovery_injected.clear()

    def _restored(self, gpu: GpuState) -> None:
        """After a start no GPU is empty that is to have instances, unless something forbids it."""
        wanted = self._wanted(gpu)
        is_enforced = self._scenario.policy.gpus[gpu.index].mode is Mode.ENFORCE
        if gpu.instances or wanted is None or not is_enforced or gpu.lost:
            return
        self.counts["empty at starts"] += 1
        is_held = any(held.gpu == gpu.uuid and held.spec is None for held in self._ledger.held)
        forbidden = self._ledger.is_paused() or is_held or not gpu.mig_current
        if not (forbidden or self._disturbed or gpu.uuid in self.recovery_injected):
            self.wrong(f"{gpu.uuid} is empty after a start that owes it {wanted}")

    def _wanted(self, gpu: GpuState) -> Layout | None:
        """Return the layout that a GPU was last to have."""
        wanted = self._store.wanted()
        found = (one.layout for one in wanted if one.gpu_uuid == gpu.uuid and len(one.layout))
        return next(found, None)

    def _half_made(self, gpu: GpuState, *, excused: bool) -> None:
        """Nothing that migscaler made is left without compute instance; a broken driver may."""
        for gi in gpu.instances.values():
            key = key_of(gpu, gi)
            if len(gi.compute) == 1 or key not in self._made - self._opened:
                continue
            self._opened.add(key)
            self.counts["orphans of faults"] += 1
            if not excused:
                self.wrong(f"{spec_of(gi)} on {gpu.uuid} is left half made")
