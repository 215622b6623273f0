"""Make the layout last wanted again on one GPU without instances, MIG mode first if told."""

from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import timedelta

from migscaler.control.gpu_change import GpuChange
from migscaler.control.put_back import put_back
from migscaler.control.restores import once_whole
from migscaler.control.site import Site
from migscaler.control.steps_run import StepRunner, Stop
from migscaler.errors import HardwareError, StoreError
from migscaler.model.gpu import GpuReading, GpuState
from migscaler.model.ids import PlanId
from migscaler.model.layout import GpuModel, Layout
from migscaler.model.plan import (
    Direction,
    Outcome,
    OutcomeKind,
    OutcomeReason,
    Step,
    StepAction,
    StepTiming,
)
from migscaler.model.profile import InstanceSpec
from migscaler.store.records import RESTORE, PlanRecord, Purpose, WantedRecord


@dataclass(frozen=True, slots=True, kw_only=True)
class Restored:
    """How restoring one GPU ended; `layout` None if it could not be read at the end."""

    kind: OutcomeKind
    reason: OutcomeReason
    explanation: str
    layout: Layout | None = None
    steps: tuple[StepTiming, ...] = ()
    counts_as_failure: bool = False


class Restoring:
    """Restores one GPU."""

    def __init__(self, site: Site, gpu: GpuReading, wanted: WantedRecord) -> None:
        """Take a GPU without instances and what was last wanted for it."""
        self._site = site
        self._gpu = gpu
        self._wanted = wanted
        self._runner = StepRunner(site, 0, gpu.uuid)

    def run(self, *, mig_mode: bool) -> Restored:
        """Switch the mode on if it is off and `mig_mode` allows it, then make what fits.

        Nothing is changed before it is in the journal: a GPU whose mode is on and that nobody knows
        to lack its layout would stay empty.
        """
        refused = self._why_not(switch=mig_mode)
        if refused is not None:
            return refused
        try:
            record = self._begin()
            self._runner = StepRunner(self._site, record.seq, record.gpu_uuid)
            ready = self._ready()
            if isinstance(ready, Stop):
                if not self._gpu.mig_enabled:
                    return self._leave(record, ready)
                # Nothing was done: an open plan would be finished beside what can't be seen now.
                ready = _stopped(ready)
            if isinstance(ready, Restored):
                self._site.store.end_plan(record.seq, outcome_of(ready, record, self._site))
                return ready
            return self._make(record, ready)
        except StoreError as problem:
            return _left(OutcomeReason.JOURNAL_UNWRITABLE, str(problem))

    def _why_not(self, *, switch: bool) -> Restored | None:
        """Say why nothing may be changed, as far as that can be told before."""
        gpu, known = self._gpu, self._site.store.generation(self._gpu.uuid)
        reason = OutcomeReason.CHANGED_UNDERNEATH
        if known is not None and known.model_name not in (None, gpu.name):
            return _left(reason, "it is another GPU now, left alone")
        if gpu.foreign_owner is not None:  # an answer denied until now may have hidden it
            return _left(OutcomeReason.GATE_CLOSED, f"left alone: {gpu.foreign_owner.words}")
        if gpu.mig_enabled:
            goes_off = gpu.mig_pending is False
            return _left(reason, "MIG mode goes off at the next reset") if goes_off else None
        if not switch or (known is not None and known.mig_mode_wanted is False):
            return _left(reason, "MIG mode is off and not to be changed")
        if gpu.mig_pending:
            # Asked for already; a reset or the end of a client brings it, not asking again.
            return _left(OutcomeReason.NOT_VERIFIED, "MIG mode is pending")
        if gpu.processes != ():
            return _left(OutcomeReason.NO_LONGER_IDLE, "MIG mode is off and the GPU is not idle")
        return None

    def _ready(self) -> GpuReading | Stop | Restored:
        """Have MIG mode on and return the empty GPU, or what keeps it from being filled."""
        refused = None if self._gpu.mig_enabled else self._switch_on()
        if refused is not None:
            return refused
        reading = self._runner.look()
        if isinstance(reading, Stop):
            return reading
        if reading.model is None:
            return _left(OutcomeReason.NOT_VERIFIED, "its profiles can't be read")
        if reading.instances:
            return _left(OutcomeReason.CHANGED_UNDERNEATH, "it has instances by now")
        return reading

    def _switch_on(self) -> Restored | None:
        """Switch MIG mode on, or say why it is not on."""
        pause = self._site.store.pause()
        if pause is not None:
            return _left(OutcomeReason.PAUSED, f"paused by {pause.who}: {pause.why}")
        try:
            answer = self._site.writer.set_mig_mode(self._gpu.uuid, enabled=True)
        except HardwareError as problem:
            return _left(OutcomeReason.DRIVER_FAULT, f"MIG mode could not be set: {problem}")
        if answer.active:
            return None
        by_clients = answer.pending_on == "clients"
        return _left(
            OutcomeReason.HELD_BY_CLIENT if by_clients else OutcomeReason.NOT_VERIFIED,
            f"MIG mode is pending on {answer.pending_on}",
        )

    def _make(self, record: PlanRecord, reading: GpuReading) -> Restored:
        """Create instance by instance; one that can't be made does not keep the others away."""
        wanted = self._wanted.layout
        fitting = wanted if reading.model is None else fitting_part(reading.model, wanted)
        problems = [
            (OutcomeReason.INSUFFICIENT_RESOURCES, f"{spec} does not fit")
            for spec in wanted.without(fitting.specs).specs
        ]
        for spec in fitting.specs:
            made = self._one(record, reading, Step(action=StepAction.CREATE, spec=spec))
            if isinstance(made, Stop):
                problems.append((made.reason, made.explanation))
                if made.blind:
                    return self._leave(record, made)
                if made.reason is OutcomeReason.PAUSED:
                    break
                found = self._runner.look()
                if isinstance(found, Stop):
                    return self._leave(record, found)
                made = found
            reading = made
        return self._end(record, reading, fitting, problems)

    def _begin(self) -> PlanRecord:
        """Write in the journal what is to be made; what of it fits is known once the mode is on."""
        now, wanted = self._site.clock.now(), self._wanted.layout
        record = PlanRecord(
            plan_id=PlanId(f"{RESTORE}{now:%Y%m%dT%H%M%S}"),
            gpu_uuid=self._gpu.uuid,
            before=Layout(),
            after=wanted,
            steps=tuple(Step(action=StepAction.CREATE, spec=spec) for spec in wanted.specs),
            instances=(),
            boot_id=self._site.boot_id,
            begun_at=now,
        )
        return replace(record, seq=self._site.store.begin_plan(record))

    def _one(self, record: PlanRecord, reading: GpuReading, step: Step) -> GpuReading | Stop:
        """Make one instance; what stays half made is taken away."""
        part = replace(record, before=reading.layout or Layout(), steps=(step,))
        change = GpuChange(
            runner=self._runner,
            record=part,
            assumed=GpuState(reading=reading, generation=0),
            margin_bytes=0,
            purpose=Purpose.UNDO,
        )
        result = change.carry_out()
        if isinstance(result, Stop) and not result.blind:
            back = put_back(self._runner, part)
            return back.stop or result
        return result

    def _end(
        self,
        record: PlanRecord,
        reading: GpuReading,
        fitting: Layout,
        problems: list[tuple[OutcomeReason, str]],
    ) -> Restored:
        """Close the journal; a layout that is whole again is the wanted one of this boot.

        An instance that got no compute instance and can't be taken away (somebody leased it, the
        driver refuses) is not restored. A GPU with a part of it keeps its plan open: settling tries
        to make the rest for a while, and nobody else would.
        """
        store, there = self._site.store, reading.instances or ()
        layout = Layout(tuple(one.instance.spec for one in there if one.instance.usable))
        whole = layout == reading.layout == self._wanted.layout
        goes_on = bool(there) and any(spec not in layout for spec in fitting.specs)
        texts = [f"restored {layout}", *(text for _, text in problems)]
        ended = Restored(
            kind=OutcomeKind.DONE,
            reason=OutcomeReason.COMPLETED,
            explanation="; ".join([*texts, *["left open, to be tried again"] * goes_on]),
            layout=reading.layout,
            steps=tuple(self._runner.timings),
        )
        if not whole:
            reason = problems[0][0] if problems else OutcomeReason.NOT_VERIFIED
            failed = reason is not OutcomeReason.PAUSED
            kind = OutcomeKind.FAILED if failed else OutcomeKind.ABANDONED
            ended = replace(ended, kind=kind, reason=reason, counts_as_failure=failed)
        if whole:
            store.write_wanted(record.gpu_uuid, self._wanted.layout, self._site.boot_id)
        if not goes_on:
            change = once_whole(store, record.gpu_uuid, record.seq) if whole else None
            store.end_plan(record.seq, outcome_of(ended, record, self._site), change)
        else:
            store.leave_open(record.seq)
        return ended

    def _leave(self, record: PlanRecord, stop: Stop) -> Restored:
        """Return that it can't go on; its plan stays open, as one that was not cut short."""
        with suppress(StoreError):
            self._site.store.leave_open(record.seq)
        return _stopped(stop)


