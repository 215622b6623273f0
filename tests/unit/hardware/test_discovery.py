import pytest

from migscaler.errors import ForeignAnswer
from migscaler.hardware.nvml_answers import ProfileInfo
from migscaler.hardware.nvml_discovery import derived_name, max_instances


def info(
    *, enum_value: int, slices: int, memory_mib: int = 1024, instances: int = 1
) -> ProfileInfo:
    return ProfileInfo(
        profile_id=19,
        enum_value=enum_value,
        slices=slices,
        instances=instances,
        sm_count=14,
        memory_mib=memory_mib,
        copy_engines=1,
        decoders=0,
        encoders=0,
        jpegs=0,
        ofas=0,
    )


@pytest.mark.parametrize(
    ("enum_value", "slices", "memory_mib", "gpu_mib", "name"),
    [
        (0, 1, 4864, 40960, "1g.5gb"),
        (7, 1, 4864, 40960, "1g.5gb+me"),
        (9, 1, 9856, 40960, "1g.10gb"),
        (2, 3, 20096, 40960, "3g.20gb"),
        (4, 7, 80384, 81920, "7g.80gb"),
        (0, 1, 5952, 24576, "1g.6gb"),
        (8, 2, 11968, 24576, "2g.12gb+me"),
        (10, 1, 24192, 97887, "1g.24gb+gfx"),
        (13, 1, 24192, 97887, "1g.24gb-me"),
        (15, 1, 24192, 97887, "1g.24gb+me.all"),
    ],
)
def test_derived_name_is_the_one_that_newer_drivers_print(
    enum_value: int, slices: int, memory_mib: int, gpu_mib: int, name: str
) -> None:
    found = info(enum_value=enum_value, slices=slices, memory_mib=memory_mib)
    assert derived_name(found, gpu_mib) == name


def test_name_can_not_be_derived_without_the_memory_of_the_gpu() -> None:
    with pytest.raises(ForeignAnswer):
        derived_name(info(enum_value=0, slices=1), 0)


def test_wrong_count_of_an_a30_is_corrected_from_its_placements() -> None:
    wrong = info(enum_value=0, slices=1, instances=1)
    assert max_instances(wrong, (0, 1, 2, 3), 1, "NVIDIA A30") == 4
    media = info(enum_value=7, slices=1, instances=4)
    assert max_instances(media, (0, 1, 2, 3), 1, "NVIDIA A30") == 1


def test_count_of_another_gpu_is_believed_up_to_what_fits() -> None:
    assert max_instances(info(enum_value=7, slices=1), (0, 1, 2), 1, "NVIDIA A100") == 1
    many = info(enum_value=2, slices=3, instances=7)
    assert max_instances(many, (0, 4), 4, "NVIDIA A100") == 2
    none = info(enum_value=2, slices=3, instances=0)
    assert max_instances(none, (0, 4), 4, "NVIDIA A100") == 2
