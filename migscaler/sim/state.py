"""What a simulated node remembers: plain data, and its JSON form for the state directory."""

import json
from collections.abc import Iterable
from dataclasses import dataclass, field, fields
from typing import Any


@dataclass(slots=True)
class Job:
    """A process on a GPU or one of its instances; `activity` is 0..1 of what it runs on.

    `gi_id` and `ci_id` are None on a GPU without MIG mode. `cgroup` is its control group's path.
    """

    pid: int
    name: str
    user: str
    memory_mib: int
    activity: float
    gi_id: int | None = None
    ci_id: int | None = None
    graphics: bool = False
    cgroup: str = "/"


@dataclass(slots=True)
class ComputeState:
    """A compute instance; `start` and `size` in compute slices of its GPU instance.

    `mig_index` is the index of its MIG device.
    """

    id: int
    profile_id: int
    start: int
    size: int
    sm_count: int
    mig_index: int


@dataclass(slots=True)
class InstanceState:
    """A GPU instance; `start` and `size` in memory slices, `born` counts creations on this node.

    `active_seconds` is the integral of activity up to `counted_at` (seconds of the node's clock).
    `holders` are clients without process that keep a handle on it.
    """

    id: int
    profile_id: int
    profile: str
    start: int
    size: int
    memory_mib: int
    baseline_mib: int
    born: int
    compute: dict[int, ComputeState] = field(default_factory=dict)
    holders: list[str] = field(default_factory=list)
    active_seconds: float = 0.0
    counted_at: float = 0.0


@dataclass(slots=True)
class GpuState:
    """One GPU. `epoch` counts resets: handles from before one are dead.

    `energy_mj` and `active_seconds` are integrals up to `counted_at`.
    """

    index: int
    board: str
    name: str
    variant: str
    uuid: str
    serial: str
    bus_id: str
    minor: int
    memory_slices: int
    power_limit_mw: int
    mig_current: int = 0
    mig_pending: int = 0
    epoch: int = 0
    lost: bool = False
    instances: dict[int, InstanceState] = field(default_factory=dict)
    jobs: list[Job] = field(default_factory=list)
    holders: list[str] = field(default_factory=list)
    counted_at: float = 0.0
    energy_mj: float = 0.0
    active_seconds: float = 0.0
    ecc_corrected: int = 0
    ecc_uncorrected: int = 0
    remap_pending: bool = False


@dataclass(slots=True)
class Fault:
    """A planned misbehavior of one function.

    It strikes at the `skip`+1-th call from now, then `times` times in all (None: until cleared).
    `gpu` limits it to calls about that GPU index.
    """

    id: int
    function: str
    kind: str
    code: int = 0
    seconds: float = 0.0
    skip: int = 0
    times: int | None = 1
    gpu: int | None = None


@dataclass(slots=True)
class Event:
    """Something the driver tells event sets: `kind` is the nvmlEventType bit."""

    seq: int
    gpu: int
    kind: int
    data: int
    gi_id: int
    ci_id: int


@dataclass(slots=True)
class NodeState:
    """A whole node. `generation` grows at each write, `session` at each driver (re)load."""

    driver: str
    boot_id: str
    gpus: list[GpuState] = field(default_factory=list)
    generation: int = 0
    session: int = 1
    born: int = 0
    next_pid: int = 3_900_000
    next_fault: int = 1
    next_event: int = 1
    boots: int = 1
    driver_loaded: bool = True
    privileged: bool = True
    admin: bool = True
    vgpu_guest: bool = False
    confidential: bool = False
    refuses_in_use: bool = True
    bare_metal_reset: bool = False
    faults: list[Fault] = field(default_factory=list)
    events: list[Event] = field(default_factory=list)


def encode(state: NodeState) -> str:
    """Return the state as JSON."""
    return json.dumps(state, default=_shallow, separators=(",", ":"))


def _shallow(value: object) -> dict[str, object]:
    """Return a value's fields; dataclasses.asdict copies deeply and takes three times as long."""
    names = type(value).__slots__  # type: ignore[attr-defined]  # every class here has slots
    return {name: getattr(value, name) for name in names}


def decode(text: str) -> NodeState:
    """Read what `encode` wrote."""
    raw = json.loads(text)
    raw["gpus"] = [_gpu(entry) for entry in raw["gpus"]]
    raw["faults"] = [Fault(**entry) for entry in raw["faults"]]
    raw["events"] = [Event(**entry) for entry in raw["events"]]
    return NodeState(**_known(NodeState, raw))


def _gpu(raw: dict[str, Any]) -> GpuState:  # decoding JSON
    raw["instances"] = {gi.id: gi for gi in map(_instance, raw["instances"].values())}
    raw["jobs"] = [Job(**entry) for entry in raw["jobs"]]
    return GpuState(**_known(GpuState, raw))


def _instance(raw: dict[str, Any]) -> InstanceState:  # decoding JSON
    found: Iterable[ComputeState] = (ComputeState(**ci) for ci in raw["compute"].values())
    raw["compute"] = {ci.id: ci for ci in found}
    return InstanceState(**raw)


def _known(kind: type, raw: dict[str, Any]) -> dict[str, Any]:  # decoding JSON
    """Drop keys that this version does not know, so that an older process can still read."""
    names = {entry.name for entry in fields(kind)}
    return {key: value for key, value in raw.items() if key in names}
