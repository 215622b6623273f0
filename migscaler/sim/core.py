"""The core of a simulated node: its state, clock, rules, and the log of what was changed by whom.

Changing operations are the same for the library's callers and for other tools on the node; each is
logged with what it hit, so that tests can judge promises by this log and not by anyone's own
records.
"""

import json
import uuid
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass

from migscaler.model.catalog import Catalog, load_catalog
from migscaler.sim import gpu as transitions
from migscaler.sim.codes import Answered, Code
from migscaler.sim.rules import Rules, build_rules
from migscaler.sim.state import ComputeState, GpuState, InstanceState, NodeState
from migscaler.sim.store import Store

# MIG-<uuid> since this driver; MIG-GPU-<uuid>/<gi>/<ci> before (MIG User Guide, MIG Device Names).
FIRST_DRIVER_WITH_MIG_UUID = (470, 42, 1)
_NAMESPACE = uuid.UUID("6f7a4c1e-5d0b-5a8e-9d3f-0c2b1a998877")


@dataclass(frozen=True, slots=True, kw_only=True)
class CallRecord:
    """One changing call and its answer.

    `at` is the node's clock in seconds; `spec` is `profile@start`, with `?` where no start was
    known; `in_use` says that a process ran on what the call named; `actor` is `nvml` or another
    tool.
    """

    at: float
    function: str
    gpu_uuid: str
    gi_id: int | None
    ci_id: int | None
    spec: str
    code: int
    in_use: bool
    actor: str
    boot_id: str


