"""Keeps the C library from holding on to memory that a daemon of many days no longer needs.

glibc gives each thread a heap of its own, up to eight a core (mallopt(3), M_ARENA_MAX), and returns
little of one that shrinks. Every reload begins new threads, and pruning reads much for a moment:
without bounds each leaves a heap as large as its busiest moment behind.
"""

import ctypes
import gc
from collections.abc import Callable

# malloc.h of glibc; other C libraries (musl) have neither function, and no heap a thread.
_M_ARENA_MAX = -8
_HEAPS = 2


def bound_heaps() -> bool:
    """Let threads share heaps; for a process that has no second thread yet. False: not glibc."""
    mallopt = _of_c_library("mallopt")
    return mallopt is not None and mallopt(_M_ARENA_MAX, _HEAPS) == 1


def put_off_collecting() -> None:
    """Collect nothing until `collect_again`; for the first moment of a process that lives long.

    Nearly all that a start makes is kept. Walking it again and again while modules were loaded took
    a tenth of a start's processor time (measured 2026-11).
    """
    gc.disable()


def collect_again() -> None:
    """Collect from now on, but do not walk what is there; before the first client is served.

    Each connection leaves some 9 KB in cycles (measured 2026-11), and settling may take minutes
    where a driver hangs.
    """
    gc.freeze()
    gc.enable()


def start_over() -> None:
    """Give back what the start no longer needs; what it made stays and is not walked any more."""
    gc.unfreeze()
    give_back()
    gc.freeze()


def give_back() -> bool:
    """Collect what is unreachable and return free memory to the kernel. False: not glibc.

    Takes tens of milliseconds: for now and then, not for every tick.
    """
    gc.collect()
    trim = _of_c_library("malloc_trim")
    if trim is not None:
        trim(0)
    return trim is not None


def _of_c_library(name: str) -> Callable[..., int] | None:
    """Return a function of the C library that this process runs on, None where it has none."""
    return getattr(ctypes.CDLL(None), name, None)
