"""Turns readings into the node's picture: generations, births, idleness, owners."""

import logging
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime

from migscaler.control.activity import ActivityBook
from migscaler.errors import StoreError
from migscaler.model.decision import HoldRecord
from migscaler.model.gpu import (
    ForeignOwners,
    GpuReading,
    GpuState,
    InstanceState,
    NodeReading,
    NodeSnapshot,
)
from migscaler.model.ids import GiId, GpuUuid
from migscaler.model.layout import Layout
from migscaler.model.policy import Policy
from migscaler.model.ports import GpuReader, HostProcesses, Scheduler
from migscaler.model.profile import InstanceSpec
from migscaler.policy.idleness import IdleMemory, judge
from migscaler.store.records import GenerationRecord
from migscaler.store.store import Store

_log = logging.getLogger("migscaler.observe")

# What tells two instances apart in one look: id, span and MIG UUIDs. All three can come back after
# a re-creation, which is why births are kept beside it.
_Mark = tuple[GiId, InstanceSpec, tuple[str, ...]]


@dataclass(slots=True)
class _GpuMemory:
    """What the observer remembers of one GPU between two samples.

    The state file keeps the generation, for whoever asks for a lease: `unwritten` if it lacks this
    one.
    """

    generation: int
    unwritten: bool = False
    marks: frozenset[_Mark] | None = None
    born: dict[_Mark, int] = field(default_factory=dict)
    changed_at: datetime | None = None
    touched: frozenset[InstanceSpec] = frozenset()
    acting: bool = False
    own_change: bool = False
    foreign_changes: int = 0
    # Monotonic seconds; a reading begun before it may show the GPU as it was before our change.
    ended_at: float | None = None

    def is_over(self, reading: NodeReading) -> bool:
        """Say whether a reading was begun after our last change ended."""
        if self.acting:
            return False
        return self.ended_at is None or reading.taken_monotonic >= self.ended_at


