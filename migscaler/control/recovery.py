"""End plans found open, at a start and later.

Fast and without the planner: it looks, puts back what the journal names, and closes. Cut short at
any point, the next start does the rest.
"""

from collections.abc import Collection
from dataclasses import replace
from datetime import timedelta
from functools import partial

from migscaler.control.aftermath import after_deaths, after_settled
from migscaler.control.endings import lost_text
from migscaler.control.put_back import PutBack, finish_restore, put_back, settle_doubt
from migscaler.control.restores import (
    DEATHS_TO_OPEN,
    deaths_in_a_row,
    died_again,
    once_whole,
    why_shut,
)
from migscaler.control.site import Site
from migscaler.control.steps_run import StepRunner, Stop
from migscaler.errors import StoreError
from migscaler.model.gpu import GpuReading
from migscaler.model.ids import GpuUuid
from migscaler.model.layout import Layout
from migscaler.model.plan import (
    Outcome,
    OutcomeKind,
    OutcomeReason,
    direction_between,
)
from migscaler.model.policy import Pace
from migscaler.model.ports import Clock
from migscaler.model.profile import InstanceSpec
from migscaler.store.memory import HistoryChange
from migscaler.store.records import (
    NvmlAction,
    PlanRecord,
    PlanState,
    StepState,
)

# So long after a plan began it is tried again to make what could not be put back; then the plan is
# closed as it is, for an open one keeps the whole node from changing.
PATIENCE = timedelta(minutes=10)
# How settling ends that could not end the plan: it could not look or write, or a restore waits.
_BLIND = (OutcomeReason.DRIVER_FAULT, OutcomeReason.JOURNAL_UNWRITABLE)
_UNSETTLED = frozenset((*_BLIND, OutcomeReason.HELD, OutcomeReason.GATE_CLOSED))


def settle(
    site: Site,
    *,
    act: bool,
    pace: Pace,
    only: Collection[GpuUuid] | None = None,
    cut: Collection[int] = (),
    waited: Collection[int] = (),
) -> tuple[Outcome, ...]:
    """End every open plan and say how, one outcome each, oldest first.

    `cut` are the journal numbers of plans whose process may have died in the middle: one that did
    counts as a failure of its GPU, and a restore that it was at is finished whoever holds the GPU.
    `waited` are those of restores that waited until now, for a hold or their breaker. `pace` says
    how long a GPU rests after its plan was ended.

    Without `act`, and for GPUs not in `only` (None: all), a plan is only reported, with reason
    `paused`; it stays open. So does one whose GPU can't be read or whose end can't be written, for
    ten minutes one of which something could not be made again (from the end of its wait), and a
    restore while its GPU's breaker keeps it back or somebody holds the GPU, unless it was cut
    short. One of another boot needs no call: it is closed for any GPU, also for one that is not
    there any more.

    Raises:
        StoreError: the journal can't be read; nothing was touched.
    """
    outcomes = []
    for record in site.store.open_plans():
        # Nothing is left of another boot's plan but its row, whatever became of its GPU.
        is_past = record.boot_id != site.boot_id
        if not act or (only is not None and record.gpu_uuid not in only and not is_past):
            outcomes.append(_reported(record, site.clock))
            continue
        is_found = record.seq in cut
        young = record.seq in waited or _is_young(record, site.clock)
        outcomes.append(_settle_one(site, record, pace, is_found=is_found, is_young=young))
    return tuple(outcomes)


def _settle_one(
    site: Site, record: PlanRecord, pace: Pace, *, is_found: bool, is_young: bool
) -> Outcome:
    """End one plan: by what its state and boot say, else by putting back."""
    started = site.clock.monotonic()
    is_cut = is_found and not record.left_open
    shut = _why_shut(site, record, is_found=is_found) if record.is_restore else None
    outcome, is_unmade = _ended(site, record, is_cut=is_cut, shut=shut)
    problem = site.scheduler.unfence(record.gpu_uuid)
    if problem is not None:
        outcome = replace(outcome, explanation=f"{outcome.explanation}; still fenced: {problem}")
    duration = timedelta(seconds=site.clock.monotonic() - started)
    outcome = replace(outcome, duration=duration)
    again = is_unmade and outcome.reason not in _UNSETTLED and is_young
    if again:
        outcome = replace(
            outcome, explanation=f"{outcome.explanation}; left open, to be tried again"
        )
    try:
        if again or outcome.reason in _UNSETTLED:
            if record.is_restore:
                # From here on it is one that failed: who holds the GPU may be mending it.
                site.store.leave_open(record.seq)
            return outcome
        return _closed(site, record, outcome, pace, is_cut=is_cut)
    except StoreError as error:
        return replace(outcome, explanation=f"{outcome.explanation}; not recorded: {error}")


