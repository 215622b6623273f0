"""Live GPUs: what the hardware answers, and the picture of the node made from it."""

import enum
from dataclasses import dataclass
from datetime import datetime, timedelta

from migscaler.model.ids import CiId, GiId, GpuUuid, MigUuid
from migscaler.model.layout import GpuModel, Layout
from migscaler.model.process import Container
from migscaler.model.profile import InstanceSpec


@dataclass(frozen=True, slots=True, kw_only=True)
class Gap:
    """Something that could not be read: what, and why in words. Never a zero in its place."""

    what: str
    why: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ComputeInstance:
    """A live compute instance; `full_width` if its SM count equals its GPU instance's.

    `profile_id` is NVML's, None where it was not read.
    """

    ci_id: CiId
    mig_uuid: MigUuid | None
    compute_slices: int | None
    full_width: bool
    profile_id: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class GpuInstance:
    """A live GPU instance with its NVML ids (reused!); compute instances by rising id."""

    gi_id: GiId
    spec: InstanceSpec
    compute_instances: tuple[ComputeInstance, ...] = ()

    @property
    def usable(self) -> bool:
        """Say whether it is what migscaler makes: exactly one full-width compute instance."""
        return len(self.compute_instances) == 1 and self.compute_instances[0].full_width

    @property
    def mig_uuid(self) -> MigUuid | None:
        """UUID of the MIG device if there is exactly one."""
        return self.compute_instances[0].mig_uuid if len(self.compute_instances) == 1 else None


@dataclass(frozen=True, slots=True, kw_only=True)
class GpuProcess:
    """A process that NVML reports on a GPU or instance; None where not known.

    `name` is the kernel's comm and `user` the account, never arguments. `container` is also None
    for a process outside any container.
    """

    pid: int
    used_memory_bytes: int | None = None
    name: str | None = None
    user: str | None = None
    container: Container | None = None

    def __str__(self) -> str:
        """Return `python3 of ada (pid 77, docker 4f797c539e6c)`; not for everyone."""
        owner = "" if self.user is None else f" of {self.user}"
        place = "" if self.container is None else f", {self.container}"
        return f"{self.name or 'a process'}{owner} (pid {self.pid}{place})"


class ActivitySource(enum.Enum):
    """Where activity figures come from."""

    GPM = "gpm"
    DCGM = "dcgm"


@dataclass(frozen=True, slots=True, kw_only=True)
class Activity:
    """Busy shares of one instance over the last window, 0..1 of the instance's own slices.

    With DCGM `window_seconds` is the age of the figures; `raw` are they as DCGM told them, by field
    (graphics, sm, tensor, dram), which can lie above 1.
    """

    source: ActivitySource
    window_seconds: float
    graphics_ratio: float | None = None
    sm_ratio: float | None = None
    tensor_ratio: float | None = None
    dram_ratio: float | None = None
    raw: tuple[tuple[str, float], ...] = ()

    @property
    def busiest(self) -> float | None:
        """Return the largest ratio known, None if there is none."""
        ratios = (self.graphics_ratio, self.sm_ratio, self.tensor_ratio, self.dram_ratio)
        return max((r for r in ratios if r is not None), default=None)


@dataclass(frozen=True, slots=True, kw_only=True)
class InstanceReading:
    """One instance as read in one pass. `processes` None: not known (unknown is busy).

    `activity_gap` says why activity that is configured is not there.
    """

    instance: GpuInstance
    memory_used_bytes: int | None = None
    memory_total_bytes: int | None = None
    processes: tuple[GpuProcess, ...] | None = None
    activity: Activity | None = None
    ecc_uncorrected: int | None = None
    activity_gap: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class GpuGauges:
    """Whole-GPU figures in base units; None where the GPU does not report them.

    Utilization ratios (0..1) exist only while MIG is off.
    """

    memory_total_bytes: int | None = None
    memory_used_bytes: int | None = None
    power_watts: float | None = None
    power_limit_watts: float | None = None
    temperature_celsius: float | None = None
    energy_joules: float | None = None
    sm_clock_hertz: float | None = None
    memory_clock_hertz: float | None = None
    ecc_corrected: int | None = None
    ecc_uncorrected: int | None = None
    utilization_ratio: float | None = None
    memory_utilization_ratio: float | None = None
    last_xid: int | None = None
    last_xid_at: datetime | None = None


