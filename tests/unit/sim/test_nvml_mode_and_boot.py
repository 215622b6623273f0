from collections.abc import Callable

import pynvml
import pytest

from migscaler.sim.nvml_library import NvmlLibrary
from tests.unit.sim.conftest import Build, load
from tests.unit.sim.smi_nvml import cgi, full_ci, gpu, lgi

IN_USE, RESET_REQUIRED = 19, 16


def test_ampere_mode_stays_pending_until_a_reset(build: Build) -> None:
    node = build("A100-SXM4-40GB", mig=False)
    before = gpu()
    assert pynvml.nvmlDeviceSetMigMode(before, 1) == RESET_REQUIRED
    assert pynvml.nvmlDeviceGetMigMode(before) == [0, 1]
    with pytest.raises(pynvml.NVMLError_NotSupported):
        cgi(19)
    node.reset_gpu(0)
    with pytest.raises(pynvml.NVMLError_InvalidArgument):
        pynvml.nvmlDeviceGetMigMode(before)  # parent handles die with a reset
    assert pynvml.nvmlDeviceGetMigMode(gpu()) == [1, 1]


def test_ampere_mode_is_pending_in_use_while_a_client_is_attached(build: Build) -> None:
    node = build("A100-SXM4-40GB", mig=False)
    node.set_node(bare_metal_reset=True)
    pid = node.start_job(0)
    assert pynvml.nvmlDeviceSetMigMode(gpu(), 1) == IN_USE
    node.end_job(pid)
    assert pynvml.nvmlDeviceSetMigMode(gpu(), 1) == 0
    assert pynvml.nvmlDeviceGetMigMode(gpu()) == [1, 1]


def test_hopper_switches_live_unless_in_use(build: Build) -> None:
    node = build("H100-80GB", mig=False)
    node.hold_gpu(0)
    with pytest.raises(pynvml.NVMLError_InUse):
        pynvml.nvmlDeviceSetMigMode(gpu(), 1)
    node.release(0)
    handle = gpu()
    assert pynvml.nvmlDeviceSetMigMode(handle, 1) == 0
    assert pynvml.nvmlDeviceGetMigMode(handle) == [1, 1]


@pytest.mark.parametrize("board", ["A100-SXM4-40GB", "H100-80GB"])
def test_mode_is_not_switched_off_with_instances_there(build: Build, board: str) -> None:
    build(board)
    cgi(19)
    with pytest.raises(pynvml.NVMLError_InUse):
        pynvml.nvmlDeviceSetMigMode(gpu(), 0)
    assert pynvml.nvmlDeviceGetMigMode(gpu()) == [1, 1]


def test_reboot_keeps_the_mode_on_ampere_only_and_no_instance(build: Build) -> None:
    node = build("A100-SXM4-40GB,H100-80GB")
    full_ci(cgi(19)[0])
    node.foreign_create(1, "3g@0")
    node.start_job(0, 13)
    first_boot = node.boot_id
    node.reboot()
    assert node.boot_id != first_boot
    with pytest.raises(pynvml.NVMLError_Uninitialized):
        gpu()
    pynvml.nvmlInit()
    assert [pynvml.nvmlDeviceGetMigMode(gpu(n)) for n in (0, 1)] == [[1, 1], [0, 0]]
    assert lgi(0) == []
    assert node.state.gpus[1].instances == {}
    assert pynvml.nvmlDeviceGetComputeRunningProcesses(gpu(0)) == []


def test_pending_mode_is_there_after_a_reboot(build: Build) -> None:
    node = build("A30", mig=False)
    pynvml.nvmlDeviceSetMigMode(gpu(), 1)
    node.reboot()
    pynvml.nvmlInit()
    assert pynvml.nvmlDeviceGetMigMode(gpu()) == [1, 1]


def test_driver_upgrade_needs_a_new_process(build: Build) -> None:
    node = build("H100-80GB")
    node.restart_driver("570.86.15")
    for _ in range(2):
        with pytest.raises(pynvml.NVMLError_LibRmVersionMismatch):
            pynvml.nvmlInit()
    load(NvmlLibrary(node, "new process"))
    pynvml.nvmlInit()
    assert pynvml.nvmlSystemGetDriverVersion() == "570.86.15"


def test_unloaded_driver_answers_so(build: Build) -> None:
    node = build("H100-80GB")
    node.unload_driver()
    with pytest.raises(pynvml.NVMLError_DriverNotLoaded):
        pynvml.nvmlInit()
    node.unload_driver(loaded=True)
    pynvml.nvmlInit()


def test_lost_gpu_answers_nothing_else(build: Build) -> None:
    node = build("2xA100-SXM4-40GB")
    handle = gpu(0)
    node.lose_gpu(0)
    calls: list[Callable[[], object]] = [
        lambda: gpu(0),
        lambda: pynvml.nvmlDeviceGetMigMode(handle),
    ]
    for call in calls:
        with pytest.raises(pynvml.NVMLError_GpuIsLost):
            call()
    assert pynvml.nvmlDeviceGetCount() == 2
    assert pynvml.nvmlDeviceGetMigMode(gpu(1)) == [1, 1]


def test_profile_queries_want_mig_mode_on_older_drivers(build: Build) -> None:
    build("A100-SXM4-40GB", "535.129.03", mig=False)
    with pytest.raises(pynvml.NVMLError_NotSupported):
        pynvml.nvmlDeviceGetGpuInstanceProfileInfo(gpu(), 0)
    build("A100-SXM4-40GB", "550.54.14", mig=False)
    assert pynvml.nvmlDeviceGetGpuInstanceProfileInfo(gpu(), 0).id == 19
    assert pynvml.nvmlDeviceGetMaxMigDeviceCount(gpu()) == 0
