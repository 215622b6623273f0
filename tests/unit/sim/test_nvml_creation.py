import pynvml
import pytest

from migscaler.errors import ParseError
from migscaler.sim.node import build_node
from tests.unit.sim.conftest import Build
from tests.unit.sim.smi_nvml import (
    cgi,
    cgi_at,
    full_ci,
    gpu,
    lgi,
    lgipp,
    mig_walk,
    uuid_of,
)

A100 = "A100-SXM4-40GB"


def test_creation_smallest_first_fails_at_the_fourth(build: Build) -> None:
    build(A100)
    cgi(19, 19, 14)
    with pytest.raises(pynvml.NVMLError_InsufficientResources):
        cgi(9)
    # The guide's own transcript: GI 13 at 6, GI 11 at 4, the 2g (GI 3) at 0.
    assert lgi() == [(14, 3, 0, 2), (19, 11, 4, 1), (19, 13, 6, 1)]


def test_creation_in_the_other_order_lands_where_the_guide_says(build: Build) -> None:
    build(A100)
    cgi(9, 19, 14, 19)
    assert lgi() == [(19, 7, 0, 1), (19, 8, 1, 1), (14, 4, 2, 2), (9, 2, 4, 4)]


def test_mirrored_board_gives_the_other_ids_at_the_same_places(build: Build) -> None:
    build(A100, variant="mirrored")
    cgi(9, 19, 14, 19)
    # A100-PCIE-40GB on 510.47.03: GI 11, 12 at 0 and 1, GI 6 at 2:2, GI 1 at 4:4.
    assert lgi() == [(19, 11, 0, 1), (19, 12, 1, 1), (14, 6, 2, 2), (9, 1, 4, 4)]


@pytest.mark.parametrize(
    ("variant", "ids"),
    [("normal", [13, 11, 12, 7, 8, 9, 10]), ("mirrored", [9, 7, 8, 11, 12, 13, 14])],
)
def test_seven_small_instances_get_their_ids_in_the_observed_order(
    build: Build, variant: str, ids: list[int]
) -> None:
    build("H100-80GB", variant=variant)
    made = cgi(*[19] * 7)
    assert [pynvml.nvmlGpuInstanceGetInfo(gi).id for gi in made] == ids


@pytest.mark.parametrize("order", [(19, 14, 5), (14, 19, 19, 19, 19, 19), (9, 9), (9, 5)])
def test_other_documented_orders_work(build: Build, order: tuple[int, ...]) -> None:
    build(A100)
    assert len(cgi(*order)) == len(order)


@pytest.mark.parametrize("order", [(5, 9), (9, 5)])
def test_four_beside_three_is_refused_before_r510(build: Build, order: tuple[int, int]) -> None:
    build(A100, "495.29.05")
    cgi(order[0])
    with pytest.raises(pynvml.NVMLError_InsufficientResources):
        cgi(order[1])


def test_four_beside_three_works_from_r510(build: Build) -> None:
    build("A100-SXM4-80GB", "550.54.14", variant="mirrored")
    cgi(9, 5)
    # An A100-80GB on 550.54.14: the 3g at 4 is GI 1, the 4g at 0 is GI 2.
    assert lgi() == [(5, 2, 0, 4), (9, 1, 4, 4)]


def test_enum_in_the_place_of_the_id_hits_another_profile(build: Build) -> None:
    build(A100)
    (gi,) = cgi(pynvml.NVML_GPU_INSTANCE_PROFILE_1_SLICE)  # 0, as an id the whole GPU
    assert lgi() == [(0, 0, 0, 8)]
    pynvml.nvmlGpuInstanceDestroy(gi)
    cgi(pynvml.NVML_GPU_INSTANCE_PROFILE_1_SLICE_REV2)  # 9, as an id a 3g
    assert lgi() == [(9, 2, 4, 4)]
    with pytest.raises(pynvml.NVMLError_InvalidArgument):
        cgi(pynvml.NVML_GPU_INSTANCE_PROFILE_2_SLICE)  # 1 is no id


def test_occupied_and_impossible_placements_answer_differently(build: Build) -> None:
    build(A100)
    cgi_at(9, 4, 4)
    with pytest.raises(pynvml.NVMLError_InsufficientResources):
        cgi_at(19, 5, 1)
    with pytest.raises(pynvml.NVMLError_InvalidArgument):
        cgi_at(14, 1, 2)
    with pytest.raises(pynvml.NVMLError_InvalidArgument):
        cgi_at(14, 0, 3)


def test_capacity_follows_occupancy_and_placements_do_not(build: Build) -> None:
    build(A100)
    capacity = pynvml.nvmlDeviceGetGpuInstanceRemainingCapacity
    assert capacity(gpu(), 9) == 2
    cgi_at(19, 1, 1)
    cgi_at(19, 5, 1)
    assert capacity(gpu(), 9) == 0
    assert capacity(gpu(), 14) == 1
    assert capacity(gpu(), 19) == 5
    assert lgipp(9) == [(0, 4), (4, 4)]


def test_uuid_comes_back_for_another_profile(build: Build) -> None:
    build(A100)
    (gi,) = cgi(5)
    ci = full_ci(gi, 3)
    first = uuid_of(ci)
    assert first.startswith("MIG-")
    pynvml.nvmlComputeInstanceDestroy(ci)
    pynvml.nvmlGpuInstanceDestroy(gi)
    assert uuid_of(full_ci(cgi_at(9, 0, 4), 2)) == first


