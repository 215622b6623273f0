"""What the driver denies once (NOT_SUPPORTED) is neither believed for ever nor left unsaid."""

import pytest

from migscaler.model.gpu import ActivitySource
from migscaler.sim import faults
from migscaler.sim.codes import Code
from tests.unit.hardware.rig import SimulatedRig, in_process

NEW = "nvmlGpuInstanceGetComputeInstanceProfileInfoV"
GRAPHICS = "nvmlDeviceGetGraphicsRunningProcesses_v3"


def deny(rig: SimulatedRig, function: str, times: int | None = 1) -> None:
    rig.node.add_fault(faults.fails(function, Code.NOT_SUPPORTED, times=times))


@pytest.mark.parametrize("function", ["nvmlSystemGetDriverVersion", "nvmlSystemGetNVMLVersion"])
def test_versions_that_were_not_told_once_are_asked_for_again(function: str) -> None:
    """One pass failed, and then the driver's version was unknown for the session."""
    with in_process("A100-SXM4-40GB", driver="470.57.02") as rig:
        rig.node.add_fault(faults.fails(function, Code.TIMEOUT, times=2))
        rig.gpu()
        node = rig.reader.read_node()

        assert node.driver_version == "470.57.02"
        assert node.nvml_version is not None
        assert rig.model().exclusive_pairs  # no 4g beside a 3g before R510


def start_graphics(rig: SimulatedRig, gi_id: int) -> int:
    pid = rig.node.start_job(0, gi_id)
    with rig.node.changing() as state:
        state.gpus[0].jobs[0].graphics = True
    return pid


def test_gpm_that_was_denied_once_is_there_at_the_next_reading() -> None:
    """Activity was left out of the evidence of an H100 for as long as the worker lived."""
    with in_process("H100-80GB") as rig:
        rig.node.foreign_create(0, "1g.10gb@0")
        deny(rig, "nvmlGpmQueryDeviceSupport")

        found = [rig.gpu().activity_source for _ in range(2)]

    assert found == [None, ActivitySource.GPM]


def test_gpu_without_gpm_is_asked_for_it_once() -> None:
    with in_process("A100-SXM4-40GB") as rig:
        for _ in range(3):
            assert not rig.gpu().gpm
        calls = {one.function: one.calls for one in rig.reader.call_stats().functions}

    assert calls["nvmlGpmQueryDeviceSupport"] == 1


def test_kind_of_process_that_was_denied_once_is_asked_for_again() -> None:
    """A graphics process was listed nowhere, and its instance had none, for good."""
    with in_process("H100-80GB") as rig:
        pid = start_graphics(rig, rig.node.foreign_create(0, "1g.10gb@0"))
        deny(rig, GRAPHICS)
        rig.gpu()

        (instance,) = rig.gpu().instances or ()

    assert [process.pid for process in instance.processes or ()] == [pid]


@pytest.mark.parametrize("times", [1, None], ids=["once", "for ever"])
def test_kind_of_process_that_was_listed_before_is_not_believed_to_be_none(
    times: int | None,
) -> None:
    with in_process("H100-80GB") as rig:
        start_graphics(rig, rig.node.foreign_create(0, "1g.10gb@0"))
        rig.gpu()
        deny(rig, GRAPHICS, times)
        for _ in range(1 if times else 3):
            gpu = rig.gpu()
            assert [one.processes for one in gpu.instances or ()] == [None]
            assert [gap.what for gap in gpu.gaps] == ["processes"]
        rig.node.clear_faults()
        assert rig.gpu().gaps == ()


@pytest.mark.parametrize("times", [1, 2])
def test_compute_profiles_that_were_denied_hide_no_compute_instance(times: int) -> None:
    """A live instance was told as one without compute instance, its memory as unknown, no gap."""
    with in_process("A100-SXM4-40GB") as rig:
        rig.node.foreign_create(0, "1g.5gb@0")
        deny(rig, NEW, times)

        gpu = rig.gpu()

    (instance,) = gpu.instances or ()
    assert [ci.full_width for ci in instance.instance.compute_instances] == [True]
    assert instance.memory_used_bytes is not None
    assert gpu.gaps == ()


def test_compute_profiles_denied_for_ever_make_the_instances_unknown() -> None:
    with in_process("A100-SXM4-40GB") as rig:
        rig.node.foreign_create(0, "1g.5gb@0")
        deny(rig, NEW, None)

        gpu = rig.gpu()

    assert gpu.instances is None
    assert [gap.what for gap in gpu.gaps] == ["instances"]


def test_compute_profiles_that_were_denied_once_do_not_fail_a_creation() -> None:
    """Each creation of that size failed after its GPU instance was made, and was put back."""
    with in_process("A100-SXM4-40GB") as rig:
        orphan = rig.create_orphan("1g.5gb@1")
        deny(rig, NEW)

        rig.writer.create_compute_instance(rig.uuids[0], orphan)

        assert rig.instance(orphan).instance.compute_instances[0].full_width


def test_narrow_compute_instances_are_found_though_their_profile_was_denied_once() -> None:
    with in_process("A100-SXM4-40GB") as rig:
        gi_id = rig.node.foreign_create(0, "2g.10gb@0")
        with rig.node.changing() as state:
            gi = state.gpus[0].instances[gi_id]
            gi.compute.clear()
            rig.node.create_compute(state.gpus[0], gi, 0, None, "foreign")
        deny(rig, NEW)

        (instance,) = rig.gpu().instances or ()

    assert [ci.compute_slices for ci in instance.instance.compute_instances] == [1]
