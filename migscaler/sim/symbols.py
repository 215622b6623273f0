"""How a C function of the simulated library is described."""

from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Symbol:
    """A function `body(session, *arguments) -> nvmlReturn_t` and the driver branches that have it.

    `since` is the first branch; below R450 there is no MIG and nothing is modelled. Branches are
    from NVML's headers as far as they say; where they do not, they are a belief, and the later
    branch is taken, so that callers meet the absence.
    """

    body: Callable[..., int]
    since: int = 450
    needs_init: bool = True
