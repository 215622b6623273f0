"""Carries out GPU plans one at a time, and keeps what of them is shown."""

import logging
import threading
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime

from migscaler.control.executor import Executor
from migscaler.control.last_look import no_longer_judged_idle
from migscaler.control.observe import Observer
from migscaler.model.gpu import GpuState, NodeSnapshot
from migscaler.model.ids import GpuUuid, PlanId
from migscaler.model.layout import Layout
from migscaler.model.plan import GpuPlan, Outcome, OutcomeKind, OutcomeReason
from migscaler.model.policy import Policy
from migscaler.model.ports import Clock
from migscaler.model.status import Running

_log = logging.getLogger("migscaler.enforce")


class Enforcer:
    """Runs the executor for one GPU plan after another; only one thread acts."""

    def __init__(
        self,
        *,
        executor: Executor,
        observer: Observer,
        clock: Clock,
    ) -> None:
        """Take the parts; nothing runs yet."""
        self._executor = executor
        self._observer = observer
        self._clock = clock
        self._stop = threading.Event()
        self._lock = threading.Lock()
        self._running: Running | None = None
        self._lost: dict[GpuUuid, tuple[tuple[str, int], ...]] = {}
        self._changed: dict[GpuUuid, tuple[Layout, Layout]] = {}

    def stop(self) -> None:
        """Start no further GPU plan; one that is under way runs to its end."""
        self._stop.set()

    def stopping(self) -> bool:
        """Say whether `stop` was called."""
        return self._stop.is_set()

    def running(self) -> Running | None:
        """Return the GPU plan under way."""
        with self._lock:
            return self._running

    def fenced(self) -> tuple[tuple[GpuUuid, datetime], ...]:
        """Return the GPUs whose fence could not be lifted, and since when."""
        return self._executor.fenced()

    def usable_lost(self) -> tuple[tuple[GpuUuid, str, int], ...]:
        """Return (GPU, profile, count) of usable instances that a failed change left missing."""
        with self._lock:
            return tuple(
                (uuid, profile, count)
                for uuid, lost in sorted(self._lost.items())
                for profile, count in lost
            )

    def carry_out(
        self,
        plan_id: PlanId,
        plan: GpuPlan,
        newest: Callable[[], NodeSnapshot | None],
        policy: Policy,
        publish: Callable[[], None],
    ) -> Outcome:
        """Execute one GPU plan.

        The plan's GPU is marked running, and that is published, before the first call changes
        anything: its instance series are gone by then. `newest` is the picture of the moment (None:
        none that is fresh); what is to go must be idle in it, also right before the first call.
        """

        def show(running: Running | None) -> None:
            with self._lock:
                self._running = running
            publish()

        def why_stop() -> OutcomeReason | None:
            now = newest()
            if self.stopping():
                return OutcomeReason.STOPPING
            if now is not None and was_ours and not now.is_ours:
                return OutcomeReason.GATE_CLOSED
            return no_longer_judged_idle(plan, look(now))

        def look(snapshot: NodeSnapshot | None) -> GpuState | None:
            return None if snapshot is None else snapshot.gpu(plan.gpu_uuid)

        began = newest()
        was_ours = began is not None and began.is_ours
        state, stopped = look(began), why_stop()
        if state is None or stopped is not None:
            return self.not_begun(plan_id, plan, stopped or OutcomeReason.CHANGED_UNDERNEATH)
        _log.info("gpu_plan_start plan=%s gpu=%s to=%s", plan_id, plan.gpu_uuid, plan.after)
        self._observer.begin_change(plan.gpu_uuid, (step.spec for step in plan.steps))
        remade = True
        try:
            outcome = self._executor.execute(
                plan_id, plan, state, policy, show, should_stop=why_stop
            )
            remade = _may_have_remade(outcome)
        finally:
            self._observer.end_change(plan.gpu_uuid, self._clock.monotonic(), remade=remade)
        outcome = replace(outcome, before=plan.before)
        self._note_change(plan, outcome)
        return outcome

    def lift_fences(self) -> None:
        """Try again to lift fences that could not be lifted when their plan ended."""
        self._executor.lift_fences()

    def not_begun(
        self, plan_id: PlanId, plan: GpuPlan, reason: OutcomeReason, why: str = ""
    ) -> Outcome:
        """Return the outcome of a plan that was not begun."""
        now = self._clock.now()
        _log.info(
            "gpu_plan_not_begun plan=%s gpu=%s reason=%s explanation=%s",
            plan_id,
            plan.gpu_uuid,
            reason.value,
            why or "none",
        )
        return Outcome(
            plan_id=plan_id,
            gpu_uuid=plan.gpu_uuid,
            kind=OutcomeKind.ABANDONED,
            reason=reason,
            explanation=f"not begun: {why}" if why else "not begun",
            layout=plan.before,
            started_at=now,
            duration=now - now,
            direction=plan.direction,
            before=plan.before,
        )

    def _note_change(self, plan: GpuPlan, outcome: Outcome) -> None:
        """Take in how a plan ended, and tell it."""
        with self._lock:
            self._changed[plan.gpu_uuid] = (plan.before, plan.after)
        self.note_layout(outcome)
        _log_end(outcome)

    def note_layout(self, outcome: Outcome) -> None:
        """Take in what a plan of ours left, at its end or when it was settled later."""
        with self._lock:
            change = self._changed.get(outcome.gpu_uuid)
            if change is not None and outcome.layout is not None:
                self._lost[outcome.gpu_uuid] = missing(*change, outcome.layout)


def _may_have_remade(outcome: Outcome) -> bool:
    """Say whether a plan may have destroyed an instance and made it again at its place.

    One that ran to its end destroys and makes different ones; one without a call did neither.
    """
    is_untouched = outcome.layout is not None and not outcome.steps
    return outcome.kind is not OutcomeKind.DONE and not is_untouched


def _log_end(outcome: Outcome) -> None:
    """Tell how a GPU plan ended."""
    _log.log(
        logging.WARNING if outcome.kind is OutcomeKind.FAILED else logging.INFO,
        "gpu_plan_end plan=%s gpu=%s outcome=%s reason=%s seconds=%.3f explanation=%s",
        outcome.plan_id,
        outcome.gpu_uuid,
        outcome.kind.value,
        outcome.reason.value,
        outcome.duration.total_seconds(),
        outcome.explanation,
    )


def missing(before: Layout, after: Layout, found: Layout) -> tuple[tuple[str, int], ...]:
    """Return (profile, count) by which a layout falls short of min(before, after)."""
    was, wanted, have = before.profiles(), after.profiles(), found.profiles()
    return tuple(
        (profile, short)
        for profile in sorted(was)
        if (short := min(was[profile], wanted[profile]) - have[profile]) > 0
    )
