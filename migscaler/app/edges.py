"""Calendar windows open and close on time, however long the period of the policy tick."""

from collections.abc import Callable
from datetime import datetime

from migscaler.model.ports import Clock


class WindowEdges:
    """Brings the tick forward once when a window has opened or closed.

    `next_edge` tells when that is, as of the last tick; `decide_now` runs one at once and says
    whether it could. Called from the main thread, for jobs never touch their scheduler.
    """

    def __init__(
        self,
        next_edge: Callable[[], datetime | None],
        clock: Clock,
        decide_now: Callable[[], bool],
    ) -> None:
        """Nothing is asked yet."""
        self._next_edge = next_edge
        self._clock = clock
        self._decide_now = decide_now
        self._handled: datetime | None = None

    def look(self) -> None:
        """Bring the tick forward if an edge has passed that no tick has seen."""
        edge = self._next_edge()
        if edge is None or edge == self._handled or self._clock.now() < edge:
            return
        if self._decide_now():
            self._handled = edge