def outcome_of(ended: Restored, record: PlanRecord, site: Site) -> Outcome:
    """Return how restoring ended as the outcome of its plan."""
    return Outcome(
        plan_id=record.plan_id,
        gpu_uuid=record.gpu_uuid,
        kind=ended.kind,
        reason=ended.reason,
        explanation=ended.explanation,
        layout=ended.layout,
        started_at=record.begun_at,
        duration=max(site.clock.now() - record.begun_at, timedelta()),
        steps=ended.steps,
        counts_as_failure=ended.counts_as_failure,
        direction=Direction.FINER,
    )


def fitting_part(model: GpuModel, wanted: Layout) -> Layout:
    """Return what of a layout the model allows, taken in order of place."""
    fitting: tuple[InstanceSpec, ...] = ()
    for spec in wanted.specs:
        if model.violation(Layout((*fitting, spec))) is None:
            fitting = (*fitting, spec)
    return Layout(fitting)


def _left(reason: OutcomeReason, explanation: str) -> Restored:
    """Return that nothing was made."""
    return Restored(kind=OutcomeKind.ABANDONED, reason=reason, explanation=explanation)


def _stopped(stop: Stop) -> Restored:
    """Return that it can't go on; its plan stays open."""
    return Restored(
        kind=OutcomeKind.FAILED,
        reason=stop.reason,
        explanation=stop.explanation,
        counts_as_failure=stop.reason is OutcomeReason.DRIVER_FAULT,
    )
