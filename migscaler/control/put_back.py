"""Return a GPU to the layout before a plan, as far as instances in use allow.

Works from the journal alone, so that undoing in the same process and settling after a crash are
one thing. It destroys only what the plan made, of matching identity and free now; it makes only
what the plan destroyed (or, where an instance now in use stands in the way, what keeps promise
(b): no profile below min(before, after)). A restore is ended the same way: what it was to make
counts as taken away.
"""

from dataclasses import dataclass, replace

from migscaler.control.fit_back import best_addition, fits
from migscaler.control.last_look import still_free
from migscaler.control.ledger import Ledger, required, usable
from migscaler.control.steps_run import (
    StepRunner,
    Stop,
    find_instance,
    happened_by,
    instance_at,
)
from migscaler.errors import StoreError
from migscaler.model.gpu import GpuReading
from migscaler.model.ids import GiId
from migscaler.model.layout import Layout
from migscaler.model.plan import OutcomeReason
from migscaler.model.profile import InstanceSpec
from migscaler.store.records import (
    NvmlAction,
    PlanRecord,
    Purpose,
    StepRequest,
    StepState,
)
from migscaler.store.store import Store

_CREATE_TRIES = 3
_CREATE_PAUSE_SECONDS = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class PutBack:
    """How it ended.

    `reading` is the GPU as read last, `lost` what promise (b) misses, `kept` what the plan made
    and could not take away, `unmade` what could not be made whole again although there is room.
    `waits`: whose hold on the GPU is waited for with the rest.
    """

    reading: GpuReading | None
    lost: tuple[tuple[str, int], ...] = ()
    kept: tuple[InstanceSpec, ...] = ()
    unmade: tuple[InstanceSpec, ...] = ()
    waits: str | None = None
    stop: Stop | None = None

    @property
    def whole(self) -> bool:
        """Say whether nothing is missing but what instances in use stand in the way of."""
        return not self.lost and not self.unmade


def put_back(runner: StepRunner, record: PlanRecord) -> PutBack:
    """Settle the step in doubt by looking, then undo; safe to be cut short and started again.

    Returns with `stop` (blind) if the GPU can't be read or the journal not be written: the plan
    stays open.
    """
    return _run(_PuttingBack(runner, record))


def finish_restore(runner: StepRunner, record: PlanRecord, *, heed_hold: bool) -> PutBack:
    """Settle the step in doubt by looking, then make what is missing of a restore's layout.

    Nothing that it made is taken away: going back would leave the GPU empty. With `heed_hold` no
    instance is begun on a GPU that somebody holds as a whole. As `put_back` else.
    """
    owed, taken = replace(record, before=record.after), frozenset(record.after.specs)
    return _run(_PuttingBack(runner, owed, taken=taken, heed_hold=heed_hold))


def settle_doubt(store: Store, record: PlanRecord, reading: GpuReading) -> None:
    """Look whether a call that was begun happened, and write that down.

    Raises:
        StoreError: it is not written; the step stays in doubt.
    """
    for step in store.steps_of(record.seq):
        if step.state is not StepState.BEGUN:
            continue
        happened, gi_id, ci_id = happened_by(step.action, step.spec, step.gi_id, reading)
        state = StepState.DONE if happened else StepState.VOID
        note = "; ".join(filter(None, (step.note, "settled by looking")))
        store.end_step(step.step_id, state, gi_id=gi_id, ci_id=ci_id, note=note)


def _run(undoing: "_PuttingBack") -> PutBack:
    """Run it; a journal that can't be written leaves the plan open."""
    try:
        return undoing.run()
    except StoreError as problem:
        return PutBack(
            reading=None,
            stop=Stop(
                reason=OutcomeReason.JOURNAL_UNWRITABLE,
                explanation=str(problem),
                fault=True,
                blind=True,
            ),
        )


