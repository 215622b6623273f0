"""What stays the same about a GPU between passes, kept so that a sample asks little."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar, cast

from migscaler.errors import ForeignAnswer, NotSupported
from migscaler.hardware.nvml_answers import FUNCTION_NOT_FOUND, Device, GiHandle
from migscaler.hardware.nvml_discovery import ComputeProfiles, read_compute_profiles, read_model
from migscaler.hardware.nvml_session import NvmlCalls
from migscaler.model.gpu import GpuOwner
from migscaler.model.ids import GpuUuid
from migscaler.model.layout import GpuModel
from migscaler.model.profile import Profile

_AMPERE, _HOPPER = 7, 9  # NVML_DEVICE_ARCH_*
_VGPU_GUEST = 2  # NVML_GPU_VIRTUALIZATION_MODE_VGPU
_MIB = 1024 * 1024

T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class GpuIdentity:
    """What a GPU is; None where it does not say. Memory in bytes."""

    name: str
    serial: str | None
    minor: int | None
    pci_bus_id: str | None
    pci_device_id: int | None
    mode_change_needs_reset: bool | None
    foreign_owner: GpuOwner | None
    memory_total_bytes: int | None


class GpuFacts:
    """Identities, models and compute profiles per GPU.

    They hold while MIG mode and driver last: a mode change resets the GPU (and may move its minor
    number), so facts go with the mode they were read in. Nothing that lives and dies is kept, no
    handle. What a GPU denies (NOT_SUPPORTED) is kept of nothing that a decision rests on: it may
    have been said once too often.
    """

    def __init__(self) -> None:
        self._told: dict[tuple[GpuUuid, str], object] = {}
        self._confidential: bool | None = None
        self._models: dict[GpuUuid, GpuModel] = {}
        self._compute: dict[tuple[GpuUuid, int], ComputeProfiles] = {}
        self._modes: dict[GpuUuid, bool | None] = {}
        self._gpm: dict[GpuUuid, bool] = {}
        self._unsupported: set[tuple[GpuUuid, str]] = set()
        self._answered: set[tuple[GpuUuid, str]] = set()

    def forget(self, uuid: GpuUuid) -> None:
        """Drop everything about a GPU."""
        self._models.pop(uuid, None)
        self._modes.pop(uuid, None)
        self._gpm.pop(uuid, None)
        self._told = {k: v for k, v in self._told.items() if k[0] != uuid}
        self._compute = {k: v for k, v in self._compute.items() if k[0] != uuid}
        self._unsupported = {k for k in self._unsupported if k[0] != uuid}
        self._answered = {k for k in self._answered if k[0] != uuid}

    def doubt(self, uuid: GpuUuid) -> None:
        """Have what a GPU is asked for anew; what it offers, it has shown."""
        answered = self._answered
        self.forget(uuid)
        self._answered = answered

    def forget_all(self) -> None:
        """Drop everything, as after a driver load."""
        self._confidential = None
        for uuid in tuple(self._modes) + tuple(uuid for uuid, _ in self._told):
            self.forget(uuid)

    def note_mode(self, uuid: GpuUuid, *, enabled: bool | None) -> None:
        """Take note of MIG mode; facts read in the other mode are dropped."""
        if uuid in self._modes and self._modes[uuid] is not enabled:
            self.forget(uuid)
        self._modes[uuid] = enabled

    def offered(self, uuid: GpuUuid, key: str, ask: Callable[[], T]) -> T | None:
        """Return an answer, None where this GPU does not offer it; then it is not asked again."""
        if (uuid, key) in self._unsupported:
            return None
        try:
            return ask()
        except NotSupported:
            self._unsupported.add((uuid, key))
            return None

    def offered_now(self, uuid: GpuUuid, key: str, ask: Callable[[], T]) -> T | None:
        """Return an answer, None where this GPU has not offered it so far; asked again each time.

        For what a decision rests on: there one NOT_SUPPORTED too many must not stand for ever, and
        none counts after an answer. A driver without the function is not asked again.

        Raises:
            ForeignAnswer: it was offered before.
        """
        if (uuid, key) in self._unsupported:
            return None
        try:
            found = ask()
        except NotSupported as error:
            if error.code == FUNCTION_NOT_FOUND:
                self._unsupported.add((uuid, key))
            elif (uuid, key) in self._answered:
                raise ForeignAnswer(f"{error}, and did not before") from error
            return None
        self._answered.add((uuid, key))
        return found

    def has_gpm(self, uuid: GpuUuid) -> bool:
        """Say whether the GPU has shown that it has GPM."""
        return self._gpm.get(uuid, False)

    def learn_gpm(self, calls: NvmlCalls, device: Device, uuid: GpuUuid) -> bool:
        """Say whether the GPU has GPM; asked at each sample until it says so or not."""
        if uuid not in self._gpm:
            found = self.offered_now(uuid, "gpm", lambda: calls.gpm_supported(device))
            if found is not None:
                self._gpm[uuid] = found
        return self.has_gpm(uuid)

    def identity(self, calls: NvmlCalls, device: Device, uuid: GpuUuid) -> GpuIdentity:
        """Return what the GPU is; eight calls the first time, then one for each that it denied.

        Raises:
            NvmlError: it does not answer, or has no name.
            ForeignAnswer: it denies what it told before.
        """
        architecture = self._once(uuid, "architecture", lambda: calls.architecture(device))
        mode = self._once(uuid, "virtualization", lambda: calls.virtualization_mode(device))
        pci = self._once(uuid, "pci", lambda: calls.pci(device))
        return GpuIdentity(
            name=self._name(calls, device, uuid),
            serial=self._once(uuid, "serial", lambda: calls.serial(device)),
            minor=self._once(uuid, "minor", lambda: calls.minor(device)),
            pci_bus_id=None if pci is None else pci.bus_id,
            pci_device_id=None if pci is None else pci.device_id,
            mode_change_needs_reset=None if architecture is None else architecture <= _AMPERE,
            foreign_owner=_owner(mode, self._is_confidential(calls, uuid, architecture)),
            memory_total_bytes=self._once(uuid, "memory", lambda: calls.memory_total_bytes(device)),
        )

    def _name(self, calls: NvmlCalls, device: Device, uuid: GpuUuid) -> str:
        """Return the GPU's name: without one it is nothing, so a second answer, or error, counts.

        Raises:
            NvmlError: it has none.
        """
        if (uuid, "name") not in self._told:
            try:
                name = calls.name(device)
            except NotSupported:
                name = calls.name(device)
            self._told[uuid, "name"] = name
        return cast("str", self._told[uuid, "name"])

    def _once(self, uuid: GpuUuid, key: str, ask: Callable[[], T]) -> T | None:
        """Return what a GPU has told; until it does it is asked each time, as by `offered_now`."""
        if (uuid, key) not in self._told:
            found = self.offered_now(uuid, key, ask)
            if (uuid, key) not in self._answered:
                return None
            self._told[uuid, key] = found
        return cast("T | None", self._told[uuid, key])  # the answer to this key's `ask`

    def _is_confidential(
        self, calls: NvmlCalls, uuid: GpuUuid, architecture: int | None
    ) -> bool | None:
        """Say whether confidential computing is on: a setting of the node, one answer is for all.

        None as long as there is none. Where the GPU is too old to have it that is believed at once,
        or a node of such GPUs would be asked for ever.
        """
        if self._confidential is None:
            is_too_old = architecture is not None and architecture < _HOPPER
            ask = self.offered if is_too_old else self.offered_now
            self._confidential = ask(uuid, "confidential", calls.confidential_computing)
        return self._confidential

    def model(
        self, calls: NvmlCalls, device: Device, uuid: GpuUuid, branch: int | None
    ) -> GpuModel:
        """Return what the GPU allows; about three calls per profile the first time.

        Raises:
            HardwareError: it can't be read; asked again at the next pass.
        """
        known = self._models.get(uuid)
        if known is None:
            identity = self.identity(calls, device, uuid)
            known = self._models[uuid] = read_model(
                calls,
                device,
                name=identity.name,
                memory_mib=(identity.memory_total_bytes or 0) // _MIB,
                branch=branch,
            )
        return known

    def compute_profiles(
        self, calls: NvmlCalls, uuid: GpuUuid, gi: GiHandle, profile: Profile, *, anew: bool = False
    ) -> ComputeProfiles:
        """Return the compute profiles of a GPU instance's profile; ten calls the first time.

        Kept once one of full width is among them: each GPU instance has one, so a list without was
        cut short by a driver that denied it once.
        """
        key = (uuid, profile.profile_id)
        known = None if anew else self._compute.get(key)
        if known is None:
            known = read_compute_profiles(calls, gi, profile.sm_count)
            if known.full_width:
                self._compute[key] = known
        return known


def _owner(virtualization_mode: int | None, confidential: bool | None) -> GpuOwner | None:
    """Return who has the say over the layout, None: this node.

    A guest's changes are answered NOT_SUPPORTED (nvml.h, nvmlDeviceCreateGpuInstance). No page of
    NVIDIA's read says that MIG may be used with confidential computing (release notes R550 TRD1
    speak of whole GPUs), so such GPUs are left alone.
    """
    if virtualization_mode == _VGPU_GUEST:
        return GpuOwner.HYPERVISOR
    return GpuOwner.CONFIDENTIAL_COMPUTING if confidential else None
