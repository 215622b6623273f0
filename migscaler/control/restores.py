"""What the journal knows of how restoring a GPU went before this process."""

from migscaler.model.ids import GpuUuid
from migscaler.model.plan import OutcomeReason
from migscaler.store.store import Store


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
