"""What can befall a simulated node: reboots, lost GPUs, driver changes, other tools, faults."""

import uuid

from migscaler.errors import CommandRefused
from migscaler.sim import gpu as transitions
from migscaler.sim.codes import Answered, Code
from migscaler.sim.jobs import JobControl
from migscaler.sim.state import Event, Fault, GpuState, NodeState

XID_EVENT = 0x8  # nvmlEventTypeXidCriticalError
MIG_EVENT = 0x100  # nvmlEventMigConfigChange
_EVENTS_KEPT = 256
_BOOT_NAMESPACE = uuid.UUID("0d9b8f2a-35c1-5e6f-8a77-4b1c2d3e4f50")


class Incidents(JobControl):
    """Injects everything that does not come through NVML; works from any process."""

    def reboot(self) -> None:
        """Reboot: instances and processes are gone; Ampere keeps its mode, newer GPUs lose it.

        NVML sessions of processes that live on (in tests) answer UNINITIALIZED until they init
        again.
        """
        with self.changing() as state:
            state.boots += 1
            state.boot_id = boot_id_of(state)
            self._reload(state, rebooted=True)

    def restart_driver(self, version: str | None = None) -> None:
        """Reload the driver, or upgrade it to `version`.

        Instances are lost on every generation, the mode on Hopper and newer. After an upgrade each
        library object made before answers LIB_RM_VERSION_MISMATCH for good.
        """
        with self.changing() as state:
            if version is not None:
                state.driver = version
            self._reload(state, rebooted=False)

    def _reload(self, state: NodeState, *, rebooted: bool) -> None:
        state.session += 1
        for gpu in state.gpus:
            transitions.wipe(gpu, self.clock())
            gpu.lost = gpu.lost and not rebooted
            gpu.energy_mj = gpu.active_seconds = 0.0
            if self.rules(gpu).board.mode_survives_reboot:
                gpu.mig_current = gpu.mig_pending
            else:
                gpu.mig_current = gpu.mig_pending = 0

    def reset_gpu(self, gpu: int | str) -> None:
        """Reset one GPU, as `nvidia-smi --gpu-reset`: a pending mode becomes current.

        Raises:
            CommandRefused: a process or client is on it.
        """
        with self.changing() as state:
            found = self.gpu_of(state, gpu)
            if found.jobs or found.holders:
                raise CommandRefused(f"GPU {found.index} is in use by another client")
            transitions.wipe(found, self.clock())
            found.mig_current = found.mig_pending

    def lose_gpu(self, gpu: int | str, *, lost: bool = True) -> None:
        """Let a GPU fall off the bus (XID 79), or bring it back."""
        with self.changing() as state:
            found = self.gpu_of(state, gpu)
            found.lost = lost
            if lost:
                add_event(state, found, XID_EVENT, 79)

    def unload_driver(self, *, loaded: bool = False) -> None:
        """Take the driver away (init answers DRIVER_NOT_LOADED), or bring it back."""
        with self.changing() as state:
            state.driver_loaded = loaded
            self._reload(state, rebooted=False)

    def set_node(
        self,
        *,
        privileged: bool | None = None,
        admin: bool | None = None,
        vgpu_guest: bool | None = None,
        confidential: bool | None = None,
        bare_metal_reset: bool | None = None,
    ) -> None:
        """Change what kind of node it is.

        Unprivileged (mig/monitor alone): changes and privileged queries answer NO_PERMISSION. Not
        admin (mig/config alone): the mode can't be switched. vGPU guest: making
        instances and switching the mode answer NOT_SUPPORTED; so under confidential computing (a
        belief, the strictest one), which GPUs without it refuse to tell. `bare_metal_reset`: the
        driver may reset an idle Ampere GPU itself, so a mode change is active at once; without it
        the change stays pending (RESET_REQUIRED).
        """
        with self.changing() as state:
            if privileged is not None:
                state.privileged = privileged
            if admin is not None:
                state.admin = admin
            if vgpu_guest is not None:
                state.vgpu_guest = vgpu_guest
            if confidential is not None:
                state.confidential = confidential
            if bare_metal_reset is not None:
                state.bare_metal_reset = bare_metal_reset

    def refuse_in_use(self, *, refuses: bool) -> None:
        """Refuse to destroy what a process runs on, as drivers do; or do it and end the process.

        No driver is known to do the latter, but nobody's instance should depend on that.
        """
        with self.changing() as state:
            state.refuses_in_use = refuses

    def raise_xid(self, gpu: int | str, xid: int, gi_id: int | None = None) -> None:
        """Report an XID to every registered event set."""
        with self.changing() as state:
            add_event(state, self.gpu_of(state, gpu), XID_EVENT, xid, gi_id)

    def add_ecc_errors(self, gpu: int | str, *, corrected: int = 0, uncorrected: int = 0) -> None:
        """Count ECC errors on a GPU."""
        with self.changing() as state:
            found = self.gpu_of(state, gpu)
            found.ecc_corrected += corrected
            found.ecc_uncorrected += uncorrected

    def foreign_create(
        self, gpu: int | str, spec: str, *, compute: bool = True, actor: str = "foreign"
    ) -> int:
        """Let another tool make an instance (`3g.20gb@4`, `3g@4`); return its GI id.

        Raises:
            CommandRefused: the driver refuses it.
        """
        with self.changing() as state:
            found = self.gpu_of(state, gpu)
            rules = self.rules(found)
            wanted = rules.model.spec(spec)
            profile = rules.model.profile(wanted.profile)
            place = (wanted.placement.start, wanted.placement.size)
            try:
                made = self.create_instance(found, profile.profile_id, place, actor)
                if compute:
                    row = max(
                        rules.compute[made.profile], key=lambda row: (row.sm_count or 0, -row.ci_id)
                    )
                    self.create_compute(found, made, row.ci_id, None, actor)
            except Answered as answer:
                raise CommandRefused(f"{spec}: the driver answers {answer.code.name}") from answer
            add_event(state, found, MIG_EVENT, 0, made.id)
            return made.id

    def foreign_destroy(self, gpu: int | str, gi_id: int, *, actor: str = "foreign") -> None:
        """Let another tool remove an instance with its compute instances.

        Raises:
            CommandRefused: the driver refuses it; compute instances may be gone all the same.
        """
        problem: Code | None = None
        with self.changing() as state:
            found = self.gpu_of(state, gpu)
            gi = self.instance_of(found, gi_id)
            try:
                for ci in tuple(gi.compute.values()):
                    self.destroy_compute(found, gi, ci, actor)
                self.destroy_instance(found, gi, actor)
                add_event(state, found, MIG_EVENT, 0, gi_id)
            except Answered as answer:
                problem = answer.code
        if problem is not None:
            raise CommandRefused(f"GPU instance {gi_id}: the driver answers {problem.name}")

    def add_fault(self, fault: Fault) -> int:
        """Plan a fault and return its number; see `faults` for ways to write one."""
        with self.changing() as state:
            fault.id, state.next_fault = state.next_fault, state.next_fault + 1
            state.faults.append(fault)
            return fault.id

    def clear_faults(self, fault_id: int | None = None) -> None:
        """Remove one fault, or all; calls that hang on it come back."""
        with self.changing() as state:
            state.faults = [f for f in state.faults if fault_id not in (None, f.id)]


def boot_id_of(state: NodeState) -> str:
    """Return the boot id of the present boot, repeatable for the same node."""
    serials = ",".join(gpu.serial for gpu in state.gpus)
    return str(uuid.uuid5(_BOOT_NAMESPACE, f"{serials}/{state.boots}"))


def add_event(
    state: NodeState, gpu: GpuState, kind: int, data: int, gi_id: int | None = None
) -> None:
    """Queue an event for the event sets; old ones are dropped."""
    whole = 0xFFFFFFFF
    gi = whole if gi_id is None else gi_id
    state.events.append(Event(state.next_event, gpu.index, kind, data, gi, whole))
    state.next_event += 1
    del state.events[:-_EVENTS_KEPT]
