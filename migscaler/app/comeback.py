"""Gives GPUs that lost all their instances the layout last wanted, at a start and later."""

import logging
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

from migscaler.app.config.settings import OnBootSettings
from migscaler.app.wiring import Assembly
from migscaler.control.loop import Loop
from migscaler.control.recovery import restore
from migscaler.errors import HardwareError
from migscaler.model.gpu import NodeSnapshot
from migscaler.model.ids import GpuUuid
from migscaler.model.plan import Direction, Outcome, OutcomeReason
from migscaler.model.profile import InstanceSpec
from migscaler.policy.gates import freezes, node_gates

_log = logging.getLogger("migscaler.comeback")

_NONE: frozenset[GpuUuid] = frozenset()


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
        self._tried = _NONE
        self._looked_at = float("-inf")
        self._away_at = float("-inf")

    def driver_was_away(self) -> None:
        """Note that nobody watched the driver at this moment: it may have been loaded anew."""
        self._away_at = self._assembly.ground.clock.monotonic()

    def begin(self, on_boot: OnBootSettings, alone: frozenset[GpuUuid]) -> None:
        """Restore what a reboot or a reload took before this start.

        Raises:
            HardwareError: NVML does not answer.
            StoreError: the state file can't be read.
        """
        self._note(self._restore(on_boot, alone, reloaded=None))
        snapshot = self._loop.status().snapshot
        readable = _readable(snapshot)
        wanted = self._wanted()
        is_paused = self._assembly.ground.store.pause() is not None
        self._late = wanted if is_paused else wanted - readable
        self._tried = wanted & readable
        self._looked_at = self._assembly.ground.clock.monotonic()

    def tick(self, on_boot: OnBootSettings, alone: Callable[[], frozenset[GpuUuid]]) -> None:
        """Restore what is due by now: lost since, not answering or paused at the start.

        Raises:
            StoreError: the state file can't be read.
        """
        due, reloaded = self._due()
        if due and reloaded is False:
            due -= self._kept_back(due)
        if not due or self._assembly.ground.store.pause() is not None:
            return
        try:
            outcomes = self._restore(on_boot, alone() & due, reloaded=reloaded)
        except HardwareError as error:
            _log.warning("restore_put_off error=%s", error)
            return
        self._late -= due
        self._tried |= due
        self._note(tuple(outcome for outcome in outcomes if outcome.gpu_uuid in due))
        self._loop.sample()

    def _due(self) -> tuple[frozenset[GpuUuid], bool | None]:
        """Return the GPUs to restore now, and whether a reload took their instances.

        None for the latter: as at a start, what the GPUs look like tells.
        """
        snapshot = self._loop.status().snapshot
        if snapshot is None:
            return _NONE, None
        self._look(snapshot)
        late = self._late & _readable(snapshot)
        if late:
            return late, None
        empty = frozenset(self._empty_since) - self._tried
        if reloaded := empty & self._reloaded:
            return reloaded, True
        rest = self._loop.parts.policy.pace.rest.total_seconds()
        now = self._assembly.ground.clock.monotonic()
        return frozenset(u for u in empty if now - self._empty_since[u] >= rest), False

    def _kept_back(self, due: frozenset[GpuUuid]) -> frozenset[GpuUuid]:
        """Return which of the GPUs that somebody emptied may not be changed now."""
        inp = self._loop.assemble()
        is_shut = inp is None or any(node_gates(inp)) or Direction.FINER in freezes(inp)[0]
        return due if is_shut else self._held()

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
        self._tried -= _readable(snapshot) - empty
        self._reloaded &= frozenset(self._empty_since)
        self._looked_at = max(self._looked_at, snapshot.taken_monotonic)

    def _wanted(self) -> frozenset[GpuUuid]:
        """Return the GPUs that should have instances."""
        wanted = self._assembly.ground.store.wanted()
        return frozenset(record.gpu_uuid for record in wanted if len(record.layout))

    def _restore(
        self, on_boot: OnBootSettings, act_on: frozenset[GpuUuid], *, reloaded: bool | None
    ) -> tuple[Outcome, ...]:
        """Make again what was lost, on these GPUs.

        Not where somebody else owns the layouts, nor beside a plan that could not be settled: two
        would undo each other's work.
        """
        ground, snapshot = self._assembly.ground, self._loop.status().snapshot
        gpus = snapshot.gpus if snapshot is not None and snapshot.is_ours else ()
        act_on &= {gpu.uuid for gpu in gpus if gpu.reading.foreign_owner is None}
        act_on -= {plan.gpu_uuid for plan in ground.store.open_plans()}
        act_on -= _NONE if reloaded else self._held()
        # Only where something is to be made: another GPU's change meanwhile is somebody else's.
        lost = self._wanted() - {g.uuid for g in (snapshot.gpus if snapshot else ()) if g.instances}
        act_on &= lost

        def work() -> tuple[Outcome, ...]:
            with self.our_change(dict.fromkeys(act_on, ())):
                return restore(
                    store=ground.store,
                    reader=ground.reader,
                    writer=ground.writer,
                    scheduler=self._assembly.scheduler,
                    clock=ground.clock,
                    boot_id=ground.boot_id,
                    layout=on_boot.layout,
                    mig_mode=on_boot.mig_mode,
                    act_on=act_on,
                    reloaded=reloaded,
                )

        return self._loop.between_ticks(work)

    def _held(self) -> frozenset[GpuUuid]:
        """Return the GPUs that somebody holds as a whole and that had their layout in this boot."""
        ground = self._assembly.ground
        holds = ground.store.holds(ground.clock.now())
        held = frozenset(hold.gpu_uuid for hold in holds if hold.spec is None)
        wanted = ground.store.wanted()
        return held & {one.gpu_uuid for one in wanted if one.boot_id == ground.boot_id}

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
