"""Carry out one GPU plan, from the journal's first word to its last.

Order: journal the layout before, fence, wait, look again; then call by call as the plan says; then
verify, tell the node, lift the fence, close the plan. Whatever goes wrong after the first call
ends in putting back the layout before. It chooses nothing: not the plan, not when.
"""

import threading
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime, timedelta
from functools import partial

from migscaler.control.aftermath import after_outcome
from migscaler.control.endings import End, abandoned, lost_text
from migscaler.control.gpu_change import GpuChange
from migscaler.control.put_back import put_back
from migscaler.control.site import Site
from migscaler.control.steps_run import StepRunner, Stop
from migscaler.errors import StoreError
from migscaler.model.gpu import GpuReading, GpuState
from migscaler.model.ids import GpuUuid, PlanId
from migscaler.model.layout import Layout
from migscaler.model.plan import GpuPlan, Outcome, OutcomeKind, OutcomeReason, StepAction
from migscaler.model.policy import Policy
from migscaler.model.status import Running
from migscaler.store.records import GenerationRecord, KnownInstance, PlanRecord

_FENCE_PAUSE_SECONDS = 1.0

AfterChange = Callable[[GpuUuid, Layout], str | None]
"""Tells the node of a GPU's new layout (device nodes, CDI, a hook); None when it worked."""
OnRunning = Callable[[Running | None], None]
ShouldStop = Callable[[], OutcomeReason | None]


def _nobody(running: Running | None) -> None:
    """Show the running plan to nobody."""


def _never() -> OutcomeReason | None:
    """Never stop."""
    return None


class Executor:
    """Executes GPU plans one at a time; called by the one thread that acts."""

    def __init__(self, site: Site, after_change: tuple[AfterChange, ...] = ()) -> None:
        """Take the parts; nothing is read or changed yet."""
        self._site = site
        self._after_change = after_change
        self._fenced: dict[GpuUuid, datetime] = {}
        # Held while an old fence is lifted, so that no plan of that GPU begins meanwhile.
        self._lifting = threading.Lock()
        self._acting_on: GpuUuid | None = None

    def execute(
        self,
        plan_id: PlanId,
        plan: GpuPlan,
        state: GpuState,
        policy: Policy,
        on_running: OnRunning = _nobody,
        *,
        should_stop: ShouldStop = _never,
    ) -> Outcome:
        """Carry out a GPU plan that was made from `state`, and say how it ended.

        `on_running` is called before anything else happens and with None at the end. `should_stop`
        is asked while nothing has been changed; after the first call the plan runs to its end. A
        plan that could not be ended (GPU unreadable, journal unwritable) stays open in the
        journal: `settle` it.
        """
        run = _Run(self, self._site, plan_id, plan, state, policy, on_running, should_stop)
        with self._lifting:
            self._acting_on = plan.gpu_uuid
        try:
            return run.execute()
        finally:
            self._acting_on = None
            on_running(None)

    def fenced(self) -> tuple[tuple[GpuUuid, datetime], ...]:
        """Return the GPUs whose fence could not be lifted at the end, with the time it was set."""
        return tuple(sorted(self._fenced.copy().items()))

    def lift_fences(self) -> None:
        """Try again to lift them, except on the GPU of the plan under way, whose fence it would be.

        Housekeeping calls it, in another thread than `execute`.
        """
        for uuid in self._fenced.copy():
            with self._lifting:
                if uuid != self._acting_on and self._site.scheduler.unfence(uuid) is None:
                    self._fenced.pop(uuid, None)

    def unfence(self, uuid: GpuUuid, since: datetime) -> str | None:
        """Lift a fence, remembering one that would not be lifted; return why not."""
        problem = self._site.scheduler.unfence(uuid)
        if problem is None:
            self._fenced.pop(uuid, None)
            return None
        self._fenced[uuid] = since
        return f"the fence could not be lifted: {problem}"

    def tell_node(self, uuid: GpuUuid, layout: Layout) -> list[str]:
        """Run what follows a change; return what did not work."""
        return [
            problem for hook in self._after_change if (problem := hook(uuid, layout)) is not None
        ]


