"""What a file of mig-parted's would make of this node's GPUs, with placements chosen."""

from collections.abc import Iterator
from dataclasses import dataclass, replace

from migscaler.cli.mig_parted import Entry, MigPartedFile, SavedGpu, SavedInstance
from migscaler.control.request import place, why_pinned
from migscaler.errors import CommandRefused, ParseError
from migscaler.model.gpu import GpuState, NodeSnapshot
from migscaler.model.layout import GpuModel, Layout
from migscaler.model.profile import InstanceSpec, Placement


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """One GPU of the node under the file.

    `layout` is what it would have, None where the file names no instances for it or they can't be
    given now; `note` says what to know. `changes`: `apply` would change it. `differs`: it is not as
    in the file, whether or not that can be changed from here.
    """

    gpu: GpuState
    layout: Layout | None = None
    changes: bool = False
    differs: bool = False
    note: str = ""


def targets(
    file: MigPartedFile, name: str | None, snapshot: NodeSnapshot
) -> tuple[tuple[Target, ...], tuple[str, ...]]:
    """Return every GPU of the node under the file, and what of the file concerns none of them.

    Raises:
        ConfigError: the file asks for what a GPU can't have; the one finding says where.
    """
    if file.saved is not None:
        return _of_checkpoint(file, file.saved, snapshot)
    return _of_config(file, file.selected(name), snapshot)


def _of_config(
    file: MigPartedFile, entries: tuple[Entry, ...], snapshot: NodeSnapshot
) -> tuple[tuple[Target, ...], tuple[str, ...]]:
    found = []
    for entry in entries:
        for board in entry.boards:
            words = "boards (the part after the colon) can't be told apart here"
            remedy = f'name the device only: "{board.partition(":")[0]}"'
            file.refuse((*entry.path, "device-filter"), words, remedy)
    for gpu in snapshot.gpus:
        mine = [entry for entry in entries if _matches(file, entry, gpu)]
        # mig-parted applies the entries one after another: the last one stays (cmd/apply).
        found.append(_from_entry(file, mine[-1], gpu) if mine else _unnamed(gpu))
    indices = {gpu.reading.index for gpu in snapshot.gpus}
    named = sorted({index for entry in entries for index in entry.devices or ()} - indices)
    return tuple(found), tuple(f"there is no GPU {index} on this node" for index in named)


def _matches(file: MigPartedFile, entry: Entry, gpu: GpuState) -> bool:
    if entry.devices is not None and gpu.reading.index not in entry.devices:
        return False
    if not entry.device_ids:
        return True
    if gpu.reading.pci_device_id is None:
        words = f"the PCI device id of GPU {gpu.reading.index} can't be read"
        file.refuse((*entry.path, "device-filter"), words, "name the GPUs by devices instead")
    return gpu.reading.pci_device_id in entry.device_ids


def _from_entry(file: MigPartedFile, entry: Entry, gpu: GpuState) -> Target:
    if not entry.enabled:
        return _switched_off(gpu)
    model = gpu.reading.model
    if model is None or not entry.counts:
        return _without_layout(gpu, bool(entry.counts))
    path = (*entry.path, "mig-devices")
    sizes, renamed = [], []
    for name, count in entry.counts:
        profile = model.resolve(name)
        if profile is None:
            words = f"GPU {gpu.reading.index} ({model.name}) has no {name}"
            known = ", ".join(p.name for p in model.profiles)
            if "c." in name:
                known = "only whole instances are made, without a narrower compute instance"
            file.refuse((*path, name), words, f"it has {known}")
        sizes += [profile.name] * count
        if profile.name != name:
            renamed.append(f"{name} is taken as {profile.name}")
    try:
        target = _target(gpu, _placed(model, " ".join(sizes), gpu))
    except (CommandRefused, ParseError) as error:
        file.refuse(path, str(error), f"give GPU {gpu.reading.index} fewer or smaller instances")
    return replace(target, note="; ".join(filter(None, (*renamed, target.note))))


def _placed(model: GpuModel, sizes: str, gpu: GpuState) -> Layout:
    """Choose placements with the fewest changes, beside what is in use as far as that goes."""
    before = gpu.layout or Layout()
    pinned = {one.spec: why_pinned(one) for one in gpu.instances or () if one.pin is not None}
    try:
        return place(model, sizes, before, pinned)
    except CommandRefused:
        return place(model, sizes, before, {})


