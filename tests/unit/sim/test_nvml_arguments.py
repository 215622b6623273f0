import ctypes
from collections.abc import Callable
from contextlib import nullcontext
from ctypes import byref, c_uint

import pynvml
import pytest

from tests.unit.sim.conftest import Build
from tests.unit.sim.smi_nvml import cgi, full_ci, gpu, lgi


def test_placement_by_value_is_refused(build: Build) -> None:
    build("A100-SXM4-40GB")
    place = pynvml.c_nvmlGpuInstancePlacement_t(start=0, size=4)
    with pytest.raises(ctypes.ArgumentError, match="by value"):
        pynvml.nvmlDeviceCreateGpuInstanceWithPlacement(gpu(), 9, place)
    assert lgi() == []
    pynvml.nvmlDeviceCreateGpuInstanceWithPlacement(gpu(), 9, ctypes.pointer(place))
    assert lgi() == [(9, 1, 0, 4)]


def test_count_by_value_is_refused(build: Build) -> None:
    build("A100-SXM4-40GB")
    with pytest.raises(ctypes.ArgumentError, match="by value"):
        pynvml.nvmlDeviceGetGpuInstancePossiblePlacements(gpu(), 9, None, c_uint(0))


def test_structure_of_another_version_is_refused(build: Build) -> None:
    build("A100-SXM4-40GB")
    with pytest.raises(pynvml.NVMLError_ArgumentVersionMismatch):
        pynvml.nvmlDeviceGetMemoryInfo(gpu(), version=pynvml.nvmlMemory_v2 + (1 << 24))
    info = pynvml.c_nvmlGpuInstanceProfileInfo_v2_t()
    info.version = 0
    answer = pynvml.nvmlLib.nvmlDeviceGetGpuInstanceProfileInfoV(gpu(), 0, byref(info))
    assert answer == 25
    (gi,) = cgi(19)
    row = pynvml.c_nvmlComputeInstanceProfileInfo_v2_t()
    row.version += 1
    read = pynvml.nvmlLib.nvmlGpuInstanceGetComputeInstanceProfileInfoV
    assert read(gi, 0, 0, byref(row)) == 25


def test_short_array_is_refused_and_told_the_size(build: Build) -> None:
    build("A100-SXM4-40GB")
    count = c_uint(2)
    room = (pynvml.c_nvmlGpuInstancePlacement_t * 2)()
    with pytest.raises(pynvml.NVMLError_InsufficientSize):
        pynvml.nvmlDeviceGetGpuInstancePossiblePlacements(gpu(), 19, room, byref(count))
    assert count.value == 7


def test_array_shorter_than_the_count_that_was_told_is_refused_however_few_there_are(
    build: Build,
) -> None:
    build("A30")
    count = c_uint()
    told = pynvml.nvmlDeviceGetGpuInstanceProfileInfo(gpu(), 1, version=1)
    assert told.instanceCount == 3  # wrong, and what the array must hold
    for length, is_refused in ((2, True), (3, False)):
        room = (pynvml.c_nvmlGpuInstance_t * length)()
        with pytest.raises(pynvml.NVMLError_InsufficientSize) if is_refused else nullcontext():
            pynvml.nvmlDeviceGetGpuInstances(gpu(), told.id, room, byref(count))


def test_handles_of_another_kind_are_refused(build: Build) -> None:
    build("A100-SXM4-40GB")
    (gi,) = cgi(19)
    device = pynvml.nvmlComputeInstanceGetInfo(full_ci(gi)).device
    wrong: list[Callable[[], object]] = [
        lambda: pynvml.nvmlDeviceGetMigMode(device),
        lambda: pynvml.nvmlDeviceGetMigMode(gi),
        lambda: pynvml.nvmlGpuInstanceGetInfo(device),
        lambda: pynvml.nvmlDeviceGetGpuInstanceId(gpu()),
        lambda: pynvml.nvmlDeviceGetMigMode(pynvml.c_nvmlDevice_t()),
    ]
    for call in wrong:
        with pytest.raises(pynvml.NVMLError_InvalidArgument):
            call()
    assert not pynvml.nvmlDeviceIsMigDeviceHandle(gpu())
    assert pynvml.nvmlDeviceIsMigDeviceHandle(device)


@pytest.mark.parametrize(
    ("driver", "call"),
    [
        ("470.82.01", "nvmlDeviceGetComputeRunningProcesses_v3"),
        ("470.82.01", "nvmlDeviceGetGpuInstanceProfileInfoV"),
        ("510.47.03", "nvmlGpmQueryDeviceSupport"),
        ("550.54.14", "nvmlSystemGetDriverBranch"),
        ("580.65.06", "nvmlDeviceNotInAnyDriver"),
    ],
)
def test_symbol_that_the_driver_lacks_is_an_attribute_error(
    build: Build, driver: str, call: str
) -> None:
    build("A100-SXM4-40GB", driver)
    with pytest.raises(AttributeError, match=call):
        getattr(pynvml.nvmlLib, call)


def test_missing_symbol_looks_as_with_an_old_driver_to_pynvml(build: Build) -> None:
    build("A100-SXM4-40GB", "470.82.01")
    with pytest.raises(pynvml.NVMLLibraryMismatchError):
        pynvml.nvmlDeviceGetComputeRunningProcesses(gpu())
    assert pynvml.nvmlDeviceGetComputeRunningProcesses_v2(gpu()) == []
    with pytest.raises(pynvml.NVMLError_FunctionNotFound):
        pynvml.nvmlSystemGetDriverBranch()


def test_process_lists_of_r535_are_the_odd_ones(build: Build) -> None:
    """Early 535 wrote wider entries, so the second pid is read from the wrong place."""
    node = build("A100-SXM4-40GB", "535.54.03", mig=False)
    pids = [node.start_job(0, memory_mib=64, pid=pid) for pid in (1001, 1002)]
    found = pynvml.nvmlDeviceGetComputeRunningProcesses(gpu())
    assert found[0].pid == 1001
    assert [process.pid for process in found] != pids
    second = pynvml.nvmlDeviceGetComputeRunningProcesses_v2(gpu())
    assert [process.pid for process in second] == pids
    build("A100-SXM4-40GB", "535.129.03")
    with pytest.raises(pynvml.NVMLLibraryMismatchError):
        pynvml.nvmlDeviceGetComputeRunningProcesses(gpu())


def test_library_wants_to_be_initialised(build: Build) -> None:
    build("A100-SXM4-40GB")
    pynvml.nvmlShutdown()
    with pytest.raises(pynvml.NVMLError_Uninitialized):
        pynvml.nvmlDeviceGetCount()


def test_handles_are_found_by_uuid_serial_and_bus_id(build: Build) -> None:
    node = build("2xA100-SXM4-40GB")
    wanted = node.state.gpus[1]
    found = [
        pynvml.nvmlDeviceGetHandleByUUID(wanted.uuid),
        pynvml.nvmlDeviceGetHandleByPciBusId("0000:0f:00.0"),
        pynvml.nvmlDeviceGetHandleByPciBusId(wanted.bus_id),
    ]
    assert [pynvml.nvmlDeviceGetIndex(handle) for handle in found] == [1, 1, 1]
    with pytest.raises(pynvml.NVMLError_NotFound):
        pynvml.nvmlDeviceGetHandleByUUID("GPU-00000000-0000-0000-0000-000000000000")