class Observer:
    """Reads the node once per sample and judges every instance.

    One thread at a time may call `observe` (the loop's lock sees to it); `begin_change` and
    `end_change` are called by the acting thread.
    """

    def __init__(
        self,
        *,
        reader: GpuReader,
        scheduler: Scheduler,
        store: Store,
        host: HostProcesses,
        boot_id: str,
        find_owners: Callable[[], ForeignOwners] = ForeignOwners,
        activity: ActivityBook | None = None,
    ) -> None:
        """Take the ports; generations recorded by an earlier process are read from the store.

        `activity` adds figures that NVML does not have.
        """
        self._reader = reader
        self._scheduler = scheduler
        self._store = store
        self._host = host
        self._boot_id = boot_id
        self._find_owners = find_owners
        self._activity = activity
        self._memories: dict[GpuUuid, _GpuMemory] = {}
        self._idle = IdleMemory()
        self._recorded = {record.gpu_uuid: record for record in store.generations()}

    def begin_change(self, uuid: GpuUuid, touched: Iterable[InstanceSpec]) -> None:
        """Announce that we are changing a GPU: until `end_change` its changes are our own doing.

        Instances made anew at the same span look the same to NVML, so they are told here
        (`touched`).
        """
        memory = self._memories.get(uuid)
        if memory is not None:
            memory.acting = True
            memory.own_change = True
            memory.touched = memory.touched | frozenset(touched)

    def end_change(self, uuid: GpuUuid, at: float | None = None, *, remade: bool = True) -> None:
        """Say that our change ended at a monotonic second (None: no sample is under way).

        What the first sample begun since then finds still counts as ours. Unless something may have
        been `remade` at its place, what samples saw meanwhile is what is there: born when it
        appeared, not again now. A dcgm-exporter's list could no more be matched to it.
        """
        memory = self._memories.get(uuid)
        if memory is not None:
            if not remade:
                memory.touched = frozenset()
            memory.ended_at = at
            memory.acting = False

    def outdated(self, snapshot: NodeSnapshot | None) -> tuple[GpuUuid, ...]:
        """Return the GPUs that we are changing, or have changed since the picture was taken."""
        taken = snapshot.taken_monotonic if snapshot is not None else float("-inf")
        return tuple(
            uuid
            for uuid, memory in sorted(self._memories.items())
            if memory.acting or (memory.ended_at is not None and taken < memory.ended_at)
        )

    def acting_on(self) -> frozenset[GpuUuid]:
        """Return the GPUs that we are changing now."""
        return frozenset(uuid for uuid, memory in list(self._memories.items()) if memory.acting)

    def forget_marks(self) -> None:
        """Take the next look for the first: nobody looked for a while, as before a start.

        Raises:
            StoreError: the file can't be read; nothing is forgotten.
        """
        self._recorded = {record.gpu_uuid: record for record in self._store.generations()}
        for memory in self._memories.values():
            memory.marks = None

    def record_mode(self, uuid: GpuUuid, *, wanted: bool) -> None:
        """Keep an operator's wish for a GPU's MIG mode, for the next boot.

        Raises:
            StoreError: it is not written.
        """
        known = self._store.generation(uuid)
        if known is not None:
            record = replace(known, mig_mode_wanted=wanted)
            self._store.write_generation(record)
            self._recorded[uuid] = record

    def observe(self, policy: Policy, holds: tuple[HoldRecord, ...]) -> NodeSnapshot:
        """Read everything and return the picture.

        Raises:
            HardwareError: NVML as a whole does not answer; keep the old picture until it is stale.
        """
        reading = self._reader.read_node()
        allocations = self._scheduler.allocations(reading)
        foreign = {gpu.uuid: self._follow(gpu, reading) for gpu in reading.gpus}
        owners = self._find_owners()
        processes_visible = self._host.visible()
        born = self._births(reading)
        if self._activity is not None:
            reading = self._activity.merge(reading, born)
        self._idle, instances = judge(
            self._idle,
            reading=reading,
            born=born,
            allocations=allocations,
            holds=holds,
            policy=policy,
            processes_visible=processes_visible,
        )
        return NodeSnapshot(
            taken_at=reading.taken_at,
            taken_monotonic=reading.taken_monotonic,
            boot_id=self._boot_id,
            driver_version=reading.driver_version,
            nvml_version=reading.nvml_version,
            gpus=tuple(
                self._state(gpu, instances, foreign=foreign[gpu.uuid]) for gpu in reading.gpus
            ),
            allocations_known=allocations.known,
            allocations_why=allocations.why_unknown,
            processes_visible=processes_visible,
            foreign_owner=owners.found,
            foreign_owner_remedy=owners.remedy,
            foreign_owner_unknown=owners.unknown,
            gaps=reading.gaps,
        )

    def _follow(self, gpu: GpuReading, reading: NodeReading) -> bool:
        """Bring the GPU's generation up to date; True when somebody else changed its layout."""
        memory = self._memories.get(gpu.uuid)
        if memory is None:
            memory = self._memories[gpu.uuid] = self._recall(gpu)
        marks = _marks(gpu)
        if marks is None:
            return False
        adopted = False
        if memory.marks is None:
            known = self._recorded.get(gpu.uuid)
            changed = known is not None and known.layout != gpu.layout
            adopted = changed and self._is_foreign(gpu)
        else:
            changed = marks != memory.marks
        ours, touched = memory.own_change, memory.touched
        foreign = changed and not ours
        is_over = memory.is_over(reading)
        # Before our first call nothing was made anew, and whoever asks right then must not find
        # the instances that are to go reborn and unproven.
        moved = changed or (bool(touched) and is_over)
        if moved:
            memory.generation += 1
            memory.changed_at = reading.taken_at
        memory.born = {
            mark: memory.generation
            if foreign or mark not in memory.born or (is_over and mark[1] in touched)
            else memory.born[mark]
            for mark in marks
        }
        first = memory.marks is None
        memory.marks = marks
        if is_over:
            memory.touched, memory.own_change = frozenset(), False
        if moved or first or memory.unwritten or (ours and is_over):
            number = self._record(gpu, reading, memory)
            # The executor numbered the change it ended, be it one that a sample had seen before: by
            # any other number no lease would be granted here until the next change.
            if is_over and number is not None:
                memory.generation = number
        adopted = adopted if first else foreign
        memory.foreign_changes += adopted
        return adopted

    def _is_foreign(self, gpu: GpuReading) -> bool:
        """Say whether a layout that changed while nobody looked takes the wanted one's place.

        Not an empty GPU nor another boot's: there the wanted layout is restored. Not what a plan of
        ours made, or left half made, before the process ended. A restore may be left so for days.
        """
        known, found = self._recorded.get(gpu.uuid), gpu.layout
        if known is None or known.boot_id != self._boot_id or found is None or not len(found):
            return False
        try:
            wanted = {record.gpu_uuid: record.layout for record in self._store.wanted()}
            is_open = any(
                plan.gpu_uuid == gpu.uuid
                and (not plan.is_restore or all(spec in plan.after for spec in found.specs))
                for plan in self._store.open_plans()
            )
        except StoreError as error:
            _log.warning("wanted_not_read gpu=%s error=%s", gpu.uuid, error)
            return False
        return not is_open and wanted.get(gpu.uuid, found) != found

    def _recall(self, gpu: GpuReading) -> _GpuMemory:
        """Start from what an earlier process recorded, so that generations never go back."""
        known = self._recorded.get(gpu.uuid)
        if known is None:
            return _GpuMemory(generation=1)
        return _GpuMemory(generation=known.generation, changed_at=known.changed_at)

    def _record(self, gpu: GpuReading, reading: NodeReading, memory: _GpuMemory) -> int | None:
        """Write the generation and return the number kept.

        None without a writable store: it is only remembered, and written with the next sample.
        """
        record = GenerationRecord(
            gpu_uuid=gpu.uuid,
            generation=memory.generation,
            layout=gpu.layout or Layout(),
            boot_id=self._boot_id,
            changed_at=memory.changed_at or reading.taken_at,
            model_name=gpu.name,
        )
        try:
            number = self._store.write_generation(record)
        except StoreError as error:
            if not memory.unwritten:
                _log.warning("generation_not_written gpu=%s error=%s", gpu.uuid, error)
            memory.unwritten = True
            return None
        memory.unwritten = False
        return number

    def _births(self, reading: NodeReading) -> Mapping[tuple[GpuUuid, GiId], int]:
        """Return the generation at which each live instance appeared."""
        return {
            (gpu.uuid, mark[0]): born
            for gpu in reading.gpus
            for mark, born in self._memories[gpu.uuid].born.items()
        }

    def _state(
        self,
        gpu: GpuReading,
        instances: Mapping[GpuUuid, tuple[InstanceState, ...]],
        *,
        foreign: bool,
    ) -> GpuState:
        """Put one GPU's part of the picture together."""
        memory = self._memories[gpu.uuid]
        lost = next((gap.why for gap in gpu.gaps if gap.what == "gpu"), None)
        return GpuState(
            reading=gpu,
            generation=memory.generation,
            changed_at=memory.changed_at,
            instances=None if gpu.instances is None else instances.get(gpu.uuid, ()),
            excluded=lost,
            foreign_change=foreign,
            foreign_changes=memory.foreign_changes,
        )


def _marks(gpu: GpuReading) -> frozenset[_Mark] | None:
    """Return what is on the GPU, None if it could not be enumerated."""
    if gpu.instances is None:
        return None
    return frozenset(
        (
            r.instance.gi_id,
            r.instance.spec,
            tuple(str(ci.mig_uuid) for ci in r.instance.compute_instances),
        )
        for r in gpu.instances
    )
