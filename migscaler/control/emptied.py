"""Make again what a reboot, a reload or somebody took away, on the GPUs where that may be done."""

from collections.abc import Collection, Iterator, Mapping
from datetime import timedelta

from migscaler.control.restoring import Restored, Restoring
from migscaler.control.site import Site
from migscaler.model.gpu import GpuReading
from migscaler.model.ids import GpuUuid, PlanId
from migscaler.model.plan import Direction, Outcome, OutcomeKind, OutcomeReason
from migscaler.model.ports import Clock
from migscaler.store.records import RESTORE, WantedRecord


def restore(
    site: Site,
    *,
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
    wanted = {record.gpu_uuid: record for record in site.store.wanted() if len(record.layout)}
    gpus = site.reader.read_node().gpus
    if reloaded is None:
        reloaded = _lost_by_reload(tuple(gpu for gpu in gpus if gpu.uuid in wanted))
    outcomes = []
    for gpu, record in _emptied(gpus, wanted):
        ended: Restored
        if layout == "adopt":
            site.store.forget_wanted(gpu.uuid)
            ended = _untouched(f"{record.layout} is gone and no longer wanted")
        elif layout != "restore" or gpu.uuid not in act_on:
            why = (left or {}).get(gpu.uuid, "acting is off")
            ended = _untouched(f"{record.layout} is gone; {why}, not restored")
        elif not gpu.mig_enabled and record.boot_id == site.boot_id and not reloaded:
            ended = _switched_off(gpu, record)
        else:
            ended = Restoring(site, gpu, record).run(mig_mode=mig_mode)
        outcomes.append(_restored(gpu.uuid, ended, site.clock))
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
