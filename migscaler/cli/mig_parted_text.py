"""Writes a node's layout as mig-parted does: configuration (counts), or checkpoint (placements).

Formats: see `mig_parted`. What mig-parted would name a profile is what the driver names it: its own
computation gives the same for all 72 catalogued profiles whose GPU's whole memory is known.
"""

import json
import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

from migscaler.model.gpu import ComputeInstance, GpuInstance, GpuReading
from migscaler.model.layout import GpuModel
from migscaler.model.profile import Profile

_PLAIN = re.compile(r"^[A-Za-z][A-Za-z0-9._-]*$")


@dataclass(frozen=True, slots=True, kw_only=True)
class Exported:
    """A text for mig-parted, and what it does not say."""

    text: str
    left_out: tuple[str, ...]


@dataclass(slots=True, kw_only=True)
class _Group:
    """GPUs that are to have the same."""

    enabled: bool
    counts: dict[str, int]
    gpus: list[GpuReading]


def config_text(gpus: Iterable[GpuReading], name: str) -> Exported:
    """Return the configuration that makes these GPUs have what they have: modes and counts.

    GPUs that can't be read, and instances without compute instance, are left out.
    """
    node = tuple(gpus)
    groups: list[_Group] = []
    left_out = []
    for gpu in node:
        if gpu.mig_enabled and gpu.instances is None:
            left_out.append(f"GPU {gpu.index}: its instances can't be read")
            continue
        left_out += _unusable(gpu)
        counts = _counts(gpu) if gpu.mig_enabled else {}
        enabled = bool(gpu.mig_enabled)
        same = next((g for g in groups if (g.enabled, g.counts) == (enabled, counts)), None)
        if same is None:
            groups.append(_Group(enabled=enabled, counts=counts, gpus=[gpu]))
        else:
            same.gpus.append(gpu)
    lines = ["version: v1", "mig-configs:", f"  {_key(name)}:"]
    for group in groups:
        lines += _entry_lines(group, node)
    return Exported(text="\n".join(lines) + "\n", left_out=tuple(left_out))


def checkpoint_text(gpus: Iterable[GpuReading]) -> Exported:
    """Return a checkpoint of these GPUs: modes, instances with their placements.

    As mig-parted's own, it has MIG-capable GPUs only; those that can't be read are left out.
    """
    devices: list[dict[str, object]] = []
    left_out = []
    for gpu in gpus:
        if gpu.mig_enabled is None:
            continue
        if gpu.mig_enabled and not _is_whole(gpu):
            left_out.append(f"GPU {gpu.index}: its instances can't be read")
            continue
        left_out += _unusable(gpu)
        instances = [
            _saved(gpu.model, one.instance) for one in gpu.instances or () if gpu.model is not None
        ]
        devices.append(
            {
                "UUID": gpu.uuid,
                "MigMode": int(gpu.mig_enabled),
                "GpuInstances": instances or None,
            }
        )
    state = {"Version": "v1", "MigState": {"Devices": devices or None}}
    return Exported(text=json.dumps(state) + "\n", left_out=tuple(left_out))


def _is_whole(gpu: GpuReading) -> bool:
    """Say whether everything that a checkpoint says of a GPU is known."""
    computes = [ci for one in gpu.instances or () for ci in one.instance.compute_instances]
    known = gpu.instances is not None and gpu.model is not None
    return known and all(ci.profile_id is not None for ci in computes)


def _unusable(gpu: GpuReading) -> list[str]:
    """Name the instances without compute instance: mig-parted's configuration can't say them."""
    return [
        f"GPU {gpu.index} {one.instance.spec}: it has no compute instance"
        for one in gpu.instances or ()
        if not one.instance.compute_instances
    ]


def _counts(gpu: GpuReading) -> dict[str, int]:
    """Count MIG devices by mig-parted's name: `3g.20gb`, or `1c.3g.20gb` for a narrower one."""
    names = Counter(
        ci_name(gpu.model, one.instance, ci)
        for one in gpu.instances or ()
        for ci in one.instance.compute_instances
    )
    return dict(sorted(names.items()))


def ci_name(model: GpuModel | None, instance: GpuInstance, ci: ComputeInstance) -> str:
    """Return the name of a MIG device as mig-parted writes it (pkg/types/mig_profile.go)."""
    profile = None if model is None else model.find(instance.spec.profile)
    slices = None if profile is None else profile.compute_slices
    if ci.full_width or ci.compute_slices in (None, slices):
        return instance.spec.profile
    return f"{ci.compute_slices}c.{instance.spec.profile}"


def _entry_lines(group: _Group, node: tuple[GpuReading, ...]) -> list[str]:
    """Return the lines of one entry; it names as few GPUs as say the same."""
    ids = {gpu.pci_device_id for gpu in group.gpus}
    alike = [gpu for gpu in node if gpu.pci_device_id in ids]
    lines = []
    # Without every GPU's id a filter could leave one out, so indices alone must do.
    known = all(gpu.pci_device_id is not None for gpu in node)
    if known and len({gpu.pci_device_id for gpu in node}) > 1 and len(group.gpus) < len(node):
        texts = [f'"0x{one:08X}"' for one in sorted(one for one in ids if one is not None)]
        lines.append(f"device-filter: [{', '.join(texts)}]")
    is_all = len(group.gpus) == (len(alike) if known else len(node))
    indices = ", ".join(str(gpu.index) for gpu in group.gpus)
    lines.append(f"devices: {'all' if is_all else f'[{indices}]'}")
    lines.append(f"mig-enabled: {str(group.enabled).lower()}")
    if not group.counts:
        lines.append("mig-devices: {}")
    else:
        lines.append("mig-devices:")
        lines += [f'  "{name}": {count}' for name, count in group.counts.items()]
    first, *others = lines
    return [f"    - {first}", *(f"      {line}" for line in others)]


def _saved(model: GpuModel, instance: GpuInstance) -> dict[str, object]:
    """Return an instance as a checkpoint has it; compute profile ids equal their enums."""
    profile: Profile = model.profile(instance.spec.profile)
    computes = [
        {"ProfileID": ci.profile_id, "EngProfileID": 0} for ci in instance.compute_instances
    ]
    place = instance.spec.placement
    return {
        "ProfileID": profile.enum_value,
        "Placement": {"Start": place.start, "Size": place.size},
        "ComputeInstances": computes or None,
    }


def _key(name: str) -> str:
    """Return a name as a YAML key; JSON's quotes are YAML's."""
    return name if _PLAIN.match(name) else json.dumps(name)
