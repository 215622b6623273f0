"""Reads the ctypes arguments a caller gives to the simulated library, and fills its memory.

Structures are those of the caller (nvidia-ml-py's), reached through the reference it passed, so
this package needs no copy of their layout and can't disagree with it. What C would misread is
refused here.
"""

import ctypes
from collections.abc import Sequence
from typing import Any

from migscaler.sim.codes import Answered, Code

# The caller's ctypes objects: their fields are known to the caller's library, not to mypy.
Filled = Any
Argument = object

_Pointer = ctypes.c_void_p.from_buffer


def number(argument: Argument) -> int:
    """Return an integer given as int or as a ctypes integer."""
    if isinstance(argument, int):
        return argument
    value = getattr(argument, "value", None)
    if isinstance(value, int):
        return value
    raise ctypes.ArgumentError(f"an integer is wanted, not {type(argument).__name__}")


def text(argument: Argument) -> str:
    """Return a C string."""
    value = getattr(argument, "value", argument)
    if not isinstance(value, bytes):
        raise Answered(Code.INVALID_ARGUMENT)
    return value.decode("utf-8", "replace")


def target(argument: Argument) -> Filled:
    """Return the object behind `byref(x)` or `pointer(x)`.

    Raises:
        Answered: NULL (INVALID_ARGUMENT).
        ctypes.ArgumentError: a value where C wants an address. ctypes would push it as it is, and
        the
            driver would take its bytes for an address; a lenient stand-in would hide that bug.
    """
    found = getattr(argument, "_obj", None)
    if found is not None:
        return found
    if argument is None:
        raise Answered(Code.INVALID_ARGUMENT)
    if isinstance(argument, ctypes.Array):
        return argument
    if isinstance(argument, ctypes._Pointer):
        address(argument)
        return argument.contents
    raise ctypes.ArgumentError(
        f"{type(argument).__name__} passed by value where a pointer is wanted: use byref()"
    )


def address(handle: Argument) -> int:
    """Return the value of an opaque handle.

    Raises:
        Answered: NULL, or not a handle (INVALID_ARGUMENT).
    """
    try:
        value = _Pointer(handle).value  # type: ignore[arg-type]  # anything with a writable buffer
    except (TypeError, ValueError):
        raise Answered(Code.INVALID_ARGUMENT) from None
    if not value:
        raise Answered(Code.INVALID_ARGUMENT)
    return value


def give_handle(argument: Argument, value: int) -> None:
    """Write a handle where the caller wants it."""
    _Pointer(target(argument)).value = value


def give_field(structure: Filled, name: str, value: int) -> None:
    """Write a handle into a field of a structure."""
    ctypes.c_void_p.from_buffer(structure, getattr(type(structure), name).offset).value = value


def give_slot(array: Filled, slot: int, value: int) -> None:
    """Write a handle into an array of handles."""
    size = ctypes.sizeof(ctypes.c_void_p)
    ctypes.c_void_p.from_buffer(array, slot * size).value = value


def field_address(structure: Filled, name: str) -> int:
    """Return a handle that a structure holds; 0 for NULL."""
    offset = getattr(type(structure), name).offset
    return ctypes.c_void_p.from_buffer(structure, offset).value or 0


def give_text(buffer: Argument, length: Argument, words: str) -> None:
    """Write a C string; INSUFFICIENT_SIZE if it does not fit."""
    raw = words.encode()
    if buffer is None:
        raise Answered(Code.INVALID_ARGUMENT)
    if number(length) <= len(raw):
        raise Answered(Code.INSUFFICIENT_SIZE)
    found: Filled = buffer
    found.value = raw


def require_version(structure: Filled, version: int) -> None:
    """Answer ARGUMENT_VERSION_MISMATCH unless the structure says this number and size.

    NVML's versions are sizeof(struct) | version << 24; a structure whose own size differs from what
    it says is refused too.
    """
    if structure.version != ctypes.sizeof(structure) | version << 24:
        raise Answered(Code.ARGUMENT_VERSION_MISMATCH)


def give_list(count: Argument, array: Argument, size: int) -> Filled | None:
    """Negotiate an array's length: return the array to fill, or None when only the count is asked.

    Writes the count. INSUFFICIENT_SIZE if the array (by the caller's own count) is too short.
    """
    counter = target(count)
    room = counter.value
    counter.value = size
    if array is None:
        return None
    if room < size:
        raise Answered(Code.INSUFFICIENT_SIZE)
    return target(array)


def give_placements(count: Argument, array: Argument, starts: Sequence[int], size: int) -> None:
    """Write placements of one size, in slices, or only their count.

    Raises:
        Answered: the array is too short (INSUFFICIENT_SIZE).
    """
    filled = give_list(count, array, len(starts))
    if filled is not None:
        for slot, start in enumerate(starts):
            filled[slot].start = start
            filled[slot].size = size


def give_handles(count: Argument, array: Argument, handles: Sequence[int], told: int) -> None:
    """Write handles into an array whose length the caller does not say, and their count.

    It must hold as many as the profile was `told` to have at most (nvml.h): a driver may write past
    the end of a shorter one, however many there are.

    Raises:
        Answered: the array is too short (INSUFFICIENT_SIZE).
    """
    counter, filled = target(count), target(array)
    if len(filled) < max(told, len(handles)):
        raise Answered(Code.INSUFFICIENT_SIZE)
    for slot, handle in enumerate(handles):
        give_slot(filled, slot, handle)
    counter.value = len(handles)