class NodeCore:
    """State and changing operations of a node; `SimNode` adds jobs and incidents."""

    def __init__(self, store: Store, clock: Callable[[], float]) -> None:
        """Serve the node of a store; `clock` returns seconds and never goes back."""
        self.store = store
        self.clock = clock
        self._catalog: Catalog = load_catalog()
        self._rules: dict[tuple[str, str], Rules] = {}
        self._mig_uuids: dict[tuple[str, int, int], str] = {}

    @property
    def state(self) -> NodeState:
        """Newest state, for reading only."""
        return self.store.read()

    @property
    def boot_id(self) -> str:
        """Identifier of this boot; another one after a reboot."""
        return self.state.boot_id

    def changing(self) -> AbstractContextManager[NodeState]:
        """Give the state to change."""
        return self.store.changing()

    def rules(self, gpu: GpuState) -> Rules:
        """Return what the GPU's board allows under the node's driver."""
        key = (gpu.board, self.state.driver)
        found = self._rules.get(key)
        if found is None:
            board = self._catalog.board(gpu.board)
            found = build_rules(self._catalog, board, driver_branch(key[1]))
            self._rules[key] = found
        return found

    def mig_uuid(self, gpu: GpuState, gi_id: int, ci_id: int) -> str:
        """Return the UUID of a MIG device: from GPU, GI id and CI id alone, so it comes back.

        Source: gpu_uuid.c of the open kernel modules (SHA-1 over chip, serial, GI id, CI syspipe).
        """
        if driver_tuple(self.state.driver) < FIRST_DRIVER_WITH_MIG_UUID:
            return f"MIG-{gpu.uuid}/{gi_id}/{ci_id}"
        key = (gpu.serial, gi_id, ci_id)
        known = self._mig_uuids.get(key)
        if known is None:
            known = f"MIG-{uuid.uuid5(_NAMESPACE, f'{gpu.serial}/{gi_id}/{ci_id}')}"
            self._mig_uuids[key] = known
        return known

    def find_mig(self, text: str) -> tuple[GpuState, InstanceState, ComputeState] | None:
        """Return what a MIG UUID names now."""
        for gpu in self.state.gpus:
            for gi in gpu.instances.values():
                for ci in gi.compute.values():
                    if self.mig_uuid(gpu, gi.id, ci.id) == text:
                        return gpu, gi, ci
        return None

    def create_instance(
        self, gpu: GpuState, profile_id: int, placement: tuple[int, int] | None, actor: str
    ) -> InstanceState:
        """Make a GPU instance; inside `changing()`."""
        rules = self.rules(gpu)
        known = rules.by_id.get(profile_id)
        start = "?" if placement is None else str(placement[0])
        spec = f"{known.name if known else profile_id}@{start}"
        name = "nvmlDeviceCreateGpuInstance" + ("" if placement is None else "WithPlacement")
        with self._logged(gpu, name, actor, spec=spec) as entry:
            made = transitions.create_instance(
                self.state, gpu, rules, profile_id, placement, self.clock()
            )
            entry.update(gi_id=made.id, spec=f"{made.profile}@{made.start}")
        return made

    def destroy_instance(self, gpu: GpuState, gi: InstanceState, actor: str) -> None:
        """Remove a GPU instance; inside `changing()`."""
        used = any(job.gi_id == gi.id for job in gpu.jobs)
        spec = f"{gi.profile}@{gi.start}"
        with self._logged(
            gpu, "nvmlGpuInstanceDestroy", actor, spec=spec, gi_id=gi.id, in_use=used
        ):
            transitions.destroy_instance(self.state, gpu, gi)

    def create_compute(
        self,
        gpu: GpuState,
        gi: InstanceState,
        ci_profile: int,
        placement: tuple[int, int] | None,
        actor: str,
    ) -> ComputeState:
        """Make a compute instance; inside `changing()`."""
        name = "nvmlGpuInstanceCreateComputeInstance" + (
            "" if placement is None else "WithPlacement"
        )
        spec = f"{gi.profile}@{gi.start}"
        with self._logged(gpu, name, actor, spec=spec, gi_id=gi.id) as entry:
            made = transitions.create_compute(
                self.state, gpu, self.rules(gpu), gi, ci_profile, placement
            )
            entry.update(ci_id=made.id)
        return made

    def destroy_compute(
        self, gpu: GpuState, gi: InstanceState, ci: ComputeState, actor: str
    ) -> None:
        """Remove a compute instance; inside `changing()`."""
        used = any(job.gi_id == gi.id and job.ci_id == ci.id for job in gpu.jobs)
        with self._logged(
            gpu,
            "nvmlComputeInstanceDestroy",
            actor,
            spec=f"{gi.profile}@{gi.start}",
            gi_id=gi.id,
            ci_id=ci.id,
            in_use=used,
        ):
            transitions.destroy_compute(self.state, gpu, gi, ci)

    def set_mode(self, gpu: GpuState, mode: int, actor: str) -> Code:
        """Switch MIG mode; return the second status; inside `changing()`."""
        used = bool(gpu.jobs)
        with self._logged(gpu, "nvmlDeviceSetMigMode", actor, spec=f"mode={mode}", in_use=used):
            return transitions.set_mode(self.state, gpu, self.rules(gpu), mode, self.clock())

    @contextmanager
    def _logged(
        self, gpu: GpuState, function: str, actor: str, **known: object
    ) -> Iterator[dict[str, object]]:
        """Log the operation inside, answered or refused."""
        entry: dict[str, object] = {"gi_id": None, "ci_id": None, "in_use": False, **known}
        code = Code.SUCCESS
        try:
            yield entry
        except Answered as answer:
            code = answer.code
            raise
        finally:
            boot = {"boot_id": self.state.boot_id, "gpu_uuid": gpu.uuid, "actor": actor}
            entry.update(boot, at=self.clock(), function=function, code=int(code))
            self.store.append(json.dumps(entry))

    def call_log(self) -> tuple[CallRecord, ...]:
        """Return every changing call on this node so far, by all processes, in order."""
        return tuple(CallRecord(**json.loads(line)) for line in self.store.lines())


def driver_tuple(version: str) -> tuple[int, ...]:
    """Return a driver version as numbers: `550.54.14` is (550, 54, 14)."""
    return tuple(int(part) for part in version.split("."))


def driver_branch(version: str) -> int:
    """Return the branch of a driver version: `550.54.14` is 550."""
    return driver_tuple(version)[0]
