"""What the driver denies once (NOT_SUPPORTED) is neither believed for ever nor left unsaid."""

import pytest

from migscaler.hardware.nvml import NvmlReader
from migscaler.model.gpu import ActivitySource, GpuOwner, GpuReading
from migscaler.sim import faults
from migscaler.sim.codes import Code
from tests.unit.hardware.rig import SimulatedRig, in_process

NEW = "nvmlGpuInstanceGetComputeInstanceProfileInfoV"
GRAPHICS = "nvmlDeviceGetGraphicsRunningProcesses_v3"
GUEST = "nvmlDeviceGetVirtualizationMode"
CONFIDENTIAL = "nvmlSystemGetConfComputeState"
OWNERS = [
    (GUEST, {"vgpu_guest": True}, GpuOwner.HYPERVISOR),
    (CONFIDENTIAL, {"confidential": True}, GpuOwner.CONFIDENTIAL_COMPUTING),
]


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


@pytest.mark.parametrize(("function", "kind", "owner"), OWNERS, ids=["guest", "confidential"])
def test_owner_that_was_denied_once_is_seen_at_the_next_look(
    function: str, kind: dict[str, bool], owner: GpuOwner
) -> None:
    """A single odd answer hid for the worker's whole life that the layout is somebody else's."""
    with in_process("2xH100-80GB") as rig:
        rig.node.set_node(**kind)
        deny(rig, function, 3)
        rig.reader.read_node()
        rig.reader.read_node()

        found = [rig.reader.read_gpu(uuid).foreign_owner for uuid in rig.uuids]

    assert found == [owner, owner]


def test_confidential_computing_that_one_gpu_denies_is_told_by_another() -> None:
    """It is a setting of the node; an A100 knows nothing of it and is believed."""
    with in_process("A100-SXM4-40GB,2xH100-80GB") as rig:
        rig.node.set_node(confidential=True)
        deny(rig, CONFIDENTIAL, 2)
        rig.reader.read_node()

        found = [gpu.foreign_owner for gpu in rig.reader.read_node().gpus]

    assert found == [GpuOwner.CONFIDENTIAL_COMPUTING] * 3


@pytest.mark.parametrize(("function", "kind", "owner"), OWNERS, ids=["guest", "confidential"])
def test_owner_that_was_seen_does_not_go_by_being_denied(
    function: str, kind: dict[str, bool], owner: GpuOwner
) -> None:
    """Doubt about a GPU's profiles has all of it asked for anew."""
    with in_process("H100-80GB") as rig:
        assert isinstance(rig.reader, NvmlReader)
        rig.node.set_node(**kind)
        found = [rig.gpu()]
        deny(rig, function, None)
        found += [rig.gpu()]
        rig.reader._facts.doubt(rig.uuids[0])
        found += [rig.gpu(), rig.gpu()]

    assert {gpu.foreign_owner for gpu in found if not is_down(gpu)} == {owner}
    assert is_down(found[-1]) == (function == GUEST)


def is_down(gpu: GpuReading) -> bool:
    return [gap.what for gap in gpu.gaps] == ["gpu"]


@pytest.mark.parametrize(
    ("function", "field"),
    [
        ("nvmlDeviceGetMinorNumber", "minor"),
        ("nvmlDeviceGetArchitecture", "mode_change_needs_reset"),
        ("nvmlDeviceGetPciInfo_v3", "pci_device_id"),
        ("nvmlDeviceGetSerial", "serial"),
    ],
)
def test_what_a_gpu_is_though_it_denied_it_once_is_asked_for_again(
    function: str, field: str
) -> None:
    """Holders are found by minor number, what a driver load has emptied by the architecture."""
    with in_process("H100-80GB") as rig:
        deny(rig, function)

        found = [getattr(rig.gpu(), field) for _ in range(2)]

    assert found[0] is None
    assert found[1] is not None


def test_memory_that_was_denied_once_hides_profiles_and_instances_no_longer_than_that() -> None:
    """Below R510 profiles are named by it; none were known for as long as the worker lived."""
    with in_process("A100-SXM4-40GB", driver="470.57.02") as rig:
        rig.node.foreign_create(0, "1g.5gb@0")
        deny(rig, "nvmlDeviceGetMemoryInfo", 2)  # named in one reading, asked twice

        found = [rig.gpu().instances for _ in range(2)]

    assert found[0] is None
    assert [str(one.instance.spec) for one in found[1] or ()] == ["1g.5gb@0"]


@pytest.mark.parametrize(
    ("gpus", "function", "calls"),
    [
        ("2xH100-80GB", GUEST, 2),
        ("2xH100-80GB", CONFIDENTIAL, 1),
        ("2xA100-SXM4-40GB", CONFIDENTIAL, 2),
        ("2xH100-80GB", "nvmlDeviceGetMinorNumber", 2),
    ],
)
def test_what_was_told_is_not_asked_for_again(gpus: str, function: str, calls: int) -> None:
    with in_process(gpus) as rig:
        for _ in range(5):
            rig.gpu()
        rig.reader.read_gpu(rig.uuids[1])
        stats = {one.function: one.calls for one in rig.reader.call_stats().functions}

    assert stats[function] == calls


@pytest.mark.parametrize("code", [Code.NOT_SUPPORTED, Code.FUNCTION_NOT_FOUND])
def test_name_that_was_denied_once_is_asked_for_twice_and_then_known(code: Code) -> None:
    """After a FUNCTION_NOT_FOUND it was asked for at each reading, as long as the worker lived."""
    with in_process("H100-80GB") as rig:
        rig.node.add_fault(faults.fails("nvmlDeviceGetName", code, times=1))

        names = {rig.gpu().name for _ in range(5)}
        stats = {one.function: one.calls for one in rig.reader.call_stats().functions}

    assert names == {"NVIDIA H100 80GB HBM3"}
    assert stats["nvmlDeviceGetName"] == 2