class GpuOwner(enum.Enum):
    """Who has the say over one GPU's layout in place of this node."""

    HYPERVISOR = "hypervisor"
    CONFIDENTIAL_COMPUTING = "confidential_computing"

    @property
    def words(self) -> str:
        """Return why the GPU is left alone."""
        if self is GpuOwner.HYPERVISOR:
            return "it is a vGPU of a virtual machine; the hypervisor owns its layout"
        return "confidential computing is on, with which MIG is not known to work"


@dataclass(frozen=True, slots=True, kw_only=True)
class GpuReading:
    """One GPU as read in one pass.

    `model` is None where profiles can't be read (not MIG-capable, or a gap). `instances` is None
    when they could not be enumerated, () when there are none. `mig_enabled`/`mig_pending` are None
    if the GPU is not MIG-capable. `gpm` says whether NVML tells activity per instance; `dcgm`, that
    it is configured to come from DCGM, which may need `dcgm_grace_seconds` to see a new instance.
    `processes` are those of a GPU without MIG, None if not known. `pci_device_id` is the PCI device
    id over the vendor id (0x20B010DE). `foreign_owner` is who decides the layout where it is not
    this node. A reading with a gap named `gpu` has nothing but identity.
    """

    index: int
    uuid: GpuUuid
    name: str
    pci_bus_id: str | None = None
    serial: str | None = None
    minor: int | None = None
    model: GpuModel | None = None
    mig_enabled: bool | None = None
    mig_pending: bool | None = None
    mode_change_needs_reset: bool | None = None
    gpm: bool = False
    instances: tuple[InstanceReading, ...] | None = None
    processes: tuple[GpuProcess, ...] | None = None
    gauges: GpuGauges = GpuGauges()
    gaps: tuple[Gap, ...] = ()
    dcgm: bool = False
    dcgm_grace_seconds: float = 0.0
    pci_device_id: int | None = None
    foreign_owner: GpuOwner | None = None

    @property
    def activity_source(self) -> ActivitySource | None:
        """Return where activity per instance comes from, None where it can't be known."""
        if self.gpm:
            return ActivitySource.GPM
        return ActivitySource.DCGM if self.dcgm else None

    @property
    def layout(self) -> Layout | None:
        """Return the layout that is there, None if it is not known."""
        if self.instances is None:
            return None
        return Layout(tuple(r.instance.spec for r in self.instances))


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeReading:
    """All GPUs of the node in one pass, by rising index; `taken_monotonic` is in seconds.

    A GPU that did not answer is still listed, with its gap, as long as it was known before.
    """

    taken_at: datetime
    taken_monotonic: float
    driver_version: str | None = None
    nvml_version: str | None = None
    gpus: tuple[GpuReading, ...] = ()
    gaps: tuple[Gap, ...] = ()


class PinReason(enum.Enum):
    """Why an instance must keep its place; the order is the order of precedence."""

    PROCESS = "process"
    ALLOCATION = "allocation"
    HELD = "held"
    PROTECTED = "protected"
    ACTIVITY = "activity"
    MEMORY = "memory"
    SETTLING = "settling"
    UNKNOWN = "unknown"


