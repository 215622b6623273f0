"""Adds activity that DCGM measures to what NVML reads, on GPUs where NVML has none (A100, A30).

Configured and not there is a gap with a reason, never a zero: such an instance counts as unknown.
"""

import threading
from collections.abc import Iterable, Mapping
from dataclasses import replace

from migscaler.control.dcgm_list import DcgmList, Identity
from migscaler.model.gpu import (
    Activity,
    ActivitySource,
    GpuReading,
    InstanceReading,
    NodeReading,
)
from migscaler.model.ids import GiId, GpuUuid
from migscaler.model.profile import Profile
from migscaler.sources.dcgm import DcgmRow, DcgmSettings, DcgmSource

Births = Mapping[tuple[GpuUuid, GiId], int]


class ActivityBook:
    """Keeps DCGM's last answer; `fetch` and `merge` may run in different threads."""

    def __init__(self) -> None:
        """Nothing is configured yet."""
        self._lock = threading.Lock()
        self._source: DcgmSource | None = None
        self._forget()

    def configure(self, source: DcgmSource | None) -> None:
        """Ask this from now on; what is known stays if the settings do."""
        with self._lock:
            before = None if self._source is None else self._source.settings
            after = None if source is None else source.settings
            self._source = source
            if before != after:
                self._forget()

    def collectors(self) -> tuple[str, ...]:
        """Return what attempts at asking are noted as."""
        return () if self._source is None else ("dcgm",)

    def _forget(self) -> None:
        """Start anew."""
        settings = None if self._source is None else self._source.settings
        self._list = DcgmList(0.0 if settings is None else settings.max_age.total_seconds())
        self._rows: tuple[DcgmRow, ...] = ()
        self._problem: str | None = "it has not been asked yet"
        self._gpus: frozenset[GpuUuid] = frozenset()
        self._asked: frozenset[GpuUuid] = frozenset()

    def fetch(self) -> str | None:
        """Ask DCGM once; return what is wrong, None if nothing. Before the first sample: nothing.

        Rows of the last good answer stay until they are too old.
        """
        with self._lock:
            source, gpus = self._source, self._gpus
        if source is None or not gpus:
            return None
        fetch = source.fetch(gpus)
        with self._lock:
            if source is not self._source:
                return None
            self._problem = fetch.problem
            if self._asked and self._asked != gpus:
                # Rows of another set of GPUs can't be compared with those before.
                self._list = DcgmList(source.settings.max_age.total_seconds())
            self._asked = gpus
            self._list.note_answer(fetch)
            if fetch.problem is None:
                self._rows = fetch.rows
            return fetch.problem

    def merge(self, reading: NodeReading, born: Births) -> NodeReading:
        """Return the reading with DCGM's activity; as it is where nothing is configured."""
        with self._lock:
            if self._source is None:
                return reading
            self._gpus = frozenset(gpu.uuid for gpu in reading.gpus)
            settings = self._source.settings
            gpus = (
                gpu if gpu.gpm or not gpu.mig_enabled else self._gpu(gpu, reading, born, settings)
                for gpu in reading.gpus
            )
            return replace(reading, gpus=tuple(gpus))

    def _gpu(
        self, gpu: GpuReading, reading: NodeReading, born: Births, settings: DcgmSettings
    ) -> GpuReading:
        """Return one GPU with the activity of its instances, or why an instance has none."""
        grace = (settings.max_age + settings.interval).total_seconds()
        marked = replace(gpu, dcgm=True, dcgm_grace_seconds=grace)
        if gpu.instances is None:
            return marked
        now, limit = reading.taken_monotonic, settings.max_age.total_seconds()
        identities = {one.instance.gi_id: _identity(gpu, one, born) for one in gpu.instances}
        self._list.note_instances(gpu.uuid, now, identities.values())
        rows = {gi: _row_of(self._rows, gpu, identity) for gi, identity in identities.items()}
        fitting = {identities[gi]: row.key for gi, row in rows.items() if isinstance(row, DcgmRow)}
        self._list.judge_start(gpu.uuid, fitting)
        instances = []
        for one in gpu.instances:
            gi_id = one.instance.gi_id
            found = self._activity(identities[gi_id], rows[gi_id], now, limit)
            instances.append(
                replace(one, activity=found)
                if isinstance(found, Activity)
                else replace(one, activity_gap=found)
            )
        return replace(marked, instances=tuple(instances))

    def _activity(
        self, identity: Identity, row: DcgmRow | str, now: float, limit: float
    ) -> Activity | str:
        """Return the figures of a row that is this instance's and fresh, else what is wrong."""
        if self._problem is not None and (isinstance(row, str) or now - row.measured > limit):
            return f"DCGM does not answer: {self._problem}"
        if isinstance(row, str):
            return row
        age = max(0.0, now - row.measured)
        if age > limit:
            return f"DCGM's last figure of it is {age:.0f} s old"
        if not self._list.believes(identity, row.key, row.measured):
            return "DCGM may mean an instance that is gone; its exporter has to read the layout"
        known = dict(row.values)
        if "graphics" not in known and "sm" not in known:
            return "DCGM reports neither GR_ENGINE_ACTIVE nor SM_ACTIVE of it"
        return _activity(row, age)


def _identity(gpu: GpuReading, one: InstanceReading, born: Births) -> Identity:
    """Return what tells this instance from every other."""
    gi_id = one.instance.gi_id
    return gpu.uuid, gi_id, one.instance.spec, born.get((gpu.uuid, gi_id), 0)


def _row_of(rows: Iterable[DcgmRow], gpu: GpuReading, identity: Identity) -> DcgmRow | str:
    """Return the row of this id and profile, else what is there instead in words."""
    uuid, gi_id, spec, _ = identity
    profile = None if gpu.model is None else gpu.model.find(spec.profile)
    others = []
    for row in rows:
        if row.key[:2] == (uuid, gi_id):
            if _fits(profile, spec.profile, row.key[2]):
                return row
            others.append(row.key[2])
    if others:
        return f"DCGM takes it for a {others[0]}; its exporter has to read the layout"
    return "DCGM does not see it; its exporter has to read the layout"


def _fits(profile: Profile | None, name: str, told: str) -> bool:
    """Say whether DCGM's word for a profile means ours; GB figures differ between drivers."""
    return name == told if profile is None else profile.matches(told)


def _activity(row: DcgmRow, age: float) -> Activity:
    """Return the figures of a row; above 1 happens (1.29 was seen): clamped, raw kept beside."""
    ratios = {field: min(1.0, value) for field, value in row.values}
    return Activity(
        source=ActivitySource.DCGM,
        window_seconds=age,
        graphics_ratio=ratios.get("graphics"),
        sm_ratio=ratios.get("sm"),
        tensor_ratio=ratios.get("tensor"),
        dram_ratio=ratios.get("dram"),
        raw=row.values,
    )
