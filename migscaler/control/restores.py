"""What the journal knows of how restoring a GPU went before, and what still waits for that."""

from collections.abc import Sequence
from datetime import datetime

from migscaler.control.aftermath import after_return
from migscaler.model.decision import HoldRecord
from migscaler.model.ids import GpuUuid
from migscaler.model.plan import OutcomeReason
from migscaler.store.memory import HistoryChange
from migscaler.store.records import PastPlan, PlanRecord
from migscaler.store.store import Store

# So often in a row the process may die at restoring a GPU before that waits for its breaker. A kill
# from outside may meet a restore, and then its end at the next start: an empty GPU is made at once.
DEATHS_TO_OPEN = 3


def has_failed(store: Store, gpu_uuid: GpuUuid, boot_id: str) -> bool:
    """Say whether a restore of the GPU came to its end in this boot and did not give it its layout.

    One that was cut short, or that a pause stopped, says nothing. Whatever else was done on the GPU
    since ends it.

    Raises:
        StoreError: the journal can't be read.
    """
    for past in store.past_plans_of(gpu_uuid):
        if not past.is_restore or past.is_whole or past.boot_id != boot_id:
            return False
        if not past.was_cut and past.reason is not OutcomeReason.PAUSED:
            return True
    return False


def deaths_in_a_row(store: Store, gpu_uuid: GpuUuid, *, ours: int | None = None) -> int:
    """Count how often the process, or the node, died at restoring a GPU since that last ended.

    `ours` is the journal number of a plan that this process is at: it is open, and nobody has died.

    Raises:
        StoreError: the journal can't be read.
    """
    deaths = 0
    for past in store.past_plans_of(gpu_uuid):
        if past.seq == ours:
            deaths += sum(step.died for step in store.steps_of(ours))
            continue
        here = _deaths(store, past)
        if not here:
            break
        deaths += here
    return deaths


def once_whole(store: Store, gpu_uuid: GpuUuid, plan_seq: int) -> HistoryChange | None:
    """Return what a restore that is about to end with the whole layout changes in its GPU's past.

    None where no deaths had opened the breaker: one that plans opened stays open for plans.

    Raises:
        StoreError: the journal can't be read.
    """
    deaths = deaths_in_a_row(store, gpu_uuid, ours=plan_seq)
    return None if deaths < DEATHS_TO_OPEN else after_return


def died_again(store: Store, record: PlanRecord) -> bool:
    """Say whether an open plan of an earlier process shows a death of which nothing is written yet.

    Raises:
        StoreError: the journal can't be read.
    """
    steps = store.steps_of(record.seq)
    is_noted = any(step.died for step in steps)
    return any(step.in_doubt for step in steps) or not (record.left_open or is_noted)


def why_shut(store: Store, gpu_uuid: GpuUuid, now: datetime) -> str | None:
    """Say why a GPU is not restored until its breaker closes, None if it may be.

    A breaker that its plans opened keeps nothing from coming back.

    Raises:
        StoreError: the journal can't be read.
    """
    pasts = (past for past in store.gpu_histories() if past.gpu_uuid == gpu_uuid)
    until = next((past.breaker_open_until for past in pasts), None)
    if until is None or until <= now:
        return None
    deaths = deaths_in_a_row(store, gpu_uuid)
    return None if deaths < DEATHS_TO_OPEN else shut_text(gpu_uuid, deaths)


def shut_text(gpu_uuid: GpuUuid, deaths: int) -> str:
    """Say why, and what ends it."""
    return (
        f"its breaker is open: the daemon, or the node, died {deaths} times in a row at restoring"
        f" it; migscaler breaker reset {gpu_uuid} tries it now"
    )


def waiting_restores(
    store: Store, plans: Sequence[PlanRecord], now: datetime
) -> tuple[tuple[GpuUuid, str], ...]:
    """Return the GPUs whose open restore waits, for the end of a hold or its breaker, and why.

    Only a hold of the whole GPU is waited for: an instance that somebody holds is to be there.

    Raises:
        StoreError: the state file can't be read.
    """
    waiting = []
    whole = {hold.gpu_uuid: hold for hold in reversed(store.holds(now)) if hold.spec is None}
    for uuid in (plan.gpu_uuid for plan in plans if plan.is_restore):
        why = held_text(whole[uuid]) if uuid in whole else why_shut(store, uuid, now)
        if why is not None:
            waiting.append((uuid, why))
    return tuple(waiting)


def held_text(hold: HoldRecord) -> str:
    """Return whose hold it is, and how it ends."""
    return f"held by {hold.owner}: {hold.reason}; migscaler release {hold.hold_id} ends it"


def _deaths(store: Store, past: PastPlan) -> int:
    """Count the deaths in one plan; none in one that went on to its end after them."""
    is_over = past.kind is not None and past.reason is not OutcomeReason.SETTLED
    if not past.is_restore or past.is_whole or is_over:
        return 0
    steps = store.steps_of(past.seq)
    return max(sum(step.died or step.in_doubt for step in steps), int(past.was_cut))
