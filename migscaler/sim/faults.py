"""Faults to inject into a simulated node, and how they strike a call.

Write one with `fails`, `slow`, `hangs` or `loses_answer` and give it to `node.add_fault`. It
may be set by another process: with a directory, all processes on the node see it at their next
call.
"""

import time
from collections.abc import Callable

from migscaler.sim.codes import Code
from migscaler.sim.incidents import Incidents
from migscaler.sim.state import Fault, NodeState

_STEP_SECONDS = 0.02
_LONGEST_HANG_SECONDS = 600.0


def fails(
    function: str,
    code: Code,
    *,
    nth: int = 1,
    times: int | None = 1,
    gpu: int | None = None,
) -> Fault:
    """Answer `code` and do nothing, at the nth call from now; `times=None`: from then on."""
    return Fault(0, function, "fail", int(code), 0.0, nth - 1, times, gpu)


def slow(
    function: str,
    seconds: float,
    *,
    nth: int = 1,
    times: int | None = None,
    gpu: int | None = None,
) -> Fault:
    """Work after real `seconds` (the GIL is released meanwhile, as in C).

    They run from the moment at which others see the call counted, also for a process that is
    stopped just then: one that goes on later does not begin to wait. A call under way works at once
    when the fault is cleared.
    """
    return Fault(0, function, "slow", 0, seconds, nth - 1, times, gpu)


def hangs(
    function: str,
    *,
    at_most: float = _LONGEST_HANG_SECONDS,
    nth: int = 1,
    times: int | None = 1,
    gpu: int | None = None,
) -> Fault:
    """Come back only when the fault is cleared or `at_most` seconds passed; answer TIMEOUT."""
    return Fault(0, function, "hang", int(Code.TIMEOUT), at_most, nth - 1, times, gpu)


def loses_answer(
    function: str,
    code: Code = Code.UNKNOWN,
    *,
    nth: int = 1,
    times: int | None = 1,
    gpu: int | None = None,
) -> Fault:
    """Do the work and then answer `code`."""
    return Fault(0, function, "lose", int(code), 0.0, nth - 1, times, gpu)


def strike(node: Incidents, function: str, gpu: int | None, work: Callable[[], int]) -> int:
    """Call `work` under the faults planned for the function; return the code the caller sees."""
    if not any(_concerns(fault, function, gpu) for fault in node.state.faults):
        return work()
    with node.changing() as state:
        fault = _draw(state, function, gpu)
        counted = time.monotonic()
    if fault is None:
        return work()
    match fault.kind:
        case "slow":
            _wait(node, fault, counted)
            return work()
        case "lose":
            done = work()
            return fault.code if done == Code.SUCCESS else done
        case "hang":
            _wait(node, fault, counted)
            return fault.code
        case _:
            return fault.code


def _concerns(fault: Fault, function: str, gpu: int | None) -> bool:
    return (
        fault.function in (function, "*")
        and fault.times != 0
        and (fault.gpu is None or fault.gpu == gpu)
    )


def _draw(state: NodeState, function: str, gpu: int | None) -> Fault | None:
    """Count this call on every fault that concerns it; return the first that strikes.

    A spent fault stays in the list, so that whoever hangs on it can see it being cleared.
    """
    struck: Fault | None = None
    for fault in state.faults:
        if not _concerns(fault, function, gpu):
            continue
        if fault.skip > 0:
            fault.skip -= 1
        elif struck is None:
            struck = fault
            if fault.times is not None:
                fault.times -= 1
    return struck


def _wait(node: Incidents, fault: Fault, counted: float) -> None:
    """Wait in small steps, so that clearing the fault ends it."""
    while (left := counted + fault.seconds - time.monotonic()) > 0:
        time.sleep(min(left, _STEP_SECONDS))
        if all(known.id != fault.id for known in node.state.faults):
            return
