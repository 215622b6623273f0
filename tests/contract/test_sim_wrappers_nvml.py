"""Every function of the simulated library, called through the wrappers of the real nvidia-ml-py."""

from collections.abc import Callable, Iterator
from ctypes import byref, c_uint
from typing import Any

import pynvml
import pytest

from migscaler.sim.node import SimNode, build_node
from migscaler.sim.nvml_library import NvmlLibrary, all_symbols

# nvidia-ml-py calls nvmlInitWithFlags for its nvmlInit; other programs may call this one.
WITHOUT_WRAPPER = {"nvmlInit_v2"}


class Recording:
    """The library, with a note of what was asked for."""

    def __init__(self, library: NvmlLibrary) -> None:
        self._library = library
        self.called: set[str] = set()

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._library, name)
        self.called.add(name)
        return found


@pytest.fixture
def loaded() -> Iterator[tuple[SimNode, Recording]]:
    node = build_node("H100-80GB,A30", "580.65.06", mig=[True, False])
    recording = Recording(NvmlLibrary(node))
    pynvml.nvmlLib = recording
    pynvml._nvmlGetFunctionPointer_cache.clear()
    pynvml.nvmlInit()
    yield node, recording
    pynvml.nvmlLib = None
    pynvml._nvmlGetFunctionPointer_cache.clear()


def refused(call: Callable[[], object]) -> None:
    """Make a call that this GPU answers NOT_SUPPORTED or NOT_FOUND."""
    with pytest.raises((pynvml.NVMLError_NotSupported, pynvml.NVMLError_NotFound)):
        call()


def system_calls() -> None:
    assert pynvml.nvmlSystemGetDriverVersion() == "580.65.06"
    assert pynvml.nvmlSystemGetDriverBranch().branch == "r580_00"
    assert pynvml.nvmlSystemGetNVMLVersion() == "13.580.65.06"
    assert pynvml.nvmlSystemGetCudaDriverVersion() == 13000
    assert pynvml.nvmlSystemGetCudaDriverVersion_v2() == 13000
    refused(lambda: pynvml.nvmlSystemGetProcessName(1))
    assert pynvml.nvmlErrorString(23) == "Insufficient Resources"
    assert pynvml.nvmlDeviceGetCount() == 2


def device_calls(device: Any, node: SimNode, index: int) -> None:
    gpu = node.state.gpus[index]
    by_serial = pynvml.nvmlDeviceGetHandleBySerial(gpu.serial)
    assert pynvml.nvmlDeviceGetUUID(by_serial) == gpu.uuid
    assert pynvml.nvmlDeviceGetIndex(pynvml.nvmlDeviceGetHandleByUUID(gpu.uuid)) == index
    assert pynvml.nvmlDeviceGetIndex(pynvml.nvmlDeviceGetHandleByPciBusId(gpu.bus_id)) == index
    assert pynvml.nvmlDeviceGetName(device) == gpu.name
    assert pynvml.nvmlDeviceGetSerial(device) == gpu.serial
    assert pynvml.nvmlDeviceGetPciInfo(device).busId == gpu.bus_id
    assert pynvml.nvmlDeviceGetMinorNumber(device) == index
    assert pynvml.nvmlDeviceGetBrand(device) == pynvml.NVML_BRAND_NVIDIA
    assert pynvml.nvmlDeviceGetPersistenceMode(device) == 1
    assert pynvml.nvmlDeviceGetVirtualizationMode(device) == 0
    assert pynvml.nvmlSystemGetConfComputeState().ccFeature == 0
    assert pynvml.nvmlDeviceGetArchitecture(device) == {0: 9, 1: 7}[index]
    assert pynvml.nvmlDeviceGetCudaComputeCapability(device) == {0: (9, 0), 1: (8, 0)}[index]
    limit = {0: 700_000, 1: 165_000}[index]
    assert pynvml.nvmlDeviceGetPowerUsage(device) < limit
    assert pynvml.nvmlDeviceGetPowerManagementLimit(device) == limit
    assert pynvml.nvmlDeviceGetPowerManagementDefaultLimit(device) == limit
    assert pynvml.nvmlDeviceGetEnforcedPowerLimit(device) == limit
    assert pynvml.nvmlDeviceGetTotalEnergyConsumption(device) >= 0
    assert pynvml.nvmlDeviceGetTemperature(device, 0) == pynvml.nvmlDeviceGetTemperatureV(device, 0)
    assert pynvml.nvmlDeviceGetClockInfo(device, 1) <= pynvml.nvmlDeviceGetMaxClockInfo(device, 1)
    assert pynvml.nvmlDeviceGetPerformanceState(device) == 0
    assert pynvml.nvmlDeviceGetDisplayMode(device) == 0
    assert pynvml.nvmlDeviceGetDisplayActive(device) == 0
    assert pynvml.nvmlDeviceGetPcieThroughput(device, 0) == 0
    refused(lambda: pynvml.nvmlDeviceGetFanSpeed(device))
    refused(lambda: pynvml.nvmlDeviceGetProcessUtilization(device, 0))
    assert pynvml.nvmlDeviceGetEccMode(device) == [1, 1]
    assert pynvml.nvmlDeviceGetTotalEccErrors(device, 1, 0) == 0
    assert pynvml.nvmlDeviceGetMemoryErrorCounter(device, 1, 0, 7) == 0
    assert pynvml.nvmlDeviceGetRemappedRows(device) == (0, 0, 0, 0)
    assert pynvml.nvmlDeviceGetFieldValues(device, [184])[0].nvmlReturn == 0
    assert pynvml.nvmlDeviceGetMigMode(device) == {0: [1, 1], 1: [0, 0]}[index]