class _Run:
    """One execution of one GPU plan."""

    def __init__(
        self,
        executor: Executor,
        site: Site,
        plan_id: PlanId,
        plan: GpuPlan,
        state: GpuState,
        policy: Policy,
        on_running: OnRunning,
        should_stop: ShouldStop,
    ) -> None:
        self._executor = executor
        self._site = site
        self._plan_id = plan_id
        self._plan = plan
        self._state = state
        self._policy = policy
        self._on_running = on_running
        self._should_stop = should_stop
        self._started_at = site.clock.now()
        self._started = site.clock.monotonic()
        self._runner = StepRunner(site, 0, plan.gpu_uuid)
        self._notes: list[str] = []
        self._deadline = self._started

    def execute(self) -> Outcome:
        """Journal the layout before, act under the fence, close the plan."""
        self._show(fenced_since=None)
        stopped = self._should_stop()
        if stopped is not None:
            return self._outcome(abandoned(stopped, "not begun", self._plan.before))
        try:
            record = self._begin()
        except StoreError as problem:
            reason = OutcomeReason.JOURNAL_UNWRITABLE
            return self._outcome(abandoned(reason, str(problem), self._plan.before))
        self._runner = StepRunner(self._site, record.seq, self._plan.gpu_uuid)
        fenced_since = self._site.clock.now()
        self._show(fenced_since=fenced_since)
        try:
            end = self._act(record)
        finally:
            problem_left = self._executor.unfence(self._plan.gpu_uuid, fenced_since)
        if problem_left is not None:
            self._notes.append(problem_left)
        return self._close(record, end)

    def _begin(self) -> PlanRecord:
        """Write the plan and the whole layout before."""
        plan = self._plan
        record = PlanRecord(
            plan_id=self._plan_id,
            gpu_uuid=plan.gpu_uuid,
            before=plan.before,
            after=plan.after,
            steps=plan.steps,
            instances=tuple(
                KnownInstance(
                    gi_id=one.instance.gi_id,
                    spec=one.instance.spec,
                    mig_uuid=one.instance.mig_uuid,
                )
                for one in self._state.reading.instances or ()
            ),
            boot_id=self._site.boot_id,
            begun_at=self._started_at,
        )
        return replace(record, seq=self._site.store.begin_plan(record))

    def _act(self, record: PlanRecord) -> End:
        """Fence, wait, look, change, verify, tell; or put back."""
        stop = self._fence()
        if stop is None:
            self._site.clock.sleep(self._site.scheduler.period_seconds())
            asked = self._should_stop()
            if asked is not None:
                stop = Stop(reason=asked, explanation="before the first call")
        reading: GpuReading | Stop = self._plan_change(record) if stop is None else stop
        if isinstance(reading, Stop):
            return self._undo(record, reading)
        return self._finish(record, reading)

    def _plan_change(self, record: PlanRecord) -> GpuReading | Stop:
        """Make every call of the plan and verify the result."""
        change = GpuChange(
            runner=self._runner,
            record=record,
            assumed=self._state,
            margin_bytes=self._policy.idle.memory_margin_bytes,
        )
        return change.carry_out()

    def _fence(self) -> Stop | None:
        """Stop the scheduler from handing out what goes, within `fence_max`."""
        plan, site = self._plan, self._site
        going = tuple(step.spec for step in plan.steps if step.action is StepAction.DESTROY)
        self._deadline = site.clock.monotonic() + self._policy.pace.fence_max.total_seconds()
        while True:
            problem = site.scheduler.fence(plan.gpu_uuid, going)
            if problem is None:
                return None
            asked = self._should_stop()
            if asked is not None:
                return Stop(reason=asked, explanation=f"before the first call; {problem}")
            if site.clock.monotonic() >= self._deadline:
                return Stop(reason=OutcomeReason.FENCE_TIMEOUT, explanation=problem)
            site.clock.sleep(_FENCE_PAUSE_SECONDS)

    def _undo(self, record: PlanRecord, stop: Stop) -> End:
        """End a plan that could not go on; put back what it changed."""
        if stop.blind:
            return self._left_open(stop)
        if not self._runner.changed:
            return self._unchanged(stop)
        back = put_back(self._runner, record)
        if back.stop is not None or back.reading is None:
            return self._left_open(back.stop or stop)
        layout = back.reading.layout
        self._tell(layout)
        if not back.whole:
            return End(
                kind=OutcomeKind.FAILED,
                reason=OutcomeReason.ROLLBACK_INCOMPLETE,
                explanation=f"{stop.explanation}; {lost_text(back)}",
                layout=layout,
                rolled_back=True,
                counts_as_failure=True,
                # A driver that will not make it now may do so in a minute: settling tries again.
                closed=not back.unmade,
            )
        return End(
            kind=OutcomeKind.FAILED if stop.fault else OutcomeKind.ABANDONED,
            reason=stop.reason,
            explanation=f"{stop.explanation}; put back {layout}",
            layout=layout,
            rolled_back=True,
            counts_as_failure=stop.fault,
        )

    def _unchanged(self, stop: Stop) -> End:
        """End a plan that changed nothing."""
        found = self._runner.look()
        return End(
            kind=OutcomeKind.FAILED if stop.fault else OutcomeKind.ABANDONED,
            reason=stop.reason,
            explanation=stop.explanation,
            layout=None if isinstance(found, Stop) else found.layout,
            counts_as_failure=stop.fault,
        )

    def _left_open(self, stop: Stop) -> End:
        """End without closing the plan if it may have changed something: it is settled later."""
        # A call that was tried may have worked without our knowing.
        untouched = not self._runner.called
        unwritable = stop.reason is OutcomeReason.JOURNAL_UNWRITABLE
        return End(
            kind=OutcomeKind.ABANDONED if untouched and unwritable else OutcomeKind.FAILED,
            reason=stop.reason,
            explanation=stop.explanation + ("" if untouched else "; left open, to be settled"),
            layout=None,
            counts_as_failure=not unwritable,
            closed=untouched,
        )

    def _finish(self, record: PlanRecord, reading: GpuReading) -> End:
        """Keep the verified result and make it known."""
        try:
            self._site.store.verify_plan(record.seq)
            # Emptied is a GPU only to switch MIG off: if that never comes, its layout is due.
            wanted = self._plan.after if len(self._plan.after) else self._plan.before
            self._site.store.write_wanted(self._plan.gpu_uuid, wanted, self._site.boot_id)
        except StoreError as problem:
            self._notes.append(f"the result is not recorded: {problem}")
        self._tell(reading.layout)
        return End(
            kind=OutcomeKind.DONE,
            reason=OutcomeReason.COMPLETED,
            explanation=f"now {reading.layout}",
            layout=reading.layout,
        )

    def _tell(self, layout: Layout | None) -> None:
        """Run the hooks; wait until the scheduler advertises the layout or `fence_max` is over."""
        if layout is None:
            return
        self._notes += self._executor.tell_node(self._plan.gpu_uuid, layout)
        clock = self._site.clock
        while True:
            problem = self._site.scheduler.refresh(self._plan.gpu_uuid, layout)
            if problem is None:
                return
            if clock.monotonic() >= self._deadline:
                self._notes.append(f"not advertised: {problem}")
                return
            clock.sleep(_FENCE_PAUSE_SECONDS)

    def _close(self, record: PlanRecord, end: End) -> Outcome:
        """Record the generation, how it ended and what that means for the GPU's next plan.

        A plan that may be half done stays open.
        """
        outcome, store = self._outcome(end), self._site.store
        pace, now = self._policy.pace, self._site.clock.now()
        past = partial(after_outcome, outcome=outcome, pace=pace, now=now)
        try:
            if self._runner.changed and end.layout is not None:
                self._record_generation(end.layout)
            if end.closed:
                store.end_plan(record.seq, outcome, past)
            else:
                store.leave_open(record.seq, past)
        except StoreError as problem:
            note = f"{outcome.explanation}; the end is not recorded: {problem}"
            outcome = replace(outcome, explanation=note)
        return outcome

    def _record_generation(self, layout: Layout) -> None:
        """Bump the GPU's generation before the plan closes: leases of the old one are refused.

        The observer takes the number over with the first sample that was begun after the change.
        """
        record = GenerationRecord(
            gpu_uuid=self._plan.gpu_uuid,
            generation=self._state.generation,
            layout=layout,
            boot_id=self._site.boot_id,
            changed_at=self._site.clock.now(),
            model_name=self._state.reading.name,
        )
        self._site.store.write_generation(record, moved_on=True)

    def _show(self, fenced_since: datetime | None) -> None:
        """Publish that this plan runs, before anything of it happens."""
        self._on_running(
            Running(
                plan_id=self._plan_id,
                gpu_uuid=self._plan.gpu_uuid,
                before=self._plan.before,
                after=self._plan.after,
                since=self._started_at,
                fenced_since=fenced_since,
            )
        )

    def _outcome(self, end: End) -> Outcome:
        """Return the outcome of an end."""
        return Outcome(
            plan_id=self._plan_id,
            gpu_uuid=self._plan.gpu_uuid,
            kind=end.kind,
            reason=end.reason,
            explanation="; ".join((end.explanation, *self._notes)),
            layout=end.layout,
            started_at=self._started_at,
            duration=timedelta(seconds=self._site.clock.monotonic() - self._started),
            steps=tuple(self._runner.timings),
            step_failures=tuple(self._runner.failures),
            rolled_back=end.rolled_back,
            counts_as_failure=end.counts_as_failure,
            direction=self._plan.direction,
        )
