"""Read the instances of one GPU, orphans included."""

from dataclasses import dataclass

from migscaler.errors import ForeignAnswer, NotSupported, NvmlError, ParseError
from migscaler.hardware.gpu_facts import GpuFacts
from migscaler.hardware.nvml_answers import INVALID_ARGUMENT, NOT_FOUND, Device, GiHandle
from migscaler.hardware.nvml_discovery import ComputeProfiles
from migscaler.hardware.nvml_session import NvmlCalls
from migscaler.model.gpu import ComputeInstance, GpuInstance
from migscaler.model.ids import CiId, GiId, GpuUuid, MigUuid
from migscaler.model.layout import GpuModel, Layout
from migscaler.model.profile import InstanceSpec, Placement, Profile


@dataclass(frozen=True, slots=True, kw_only=True)
class LiveInstance:
    """An instance with the handles of its MIG devices, for this pass only."""

    instance: GpuInstance
    devices: tuple[Device, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class GpuAccess:
    """One GPU in one pass."""

    calls: NvmlCalls
    facts: GpuFacts
    device: Device
    uuid: GpuUuid


def read_instances(gpu: GpuAccess, model: GpuModel) -> tuple[LiveInstance, ...]:
    """Return the instances by rising start: one call per profile with room, four per usable one.

    GPU instances are enumerated by profile id, since a walk over MIG devices misses those without
    compute instance. A profile is left out once none of its placements is free of those found:
    instances never overlap. What another tool changes between two calls is read again, once.

    Raises:
        NvmlError: they can't be enumerated.
        ForeignAnswer: what is there does not fit the model, or changed twice while it was read.
    """
    try:
        return _read_once(gpu, model)
    except NvmlError as error:
        if error.code not in (INVALID_ARGUMENT, NOT_FOUND):
            raise
    except ForeignAnswer:
        pass  # a half-seen change looks like this; if it is no change, it comes again
    return _read_once(gpu, model)


def _read_once(gpu: GpuAccess, model: GpuModel) -> tuple[LiveInstance, ...]:
    found: list[LiveInstance] = []
    covered = 0
    for profile in model.profiles:
        if not any(_mask(start, profile) & covered == 0 for start in profile.starts):
            continue
        for gi in gpu.calls.gpu_instances(gpu.device, profile.profile_id):
            found.append(_read_instance(gpu, gi, profile))
            covered |= found[-1].instance.spec.mask
    try:
        Layout(tuple(live.instance.spec for live in found))
    except ParseError as error:
        raise ForeignAnswer(f"the instances read overlap: {error}") from error
    return tuple(sorted(found, key=lambda live: live.instance.spec))


def _mask(start: int, profile: Profile) -> int:
    """Return the memory slices that an instance of the profile at this start would cover."""
    return ((1 << profile.memory_slices) - 1) << start


def _read_instance(gpu: GpuAccess, gi: GiHandle, profile: Profile) -> LiveInstance:
    info = gpu.calls.gpu_instance_info(gi)
    placement = Placement(info.start, info.size)
    is_legal = info.start in profile.starts and info.size == profile.memory_slices
    if info.profile_id != profile.profile_id or not is_legal:
        raise ForeignAnswer(
            f"GPU instance {info.gi_id} is profile {info.profile_id} at {placement}, "
            f"which {profile.name} does not allow"
        )
    known = gpu.facts.compute_profiles(gpu.calls, gpu.uuid, gi, profile)
    compute, devices = _read_compute(gpu, gi, known)
    if not compute and known.full_width:
        # Without the profile of its compute instances an instance looks as if it had none.
        known = gpu.facts.compute_profiles(gpu.calls, gpu.uuid, gi, profile, anew=True)
        compute, devices = _read_compute(gpu, gi, known)
    if not compute and not known.full_width:
        raise ForeignAnswer(f"no compute profile fills {profile.name}, and nothing is seen on it")
    instance = GpuInstance(
        gi_id=GiId(info.gi_id),
        spec=InstanceSpec(placement, profile.name),
        compute_instances=compute,
    )
    return LiveInstance(instance=instance, devices=devices)


def _read_compute(
    gpu: GpuAccess, gi: GiHandle, known: ComputeProfiles
) -> tuple[tuple[ComputeInstance, ...], tuple[Device, ...]]:
    """Return the compute instances by id and their MIG devices.

    One of full width leaves no room for another, so then no other profile is asked for.
    """
    slices = dict(known.slices)
    found: list[tuple[ComputeInstance, Device]] = []
    for profile_id in (*known.full_width, *known.others):
        full_width = profile_id in known.full_width
        for ci in gpu.calls.compute_instances(gi, profile_id):
            info = gpu.calls.compute_instance_info(ci)
            compute = ComputeInstance(
                ci_id=CiId(info.ci_id),
                mig_uuid=_mig_uuid(gpu, info.device),
                compute_slices=slices[profile_id],
                full_width=full_width,
                profile_id=profile_id,
            )
            found.append((compute, info.device))
        if full_width and found:
            break
    found.sort(key=lambda pair: pair[0].ci_id)
    return tuple(c for c, _ in found), tuple(d for _, d in found)


def _mig_uuid(gpu: GpuAccess, device: Device) -> MigUuid | None:
    try:
        return MigUuid(gpu.calls.uuid(device))
    except NotSupported:
        return None
