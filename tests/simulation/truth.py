"""What is true of a simulated node by its own books, and who was busy when by the harness's own."""

import ctypes
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

from migscaler.model.layout import GpuModel, Layout
from migscaler.model.policy import Mode, Policy
from migscaler.sim.arguments import address
from migscaler.sim.codes import Answered
from migscaler.sim.handles import Kind, gpu_of
from migscaler.sim.node import SimNode
from migscaler.sim.state import GpuState, InstanceState
from migscaler.sim.telemetry import instance_seconds
from tests.simulation.clockwork import VirtualClock

Key = tuple[str, int, int]
"""GPU UUID, GI id and the simulator's own count of creations: never the same twice."""


def key_of(gpu: GpuState, gi: InstanceState) -> Key:
    return gpu.uuid, gi.id, gi.born


def spec_of(gi: InstanceState) -> str:
    return f"{gi.profile}@{gi.start}"


def instances(node: SimNode) -> Iterator[tuple[GpuState, InstanceState]]:
    for gpu in node.state.gpus:
        for gi in gpu.instances.values():
            yield gpu, gi


def gpu_at(node: SimNode, uuid: str) -> GpuState:
    return next(gpu for gpu in node.state.gpus if gpu.uuid == uuid)


def usable(gpu: GpuState) -> Counter[str]:
    """Count the instances with one compute instance, by profile."""
    return Counter(gi.profile for gi in gpu.instances.values() if len(gi.compute) == 1)


def layout_of(node: SimNode, gpu: GpuState) -> Layout:
    model = model_of(node, gpu)
    return Layout(tuple(model.spec(spec_of(gi)) for gi in gpu.instances.values()))


def model_of(node: SimNode, gpu: GpuState) -> GpuModel:
    return node.rules(gpu).model


def runs_on(gpu: GpuState, gi: InstanceState) -> bool:
    return any(job.gi_id == gi.id for job in gpu.jobs)


def aimed_at(
    node: SimNode, arguments: tuple[object, ...]
) -> tuple[GpuState | None, InstanceState | None]:
    """Return the GPU and the instance that a call's first argument names."""
    first = arguments[0] if arguments else None
    if not isinstance(first, ctypes._Pointer):
        return None, None
    try:
        value = address(first)
        gpu = gpu_of(node.state, value)
    except Answered:
        return None, None
    if value >> 48 not in (Kind.GPU_INSTANCE, Kind.COMPUTE_INSTANCE):
        return gpu, None
    return gpu, gpu.instances.get(value >> 16 & 0xFFF)


@dataclass(frozen=True, slots=True, kw_only=True)
class Held:
    """A hold or lease that the harness set; `spec` None means the whole GPU.

    `until` in monotonic seconds: it lasts what was promised, whatever the wall clock does.
    """

    hold_id: int
    gpu: str
    spec: str | None
    kind: str
    until: float

    def covers(self, gpu: GpuState, gi: InstanceState, now: float) -> bool:
        return self.gpu == gpu.uuid and self.spec in (None, spec_of(gi)) and now < self.until


class Ledger:
    """When each instance was last seen busy, or not seen at all, at the moments of sampling."""

    def __init__(self, node: SimNode, clock: VirtualClock, policy: Policy) -> None:
        self._node = node
        self._clock = clock
        self._policy = policy
        self._busy_at: dict[Key, float] = {}
        self._active: dict[Key, float] = {}
        self._sampled_at: float | None = None
        self._before: tuple[dict[Key, float], dict[Key, float], float | None] = ({}, {}, None)
        self.leaks: dict[Key, int] = {}
        self.held: list[Held] = []
        self.paused_until: float | None = None

    def is_paused(self) -> bool:
        """Say whether a person's pause lasts."""
        return self.paused_until is not None and self._clock.monotonic() < self.paused_until

    def forget(self) -> None:
        """Start anew: a process that just started knows of no instance how long it is idle."""
        self._busy_at, self._active, self._sampled_at = {}, {}, None

    def note_sample(self) -> None:
        """Note who is busy at this moment; call right before the node is sampled."""
        now, longest = self._clock.monotonic(), 3 * self._policy.sampling.total_seconds()
        gap = self._sampled_at is None or now - self._sampled_at > longest
        busy_at, active = {}, {}
        for gpu, gi in instances(self._node):
            key = key_of(gpu, gi)
            seconds = instance_seconds(gpu, gi, now)
            busy = gap or gpu.lost or self._is_busy(gpu, gi, seconds)
            # What is new appeared at some time since the last sample.
            busy_at[key] = now if busy else self._busy_at.get(key, self._sampled_at or now)
            active[key] = seconds
        self._before = (self._busy_at, self._active, self._sampled_at)
        self._busy_at, self._active, self._sampled_at = busy_at, active, now

    def undo_sample(self) -> None:
        """Take back the last note: nothing could be read at that moment."""
        self._busy_at, self._active, self._sampled_at = self._before

    def why_not_idle(self, gpu: GpuState, gi: InstanceState) -> str | None:
        """Say why an instance has not been idle for long enough by what the harness knows."""
        quiet = self._clock.monotonic() - self._busy_at.get(
            key_of(gpu, gi), self._clock.monotonic()
        )
        after = self._policy.idle.after.total_seconds()
        return None if quiet >= after - 1e-6 else f"busy or unseen {quiet:.0f} s ago of {after:.0f}"

    def holder(self, gpu: GpuState, gi: InstanceState) -> str | None:
        """Say who holds or leases an instance now."""
        now = self._clock.monotonic()
        found = next((held for held in self.held if held.covers(gpu, gi, now)), None)
        return None if found is None else f"{found.kind} {found.hold_id}"

    def _is_busy(self, gpu: GpuState, gi: InstanceState, seconds: float) -> bool:
        key, now = key_of(gpu, gi), self._clock.monotonic()
        leased = any(held.kind == "lease" and held.covers(gpu, gi, now) for held in self.held)
        return (
            runs_on(gpu, gi) or key in self.leaks or leased or self._was_active(gpu, key, seconds)
        )

    def _was_active(self, gpu: GpuState, key: Key, seconds: float) -> bool:
        """Say whether the GPU itself counted work since the last sample (Hopper and newer)."""
        if not self._node.rules(gpu).board.gpm_supported or self._sampled_at is None:
            return False
        window = self._clock.monotonic() - self._sampled_at
        share = (seconds - self._active.get(key, seconds)) / window if window > 0 else 0.0
        return share >= 2 * self._policy.idle.activity_below


def usable_by_rule(node: SimNode, policy: Policy, ledger: Ledger) -> Counter[str]:
    """Count usable instances per rule on managed GPUs; held and protected ones count nowhere."""
    found: Counter[str] = Counter()
    for gpu, gi in instances(node):
        entry = policy.gpus[gpu.index]
        protected = entry.mode is Mode.OBSERVE and entry.reason
        if len(gi.compute) != 1 or protected or key_of(gpu, gi) in ledger.leaks:
            continue
        if ledger.holder(gpu, gi) is not None and not runs_on(gpu, gi):
            continue
        for rule in policy.rules:
            profile = model_of(node, gpu).resolve(rule.size)
            found[rule.name] += profile is not None and profile.name == gi.profile
    return found
