"""How a C function of the simulated library is described."""

from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Symbol:
    """A function `body(session, *arguments) -> nvmlReturn_t` and the driver branches that have it.

    `since` is the first branch; below R450 there is no MIG and nothing is modelled. Branches are
    from NVML's headers as far as they say; where they do not, they are a belief, and the later
    branch is taken, so that callers meet the absence. `absent` is a range of versions without it.
    """

    body: Callable[..., int]
    since: int = 450
    needs_init: bool = True
    absent: tuple[tuple[int, ...], tuple[int, ...]] | None = None

    def offered(self, driver: tuple[int, ...]) -> bool:
        """Say whether a driver version has the function."""
        gone = self.absent is not None and self.absent[0] <= driver < self.absent[1]
        return driver[0] >= self.since and not gone
