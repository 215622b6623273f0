import math

import pynvml
import pytest

from tests.unit.sim.conftest import Build, Ticks
from tests.unit.sim.smi_nvml import cgi, full_ci, gpu

MIB = 1024 * 1024


def gpm(gi_id: int, ticks: Ticks, seconds: float = 10.0, metric: int = 1) -> tuple[int, float]:
    """Take two samples and return (answer, percent) of one metric."""
    return between(sample(gi_id), ticks, gi_id, seconds, metric)


def sample(gi_id: int) -> object:
    return pynvml.nvmlGpmMigSampleGet(gpu(), gi_id, pynvml.nvmlGpmSampleAlloc())


def between(
    older: object, ticks: Ticks, gi_id: int, seconds: float, metric: int = 1
) -> tuple[int, float]:
    ticks.now += seconds
    wanted = pynvml.c_nvmlGpmMetricsGet_t()
    wanted.version = pynvml.NVML_GPM_METRICS_GET_VERSION
    wanted.numMetrics = 1
    wanted.sample1, wanted.sample2 = older, sample(gi_id)
    wanted.metrics[0].metricId = metric
    pynvml.nvmlGpmMetricsGet(wanted)
    return wanted.metrics[0].nvmlReturn, wanted.metrics[0].value


def test_memory_and_processes_follow_a_job(build: Build) -> None:
    node = build("A100-SXM4-40GB")
    device = pynvml.nvmlComputeInstanceGetInfo(full_ci(cgi(9)[0], 2)).device
    empty = pynvml.nvmlDeviceGetMemoryInfo(device).used
    assert 0 < empty < 64 * MIB
    pid = node.start_job(0, 2, memory_mib=3000, name="train.py")
    assert pynvml.nvmlDeviceGetMemoryInfo(device).used - empty == 3000 * MIB
    for handle in (device, gpu()):
        (process,) = pynvml.nvmlDeviceGetComputeRunningProcesses(handle)
        assert (process.pid, process.usedGpuMemory) == (pid, 3000 * MIB)
        assert (process.gpuInstanceId, process.computeInstanceId) == (2, 0)
    assert pynvml.nvmlSystemGetProcessName(pid) == "train.py"
    node.end_job(pid)
    assert pynvml.nvmlDeviceGetMemoryInfo(device).used == empty
    assert pynvml.nvmlDeviceGetComputeRunningProcesses(device) == []


def test_empty_instances_differ_in_their_baseline(build: Build) -> None:
    build("A100-SXM4-40GB")
    used = {
        pynvml.nvmlDeviceGetMemoryInfo(pynvml.nvmlComputeInstanceGetInfo(full_ci(gi)).device).used
        for gi in cgi(*[19] * 7)
    }
    assert len(used) > 2


def test_gpm_follows_activity_on_hopper(build: Build, ticks: Ticks) -> None:
    node = build("H100-80GB")
    full_ci(cgi(9)[0], 2)
    assert gpm(2, ticks) == (0, 0.0)
    pid = node.start_job(0, 2, activity=0.5)
    code, percent = gpm(2, ticks)
    assert code == 0
    assert percent == pytest.approx(50.0)
    older = sample(2)
    ticks.now += 5
    node.end_job(pid)
    assert between(older, ticks, 2, 5.0)[1] == pytest.approx(25.0)


def test_gpm_gives_no_data_too_early_without_compute_instance_or_metric(
    build: Build, ticks: Ticks
) -> None:
    build("H100-80GB")
    (gi,) = cgi(9)
    code, value = gpm(2, ticks)
    assert code == 21
    assert math.isnan(value)
    full_ci(gi, 2)
    assert gpm(2, ticks, seconds=0.05)[0] == 21
    assert gpm(2, ticks, metric=30)[0] == 3


def test_gpm_across_a_recreated_instance_is_garbage(build: Build, ticks: Ticks) -> None:
    build("H100-80GB")
    (gi,) = cgi(9)
    ci = full_ci(gi, 2)
    older = sample(2)
    pynvml.nvmlComputeInstanceDestroy(ci)
    pynvml.nvmlGpuInstanceDestroy(gi)
    full_ci(cgi(9)[0], 2)
    assert between(older, ticks, 2, 10.0)[1] > 1000


