"""Switches MIG mode of one GPU on a person's word; never part of the loop.

On Ampere the change stays pending until the GPU is reset, and other clients of the GPU keep it
pending; Hopper and newer switch at once (MIG User Guide, Getting Started). A GPU is never left with
MIG on and no instance.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from migscaler.control.request import plan_layout
from migscaler.errors import CommandRefused, HardwareError, MigscalerError
from migscaler.model.gpu import GpuReading, GpuState, InstanceState, ModeChange
from migscaler.model.ids import GpuUuid
from migscaler.model.layout import GpuModel, Layout
from migscaler.model.plan import GpuPlan, Outcome, OutcomeKind, Plan, Step, StepAction
from migscaler.model.ports import GpuReader, GpuWriter
from migscaler.store.records import WantedRecord
from migscaler.store.store import Store


@dataclass(frozen=True, slots=True, kw_only=True)
class ModeResult:
    """What became of one GPU: `active` says whether the mode asked for is in force now.

    `layout_made` says whether the GPU has the layout that it was to get; None where none was due.
    """

    gpu: int
    active: bool
    pending_on: str | None
    clients: tuple[str, ...]
    message: str
    layout_made: bool | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ModeSwitch:
    """Switches modes with these parts.

    `carry_out` executes a plan through the journal, `sample` reads the node anew, `record_wish`
    keeps the mode for the next boot, `find_clients` names processes that keep the driver's devices
    open. `store` keeps the layout that a GPU is to get, of the boot `boot_id`.
    """

    reader: GpuReader
    writer: GpuWriter
    carry_out: Callable[[Plan], tuple[Outcome, ...]]
    sample: Callable[[GpuUuid], GpuState]
    record_wish: Callable[[GpuState, bool], None]
    find_clients: Callable[[GpuReading], tuple[str, ...]]
    store: Store
    boot_id: str

    def change(
        self, gpu: GpuState, layout: str | None, *, enabled: bool, dry_run: bool
    ) -> ModeResult:
        """Switch one GPU and say what happened.

        Raises:
            CommandRefused: something uses the GPU, it can't do MIG or not this layout; nothing was
                changed.
            StoreError: what is intended can't be kept; nothing was changed.
            HardwareError: the driver refused, or the GPU does not answer.
        """
        reading = gpu.reading
        index = reading.index
        if reading.mig_enabled is None:
            raise CommandRefused(f"GPU {index} ({reading.name}) has no MIG mode")
        if reading.foreign_owner is not None:
            raise CommandRefused(f"GPU {index} is left alone: {reading.foreign_owner.words}")
        clients = self.find_clients(reading)
        word = "on" if enabled else "off"
        if reading.mig_enabled is enabled and reading.mig_pending is enabled:
            return _as_it_was(gpu, layout) if enabled else _result(index, "MIG is off already")
        self._refuse_if_busy(gpu)
        intended = self._intended(gpu, layout) if enabled else None
        if dry_run:
            how = "a GPU reset will be needed" if reading.mode_change_needs_reset else "at once"
            return _result(index, f"would switch MIG {word} ({how})", active=False, clients=clients)
        change = self._switch_off(gpu) if not enabled else self._switch_on(gpu, intended)
        self.record_wish(gpu, enabled)
        if not change.active:
            if not enabled:
                self._put_back(gpu)
            return _result(
                index,
                f"MIG {word} is pending until the GPU is reset: stop "
                f"{', '.join(clients) or 'every client of the GPU'}, then "
                f"`nvidia-smi --gpu-reset -i {index}` or reboot",
                active=False,
                pending_on=change.pending_on or "reset",
                clients=clients,
            )
        return self._populated(gpu, layout) if enabled else _result(index, "MIG is off")

    def _refuse_if_busy(self, gpu: GpuState) -> None:
        """Refuse while anything uses the GPU."""
        index = gpu.reading.index
        # The picture is as old as the wait for a running plan; the last word is a reading of now.
        now = self.reader.read_gpu(gpu.uuid)
        if now.foreign_owner is not None:  # an answer denied until now may have hidden it
            raise CommandRefused(f"GPU {index} is left alone: {now.foreign_owner.words}")
        if now.processes:
            users = ", ".join(map(str, now.processes))
            raise CommandRefused(f"GPU {index} is in use by {users}; stop it first")
        if now.mig_enabled and gpu.instances is not None and now.layout != gpu.layout:
            raise CommandRefused(f"somebody is changing GPU {index}: it has {now.layout} now")
        unseen = now.processes is None if now.mig_enabled is False else now.instances is None
        if unseen or gpu.instances is None:
            why = "; ".join(gap.why for gap in now.gaps) or "no answer"
            raise CommandRefused(f"what is on GPU {index} can't be seen: {why}")
        pinned = [state for state in gpu.instances or () if state.pin is not None]
        if pinned:
            raise CommandRefused(f"GPU {index} is not free: {_pinned_text(pinned[0])}")
        if busy := [one for one in now.instances or () if one.processes]:
            users = ", ".join(map(str, busy[0].processes or ()))
            raise CommandRefused(f"{busy[0].instance.spec} on GPU {index} is in use by {users}")

    def _intended(self, gpu: GpuState, layout: str | None) -> Layout | None:
        """Return what a GPU gets once MIG is on; None where its profiles are not told before."""
        model = gpu.reading.model
        if model is None:
            return None
        plan = plan_layout(gpu, layout or _usual(gpu, model))
        return gpu.layout if plan is None else plan.after

    def _switch_on(self, gpu: GpuState, intended: Layout | None) -> ModeChange:
        """Ask for MIG mode on, with its layout kept first.

        A process that ends right after the switch leaves the GPU empty; the next start then makes
        what is wanted. On Ampere that may be another boot.
        """
        known = {record.gpu_uuid: record for record in self.store.wanted()}.get(gpu.uuid)
        if intended is not None:
            self.store.write_wanted(gpu.uuid, intended, self.boot_id)
        try:
            return self.writer.set_mig_mode(gpu.uuid, enabled=True)
        except HardwareError:
            if self._is_off(gpu.uuid):
                self._want_again(gpu.uuid, known)
            raise

    def _is_off(self, uuid: GpuUuid) -> bool:
        """Say whether MIG is known to be off and to stay so: the answer may have been lost."""
        try:
            now = self.reader.read_gpu(uuid)
        except HardwareError:
            return False
        return now.mig_enabled is False and now.mig_pending is False

    def _want_again(self, uuid: GpuUuid, known: WantedRecord | None) -> None:
        """Take back a layout kept for a switch that did not happen: a reboot would make it."""
        if known is None:
            self.store.forget_wanted(uuid)
        else:
            self.store.write_wanted(uuid, known.layout, known.boot_id, known.at)

    def _switch_off(self, gpu: GpuState) -> ModeChange:
        """Remove what is idle and ask for MIG mode off."""
        self._clear(gpu)
        try:
            return self.writer.set_mig_mode(gpu.uuid, enabled=False)
        except HardwareError:
            self._put_back(gpu)
            raise

    def _clear(self, gpu: GpuState) -> None:
        """Remove the idle instances, through the journal."""
        before = gpu.layout
        if before is None or not len(before):
            return
        steps = tuple(Step(action=StepAction.DESTROY, spec=spec) for spec in before.specs)
        plan = GpuPlan(gpu_uuid=gpu.uuid, before=before, after=Layout(), steps=steps)
        (outcome,) = self.carry_out(Plan(gpu_plans=(plan,)))
        if outcome.kind is not OutcomeKind.DONE:
            raise CommandRefused(f"GPU {gpu.reading.index}: {outcome.explanation}")

    def _put_back(self, gpu: GpuState) -> None:
        """Rebuild what was removed for a switch that did not happen."""
        before, now = gpu.layout, self.sample(gpu.uuid)
        if before is None or now.layout is None or now.layout == before or not len(before):
            return
        plan = plan_layout(now, str(before))
        if plan is not None:
            self.carry_out(Plan(gpu_plans=(plan,)))

    def _populated(self, gpu: GpuState, layout: str | None) -> ModeResult:
        """Give a GPU that has just been switched on its first layout; say whether it has it.

        What keeps it from that is told with the mode: as a refusal it would pass for no switch.
        """
        try:
            made, problem = self._populate(gpu, layout)
        except MigscalerError as error:
            made, problem = None, str(error)
        if problem is None:
            return _result(
                gpu.reading.index, f"MIG is on with {made}" if made else "MIG is on", is_made=True
            )
        text = f"MIG is on, but its layout could not be made: {problem}"
        return _result(gpu.reading.index, text, is_made=False)

    def _populate(self, gpu: GpuState, layout: str | None) -> tuple[Layout | None, str | None]:
        """Make the layout; return it (None: it is there already), or why it is not there."""
        now = self.sample(gpu.uuid)
        model = now.reading.model
        if model is None:
            return None, "the GPU offers no profiles"
        plan = plan_layout(now, layout or _usual(now, model))
        if plan is None:
            return None, None
        (outcome,) = self.carry_out(Plan(gpu_plans=(plan,)))
        is_done = outcome.kind is OutcomeKind.DONE
        return plan.after, None if is_done else outcome.explanation


def _result(
    index: int,
    message: str,
    *,
    active: bool = True,
    pending_on: str | None = None,
    clients: tuple[str, ...] = (),
    is_made: bool | None = None,
) -> ModeResult:
    """Build the answer."""
    return ModeResult(
        gpu=index,
        active=active,
        pending_on=pending_on,
        clients=clients,
        message=message,
        layout_made=is_made,
    )


def _as_it_was(gpu: GpuState, layout: str | None) -> ModeResult:
    """Return the answer for a GPU whose mode is on: its layout is for `apply` to change.

    Raises:
        CommandRefused: something in use is in the way of the layout that was asked for.
        ParseError: that is no legal layout.
    """
    index, model = gpu.reading.index, gpu.reading.model
    if layout is None and gpu.layout:
        return _result(index, "MIG is on already", is_made=True)
    if model is None or gpu.layout is None:
        why = "; ".join(gap.why for gap in gpu.reading.gaps) or "it offers no profiles"
        return _result(
            index,
            f"MIG is on already; whether it has its layout can't be told: {why}",
            is_made=False,
        )
    wanted = layout or _usual(gpu, model)
    if plan_layout(gpu, wanted) is None:
        return _result(index, "MIG is on already", is_made=True)
    has = f"with {gpu.layout}" if len(gpu.layout) else "without any instance"
    text = f'MIG is on already, {has}; next: migscaler apply --gpu {index} --layout "{wanted}"'
    return _result(index, text, is_made=False)


def _usual(gpu: GpuState, model: GpuModel) -> str:
    """Return what a GPU gets where nothing is named: what it has, else one whole instance.

    It has instances where a switch off that is still pending is taken back.
    """
    return str(gpu.layout) if gpu.layout is not None and len(gpu.layout) else _whole(model)


def one_by_one(
    gpus: Iterable[GpuState], change: Callable[[GpuState], ModeResult]
) -> list[ModeResult]:
    """Switch GPU by GPU; the first that can't be switched ends it and is told after the others.

    So does the first that did not get its layout: the next one might be left empty too.

    Raises:
        MigscalerError: not even the first could be switched.
    """
    results: list[ModeResult] = []
    for gpu in gpus:
        try:
            results.append(change(gpu))
            if results[-1].layout_made is False:
                break
        except MigscalerError as error:
            if not results:
                raise
            text = f"not switched: {error}"
            failed = ModeResult(
                gpu=gpu.reading.index, active=False, pending_on=None, clients=(), message=text
            )
            return [*results, failed]
    return results


def _whole(model: GpuModel) -> str:
    """Return the plain profile that covers the whole GPU."""
    return max(
        (p for p in model.profiles if p.size_class.isalnum()),
        key=lambda p: (p.memory_slices, p.compute_slices),
    ).name


def _pinned_text(state: InstanceState) -> str:
    """Return which instance must stay and why."""
    why = state.explanation or (state.pin.value if state.pin else "")
    return f"{state.spec} must stay ({why})"
