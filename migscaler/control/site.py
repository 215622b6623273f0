"""Where plans are carried out, settled and restored."""

from dataclasses import dataclass

from migscaler.model.ports import Clock, GpuReader, GpuWriter, Scheduler
from migscaler.store.store import Store


@dataclass(frozen=True, slots=True, kw_only=True)
class Site:
    """What acting needs: the journal, the GPUs to read and to change, the scheduler, time."""

    store: Store
    reader: GpuReader
    writer: GpuWriter
    scheduler: Scheduler
    clock: Clock
    boot_id: str