def calls_without_mig(device: Any, node: SimNode) -> None:
    pid = node.start_job(1, activity=0.5, memory_mib=100)
    assert pynvml.nvmlDeviceGetUtilizationRates(device).gpu == 50
    assert pynvml.nvmlDeviceGetEncoderUtilization(device)[0] == 0
    assert pynvml.nvmlDeviceGetDecoderUtilization(device)[0] == 0
    assert pynvml.nvmlDeviceGetComputeMode(device) == 0
    assert pynvml.nvmlDeviceGetMemoryInfo(device).total == 24576 * 1024 * 1024
    second = pynvml.nvmlDeviceGetMemoryInfo(device, version=pynvml.nvmlMemory_v2)
    assert second.reserved + second.used + second.free == second.total
    for version in ("_v2", "_v3"):
        compute = getattr(pynvml, f"nvmlDeviceGetComputeRunningProcesses{version}")
        graphics = getattr(pynvml, f"nvmlDeviceGetGraphicsRunningProcesses{version}")
        assert [process.pid for process in compute(device)] == [pid]
        assert graphics(device) == []
    assert pynvml.nvmlDeviceGetMPSComputeRunningProcesses(device) == []
    details = pynvml.nvmlDeviceGetRunningProcessDetailList(
        device, pynvml.nvmlProcessDetailList_v1, 0
    )
    assert [(one.pid, one.usedGpuMemory) for one in details] == [(pid, 100 * 1024 * 1024)]
    assert pynvml.nvmlDeviceSetMigMode(device, 0) == 0


def mig_calls(device: Any) -> None:
    info = pynvml.nvmlDeviceGetGpuInstanceProfileInfo(device, 2)
    assert (info.id, info.name, info.memorySizeMB) == (9, "MIG 3g.40gb", 40448)
    assert pynvml.nvmlDeviceGetGpuInstanceProfileInfo(device, 2, version=1).id == 9
    assert pynvml.nvmlDeviceGetGpuInstanceProfileInfoById(device, 9).name == "MIG 3g.40gb"
    assert pynvml.nvmlDeviceGetGpuInstanceRemainingCapacity(device, 9) == 2
    count = c_uint()
    pynvml.nvmlDeviceGetGpuInstancePossiblePlacements(device, 9, None, byref(count))
    room = (pynvml.c_nvmlGpuInstancePlacement_t * count.value)()
    pynvml.nvmlDeviceGetGpuInstancePossiblePlacements(device, 9, room, byref(count))
    gi = pynvml.nvmlDeviceCreateGpuInstanceWithPlacement(device, 9, byref(room[1]))
    assert pynvml.nvmlGpuInstanceGetInfo(gi).placement.start == 4
    other = pynvml.nvmlDeviceCreateGpuInstance(device, 9)
    found = (pynvml.c_nvmlGpuInstance_t * 2)()
    pynvml.nvmlDeviceGetGpuInstances(device, 9, found, byref(count))
    assert [pynvml.nvmlGpuInstanceGetInfo(one).id for one in found] == [2, 1]
    pynvml.nvmlGpuInstanceDestroy(other)
    compute_calls(pynvml.nvmlDeviceGetGpuInstanceById(device, 2), device)


