"""Gives GPUs that lost all their instances the layout last wanted, at a start and later."""

import logging
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace

from migscaler.app.config.settings import OnBootSettings
from migscaler.app.wiring import Assembly
from migscaler.control.emptied import restore
from migscaler.control.loop import Loop
from migscaler.control.restores import has_failed, why_shut
from migscaler.errors import HardwareError
from migscaler.model.gpu import NodeSnapshot
from migscaler.model.ids import GpuUuid
from migscaler.model.plan import Direction, Outcome, OutcomeKind, OutcomeReason
from migscaler.model.profile import InstanceSpec
from migscaler.policy.gates import freezes, node_gates

_log = logging.getLogger("migscaler.comeback")

_NONE: frozenset[GpuUuid] = frozenset()
# A GPU that could not be given its layout is tried again after a minute, then after twice as long.
_FIRST_PAUSE_SECONDS = 60.0
_LONGEST_PAUSE_SECONDS = 3600.0


@dataclass(frozen=True, slots=True, kw_only=True)
class _Tries:
    """How often restoring a GPU failed, and the monotonic second of the next attempt."""

    failures: int = 0
    next_at: float = float("-inf")

    def failed(self, now: float) -> "_Tries":
        """Return it after one more failure: what the driver refused may work in a while."""
        wait = min(_FIRST_PAUSE_SECONDS * 2 ** min(self.failures, 10), _LONGEST_PAUSE_SECONDS)
        return _Tries(failures=self.failures + 1, next_at=now + wait)