def _why_shut(site: Site, record: PlanRecord, *, is_found: bool) -> str | None:
    """Write that a process died at a restore, and say why that is not tried again for now.

    Before anything is done: if this process dies as well, that is another death.
    """
    store, uuid, now = site.store, record.gpu_uuid, site.clock.now()
    try:
        if is_found and died_again(store, record):
            deaths = deaths_in_a_row(store, uuid)
            opens = partial(after_deaths, deaths=deaths, now=now)
            store.note_death(record.seq, opens if deaths >= DEATHS_TO_OPEN else None)
        return why_shut(store, uuid, now)
    except StoreError:
        return None  # who finishes it meets it too, and leaves the plan open


def _closed(
    site: Site, record: PlanRecord, outcome: Outcome, pace: Pace, *, is_cut: bool
) -> Outcome:
    """Close a plan and take its end into its GPU's history.

    One that its process died in is a failure whatever became of the GPU: a plan that ends the
    daemon, or the node, would be begun again right after each start. One that was carried out to
    its end and left open has been counted then. A restore is no plan of anybody's wish: that its
    process died in it is written with it, and counts as nothing once the layout is whole.
    """
    is_failure = is_cut and record.state is not PlanState.VERIFIED
    fed = replace(outcome, counts_as_failure=is_failure)
    past: HistoryChange | None = partial(
        after_settled, outcome=fed, pace=pace, now=site.clock.now()
    )
    if record.is_restore:
        is_whole = outcome.layout == record.after and not outcome.counts_as_failure
        past = once_whole(site.store, record.gpu_uuid, record.seq) if is_whole else None
    if is_failure:
        outcome = fed
    site.store.end_plan(record.seq, outcome, past)
    return outcome


def _is_young(record: PlanRecord, clock: Clock) -> bool:
    """Say whether making again what a plan took away is still tried; a clock set back ends it."""
    return timedelta() <= clock.now() - record.begun_at < PATIENCE


def _ended(
    site: Site, record: PlanRecord, *, is_cut: bool, shut: str | None
) -> tuple[Outcome, bool]:
    """Do what the plan needs; return how it ended, and whether something could not be made.

    `shut`: why a restore is not gone on with now.
    """
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
    if record.is_restore:
        return _gone_on(runner, record, found, is_cut=is_cut, shut=shut)
    back = put_back(runner, record)
    return _after(back, record, site.clock, runner), bool(back.unmade)


def _gone_on(
    runner: StepRunner, record: PlanRecord, found: GpuReading, *, is_cut: bool, shut: str | None
) -> tuple[Outcome, bool]:
    """End a restore as `_ended` does: make the rest, unless it waits."""
    site = runner.site
    if _made_nothing(site, record):
        return _outcome(record, site.clock, "it has instances by now that this did not make"), False
    if shut is not None and not _is_whole(record, found):
        return _left_shut(site, record, found, shut), False
    others = _is_adopted(site, record, found)
    if others:
        record = replace(record, after=record.after.without(_not_there(record, found)))
    back = finish_restore(runner, record, heed_hold=not is_cut)
    outcome = _finished(_after(back, record, site.clock, runner), record, site)
    if back.waits:
        outcome = _waiting(outcome, back)
    elif others and outcome.reason is OutcomeReason.SETTLED:
        text = f"found open; {outcome.layout} stays, which somebody else made meanwhile"
        outcome = replace(outcome, explanation=text)
    return outcome, bool(back.unmade)


def _is_whole(record: PlanRecord, found: GpuReading) -> bool:
    """Say whether a restore has nothing left to make: no call is needed to end it."""
    usable = {one.instance.spec for one in found.instances or () if one.instance.usable}
    return usable.issuperset(record.after.specs)


def _left_shut(site: Site, record: PlanRecord, found: GpuReading, why: str) -> Outcome:
    """Tell that a restore waits for the GPU's breaker; its plan stays open."""
    text = f"found open with {found.layout}; the rest waits: {why}"
    try:
        settle_doubt(site.store, record, found)
    except StoreError as error:
        text = f"{text}; {error}"
    outcome = _outcome(record, site.clock, text)
    return replace(outcome, reason=OutcomeReason.GATE_CLOSED, layout=found.layout)


def _is_adopted(site: Site, record: PlanRecord, found: GpuReading) -> bool:
    """Say whether somebody else's layout took the place of the one that a restore was making.

    The rest of it made beside his would be in nobody's mind. What was begun is still made whole.
    """
    there = () if found.layout is None else found.layout.specs
    if all(spec in record.after for spec in there):
        return False
    try:
        return all(wanted.gpu_uuid != record.gpu_uuid for wanted in site.store.wanted())
    except StoreError:
        return False  # who finishes it meets it too, and leaves the plan open


def _not_there(record: PlanRecord, found: GpuReading) -> tuple[InstanceSpec, ...]:
    """Return what a restore has still to make."""
    there = Layout() if found.layout is None else found.layout
    return tuple(spec for spec in record.after.specs if spec not in there)


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


def _waiting(outcome: Outcome, back: PutBack) -> Outcome:
    """Tell that a restore waits for somebody to let go of the GPU; its plan stays open."""
    return replace(
        outcome,
        kind=OutcomeKind.ABANDONED,
        reason=OutcomeReason.HELD,
        explanation=f"restored {outcome.layout}; the rest waits for the end of {back.waits}",
        counts_as_failure=False,
    )


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
