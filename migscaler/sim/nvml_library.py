"""The simulated NVML C library: plain functions of ctypes arguments that return nvmlReturn_t."""

import ctypes
import os
from collections.abc import Callable

from migscaler.sim import (
    calls_compute,
    calls_device,
    calls_gpm,
    calls_mig,
    calls_system,
    calls_usage,
)
from migscaler.sim.arguments import address
from migscaler.sim.codes import Answered, Code
from migscaler.sim.core import driver_tuple
from migscaler.sim.faults import strike
from migscaler.sim.handles import Kind
from migscaler.sim.node import SimNode
from migscaler.sim.session import Session
from migscaler.sim.state import NodeState
from migscaler.sim.symbols import Symbol

_TEXTS = {
    Code.SUCCESS: "Success",
    Code.UNINITIALIZED: "Uninitialized",
    Code.INVALID_ARGUMENT: "Invalid Argument",
    Code.NOT_SUPPORTED: "Not Supported",
    Code.NO_PERMISSION: "Insufficient Permissions",
    Code.NOT_FOUND: "Not Found",
    Code.INSUFFICIENT_SIZE: "Insufficient Size",
    Code.DRIVER_NOT_LOADED: "Driver Not Loaded",
    Code.TIMEOUT: "Timeout",
    Code.FUNCTION_NOT_FOUND: "Function Not Found",
    Code.GPU_IS_LOST: "GPU is lost",
    Code.RESET_REQUIRED: "GPU requires reset",
    Code.LIB_RM_VERSION_MISMATCH: "Driver/library version mismatch",
    Code.IN_USE: "In use by another client",
    Code.MEMORY: "Insufficient Memory",
    Code.NO_DATA: "No data",
    Code.INSUFFICIENT_RESOURCES: "Insufficient Resources",
    Code.ARGUMENT_VERSION_MISMATCH: "Argument version mismatch",
}
_Function = Callable[..., int]


class NvmlLibrary:
    """One process's loaded NVML library; install it as `pynvml.nvmlLib`.

    Its attributes are the C symbols of the node's driver at the time it was made; any other name
    raises AttributeError, as ctypes does. Several libraries may use one node, as processes do.
    """

    def __init__(self, node: SimNode, actor: str | None = None) -> None:
        """Load the library of the node's present driver; `actor` is who the call log names."""
        session = Session(node, actor if actor is not None else f"nvml/{os.getpid()}")
        version = driver_tuple(session.driver)
        for name, symbol in all_symbols().items():
            if symbol.offered(version):
                setattr(self, name, _bind(session, name, symbol))
        self.nvmlErrorString = _error_string()

    # mypy: C symbols are attributes made at run time; a missing one is a real AttributeError.
    def __getattr__(self, name: str) -> _Function:
        """Refuse a symbol that this driver's library does not have."""
        raise AttributeError(f"undefined symbol: {name}")


def all_symbols() -> dict[str, Symbol]:
    """Return every function that is modelled, by C name."""
    return {
        **calls_system.symbols(),
        **calls_device.symbols(),
        **calls_usage.symbols(),
        **calls_mig.symbols(),
        **calls_compute.symbols(),
        **calls_gpm.symbols(),
    }


def _bind(session: Session, name: str, symbol: Symbol) -> _Function:
    """Return the plain function for a symbol: checks the session, strikes faults, answers codes."""
    body, needs_init, store = symbol.body, symbol.needs_init, session.node.store

    def function(*arguments: object) -> int:
        try:
            state = store.read()
            if needs_init:
                session.check(state)
            if not state.faults:
                return body(session, *arguments)
            return strike(
                session.node,
                name,
                _gpu_index(state, arguments),
                lambda: _answer(lambda: body(session, *arguments)),
            )
        except Answered as answer:
            return answer.code

    function.__name__ = name
    return function


def _answer(call: Callable[[], int]) -> int:
    """Return a call's code, also when it was raised."""
    try:
        return call()
    except Answered as answer:
        return answer.code


def _gpu_index(state: NodeState, arguments: tuple[object, ...]) -> int | None:
    """Return the GPU that a call is about: by handle, or by index or UUID where it asks for one."""
    match arguments:
        case (ctypes._Pointer() as handle, *_):
            return _gpu_of_handle(handle)
        case (bytes(text), _) | (ctypes.c_char_p(value=bytes(text)), _):
            found = (gpu.index for gpu in state.gpus if gpu.uuid.encode() == text)
            return next(found, None)
        case (ctypes.c_uint(value=index), _) if index < len(state.gpus):
            return int(index)
        case _:
            return None


def _gpu_of_handle(handle: object) -> int | None:
    """Return the index in a handle, None for handles of no GPU."""
    try:
        value = address(handle)
    except Answered:
        return None
    known = (Kind.DEVICE, Kind.GPU_INSTANCE, Kind.COMPUTE_INSTANCE, Kind.MIG_DEVICE)
    return value >> 28 & 0xFFF if value >> 48 in known else None


def _error_string() -> Callable[[int], bytes]:
    """Return nvmlErrorString; works without init, as in C."""

    def function(code: int) -> bytes:
        known = Code(code) if code in Code.__members__.values() else None
        return _TEXTS.get(known or Code.UNKNOWN, "Unknown Error").encode()

    function.__name__ = "nvmlErrorString"
    return function
