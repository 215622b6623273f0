"""The way into NVML: every call goes through here, counted and with its errors translated.

Nothing else imports pynvml. It keeps one library per process, so there is one session per process
at a time. What is asked stands in nvml_device_calls and nvml_mig_calls.
"""

from collections.abc import Callable
from typing import Any, TypeVar

import pynvml

from migscaler.errors import (
    DriverGone,
    ForeignAnswer,
    GpuLost,
    InsufficientResources,
    InUse,
    NoPermission,
    NotSupported,
    NvmlError,
)
from migscaler.hardware.call_counter import CallCounter
from migscaler.hardware.nvml_answers import (
    ARGUMENT_VERSION_MISMATCH,
    FUNCTION_NOT_FOUND,
    IN_USE,
    NO_PERMISSION,
    NOT_SUPPORTED,
)

_CLASSES: dict[int, type[NvmlError]] = {
    1: DriverGone,  # UNINITIALIZED: the session ended underneath
    NOT_SUPPORTED: NotSupported,
    NO_PERMISSION: NoPermission,
    9: DriverGone,  # DRIVER_NOT_LOADED
    12: DriverGone,  # LIBRARY_NOT_FOUND
    FUNCTION_NOT_FOUND: NotSupported,
    15: GpuLost,
    18: DriverGone,  # LIB_RM_VERSION_MISMATCH
    IN_USE: InUse,
    23: InsufficientResources,
    ARGUMENT_VERSION_MISMATCH: NotSupported,  # this driver does not know so new a struct
    28: GpuLost,  # GPU_NOT_FOUND
    999: GpuLost,  # UNKNOWN
}

_PREFIX = "NVML_ERROR_"
_NAMES = {
    code: name.removeprefix(_PREFIX)
    for name, code in vars(pynvml).items()
    if name.startswith(_PREFIX)
}

T = TypeVar("T")


def install_library(library: object) -> None:
    """Make pynvml call this object in the place of the driver's C library.

    Its attributes are called as the C functions are, with ctypes arguments. Call it before a
    session starts.
    """
    pynvml.nvmlLib = library
    pynvml._nvmlGetFunctionPointer_cache.clear()


def error_for(function: str, code: int) -> NvmlError:
    """Return the exception of an nvmlReturn_t value (nvml.h)."""
    return _CLASSES.get(code, NvmlError)(function, code, _NAMES.get(code, f"CODE_{code}"))


class Caller:
    """Calls NVML by name. Not for use from two threads at once.

    `timer` gives seconds for the duration of calls. Every method raises a class of `NvmlError`.
    """

    def __init__(self, timer: Callable[[], float]) -> None:
        self.counter = CallCounter()
        self._timer = timer
        self._dated: set[str] = set()

    def _call(self, function: str, *arguments: object, expected: tuple[int, ...] = ()) -> Any:
        """Call pynvml, count it, translate its errors; `expected` answers don't count as errors."""
        started = self._timer()
        failure: NvmlError | None = None
        try:
            return getattr(pynvml, function)(*arguments)
        except pynvml.NVMLLibraryMismatchError as error:
            failure = error_for(function, FUNCTION_NOT_FOUND)
            raise failure from error
        except pynvml.NVMLError as error:
            failure = error_for(function, error.value)
            raise failure from error
        except UnicodeDecodeError as error:
            raise ForeignAnswer(f"{function} answered bytes that are no text") from error
        finally:
            counted = failure is not None and failure.code not in expected
            name = failure.code_name if failure is not None and counted else None
            self.counter.count(function, self._timer() - started, name)

    def _newest(self, key: str, new: Callable[[], T], old: Callable[[], T]) -> T:
        """Ask in the new form unless this driver has shown that it knows only the old one."""
        if key not in self._dated:
            try:
                return new()
            except NotSupported as error:
                if error.code not in (FUNCTION_NOT_FOUND, ARGUMENT_VERSION_MISMATCH):
                    raise
                self._dated.add(key)
        return old()

    def _struct(self, name: str) -> Any:
        """Return a class of ctypes that pynvml defines."""
        return getattr(pynvml, name)