IN_USE_REASONS = frozenset({PinReason.PROCESS, PinReason.ALLOCATION})
"""Pins that count as demand already served."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Claim:
    """What a scheduler says of one instance: it belongs to somebody.

    `owner` is a short public text (`lease 4`, `slurm job 12`, a pod): it is a label of a metric
    that everyone may scrape, so no account, command or process id stands there. `user` is who
    asked, `detail` who it is exactly; both are for logs and trusted callers.
    """

    gpu_uuid: GpuUuid
    mig_uuid: MigUuid
    owner: str
    user: str | None = None
    since: datetime | None = None
    detail: str | None = None

    @property
    def named(self) -> str:
        """Return the owner as precisely as it is known; not for everyone."""
        return self.detail or self.owner


@dataclass(frozen=True, slots=True, kw_only=True)
class Allocations:
    """All claims on the node; `known` False means nothing can be said, and why."""

    known: bool
    why_unknown: str = ""
    claims: tuple[Claim, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class ForeignOwners:
    """Who else shapes the GPUs of the node, in words, and the way out; `found` None: nobody seen.

    `unknown` says why it can't be told whether there are (more); with nobody found, `remedy` is the
    way out of that.
    """

    found: str | None = None
    remedy: str = ""
    unknown: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class InstanceState:
    """One instance in the node's picture: reading, our generation mark, and the verdict on it.

    `born` is the GPU's generation at which it appeared. `pin` is the primary reason why it keeps
    its place, None when it is idle; `pins` are all reasons that hold. `quiet_since_monotonic` is
    when every signal had become quiet (seconds), None while one is not;
    `held_unused_since_monotonic` since when nothing runs on an instance that somebody's process or
    allocation keeps, None where that is not so or not known. `evidence` names the signals the
    verdict rests on.
    """

    reading: InstanceReading
    born: int
    pin: PinReason | None
    pins: tuple[PinReason, ...] = ()
    explanation: str = ""
    claim: Claim | None = None
    quiet_since_monotonic: float | None = None
    idle_at_monotonic: float | None = None
    last_activity_at: datetime | None = None
    evidence: tuple[str, ...] = ()
    held_unused_since_monotonic: float | None = None

    @property
    def spec(self) -> InstanceSpec:
        """Return profile and placement."""
        return self.reading.instance.spec

    @property
    def gi_id(self) -> GiId:
        """Return the NVML id, valid for this generation only."""
        return self.reading.instance.gi_id


@dataclass(frozen=True, slots=True, kw_only=True)
class GpuState:
    """One GPU in the node's picture.

    `generation` is ours, bumped at every layout change seen or made; `changed_at` when. `excluded`
    says why the GPU may not be asked or changed now (driver fault), None when it answers.
    `foreign_change`: somebody else changed the layout since the last picture; `foreign_changes`
    counts these since the process started.
    """

    reading: GpuReading
    generation: int
    changed_at: datetime | None = None
    instances: tuple[InstanceState, ...] | None = None
    excluded: str | None = None
    foreign_change: bool = False
    foreign_changes: int = 0

    @property
    def uuid(self) -> GpuUuid:
        """Return the GPU's UUID."""
        return self.reading.uuid

    @property
    def layout(self) -> Layout | None:
        """Return the layout that is there, None if it is not known."""
        return self.reading.layout


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeSnapshot:
    """One frozen picture of the node; missing parts are gaps, never zeros. GPUs by index."""

    taken_at: datetime
    taken_monotonic: float
    boot_id: str
    driver_version: str | None = None
    nvml_version: str | None = None
    gpus: tuple[GpuState, ...] = ()
    allocations_known: bool = True
    allocations_why: str = ""
    processes_visible: bool = True
    foreign_owner: str | None = None
    foreign_owner_remedy: str = ""
    foreign_owner_unknown: str | None = None
    gaps: tuple[Gap, ...] = ()

    def gpu(self, uuid: GpuUuid) -> GpuState | None:
        """Return the GPU of that UUID, None if the picture lacks it."""
        return next((g for g in self.gpus if g.uuid == uuid), None)

    @property
    def is_ours(self) -> bool:
        """Say whether it is known that nobody else shapes the GPUs of this node."""
        return self.foreign_owner is None and self.foreign_owner_unknown is None

    def wall_time(self, monotonic: float | None) -> datetime | None:
        """Return the wall clock at a monotonic moment, to the second.

        The snapshot ties both clocks together; whole seconds keep the value still between samples.
        """
        if monotonic is None:
            return None
        moment = self.taken_at + timedelta(seconds=monotonic - self.taken_monotonic)
        return (moment + timedelta(milliseconds=500)).replace(microsecond=0)


@dataclass(frozen=True, slots=True, kw_only=True)
class ModeChange:
    """Answer to a MIG mode change: active now, or pending and on what (`reset`, `clients`)."""

    active: bool
    pending_on: str | None = None
