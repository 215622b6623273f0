"""Ends plans that were left open: at a start, by housekeeping, and when a person asks."""

from migscaler.app.comeback import Comeback
from migscaler.app.telling import Telling
from migscaler.app.wiring import Assembly
from migscaler.control.loop import Loop
from migscaler.control.recovery import PATIENCE, settle
from migscaler.control.restores import waiting_restores
from migscaler.errors import StoreError
from migscaler.model.ids import GpuUuid
from migscaler.model.plan import Outcome
from migscaler.store.records import RESTORE

# A GPU that could not be read when its plan ended is asked again no sooner than this.
_AGAIN_SECONDS = 30.0


class Settling:
    """Settles plans; used by the thread that acts and by housekeeping."""

    def __init__(
        self, assembly: Assembly, loop: Loop, comeback: Comeback, telling: Telling
    ) -> None:
        """Take the parts; the plans that are open now are another process's."""
        self._assembly = assembly
        self._loop = loop
        self._comeback = comeback
        self._telling = telling
        self._settled_at = float("-inf")
        # Restores that wait, and the monotonic second at which they were last seen to.
        self._waited: dict[int, float] = {}
        try:
            self._found = frozenset(plan.seq for plan in assembly.ground.store.open_plans())
        except StoreError:
            self._found = frozenset()  # what can't be read now is not acted on either

    def begin(self, alone: frozenset[GpuUuid]) -> None:
        """End what is open of the GPUs that may be changed; those of an earlier boot on any GPU.

        Raises:
            StoreError: the journal can't be read.
        """
        self._note(self._settled(True, alone))

    def settle(self, act: bool, only: frozenset[GpuUuid] | None = None) -> tuple[Outcome, ...]:
        """End the plans found open (of `only` these GPUs); only report them unless `act`.

        Those of an earlier boot are closed whichever their GPU.

        Raises:
            StoreError: the journal can't be read.
        """
        outcomes = self._settled(act, only)
        self._telling.run_hooks()
        return outcomes

    def settle_left_open(self, alone: frozenset[GpuUuid]) -> None:
        """Settle plans that could not be ended when they ran: their GPU may answer again.

        Else the gate `open_plan` would stay closed until a restart. Tried now and then only, and a
        restore whose GPU somebody holds not before he lets go: nothing would come of it but idle
        timers that begin anew. One at which processes died waits for the GPU's breaker.

        Raises:
            StoreError: the journal can't be read.
        """
        ground = self._assembly.ground
        now = ground.clock.monotonic()
        if now - self._settled_at < _AGAIN_SECONDS or self._loop.status().running:
            return
        plans = ground.store.open_plans()
        waiting = dict(waiting_restores(ground.store, plans, ground.clock.now()))
        self._waited |= {p.seq: now for p in plans if p.is_restore and p.gpu_uuid in waiting}
        may = alone - frozenset(waiting)
        if not any(plan.gpu_uuid in may or plan.boot_id != ground.boot_id for plan in plans):
            return
        self._settled_at = now
        outcomes = self.settle(True, may)
        still_open = {plan.plan_id for plan in ground.store.open_plans()}
        self._note(tuple(o for o in outcomes if o.plan_id not in still_open))

    def _settled(self, act: bool, only: frozenset[GpuUuid] | None) -> tuple[Outcome, ...]:
        """Do what `settle` says; the hooks are still to be run."""
        ground = self._assembly.ground

        def work() -> tuple[Outcome, ...]:
            ours = {
                plan.gpu_uuid: tuple(step.spec for step in plan.steps)
                for plan in ground.store.open_plans()
                if act and (only is None or plan.gpu_uuid in only)
            }
            with self._comeback.our_change(ours):
                return settle(
                    self._assembly.site,
                    act=act,
                    pace=self._loop.parts.policy.pace,
                    only=only,
                    cut=self._found,
                    waited=self._just_waited(),
                )

        outcomes = self._loop.between_ticks(work)
        self._telling.changed(outcomes)
        return outcomes

    def _just_waited(self) -> frozenset[int]:
        """Return the restores that may be tried as often as if they began when their wait ended.

        Whoever held the GPU may not have mended it at once, and the ten minutes were long over.
        """
        since = self._assembly.ground.clock.monotonic() - PATIENCE.total_seconds()
        return frozenset(seq for seq, at in self._waited.items() if at > since)

    def _note(self, outcomes: tuple[Outcome, ...]) -> None:
        """Show what settling did; what a restore has not made by now is missing."""
        restored = (
            one.gpu_uuid
            for one in outcomes
            if one.plan_id.startswith(RESTORE) and one.layout is not None
        )
        self._loop.note_outcomes(outcomes, "settle", frozenset(restored))
