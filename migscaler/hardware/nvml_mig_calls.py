"""Questions and orders to NVML about MIG: profiles, instances and their activity, typed and thin.

Each method is one call (two where the size of the answer must be asked first, or where an old
driver lacks the newer form). Every one raises a class of `NvmlError`. Profile queries take the
enum, everything else takes the profile's id; mixing them up hits another profile.
"""

from ctypes import byref, c_uint
from typing import Any

from migscaler.hardware.nvml_answers import (
    INVALID_ARGUMENT,
    NOT_SUPPORTED,
    CiHandle,
    CiInfo,
    ComputeProfileInfo,
    Device,
    GiHandle,
    GiInfo,
    ProfileInfo,
    SampleHandle,
)
from migscaler.hardware.nvml_calls import Caller

_SHARED_ENGINES = 0  # NVML_COMPUTE_INSTANCE_ENGINE_PROFILE_SHARED, the only one
# NVML does not ask how long an array is, and may write as many as the profile's instanceCount,
# which an A30 overstates. No board has more than 12 slices.
_MAX_GPU_INSTANCES = 16
_MAX_COMPUTE_INSTANCES = 8
_GPM_VERSION = 1  # NVML_GPM_METRICS_GET_VERSION


class MigCalls(Caller):
    """Calls about profiles, GPU instances and compute instances of one GPU."""

    def gpu_profile(self, device: Device, enum_value: int) -> ProfileInfo:
        """Return a GPU instance profile by enum; INVALID_ARGUMENT after the last enum."""

        def ask(version: int) -> Any:
            return self._call(
                "nvmlDeviceGetGpuInstanceProfileInfo",
                device,
                enum_value,
                version,
                expected=(INVALID_ARGUMENT, NOT_SUPPORTED),
            )

        return _profile(self._newest("gi", lambda: ask(2), lambda: ask(1)), enum_value)

    def placements(self, device: Device, profile_id: int) -> tuple[tuple[int, int], ...]:
        """Return every (start, size) of a profile id, occupied ones included; needs privilege."""
        function, count = "nvmlDeviceGetGpuInstancePossiblePlacements", c_uint(0)
        self._call(function, device, profile_id, None, byref(count))
        array = (self._struct("c_nvmlGpuInstancePlacement_t") * max(1, count.value))()
        self._call(function, device, profile_id, array, byref(count))
        return tuple((int(array[i].start), int(array[i].size)) for i in range(count.value))

    def gpu_instances(self, device: Device, profile_id: int) -> tuple[GiHandle, ...]:
        """Return the GPU instances of a profile id."""
        count = c_uint(0)
        array = (self._struct("c_nvmlGpuInstance_t") * _MAX_GPU_INSTANCES)()
        self._call("nvmlDeviceGetGpuInstances", device, profile_id, array, byref(count))
        return tuple(GiHandle(array[i]) for i in range(min(len(array), count.value)))

    def gpu_instance_by_id(self, device: Device, gi_id: int) -> GiHandle:
        """Return the handle of a GPU instance; NOT_FOUND where there is none."""
        return GiHandle(self._call("nvmlDeviceGetGpuInstanceById", device, gi_id))

    def gpu_instance_info(self, gi: GiHandle) -> GiInfo:
        """Return id, profile id and placement."""
        info = self._call("nvmlGpuInstanceGetInfo", gi)
        return GiInfo(
            gi_id=int(info.id),
            profile_id=int(info.profileId),
            start=int(info.placement.start),
            size=int(info.placement.size),
        )

    def create_gpu_instance(
        self, device: Device, profile_id: int, start: int, size: int
    ) -> GiHandle:
        """Create a GPU instance at a placement."""
        placement = self._struct("c_nvmlGpuInstancePlacement_t")(start, size)
        # byref: pynvml sets no argtypes, so a struct by value would reach C as garbage.
        made = self._call(
            "nvmlDeviceCreateGpuInstanceWithPlacement", device, profile_id, byref(placement)
        )
        return GiHandle(made)

    def destroy_gpu_instance(self, gi: GiHandle) -> None:
        """Destroy a GPU instance; IN_USE while anything holds it."""
        self._call("nvmlGpuInstanceDestroy", gi)

    def compute_profile(self, gi: GiHandle, enum_value: int) -> ComputeProfileInfo:
        """Return a compute instance profile by enum; INVALID_ARGUMENT after the last enum."""

        def ask(version: int) -> Any:
            return self._call(
                "nvmlGpuInstanceGetComputeInstanceProfileInfo",
                gi,
                enum_value,
                _SHARED_ENGINES,
                version,
                expected=(INVALID_ARGUMENT, NOT_SUPPORTED),
            )

        info = self._newest("ci", lambda: ask(2), lambda: ask(1))
        return ComputeProfileInfo(
            profile_id=int(info.id),
            enum_value=enum_value,
            slices=int(info.sliceCount),
            instances=int(info.instanceCount),
            sm_count=int(info.multiprocessorCount),
        )

    def compute_instances(self, gi: GiHandle, profile_id: int) -> tuple[CiHandle, ...]:
        """Return the compute instances of a compute profile id in a GPU instance."""
        count = c_uint(0)
        array = (self._struct("c_nvmlComputeInstance_t") * _MAX_COMPUTE_INSTANCES)()
        self._call("nvmlGpuInstanceGetComputeInstances", gi, profile_id, array, byref(count))
        return tuple(CiHandle(array[i]) for i in range(min(len(array), count.value)))

    def compute_instance_by_id(self, gi: GiHandle, ci_id: int) -> CiHandle:
        """Return the handle of a compute instance; NOT_FOUND where there is none."""
        return CiHandle(self._call("nvmlGpuInstanceGetComputeInstanceById", gi, ci_id))

    def compute_instance_info(self, ci: CiHandle) -> CiInfo:
        """Return id, profile id and the MIG device's handle."""
        info = self._call("nvmlComputeInstanceGetInfo_v2", ci)
        return CiInfo(
            ci_id=int(info.id), profile_id=int(info.profileId), device=Device(info.device)
        )

    def create_compute_instance(self, gi: GiHandle, profile_id: int) -> CiHandle:
        """Create a compute instance."""
        return CiHandle(self._call("nvmlGpuInstanceCreateComputeInstance", gi, profile_id))

    def destroy_compute_instance(self, ci: CiHandle) -> None:
        """Destroy a compute instance; IN_USE while anything holds it."""
        self._call("nvmlComputeInstanceDestroy", ci)

    def new_sample(self) -> SampleHandle:
        """Allocate a GPM sample buffer; the caller frees it."""
        return SampleHandle(self._call("nvmlGpmSampleAlloc"))

    def free_sample(self, sample: SampleHandle) -> None:
        """Free a GPM sample buffer."""
        self._call("nvmlGpmSampleFree", sample)

    def fill_sample(self, device: Device, gi_id: int, sample: SampleHandle) -> None:
        """Take a GPM sample of a GPU instance (the handle is the parent's)."""
        self._call("nvmlGpmMigSampleGet", device, gi_id, sample)

    def gpm_percent(
        self, older: SampleHandle, newer: SampleHandle, metrics: tuple[int, ...]
    ) -> tuple[float | None, ...]:
        """Return metrics between two samples as NVML gives them (0-100, NaN happens)."""
        query = self._struct("c_nvmlGpmMetricsGet_t")()
        query.version = _GPM_VERSION
        query.numMetrics = len(metrics)
        query.sample1, query.sample2 = older, newer
        for i, metric in enumerate(metrics):
            query.metrics[i].metricId = metric
        self._call("nvmlGpmMetricsGet", query)
        answers = (query.metrics[i] for i in range(len(metrics)))
        return tuple(None if m.nvmlReturn else float(m.value) for m in answers)


def _profile(info: Any, enum_value: int) -> ProfileInfo:
    """Decode a GPU instance profile; v1 has no name."""
    name = str(getattr(info, "name", ""))
    return ProfileInfo(
        profile_id=int(info.id),
        enum_value=enum_value,
        slices=int(info.sliceCount),
        instances=int(info.instanceCount),
        sm_count=int(info.multiprocessorCount),
        memory_mib=int(info.memorySizeMB),
        copy_engines=int(info.copyEngineCount),
        decoders=int(info.decoderCount),
        encoders=int(info.encoderCount),
        jpegs=int(info.jpegCount),
        ofas=int(info.ofaCount),
        name=name or None,
    )
