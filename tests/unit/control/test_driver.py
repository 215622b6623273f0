"""When library and driver part, and how that is told."""

from dataclasses import replace

import pytest

from migscaler.control.driver import has_mismatch, is_mismatch
from migscaler.errors import DriverGone, HardwareError
from tests.builders import snapshot


@pytest.mark.parametrize(
    ("driver", "library", "expected"),
    [
        ("550.54.14", "12.550.54.14", False),
        ("570.86.15", "12.550.54.14", True),
        ("550.54.14", None, None),
        (None, "12.550.54.14", None),
    ],
)
def test_versions_are_compared_without_the_cuda_number(
    driver: str | None, library: str | None, expected: bool | None
) -> None:
    found = replace(snapshot(), driver_version=driver, nvml_version=library)

    assert has_mismatch(found) is expected


def test_only_the_refusal_for_versions_says_that_they_differ() -> None:
    refused = DriverGone("nvmlInit_v2", 18, "LIB_RM_VERSION_MISMATCH")

    assert is_mismatch(refused) is True
    assert is_mismatch(DriverGone("nvmlInit_v2", 9, "DRIVER_NOT_LOADED")) is None
    assert is_mismatch(HardwareError("no answer within 10 s")) is None
