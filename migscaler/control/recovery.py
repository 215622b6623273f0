"""At start: end plans found open, and make again what a reboot took away.

Fast and without the planner: it looks, puts back what the journal names, and closes. Cut short at
any point, the next start does the rest.
"""

from collections.abc import Collection, Iterator, Mapping
from dataclasses import replace
from datetime import timedelta
from functools import partial

from migscaler.control.endings import lost_text
from migscaler.control.put_back import PutBack, finish_restore, put_back
from migscaler.control.restoring import Restored, Restoring
from migscaler.control.steps_run import Site, StepRunner, Stop
from migscaler.errors import StoreError
from migscaler.model.gpu import GpuReading
from migscaler.model.ids import GpuUuid, PlanId
from migscaler.model.plan import (
    Direction,
    Outcome,
    OutcomeKind,
    OutcomeReason,
    direction_between,
)
from migscaler.model.ports import Clock, GpuReader, GpuWriter, Scheduler
from migscaler.store.records import (
    RESTORE,
    NvmlAction,
    PlanRecord,
    PlanState,
    StepState,
    WantedRecord,
)
from migscaler.store.store import Store

# So long after a plan began it is tried again to make what could not be put back; then the plan is
# closed as it is, for an open one keeps the whole node from changing.
_PATIENCE = timedelta(minutes=10)


def settle(
    store: Store,
    reader: GpuReader,
    writer: GpuWriter | None,
    scheduler: Scheduler,
    clock: Clock,
    boot_id: str,
    *,
    act: bool,
    only: Collection[GpuUuid] | None = None,
) -> tuple[Outcome, ...]:
    """End every open plan and say how, one outcome each, oldest first.

    Without `act` or a writer, and for GPUs not in `only` (None: all), a plan is only reported,
    with reason `paused`; it stays open. So does one whose GPU can't be read or whose end can't be
    written, and for ten minutes one of which something could not be made again. One of another boot
    needs no call: it is closed for any GPU, also for one that is not there any more.

    Raises:
        StoreError: the journal can't be read; nothing was touched.
    """
    outcomes = []
    for record in store.open_plans():
        # Nothing is left of another boot's plan but its row, whatever became of its GPU.
        is_past = record.boot_id != boot_id
        allowed = act and (only is None or record.gpu_uuid in only or is_past)
        if writer is None or not allowed:
            outcomes.append(_reported(record, clock))
            continue
        site = Site(
            store=store,
            reader=reader,
            writer=writer,
            scheduler=scheduler,
            clock=clock,
            boot_id=boot_id,
        )
        outcomes.append(_settle_one(site, record))
    return tuple(outcomes)


def _settle_one(site: Site, record: PlanRecord) -> Outcome:
    """End one plan: by what its state and boot say, else by putting back."""
    started = site.clock.monotonic()
    outcome, is_unmade = _ended(site, record)
    problem = site.scheduler.unfence(record.gpu_uuid)
    if problem is not None:
        outcome = replace(outcome, explanation=f"{outcome.explanation}; still fenced: {problem}")
    duration = timedelta(seconds=site.clock.monotonic() - started)
    outcome = replace(outcome, duration=duration)
    if outcome.reason in (OutcomeReason.DRIVER_FAULT, OutcomeReason.JOURNAL_UNWRITABLE):
        return outcome
    if is_unmade and _is_young(record, site.clock):
        return replace(outcome, explanation=f"{outcome.explanation}; left open, to be tried again")
    try:
        site.store.end_plan(record.seq, outcome)
    except StoreError as error:
        return replace(outcome, explanation=f"{outcome.explanation}; not recorded: {error}")
    return outcome


def _is_young(record: PlanRecord, clock: Clock) -> bool:
    """Say whether making again what a plan took away is still tried; a clock set back ends it."""
    return timedelta() <= clock.now() - record.begun_at < _PATIENCE


def _ended(site: Site, record: PlanRecord) -> tuple[Outcome, bool]:
    """Do what the plan needs; return how it ended, and whether something could not be made."""
    if record.boot_id != site.boot_id:
        # No instance survives a reboot; what is there now is another matter (`restore`).
        return _outcome(record, site.clock, "the node was started anew since"), False
    if record.state is PlanState.VERIFIED:
        return _completed(site, record), False
    runner = StepRunner(site, record.seq, record.gpu_uuid)
    found = runner.look()
    if isinstance(found, Stop):
        return _after(PutBack(reading=None, stop=found), record, site.clock, runner), False
    if not found.instances and _has_left_some(site, record):
        return _given_up(site, record), False
    if record.is_restore and _made_nothing(site, record):
        return _outcome(record, site.clock, "it has instances by now that this did not make"), False
    back = finish_restore(runner, record) if record.is_restore else put_back(runner, record)
    outcome = _after(back, record, site.clock, runner)
    return _finished(outcome, record, site) if record.is_restore else outcome, bool(back.unmade)


