"""The loop: sample, gather, tick; plain methods that a scheduler, a test or a replay calls."""

import logging
import threading
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime
from typing import TypeVar

from migscaler.control.books import Books
from migscaler.control.clock_watch import ClockWatch, moved
from migscaler.control.collectors import Collectors
from migscaler.control.counters import Tally
from migscaler.control.decision_log import DecisionLog, unrecorded
from migscaler.control.driver import has_mismatch, is_mismatch
from migscaler.control.parts import Parts
from migscaler.control.request import refuse_beside_open_plan, why_open
from migscaler.control.restores import waiting_restores
from migscaler.control.second_look import closed_since, reason_of
from migscaler.errors import HardwareError, StoreError
from migscaler.model.decision import (
    Conditions,
    Decision,
    DecisionInput,
    History,
    RuleHistory,
)
from migscaler.model.demand import Fetched
from migscaler.model.gpu import NodeSnapshot
from migscaler.model.ids import GpuUuid, PlanId, SourceName
from migscaler.model.plan import Gate, GpuPlan, Hold, Outcome, OutcomeKind, Plan
from migscaler.model.stats import CallStats
from migscaler.model.status import Status
from migscaler.planner.cache import one_node_cache
from migscaler.policy.decide import decide
from migscaler.policy.regret import RegretBook
from migscaler.policy.regret import observe as observe_regret
from migscaler.store.records import PlanRecord

_log = logging.getLogger("migscaler.loop")

# A snapshot older than this many sampling periods decides nothing and shows nothing.
_STALE_PERIODS = 3
T = TypeVar("T")
_OUTCOMES_KEPT = 20