def test_ampere_has_no_gpm(build: Build) -> None:
    build("A100-SXM4-40GB")
    assert pynvml.nvmlGpmQueryDeviceSupport(gpu()).isSupportedDevice == 0
    cgi(9)
    with pytest.raises(pynvml.NVMLError_NotSupported):
        sample(2)


def test_whole_gpu_utilization_is_there_only_without_mig(build: Build) -> None:
    node = build("A100-SXM4-40GB,A100-SXM4-40GB", mig=[True, False])
    with pytest.raises(pynvml.NVMLError_NotSupported):
        pynvml.nvmlDeviceGetUtilizationRates(gpu(0))
    node.start_job(1, activity=0.7)
    assert pynvml.nvmlDeviceGetUtilizationRates(gpu(1)).gpu == 70
    (process,) = pynvml.nvmlDeviceGetComputeRunningProcesses(gpu(1))
    assert process.gpuInstanceId == 0xFFFFFFFF


def test_energy_and_power_rise_with_work(build: Build, ticks: Ticks) -> None:
    node = build("A100-SXM4-40GB", mig=False)
    idle = pynvml.nvmlDeviceGetPowerUsage(gpu())
    start = pynvml.nvmlDeviceGetTotalEnergyConsumption(gpu())
    ticks.now += 10
    assert pynvml.nvmlDeviceGetTotalEnergyConsumption(gpu()) - start == idle * 10
    node.start_job(0, activity=1.0)
    assert pynvml.nvmlDeviceGetPowerUsage(gpu()) == 400_000


def test_attributes_of_a_mig_device(build: Build) -> None:
    build("A100-SXM4-40GB")
    device = pynvml.nvmlComputeInstanceGetInfo(full_ci(cgi(14)[0], 1)).device
    found = pynvml.nvmlDeviceGetAttributes(device)
    assert (found.multiprocessorCount, found.memorySizeMB) == (28, 9856)
    assert (found.gpuInstanceSliceCount, found.computeInstanceSliceCount) == (2, 2)
    with pytest.raises(pynvml.NVMLError_NotSupported):
        pynvml.nvmlDeviceGetAttributes(gpu())


def test_field_values_tell_generations_apart(build: Build) -> None:
    build("A100-SXM4-40GB,H100-80GB", "550.54.14")
    found = [pynvml.nvmlDeviceGetFieldValues(gpu(n), [184, 199, 12345]) for n in (0, 1)]
    assert [entry.value.uiVal for entry in found[0][:2]] == [0, 1]
    assert [entry.value.uiVal for entry in found[1][:2]] == [1, 1]
    assert [entry.nvmlReturn for entry in found[0]] == [0, 0, 3]


def test_event_set_hears_xids_of_registered_gpus(build: Build) -> None:
    node = build("2xA100-SXM4-40GB")
    events = pynvml.nvmlEventSetCreate()
    pynvml.nvmlDeviceRegisterEvents(gpu(1), pynvml.nvmlEventTypeXidCriticalError, events)
    node.raise_xid(0, 48)
    with pytest.raises(pynvml.NVMLError_Timeout):
        pynvml.nvmlEventSetWait(events, 0)
    node.raise_xid(1, 94, gi_id=3)
    found = pynvml.nvmlEventSetWait(events, 0)
    assert (found.eventType, found.eventData, found.gpuInstanceId) == (8, 94, 3)
    assert pynvml.nvmlDeviceGetIndex(found.device) == 1


def test_ecc_errors_are_counted(build: Build) -> None:
    node = build("A100-SXM4-40GB")
    node.add_ecc_errors(0, corrected=3, uncorrected=1)
    read = pynvml.nvmlDeviceGetTotalEccErrors
    assert [read(gpu(), kind, 0) for kind in (0, 1)] == [3, 1]