class Comeback:
    """Restores GPUs; used by the thread that acts.

    What a reboot or a driver loaded anew took is made again at once. A GPU that is emptied while
    the driver stays was emptied by somebody, who may be about to make something else: it is left
    alone for the time that a GPU rests and while a hold or a gate keeps changes back, and its MIG
    mode for good.
    """

    def __init__(self, assembly: Assembly, loop: Loop) -> None:
        """Know of no GPU that lost anything."""
        self._assembly = assembly
        self._loop = loop
        self._late = _NONE
        self._empty_since: dict[GpuUuid, float] = {}
        self._reloaded = _NONE
        self._tries: dict[GpuUuid, _Tries] = {}
        self._looked_at = float("-inf")
        self._away_at = float("-inf")

    def driver_was_away(self) -> None:
        """Note that nobody watched the driver at this moment: it may have been loaded anew."""
        self._away_at = self._assembly.ground.clock.monotonic()

    def begin(self, on_boot: OnBootSettings, alone: frozenset[GpuUuid]) -> tuple[Outcome, ...]:
        """Restore what a reboot or a reload took before this start; say how.

        Raises:
            HardwareError: NVML does not answer.
            StoreError: the state file can't be read.
        """
        snapshot = self._loop.status().snapshot
        lacking = self._lacking(snapshot)
        lost = _NONE if snapshot is None else _lost_by_reload(snapshot, self._wanted())
        left = self._left_alone(lacking, alone, reloaded=None)
        is_due = on_boot.layout == "restore"
        shut = {u for u, why in self._shut(lacking).items() if is_due and left.get(u) == why}
        outcomes = tuple(
            replace(one, reason=OutcomeReason.GATE_CLOSED) if one.gpu_uuid in shut else one
            for one in self._restore(on_boot, lacking, left, reloaded=None)
        )
        tried = lacking - frozenset(left)
        for outcome in outcomes:
            if outcome.gpu_uuid in tried:
                self._take_in(outcome, on_boot)
        # Once some are restored the others no longer look as a reload left them.
        self._reloaded |= lost & (tried | shut)
        self._note(outcomes)
        is_paused = self._assembly.ground.store.pause() is not None
        self._late = lacking if is_paused else (lacking - _readable(snapshot)) | shut
        self._looked_at = self._assembly.ground.clock.monotonic()
        return outcomes

    def tick(
        self, on_boot: OnBootSettings, alone: Callable[[], frozenset[GpuUuid]]
    ) -> tuple[Outcome, ...]:
        """Restore what is due by now: lost since, not answering or paused at the start, failed.

        What may not be changed now is looked at again with the next tick.

        Raises:
            StoreError: the state file can't be read.
        """
        snapshot = self._loop.status().snapshot
        if snapshot is None:
            return ()
        self._look(snapshot)
        if self._assembly.ground.store.pause() is not None:
            return ()
        for due, reloaded in self._due(snapshot):
            may = self._may_change(due & self._lacking(snapshot), alone, reloaded=reloaded)
            if may:
                return self._try(on_boot, may, reloaded=reloaded)
        return ()

    def _may_change(
        self,
        due: frozenset[GpuUuid],
        alone: Callable[[], frozenset[GpuUuid]],
        *,
        reloaded: bool | None,
    ) -> frozenset[GpuUuid]:
        """Return which of the GPUs that are due may be changed now."""
        if due and reloaded is False:
            due -= self._kept_back(due)
        return due - frozenset(self._left_alone(due, alone(), reloaded=reloaded)) if due else due

    def _try(
        self, on_boot: OnBootSettings, due: frozenset[GpuUuid], *, reloaded: bool | None
    ) -> tuple[Outcome, ...]:
        """Restore these GPUs."""
        try:
            outcomes = self._restore(on_boot, due, {}, reloaded=reloaded)
        except HardwareError as error:
            _log.warning("restore_put_off error=%s", error)
            return ()
        self._late -= due
        ours = tuple(outcome for outcome in outcomes if outcome.gpu_uuid in due)
        for outcome in ours:
            self._take_in(outcome, on_boot)
        self._note(ours)
        self._loop.sample()
        return ours

    def _take_in(self, outcome: Outcome, on_boot: OnBootSettings) -> None:
        """Keep when a GPU that is still empty is tried again, longer after each failure.

        Not again where it was left empty on purpose; as soon as it may be where a pause came.
        """
        uuid, known = outcome.gpu_uuid, self._tries.get(outcome.gpu_uuid, _Tries())
        if on_boot.layout != "restore" or outcome.reason is OutcomeReason.CHANGED_UNDERNEATH:
            self._tries[uuid] = replace(known, next_at=float("inf"))
        elif outcome.kind is not OutcomeKind.DONE and outcome.reason is not OutcomeReason.PAUSED:
            now = self._assembly.ground.clock.monotonic()
            self._tries[uuid] = known.failed(now)

    def _due(self, snapshot: NodeSnapshot) -> Iterator[tuple[frozenset[GpuUuid], bool | None]]:
        """Give the GPUs to restore now, and whether a reload took their instances.

        None for the latter: as at a start, what the GPUs look like tells.
        """
        yield (self._late & _readable(snapshot)) - self._reloaded, None
        now = self._assembly.ground.clock.monotonic()
        waiting = {uuid for uuid, tries in self._tries.items() if now < tries.next_at}
        empty = frozenset(self._empty_since) - waiting
        yield empty & self._reloaded, True
        rest = self._loop.parts.policy.pace.rest.total_seconds()
        yield frozenset(u for u in empty if now - self._empty_since[u] >= rest), False

    def _kept_back(self, due: frozenset[GpuUuid]) -> frozenset[GpuUuid]:
        """Return which of the GPUs that somebody emptied may not be changed now."""
        inp = self._loop.assemble()
        is_shut = inp is None or any(node_gates(inp)) or Direction.FINER in freezes(inp)[0]
        return due if is_shut else self._held(reloaded=False)

    def _look(self, snapshot: NodeSnapshot) -> None:
        """Bring up to date which GPUs lack everything that they should have."""
        wanted, store = self._wanted(), self._assembly.ground.store
        empty = frozenset(gpu.uuid for gpu in snapshot.gpus if gpu.instances == ()) & wanted
        lost = _lost_by_reload(snapshot, wanted)
        for uuid in empty - frozenset(self._empty_since):
            known = store.generation(uuid)
            if known is not None and known.mig_mode_wanted is False:
                continue
            self._empty_since[uuid] = snapshot.taken_monotonic
            if self._looked_at <= self._away_at <= snapshot.taken_monotonic and uuid in lost:
                self._reloaded |= {uuid}
        for uuid in frozenset(self._empty_since) - empty:
            if uuid in _readable(snapshot):
                del self._empty_since[uuid]
        there = frozenset(gpu.uuid for gpu in snapshot.gpus if gpu.instances)
        self._late -= there
        for uuid in there & frozenset(self._tries):
            del self._tries[uuid]
        self._reloaded &= frozenset(self._empty_since)
        self._looked_at = max(self._looked_at, snapshot.taken_monotonic)

    def _wanted(self) -> frozenset[GpuUuid]:
        """Return the GPUs that should have instances."""
        wanted = self._assembly.ground.store.wanted()
        return frozenset(record.gpu_uuid for record in wanted if len(record.layout))

    def _lacking(self, snapshot: NodeSnapshot | None) -> frozenset[GpuUuid]:
        """Return the GPUs that should have instances and show none."""
        gpus = () if snapshot is None else snapshot.gpus
        return self._wanted() - {gpu.uuid for gpu in gpus if gpu.instances}

    def _left_alone(
        self, uuids: frozenset[GpuUuid], alone: frozenset[GpuUuid], *, reloaded: bool | None
    ) -> dict[GpuUuid, str]:
        """Return which of these GPUs may not be changed now, and why.

        Not where somebody else owns the layouts, nor beside a plan that could not be settled: two
        would undo each other's work.
        """
        ground, snapshot = self._assembly.ground, self._loop.status().snapshot
        gpus = snapshot.gpus if snapshot is not None else ()
        owned = {gpu.uuid for gpu in gpus if gpu.reading.foreign_owner is not None}
        open_plans = {plan.gpu_uuid: plan.plan_id for plan in ground.store.open_plans()}
        held, shut = self._held(reloaded=reloaded), self._shut(uuids)
        left = {}
        for uuid in uuids:
            if uuid in open_plans:
                left[uuid] = f"plan {open_plans[uuid]} is still open there"
            elif snapshot is None or not snapshot.is_ours or uuid in owned:
                left[uuid] = "its layout is, or may be, somebody else's"
            elif uuid in held:
                left[uuid] = "it is held"
            elif uuid not in alone:
                left[uuid] = "acting is off"
            elif uuid in shut:
                left[uuid] = shut[uuid]
        return left

    def _restore(
        self,
        on_boot: OnBootSettings,
        lacking: frozenset[GpuUuid],
        left: Mapping[GpuUuid, str],
        *,
        reloaded: bool | None,
    ) -> tuple[Outcome, ...]:
        """Make again what these GPUs lack, but where they are left alone."""
        # Only where something is to be made: another GPU's change meanwhile is somebody else's.
        act_on = lacking - frozenset(left)

        def work() -> tuple[Outcome, ...]:
            with self.our_change(dict.fromkeys(act_on, ())):
                return restore(
                    self._assembly.site,
                    layout=on_boot.layout,
                    mig_mode=on_boot.mig_mode,
                    act_on=act_on,
                    reloaded=reloaded,
                    left=left,
                )

        return self._loop.between_ticks(work)

    def _held(self, *, reloaded: bool | None) -> frozenset[GpuUuid]:
        """Return the GPUs that somebody holds as a whole, and so keeps as he found or emptied them.

        What he holds is not kept from coming back after a reboot or reload, but once that failed:
        he may be mending it.
        """
        ground = self._assembly.ground
        holds = ground.store.holds(ground.clock.now())
        held = frozenset(hold.gpu_uuid for hold in holds if hold.spec is None)
        in_this_boot = {w.gpu_uuid for w in ground.store.wanted() if w.boot_id == ground.boot_id}
        # Also in an earlier process: the journal knows.
        failed = {uuid for uuid in held if has_failed(ground.store, uuid, ground.boot_id)}
        return held & ((_NONE if reloaded else in_this_boot) | frozenset(self._tries) | failed)

    def _shut(self, uuids: frozenset[GpuUuid]) -> dict[GpuUuid, str]:
        """Return which of these GPUs wait for their breaker, since processes died at them."""
        store, now = self._assembly.ground.store, self._assembly.ground.clock.now()
        reasons = {uuid: why_shut(store, uuid, now) for uuid in uuids}
        return {uuid: why for uuid, why in reasons.items() if why is not None}

    @contextmanager
    def our_change(self, touched: Mapping[GpuUuid, tuple[InstanceSpec, ...]]) -> Iterator[None]:
        """Let the observer know that what changes on these GPUs meanwhile is our own doing.

        A change of somebody else is adopted: the layout last wanted would be forgotten, and the
        next reboot would restore nothing.
        """
        observer = self._assembly.observer
        for uuid, specs in touched.items():
            observer.begin_change(uuid, specs)
        self._loop.publish()  # their instances' series go before the first call
        try:
            yield
        finally:
            for uuid in touched:
                observer.end_change(uuid, self._assembly.ground.clock.monotonic())

    def _note(self, outcomes: tuple[Outcome, ...]) -> None:
        """Show and log what restoring did; who was to be restored is watched from now on."""
        store, due = self._assembly.ground.store, set()
        for outcome in outcomes:
            _log.warning(
                "restored gpu=%s outcome=%s reason=%s explanation=%s",
                outcome.gpu_uuid,
                outcome.kind.value,
                outcome.reason.value,
                outcome.explanation,
            )
            known = store.generation(outcome.gpu_uuid)
            is_off = known is not None and known.mig_mode_wanted is False
            if outcome.reason is not OutcomeReason.PAUSED and not is_off:
                due.add(outcome.gpu_uuid)
        self._loop.note_outcomes(outcomes, "restore", frozenset(due))


def _lost_by_reload(snapshot: NodeSnapshot, wanted: frozenset[GpuUuid]) -> frozenset[GpuUuid]:
    """Return the GPUs that look as a driver loaded anew leaves them: it spares no GPU's instances.

    MIG mode goes with them only where it needs no reset. Whatever else is found after a time in
    which nobody watched was made by a person.
    """
    gpus = tuple(gpu for gpu in snapshot.gpus if gpu.uuid in wanted)
    if any(gpu.instances for gpu in gpus):
        return _NONE
    readings = (gpu.reading for gpu in gpus)
    return frozenset(one.uuid for one in readings if one.mig_enabled is one.mode_change_needs_reset)


def _readable(snapshot: NodeSnapshot | None) -> frozenset[GpuUuid]:
    """Return the GPUs whose instances are known."""
    gpus = () if snapshot is None else snapshot.gpus
    return frozenset(gpu.uuid for gpu in gpus if gpu.instances is not None)