def _made_nothing(site: Site, record: PlanRecord) -> bool:
    """Say whether no instance there can be the plan's: adding to another's is not for it."""
    try:
        steps = site.store.steps_of(record.seq)
    except StoreError:
        return False  # who puts back meets it too, and leaves the plan open
    return all(step.state is StepState.VOID for step in steps)


def _has_left_some(site: Site, record: PlanRecord) -> bool:
    """Say whether an empty GPU lost more than the plan took: all, as to a driver loaded anew.

    Making only what the plan took would keep the rest from being restored. A restore took nothing.
    """
    try:
        steps = site.store.steps_of(record.seq)
    except StoreError:
        return False  # who puts back meets it too, and leaves the plan open
    gone = (s for s in steps if s.action is NvmlAction.DESTROY_GI and s.state is not StepState.VOID)
    return record.is_restore or len(record.before.without(step.spec for step in gone)) > 0


def _given_up(site: Site, record: PlanRecord) -> Outcome:
    """End a plan of a GPU that lost everything: what was wanted there is restored, as a whole."""
    text = "all instances of the GPU are gone since; what was wanted is for restoring to make"
    try:
        if not record.is_restore and all(
            w.gpu_uuid != record.gpu_uuid for w in site.store.wanted()
        ):
            site.store.write_wanted(record.gpu_uuid, record.before, record.boot_id)
    except StoreError as error:
        text = f"{text}; {error}"
    return _outcome(record, site.clock, text)


def _finished(outcome: Outcome, record: PlanRecord, site: Site) -> Outcome:
    """Tell how a restore ended that was found open; what is whole again is wanted in this boot."""
    outcome = replace(outcome, rolled_back=False)
    if outcome.layout is None or outcome.layout != record.after:
        return outcome
    text = f"found open; restored {outcome.layout}"
    try:
        site.store.write_wanted(record.gpu_uuid, record.after, site.boot_id)
    except StoreError as error:
        text = f"{text}; {error}"
    return replace(outcome, explanation=text)


def _completed(site: Site, record: PlanRecord) -> Outcome:
    """End a plan whose result was verified: only the node may not have been told."""
    found = StepRunner(site, record.seq, record.gpu_uuid).look()
    layout = getattr(found, "layout", None)
    notes = ["the change was complete"]
    if layout is not None:
        problem = site.scheduler.refresh(record.gpu_uuid, layout)
        notes += [] if problem is None else [f"not advertised: {problem}"]
    try:
        # As when it runs to its end: a GPU is only emptied to switch MIG off.
        wanted = record.after if len(record.after) else record.before
        site.store.write_wanted(record.gpu_uuid, wanted, site.boot_id)
    except StoreError as error:
        notes.append(str(error))
    outcome = _outcome(record, site.clock, "; ".join(notes))
    return replace(outcome, kind=OutcomeKind.DONE, reason=OutcomeReason.COMPLETED, layout=layout)


def _after(back: PutBack, record: PlanRecord, clock: Clock, runner: StepRunner) -> Outcome:
    """Return the outcome of putting back."""
    timings = tuple(runner.timings)
    if back.stop is not None or back.reading is None:
        why = "the GPU can't be read" if back.stop is None else back.stop.explanation
        outcome = _outcome(record, clock, f"left open: {why}")
        reason = OutcomeReason.DRIVER_FAULT if back.stop is None else back.stop.reason
        return replace(
            outcome,
            kind=OutcomeKind.FAILED,
            reason=reason,
            steps=timings,
            counts_as_failure=reason is OutcomeReason.DRIVER_FAULT,
        )
    layout = back.reading.layout
    outcome = _outcome(record, clock, f"found open; put back {layout}")
    outcome = replace(outcome, layout=layout, steps=timings, rolled_back=bool(timings))
    if back.whole:
        return outcome
    return replace(
        outcome,
        kind=OutcomeKind.FAILED,
        reason=OutcomeReason.ROLLBACK_INCOMPLETE,
        explanation=f"found open; {lost_text(back)}",
        counts_as_failure=True,
    )


def _reported(record: PlanRecord, clock: Clock) -> Outcome:
    """Return the outcome of leaving a plan alone."""
    text = f"found open since {record.begun_at:%Y-%m-%d %H:%M:%S}; acting is off, left as it is"
    return replace(_outcome(record, clock, text), reason=OutcomeReason.PAUSED)