def compute_calls(gi: Any, device: Any) -> None:
    full = pynvml.nvmlGpuInstanceGetComputeInstanceProfileInfo(gi, 2, 0)
    assert (full.name, full.multiprocessorCount) == ("MIG 3g.40gb", 60)
    assert pynvml.nvmlGpuInstanceGetComputeInstanceProfileInfo(gi, 2, 0, version=1).sliceCount == 3
    assert pynvml.nvmlGpuInstanceGetComputeInstanceRemainingCapacity(gi, 2) == 1
    room = (pynvml.c_nvmlComputeInstancePlacement_t * 3)()
    count = c_uint(3)
    pynvml.nvmlGpuInstanceGetComputeInstancePossiblePlacements(gi, 2, room, byref(count))
    assert (count.value, room[0].start, room[0].size) == (1, 0, 3)
    first = pynvml.nvmlGpuInstanceCreateComputeInstanceWithPlacement(gi, 2, byref(room[0]))
    pynvml.nvmlComputeInstanceDestroy(first)
    pynvml.nvmlGpuInstanceCreateComputeInstance(gi, 2)
    found = (pynvml.c_nvmlComputeInstance_t * 1)()
    pynvml.nvmlGpuInstanceGetComputeInstances(gi, 2, found, byref(count))
    info = pynvml.nvmlComputeInstanceGetInfo(pynvml.nvmlGpuInstanceGetComputeInstanceById(gi, 0))
    assert (count.value, info.id, info.profileId) == (1, 0, 2)
    assert pynvml.nvmlDeviceIsMigDeviceHandle(info.device)
    assert pynvml.nvmlDeviceGetGpuInstanceId(info.device) == 2
    assert pynvml.nvmlDeviceGetComputeInstanceId(info.device) == 0
    assert pynvml.nvmlDeviceGetMaxMigDeviceCount(device) == 7
    walked = pynvml.nvmlDeviceGetMigDeviceHandleByIndex(device, 0)
    assert pynvml.nvmlDeviceGetUUID(walked) == pynvml.nvmlDeviceGetUUID(info.device)
    parent = pynvml.nvmlDeviceGetDeviceHandleFromMigDeviceHandle(walked)
    assert pynvml.nvmlDeviceGetUUID(parent) == pynvml.nvmlDeviceGetUUID(device)
    assert pynvml.nvmlDeviceGetAttributes(walked).gpuInstanceSliceCount == 3


def gpm_and_event_calls(device: Any) -> None:
    assert pynvml.nvmlGpmQueryDeviceSupport(device).isSupportedDevice == 1
    pynvml.nvmlGpmSetStreamingEnabled(device, 1)
    one, two = pynvml.nvmlGpmSampleAlloc(), pynvml.nvmlGpmSampleAlloc()
    pynvml.nvmlGpmSampleGet(device, one)
    pynvml.nvmlGpmMigSampleGet(device, 2, two)
    wanted = pynvml.c_nvmlGpmMetricsGet_t()
    wanted.version, wanted.numMetrics = 1, 1
    wanted.sample1, wanted.sample2 = one, two
    wanted.metrics[0].metricId = 1
    assert pynvml.nvmlGpmMetricsGet(wanted).metrics[0].nvmlReturn == 21  # too early
    pynvml.nvmlGpmSampleFree(one)
    pynvml.nvmlGpmSampleFree(two)
    with pytest.raises(pynvml.NVMLError_InvalidArgument):
        pynvml.nvmlGpmSampleFree(two)
    events = pynvml.nvmlEventSetCreate()
    types = pynvml.nvmlDeviceGetSupportedEventTypes(device)
    pynvml.nvmlDeviceRegisterEvents(device, types, events)
    with pytest.raises(pynvml.NVMLError_Timeout):
        pynvml.nvmlEventSetWait(events, 0)
    pynvml.nvmlEventSetFree(events)


def test_every_function_works_through_nvidia_ml_py(loaded: tuple[SimNode, Recording]) -> None:
    node, recording = loaded
    hopper, ampere = (pynvml.nvmlDeviceGetHandleByIndex(index) for index in (0, 1))
    system_calls()
    device_calls(hopper, node, 0)
    device_calls(ampere, node, 1)
    calls_without_mig(ampere, node)
    mig_calls(hopper)
    gpm_and_event_calls(hopper)
    pynvml.nvmlShutdown()
    assert recording.called == {*all_symbols(), "nvmlErrorString"} - WITHOUT_WRAPPER
    for name in WITHOUT_WRAPPER:
        assert getattr(recording, name)() == 0