class _PuttingBack:
    """One undoing of one plan."""

    def __init__(
        self,
        runner: StepRunner,
        record: PlanRecord,
        taken: frozenset[InstanceSpec] = frozenset(),
        *,
        heed_hold: bool = False,
    ) -> None:
        self._runner = runner
        self._record = record
        self._taken = taken
        self._heed_hold = heed_hold
        self._waits: str | None = None
        self._kept: set[InstanceSpec] = set()
        self._blind: Stop | None = None
        self._impossible: set[InstanceSpec] = set()
        self._cut_open: set[InstanceSpec] = set()

    def run(self) -> PutBack:
        """Undo in four passes: doubt, what we made, what we cut open, what we took away."""
        reading = self._runner.look()
        if isinstance(reading, Stop):
            return PutBack(reading=None, stop=reading)
        settle_doubt(self._runner.site.store, self._record, reading)
        self._remove_created(reading)
        self._close_open(self._ledger())
        self._rebuild()
        after = self._blind or self._runner.look()
        if isinstance(after, Stop):
            return PutBack(reading=None, kept=tuple(sorted(self._kept)), stop=after)
        whole = {one.instance.spec for one in after.instances or () if one.instance.usable}
        return PutBack(
            reading=after,
            lost=self._lost(after),
            kept=tuple(sorted(self._kept)),
            unmade=tuple(sorted((self._impossible | self._cut_open) - whole)),
            waits=self._waits,
        )

    def _ledger(self) -> Ledger:
        """Add up the journal, on top of what others took away."""
        steps = self._runner.site.store.steps_of(self._record.seq)
        done = [step for step in steps if step.state is StepState.DONE]
        # What a restore had made and is gone without our doing was taken away by somebody.
        made = {step.spec for step in done if step.action is NvmlAction.CREATE_GI}
        ledger = Ledger(destroyed=set(self._taken - made))
        for step in done:
            ledger.add(step)
        return ledger

    def _remove_created(self, reading: GpuReading) -> None:
        """Destroy what the plan made and the layout before does not have; keep what is in use."""
        for gi_id, spec in sorted(self._ledger().created):
            if self._blind is not None:
                return
            if spec in self._record.before or find_instance(reading, gi_id, spec) is None:
                continue
            if not self._remove(gi_id, spec):
                self._kept.add(spec)

    def _remove(self, gi_id: GiId, spec: InstanceSpec) -> bool:
        """Destroy one instance that the plan made; False if it is in use or can't be destroyed."""
        reading = self._runner.look()
        if isinstance(reading, Stop):
            self._blind = reading
            return False
        found = find_instance(reading, gi_id, spec)
        for ci in () if found is None else found.instance.compute_instances:
            request = StepRequest(
                action=NvmlAction.DESTROY_CI,
                spec=spec,
                purpose=Purpose.UNDO,
                gi_id=gi_id,
                ci_id=ci.ci_id,
            )
            if not self._made(request):
                return False
        request = StepRequest(
            action=NvmlAction.DESTROY_GI, spec=spec, purpose=Purpose.UNDO, gi_id=gi_id
        )
        return self._made(request)

    def _close_open(self, ledger: Ledger) -> None:
        """Give every instance that our calls left without compute instance its own again.

        That is what the plan cut open and could not destroy, before it and of its own making.
        """
        for gi_id, spec in sorted(ledger.without_ci):
            reading = self._blind or self._runner.look()
            if isinstance(reading, Stop):
                self._blind = reading
                return
            found = find_instance(reading, gi_id, spec)
            if found is None or found.instance.compute_instances:
                continue
            if not self._create_ci(gi_id, spec, heed_hold=self._heed_hold):
                self._cut_open.add(spec)

    def _rebuild(self) -> None:
        """Make what is missing of the layout before; fit anew without what proves impossible."""
        while not self._is_stuck():
            reading = self._runner.look()
            if isinstance(reading, Stop):
                self._blind = reading
                return
            wanted = self._missing(reading)
            if not wanted:
                return
            for spec in wanted:
                if not self._create(spec):
                    if not self._is_stuck():
                        self._impossible.add(spec)
                    break

    def _is_stuck(self) -> bool:
        """Say whether nothing further can, or may, be made."""
        return self._blind is not None or self._waits is not None

    def _missing(self, reading: GpuReading) -> tuple[InstanceSpec, ...]:
        """Return what to make now, in the order of the layout."""
        there = Layout(tuple(one.instance.spec for one in reading.instances or ()))
        ledger = self._ledger()
        first = [s for s in self._record.before.specs if s in ledger.destroyed and s not in there]
        first = [s for s in first if s not in self._impossible]
        if not self._impossible and fits(reading.model, there, first):
            return tuple(first)
        second = [
            s
            for s in self._record.after.specs
            if s not in there and s not in first and s not in self._impossible
        ]
        short = required(self._record, ledger, reading) - there.profiles()
        return best_addition(reading.model, there, first, second, short)

    def _create(self, spec: InstanceSpec) -> bool:
        """Make one whole instance, with patience; what stays half made is taken away again."""
        for attempt in range(_CREATE_TRIES):
            if attempt:
                self._runner.site.clock.sleep(_CREATE_PAUSE_SECONDS * attempt)
            request = StepRequest(
                action=NvmlAction.CREATE_GI,
                spec=spec,
                purpose=Purpose.UNDO,
                heed_hold=self._heed_hold,
            )
            result = self._runner.run(request, _nothing_there(spec))
            if not isinstance(result, Stop):
                made = instance_at(result, spec)
                # Begun is begun: without its compute instance it would be of no use to the holder.
                return made is not None and self._create_ci(made.instance.gi_id, spec)
            if self._is_over(result):
                return False
        return False

    def _is_over(self, stop: Stop) -> bool:
        """Say whether trying a call again is of no use, and keep why: nothing further is made."""
        if stop.blind:
            self._blind = stop
        elif stop.reason is OutcomeReason.HELD:
            self._waits = stop.explanation
        return self._is_stuck()

    def _create_ci(self, gi_id: GiId, spec: InstanceSpec, *, heed_hold: bool = False) -> bool:
        """Give a GPU instance its compute instance; an instance that gets none is taken away."""
        request = StepRequest(
            action=NvmlAction.CREATE_CI,
            spec=spec,
            purpose=Purpose.UNDO,
            gi_id=gi_id,
            heed_hold=heed_hold,
        )
        for attempt in range(_CREATE_TRIES):
            if attempt:
                self._runner.site.clock.sleep(_CREATE_PAUSE_SECONDS * attempt)
            result = self._runner.run(request, _without_ci(gi_id, spec))
            if not isinstance(result, Stop):
                return True
            if self._is_over(result):
                return False
        if (gi_id, spec) in self._ledger().created:
            self._remove(gi_id, spec)
        return False

    def _made(self, request: StepRequest) -> bool:
        """Make a destroying call, checked for freedom right before; False if it was not made."""
        result = self._runner.run(request, self._free(request))
        if isinstance(result, Stop) and result.blind:
            self._blind = result
        return not isinstance(result, Stop)

    def _free(self, request: StepRequest) -> "_Free":
        """Return the check of an instance that the plan made."""
        return _Free(runner=self._runner, request=request)

    def _lost(self, reading: GpuReading) -> tuple[tuple[str, int], ...]:
        """Return (profile, how many) usable instances short of promise (b)."""
        ledger = self._ledger()
        short = required(self._record, ledger, reading) - usable(reading, ledger)
        return tuple(sorted(short.items()))


