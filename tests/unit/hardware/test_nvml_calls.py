import pickle
from collections.abc import Callable, Iterator

import pytest
from pynvml import nvmlLib

from migscaler.errors import (
    DriverGone,
    GpuLost,
    InsufficientResources,
    InUse,
    NoPermission,
    NotSupported,
    NvmlError,
)
from migscaler.hardware.gpm_windows import ratio_of_percent
from migscaler.hardware.nvml_answers import Device
from migscaler.hardware.nvml_calls import error_for, install_library
from migscaler.hardware.nvml_session import NvmlCalls


class OneAnswer:
    """A library whose every function answers one code."""

    def __init__(self, code: int) -> None:
        self._code = code

    def __getattr__(self, name: str) -> Callable[..., int]:
        return lambda *_: self._code


class NoFunctions:
    """A library without any function, as a driver from before them."""


@pytest.fixture(autouse=True)
def library_as_before() -> Iterator[None]:
    yield
    install_library(nvmlLib)


@pytest.mark.parametrize(
    ("code", "kind", "name"),
    [
        (1, DriverGone, "UNINITIALIZED"),
        (2, NvmlError, "INVALID_ARGUMENT"),
        (3, NotSupported, "NOT_SUPPORTED"),
        (4, NoPermission, "NO_PERMISSION"),
        (9, DriverGone, "DRIVER_NOT_LOADED"),
        (13, NotSupported, "FUNCTION_NOT_FOUND"),
        (15, GpuLost, "GPU_IS_LOST"),
        (18, DriverGone, "LIB_RM_VERSION_MISMATCH"),
        (19, InUse, "IN_USE"),
        (23, InsufficientResources, "INSUFFICIENT_RESOURCES"),
        (25, NotSupported, "ARGUMENT_VERSION_MISMATCH"),
        (999, GpuLost, "UNKNOWN"),
        (777, NvmlError, "CODE_777"),
    ],
)
def test_answer_becomes_the_class_that_says_what_to_do(
    code: int, kind: type[NvmlError], name: str
) -> None:
    install_library(OneAnswer(code))
    with pytest.raises(NvmlError) as caught:
        NvmlCalls(lambda: 0.0).device_count()
    assert type(caught.value) is kind
    assert (caught.value.code, caught.value.code_name) == (code, name)
    assert caught.value.__cause__ is not None
    again = pickle.loads(pickle.dumps(caught.value))
    assert (type(again), str(again)) == (kind, str(caught.value))


def test_missing_function_is_not_supported() -> None:
    install_library(NoFunctions())
    with pytest.raises(NotSupported, match="FUNCTION_NOT_FOUND"):
        NvmlCalls(lambda: 0.0).device_count()


def test_calls_are_counted_with_seconds_and_unexpected_errors() -> None:
    install_library(OneAnswer(3))
    seconds = iter(range(100))
    calls = NvmlCalls(lambda: float(next(seconds)))
    for _ in range(2):
        with pytest.raises(NotSupported):
            calls.device_count()
    (counted,) = calls.counter.take().functions
    assert (counted.function, counted.calls, counted.seconds) == ("nvmlDeviceGetCount", 2, 2.0)
    assert counted.errors == (("NOT_SUPPORTED", 2),)
    assert calls.counter.take().functions == ()


def test_end_of_an_enumeration_is_no_error_in_the_counts() -> None:
    install_library(OneAnswer(2))
    calls = NvmlCalls(lambda: 0.0)
    with pytest.raises(NvmlError):
        calls.gpu_profile(Device(object()), 18)
    assert [entry.errors for entry in calls.counter.stats().functions] == [()]


@pytest.mark.parametrize(
    ("percent", "ratio"),
    [
        (0.0, 0.0),
        (50.0, 0.5),
        (129.0, 1.0),
        (-1.0, None),
        (float("nan"), None),
        (float("inf"), None),
        (None, None),
    ],
)
def test_percentage_becomes_a_ratio_or_nothing(percent: float | None, ratio: float | None) -> None:
    assert ratio_of_percent(percent) == ratio


def test_error_of_an_unknown_code_keeps_the_code() -> None:
    assert str(error_for("nvmlX", 4711)) == "nvmlX answered CODE_4711 (4711)"