class Loop:
    """One node's loop. `sample`, `gather` and `tick` may run in different threads."""

    def __init__(self, parts: Parts) -> None:
        """Take the parts; nothing is read yet."""
        self._parts = parts
        self._started_at = parts.clock.now()
        self._reading = threading.RLock()
        self._deciding = threading.RLock()
        self._facts = threading.RLock()
        self._snapshot: NodeSnapshot | None = None
        self._decision: Decision | None = None
        self._decided_from: DecisionInput | None = None
        self._rule_histories: tuple[RuleHistory, ...] = ()
        self._decisions = DecisionLog()
        self._regret = RegretBook()
        self._tally = Tally()
        self._books = Books()
        self._outcomes: tuple[Outcome, ...] = ()
        self._collectors = Collectors(parts.clock)
        self._watch = ClockWatch(parts.clock)
        self._journal_problem: str | None = None
        self._calls = CallStats()
        self._plans_begun = 0
        self._cache = one_node_cache()
        self._window_edge: datetime | None = None
        self._mismatch: bool | None = None

    @property
    def parts(self) -> Parts:
        """Return what the loop is made of now."""
        return self._parts

    def reconfigure(self, parts: Parts) -> None:
        """Swap policy, sources and windows at once, between two ticks; history is kept."""
        with self._deciding, self._reading:
            if parts.gatherer is not self._parts.gatherer:
                parts.gatherer.take_over(self._parts.gatherer)
            before = {rule.name: rule.size for rule in self._parts.policy.rules}
            same = {r.name for r in parts.policy.rules if before.get(r.name) == r.size}
            self._rule_histories = tuple(h for h in self._rule_histories if h.rule in same)
            self._parts = parts
            asked = (*parts.gatherer.collectors(), *parts.activity.collectors())
            self._collectors.keep_only({"nvml", *asked})
        self.publish()

    def sample(self) -> NodeSnapshot | None:
        """Read the node once and publish; None when NVML as a whole did not answer."""
        with self._reading:
            parts = self._parts
            began = parts.clock.monotonic()
            try:
                holds = self._books.holds(parts.store, parts.clock.now())
                snapshot = parts.observer.observe(parts.policy, holds)
            except (HardwareError, StoreError) as error:
                self._collectors.note("nvml", began, problem=str(error))
                self._calls = parts.call_stats()
                self._mismatch = is_mismatch(error)
                self.publish()
                return None
            self._collectors.note("nvml", began, problem=None)
            self._calls = parts.call_stats()
            self._mismatch = has_mismatch(snapshot)
            self._snapshot = snapshot
            parts.gatherer.remember_use(snapshot, parts.policy)
            self._books.adopt_foreign_changes(parts.store, snapshot, parts.policy.pace)
        self.publish()
        return snapshot

    def gather(self, name: SourceName) -> Fetched:
        """Ask one demand source."""
        began = self._parts.clock.monotonic()
        fetched = self._parts.gatherer.gather(name)
        self._collectors.note(f"source:{name}", began, problem=fetched.problem)
        return fetched

    def gather_activity(self) -> None:
        """Ask DCGM for the activity of instances."""
        began = self._parts.clock.monotonic()
        self._collectors.note("dcgm", began, problem=self._parts.activity.fetch())

    def gather_veto(self, name: str) -> None:
        """Ask one veto condition."""
        began = self._parts.clock.monotonic()
        status = self._parts.gatherer.gather_veto(name)
        problem = status.explanation if status.active is None else None
        self._collectors.note(f"veto:{name}", began, problem=problem)

    def tick(self) -> Decision | None:
        """Decide and, where every gate is open, act.

        Ends in a plan carried out or in a hold with its reason (None: before the first sample); the
        complete input is recorded whenever the decision differs from the one before.
        """
        with self._deciding:
            self._follow_clock()
            if (inp := self.assemble()) is None:
                return None
            self._window_edge = min(
                (w.next_change for w in inp.windows if w.next_change is not None), default=None
            )
            decision = self._decide(inp)
            decision_id = self._decisions.record(self._parts.store, inp, decision)
            acts = isinstance(decision.outcome, Plan) and self._parts.enforcer is not None
            if acts and decision_id is None:
                decision = self._decision = unrecorded(decision)
            self.publish()
            if isinstance(decision.outcome, Plan) and acts:
                self.carry_out(decision.outcome, decision_id)
            return decision

    def window_edge(self) -> datetime | None:
        """Return when a calendar window next opens or closes, as of the last tick."""
        return self._window_edge

    def carry_out(self, plan: Plan, decision_id: int | None) -> tuple[Outcome, ...]:
        """Execute a node plan, GPU plan by GPU plan.

        None is begun after one that failed, nor once a gate has closed; without a `decision_id` a
        person asked for it.
        """
        enforcer = self._parts.enforcer
        if enforcer is None or self._snapshot is None:
            return ()
        self._tally.plan(tuple(p.direction.value for p in plan.gpu_plans))
        now = self._parts.clock.now()
        outcomes: list[Outcome] = []
        for gpu_plan in plan.gpu_plans:
            self._plans_begun += 1
            plan_id = PlanId(f"{now:%Y%m%dT%H%M%S}-{decision_id or 0}-{self._plans_begun}")
            gate = self._closed_since(gpu_plan, asked=decision_id is None) if outcomes else None
            if gate is None:
                outcome = enforcer.carry_out(
                    plan_id, gpu_plan, self._fresh, self._parts.policy, self.publish
                )
            else:
                outcome = enforcer.not_begun(plan_id, gpu_plan, reason_of(gate), gate.explanation)
            outcomes.append(outcome)
            self._tally.outcome(outcome)
            with self._facts:
                self._outcomes = (outcome, *self._outcomes)[:_OUTCOMES_KEPT]
            self.sample()
            if enforcer.stopping() or outcome.kind is OutcomeKind.FAILED or gate is not None:
                break  # what failed here is not tried on the next GPU; a new decision weighs it
        return tuple(outcomes)

    def _closed_since(self, plan: GpuPlan, *, asked: bool) -> Gate | None:
        """Return a gate that closed while the GPUs before were changed."""
        inp = self.assemble()
        return None if inp is None else closed_since(inp, plan, asked=asked)

    def request(self, plan: Plan) -> tuple[Outcome, ...]:
        """Carry out a plan that a person asked for, between two ticks.

        Raises:
            CommandRefused: a plan of one of its GPUs is still open.
        """
        with self._deciding:
            self._adopt_owed()
            refuse_beside_open_plan(plan, self._parts.store)
            if self._is_stale():
                self.sample()
            return self.carry_out(plan, None)

    def between_ticks(self, work: Callable[[], T]) -> T:
        """Do something else that changes GPUs, while nothing is decided or carried out."""
        with self._deciding:
            self._adopt_owed()
            return work()

    def assemble(self) -> DecisionInput | None:
        """Return everything a decision would depend on now; None before the first sample."""
        snapshot, parts = self._snapshot, self._parts
        if snapshot is None:
            return None
        conditions = self._conditions()  # writes, so that deadlines move with a clock that stepped
        now = parts.clock.now()
        books = self._books.read(parts.store, now)
        problem = conditions.journal_problem or books.problem
        return DecisionInput(
            now=now,
            now_monotonic=parts.clock.monotonic(),
            snapshot=snapshot,
            policy=parts.policy,
            demand=parts.gatherer.statuses(),
            windows=parts.evaluate_windows(now),
            vetoes=parts.gatherer.vetoes(),
            holds=books.holds,
            history=History(
                rules=self._rule_histories,
                gpus=books.histories,
                changes_last_day=books.changes,
            ),
            conditions=replace(conditions, pause=books.pause, journal_problem=problem),
        )

    def publish(self) -> None:
        """Hand the present state to whoever shows it; never an older one after a newer one."""
        with self._facts:
            self._parts.publish(self.status())

    def status(self) -> Status:
        """Return everything there is to show now."""
        parts, now = self._parts, self._parts.clock.now()
        enforcer = parts.enforcer
        with self._facts:
            outcomes = self._outcomes
        books = self._books.read(parts.store, now)
        return Status(
            version=parts.version,
            started_at=self._started_at,
            now=now,
            snapshot=self._snapshot,
            decision=self._decision,
            decision_at=None if self._decided_from is None else self._decided_from.now,
            decision_input=self._decided_from,
            policy=parts.policy,
            demand=parts.gatherer.statuses(),
            vetoes=parts.gatherer.vetoes(),
            holds=books.holds,
            pause=books.pause,
            gpu_histories=books.histories,
            budget_left=max(0, parts.policy.pace.per_day - books.changes),
            running=enforcer.running() if enforcer else None,
            withheld=parts.observer.outdated(self._snapshot),
            fenced=enforcer.fenced() if enforcer else (),
            usable_lost=enforcer.usable_lost() if enforcer else (),
            outcomes=outcomes,
            counters=self._tally.freeze(),
            regret=self._regret.counts,
            calls=self._calls,
            driver_mismatch=self._mismatch,
            scheduler=parts.job_stats(),
            web=parts.web_stats(),
            collectors=self._collectors.statuses(),
            config=parts.config,
            state_writable=self._journal_problem is None and self._books.problem is None,
            snapshot_stale=self._is_stale(),
            stale_from=self._stale_from(),
        )

    def publish_if_stale(self) -> bool:
        """Publish anew if the last sample has become too old; returns whether it has.

        The sampler may be the one that hangs, so the main thread asks this.
        """
        if stale := self._is_stale():
            self.publish()
        return stale

    def note_outcomes(
        self, outcomes: tuple[Outcome, ...], histogram: str, due: frozenset[GpuUuid] = frozenset()
    ) -> None:
        """Show what settling or restoring did; `due` are GPUs that were to get a layout again."""
        self._tally.due |= due
        with self._facts:
            self._outcomes = (*outcomes, *self._outcomes)[:_OUTCOMES_KEPT]
        for outcome in outcomes:
            self._tally.ended(outcome, histogram)
            if self._parts.enforcer is not None:
                self._parts.enforcer.note_layout(outcome)

    def _decide(self, inp: DecisionInput) -> Decision:
        """Decide, and count it; a planner that fails is a hold of its own."""
        clock = self._parts.clock
        began = clock.monotonic()
        decision = decide(inp, self._cache)
        self._regret, _counts = observe_regret(
            self._regret, inp.snapshot, decision, inp.now_monotonic
        )
        reason = decision.outcome.reason.value if isinstance(decision.outcome, Hold) else None
        self._tally.tick(reason, clock.monotonic() - began)
        self._rule_histories = decision.rule_histories
        self._decision, self._decided_from = decision, inp
        return decision

    def _conditions(self) -> Conditions:
        """Return the node's gates that are neither in the snapshot nor in the policy."""
        parts = self._parts
        open_plans: tuple[PlanRecord, ...] = ()
        waiting: tuple[tuple[GpuUuid, str], ...] = ()
        self._journal_problem = parts.config.state_problem or parts.store.check_writable()
        self._journal_problem = self._adopt_owed() or self._journal_problem
        try:
            open_plans = parts.store.open_plans()
            waiting = waiting_restores(parts.store, open_plans, parts.clock.now())
        except StoreError as error:
            self._journal_problem = str(error)
        return Conditions(
            journal_problem=self._journal_problem,
            open_plan=why_open(open_plans, self._snapshot, waiting, parts.observer.acting_on()),
            waiting_restores=waiting,
            clock_step=self._watch.problem(),
            forced_observe=parts.config.forced_observe,
            stale_after_seconds=_STALE_PERIODS * parts.policy.sampling.total_seconds(),
        )

    def _adopt_owed(self) -> str | None:
        """Record what others changed before anything is changed on top of it; say why not."""
        parts = self._parts
        return self._books.adopt_owed(parts.store, parts.policy.pace, parts.clock.now())

    def _follow_clock(self) -> None:
        """Notice that the wall clock was stepped; what has been unmet for a minute stays so."""
        step = self._watch.look()
        if step:
            _log.warning("clock_stepped seconds=%+.0f", step.total_seconds())
            self._rule_histories = tuple(
                replace(h, unmet_since=h.unmet_since and moved(h.unmet_since, step))
                for h in self._rule_histories
            )

    def _fresh(self) -> NodeSnapshot | None:
        """Return the newest picture, None if it is too old to act on."""
        return None if self._is_stale() else self._snapshot

    def _is_stale(self) -> bool:
        """Say whether the last sample is too old to be shown."""
        end = self._stale_from()
        return end is not None and self._parts.clock.monotonic() > end

    def _stale_from(self) -> float | None:
        """Return the monotonic second after which the last sample is too old to be shown."""
        if self._snapshot is None:
            return None
        periods = _STALE_PERIODS * self._parts.policy.sampling.total_seconds()
        return self._snapshot.taken_monotonic + periods