@dataclass(frozen=True, slots=True, kw_only=True)
class _Free:
    """Check before a destroy: still the instance that the plan made, and nobody's."""

    runner: StepRunner
    request: StepRequest

    def __call__(self, reading: GpuReading) -> Stop | None:
        """Say why it must stay."""
        request = self.request
        found = (
            None if request.gi_id is None else find_instance(reading, request.gi_id, request.spec)
        )
        if found is None:
            return Stop(
                reason=OutcomeReason.CHANGED_UNDERNEATH, explanation=f"{request.spec} is gone"
            )
        if request.action is NvmlAction.DESTROY_GI and not found.instance.compute_instances:
            # Nothing can run without a compute instance; a listed process would still be believed.
            return None if not found.processes else _in_the_way(request.spec)
        return still_free(self.runner.site, reading, found, None)


def _in_the_way(spec: InstanceSpec) -> Stop:
    """Return the stop for an instance that is not as expected."""
    return Stop(reason=OutcomeReason.CHANGED_UNDERNEATH, explanation=f"{spec} is not as left")


def _nothing_there(spec: InstanceSpec) -> "_Shape":
    """Return the check that nothing covers the place of an instance to be made."""
    return _Shape(spec=spec, gi_id=None)


def _without_ci(gi_id: GiId, spec: InstanceSpec) -> "_Shape":
    """Return the check that the GPU instance is there and has no compute instance."""
    return _Shape(spec=spec, gi_id=gi_id)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Shape:
    """Check before a create: the place is free (`gi_id` None), or holds that GPU instance alone."""

    spec: InstanceSpec
    gi_id: GiId | None

    def __call__(self, reading: GpuReading) -> Stop | None:
        """Say what is in the way."""
        if self.gi_id is None:
            taken = any(one.instance.spec.mask & self.spec.mask for one in reading.instances or ())
            return _in_the_way(self.spec) if taken else None
        found = find_instance(reading, self.gi_id, self.spec)
        if found is None or found.instance.compute_instances:
            return _in_the_way(self.spec)
        return None