def _of_checkpoint(
    file: MigPartedFile, saved: tuple[SavedGpu, ...], snapshot: NodeSnapshot
) -> tuple[tuple[Target, ...], tuple[str, ...]]:
    by_uuid = {one.uuid: one for one in saved}
    found = []
    for gpu in snapshot.gpus:
        mine = by_uuid.pop(gpu.uuid, None)
        found.append(_unnamed(gpu) if mine is None else _from_saved(file, mine, gpu))
    return tuple(found), tuple(f"{uuid} is not on this node" for uuid in by_uuid)


def _from_saved(file: MigPartedFile, saved: SavedGpu, gpu: GpuState) -> Target:
    if not saved.enabled:
        return _switched_off(gpu)
    model = gpu.reading.model
    if model is None or not saved.instances:
        return _without_layout(gpu, bool(saved.instances))
    try:
        layout = Layout(tuple(_specs(file, saved.instances, gpu, model)))
    except ParseError as error:
        file.refuse(saved.path, str(error), "make a new checkpoint")
    problem = model.violation(layout)
    if problem is not None:
        words = f"{layout} is not legal on GPU {gpu.reading.index} ({model.name}): {problem}"
        file.refuse(saved.path, words, "make a new checkpoint on this node")
    return _target(gpu, layout)


def _specs(
    file: MigPartedFile, saved: tuple[SavedInstance, ...], gpu: GpuState, model: GpuModel
) -> Iterator[InstanceSpec]:
    """Yield the instances of a checkpoint; placements are checked by the caller."""
    for one in saved:
        profile = next((p for p in model.profiles if p.enum_value == one.profile_enum), None)
        if profile is None:
            words = f"GPU {gpu.reading.index} ({model.name}) has no profile {one.profile_enum}"
            file.refuse(one.path, words, "make a new checkpoint on this node")
        if len(one.compute_profiles) != 1:
            words = f"{profile.name} with {len(one.compute_profiles)} compute instances"
            file.refuse(one.path, words, "only instances with one compute instance are made")
        yield InstanceSpec(Placement(one.start, one.size), profile.name)


def _target(gpu: GpuState, layout: Layout) -> Target:
    """Return what becomes of a GPU that is to have a layout."""
    reading = gpu.reading
    owner = reading.foreign_owner
    if owner is not None:
        differs = layout != gpu.layout
        return Target(gpu=gpu, differs=differs, note=f"left alone: {owner.words}")
    if not reading.mig_enabled:
        command = f"migscaler mig-mode on --gpu {reading.index} --layout '{layout}'"
        note = f"MIG mode is off; first: {command}"
        return Target(gpu=gpu, layout=layout, differs=True, note=note)
    if gpu.layout is None or gpu.instances is None:
        note = "its instances can't be read now"
        return Target(gpu=gpu, layout=layout, differs=True, note=note)
    if layout == gpu.layout:
        return Target(gpu=gpu, layout=layout, note="has it already")
    going = [one for one in gpu.instances if one.pin is not None and one.spec not in layout]
    words = [f"{one.spec} is in the way ({one.explanation or 'in use'})" for one in going]
    return Target(gpu=gpu, layout=layout, changes=True, differs=True, note="; ".join(words))


def _unnamed(gpu: GpuState) -> Target:
    return Target(gpu=gpu, note="not named in the file; stays")


def _switched_off(gpu: GpuState) -> Target:
    if not gpu.reading.mig_enabled:
        return Target(gpu=gpu, note="MIG mode is off, as in the file")
    command = f"migscaler mig-mode off --gpu {gpu.reading.index}"
    return Target(gpu=gpu, differs=True, note=f"the file wants MIG mode off: {command}")


def _without_layout(gpu: GpuState, has_instances: bool) -> Target:
    """Return a GPU for which no layout can be made: no instances wanted, or no profiles known."""
    reading = gpu.reading
    if not has_instances and reading.mig_enabled:
        note = "the file wants no instances; no GPU is left empty, it stays"
        return Target(gpu=gpu, differs=gpu.layout is None or bool(len(gpu.layout)), note=note)
    if reading.mig_enabled is None:
        note = "it is not MIG-capable"
    elif not reading.mig_enabled:
        command = f"migscaler mig-mode on --gpu {reading.index}"
        note = f"MIG mode is off; first: {command}, then import again"
    else:
        note = "its profiles can't be read now"
    return Target(gpu=gpu, differs=True, note=note)