def _outcome(record: PlanRecord, clock: Clock, explanation: str) -> Outcome:
    """Return an outcome of a settled plan; the caller replaces what differs."""
    return Outcome(
        plan_id=record.plan_id,
        gpu_uuid=record.gpu_uuid,
        kind=OutcomeKind.ABANDONED,
        reason=OutcomeReason.SETTLED,
        explanation=explanation,
        layout=None,
        started_at=clock.now(),
        duration=timedelta(),
        direction=direction_between(record.before, record.after),
        before=record.before,
    )


def restore(
    *,
    store: Store,
    reader: GpuReader,
    writer: GpuWriter | None,
    scheduler: Scheduler,
    clock: Clock,
    boot_id: str,
    layout: str,
    mig_mode: bool,
    act_on: Collection[GpuUuid],
    reloaded: bool | None = None,
    left: Mapping[GpuUuid, str] | None = None,
) -> tuple[Outcome, ...]:
    """Give GPUs that lost all instances the layout last wanted; one outcome per such GPU, by index.

    `layout` is `restore`, `adopt` (what is there is wanted from now on) or `report`. Only GPUs in
    `act_on` are changed, the others reported, with why they are `left` alone. A GPU with any
    instance is not touched. MIG mode that is off in the boot of the wanted layout was switched off
    by a person, unless the driver was loaded anew; that is reported only. Whether it was is what
    `reloaded` says, or for None what the GPUs look like. Call after `settle`.

    Raises:
        HardwareError: NVML does not answer.
        StoreError: the state file can't be read.
    """
    wanted = {record.gpu_uuid: record for record in store.wanted() if len(record.layout)}
    gpus = reader.read_node().gpus
    if reloaded is None:
        reloaded = _lost_by_reload(tuple(gpu for gpu in gpus if gpu.uuid in wanted))
    site = partial(
        Site, store=store, reader=reader, scheduler=scheduler, clock=clock, boot_id=boot_id
    )
    outcomes = []
    for gpu, record in _emptied(gpus, wanted):
        ended: Restored
        if layout == "adopt":
            store.forget_wanted(gpu.uuid)
            ended = _untouched(f"{record.layout} is gone and no longer wanted")
        elif writer is None or layout != "restore" or gpu.uuid not in act_on:
            why = (left or {}).get(gpu.uuid, "acting is off")
            ended = _untouched(f"{record.layout} is gone; {why}, not restored")
        elif not gpu.mig_enabled and record.boot_id == boot_id and not reloaded:
            ended = _switched_off(gpu, record)
        else:
            ended = Restoring(site(writer=writer), gpu, record).run(mig_mode=mig_mode)
        outcomes.append(_restored(gpu.uuid, ended, clock))
    return tuple(outcomes)


def _emptied(
    gpus: tuple[GpuReading, ...], wanted: Mapping[GpuUuid, WantedRecord]
) -> Iterator[tuple[GpuReading, WantedRecord]]:
    """Give the GPUs that answer and lack all they should have."""
    for gpu in gpus:
        record = wanted.get(gpu.uuid)
        if record is not None and not gpu.instances and all(gap.what != "gpu" for gap in gpu.gaps):
            yield gpu, record


def _lost_by_reload(recorded: tuple[GpuReading, ...]) -> bool:
    """Say whether loading the driver anew took the instances away, of all GPUs at once.

    Where a mode change needs no reset (Hopper and newer) MIG mode is lost with them; elsewhere it
    stays (MIG User Guide, Getting Started). A node's only GPU can't tell a person from a reload.
    """
    return all(
        gpu.instances == () and gpu.mig_enabled is gpu.mode_change_needs_reset for gpu in recorded
    )


def _switched_off(gpu: GpuReading, record: WantedRecord) -> Restored:
    """Return that a GPU keeps the mode that somebody gave it in this boot."""
    why = "pending" if gpu.mig_pending else "switched off in this boot; `migscaler mig-mode on`"
    return Restored(
        kind=OutcomeKind.ABANDONED,
        reason=OutcomeReason.CHANGED_UNDERNEATH,
        explanation=f"{record.layout} is not restored: MIG mode is {why}",
    )


def _untouched(explanation: str) -> Restored:
    """Return that a GPU was left as it is."""
    return Restored(
        kind=OutcomeKind.ABANDONED, reason=OutcomeReason.PAUSED, explanation=explanation
    )


def _restored(gpu_uuid: GpuUuid, ended: Restored, clock: Clock) -> Outcome:
    """Return how restoring a GPU ended as an outcome."""
    return Outcome(
        plan_id=PlanId(f"{RESTORE}{clock.now():%Y%m%dT%H%M%S}"),
        gpu_uuid=gpu_uuid,
        kind=ended.kind,
        reason=ended.reason,
        explanation=ended.explanation,
        layout=ended.layout,
        started_at=clock.now(),
        duration=timedelta(),
        steps=ended.steps,
        counts_as_failure=ended.counts_as_failure,
        direction=Direction.FINER,
    )