def test_uuid_has_the_old_form_before_470_42(build: Build) -> None:
    node = build(A100, "460.106.00")
    (gi,) = cgi(9)
    uuid = uuid_of(full_ci(gi, 2))
    assert uuid == f"MIG-{node.state.gpus[0].uuid}/2/0"
    handle = pynvml.nvmlDeviceGetHandleByUUID(uuid)
    assert pynvml.nvmlDeviceGetGpuInstanceId(handle) == 2


def test_orphan_instance_is_on_no_mig_handle_walk(build: Build) -> None:
    build(A100)
    first, second, _orphan = cgi(19, 19, 19)
    ci = full_ci(first)
    full_ci(second)
    assert mig_walk() == [0, 1]
    pynvml.nvmlComputeInstanceDestroy(ci)
    assert mig_walk() == [1]
    assert len(lgi()) == 3


def test_handles_die_with_their_object_and_come_back_with_the_id(build: Build) -> None:
    build(A100)
    (gi,) = cgi(19)
    pynvml.nvmlGpuInstanceDestroy(gi)
    with pytest.raises(pynvml.NVMLError_InvalidArgument):
        pynvml.nvmlGpuInstanceGetInfo(gi)
    with pytest.raises(pynvml.NVMLError_NotFound):
        pynvml.nvmlDeviceGetGpuInstanceById(gpu(), 13)
    cgi(20)
    assert pynvml.nvmlGpuInstanceGetInfo(gi).profileId == 20


def test_full_width_compute_instance_of_hoppers_wide_slice_is_number_seven(build: Build) -> None:
    build("H100-80GB")
    (gi,) = cgi(15)
    read = pynvml.nvmlGpuInstanceGetComputeInstanceProfileInfo
    assert read(gi, 0, 0).multiprocessorCount == 16
    assert read(gi, 7, 0).multiprocessorCount == 26
    with pytest.raises(pynvml.NVMLError_NotSupported):
        read(gi, 1, 0)
    with pytest.raises(pynvml.NVMLError_InvalidArgument):
        read(gi, 9, 0)
    full_ci(gi, 7)
    with pytest.raises(pynvml.NVMLError_InsufficientResources):
        full_ci(gi, 0)


def test_recent_driver_lists_two_full_profiles_for_a_whole_hopper(build: Build) -> None:
    build("H100-80GB", "570.86.15")
    (gi,) = cgi(0)
    read = pynvml.nvmlGpuInstanceGetComputeInstanceProfileInfo
    assert [read(gi, enum, 0).multiprocessorCount for enum in (4, 8)] == [132, 132]


def test_every_profile_of_every_board_has_a_full_width_compute_instance(build: Build) -> None:
    boards = ["A30", "A100-40GB", "A100-80GB", "H100-80GB", "H200-141GB", "B200", "RTX-PRO-6000"]
    node = build(",".join(boards), "580.65.06")
    for one in node.state.gpus:
        rules = node.rules(one)
        for profile in rules.model.profiles:
            whole = rules.figures[profile.name].sm_count
            assert whole in [row.sm_count for row in rules.compute[profile.name]], profile.name
    assert "3g.90gb memory" in node.rules(node.state.gpus[5]).derived
    assert node.rules(node.state.gpus[1]).derived == frozenset()


def test_compute_instances_share_a_gpu_instance(build: Build) -> None:
    build(A100)
    (gi,) = cgi(9)
    capacity = pynvml.nvmlGpuInstanceGetComputeInstanceRemainingCapacity
    made = [full_ci(gi, 0) for _ in range(3)]
    infos = [pynvml.nvmlComputeInstanceGetInfo(ci) for ci in made]
    assert [(info.id, info.placement.start) for info in infos] == [(0, 0), (1, 1), (2, 2)]
    assert capacity(gi, 0) == 0
    names = {pynvml.nvmlDeviceGetName(info.device) for info in infos}
    assert names == {"NVIDIA A100-SXM4-40GB MIG 1c.3g.20gb"}
    with pytest.raises(pynvml.NVMLError_InsufficientResources):
        full_ci(gi, 0)


def test_a30_reports_a_wrong_count_and_right_placements(build: Build) -> None:
    build("A30")
    info = pynvml.nvmlDeviceGetGpuInstanceProfileInfo(gpu(), 1)
    assert (info.name, info.id, info.instanceCount) == ("MIG 2g.12gb", 5, 3)
    assert lgipp(5) == [(0, 2), (2, 2)]


def test_media_and_wide_profiles_come_with_their_driver_branch(build: Build) -> None:
    def offered(driver: str) -> list[int]:
        build(A100, driver)
        found = []
        for enum in range(pynvml.NVML_GPU_INSTANCE_PROFILE_COUNT):
            try:
                pynvml.nvmlDeviceGetGpuInstanceProfileInfo(gpu(), enum, version=1)
            except pynvml.NVMLError_NotSupported:
                continue
            found.append(enum)
        return found

    assert offered("460.106.00") == [0, 1, 2, 3, 4]
    assert offered("470.82.01") == [0, 1, 2, 3, 4, 7]
    assert offered("525.85.12") == [0, 1, 2, 3, 4, 7, 9]


def test_node_that_cannot_exist_is_refused() -> None:
    with pytest.raises(ParseError, match="525"):
        build_node("H100-80GB", "470.82.01")
