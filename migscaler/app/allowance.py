"""How often something may happen: a bucket that fills at a steady rate."""

from collections.abc import Callable


class Allowance:
    """So many at once, and so many more each second. Used from one thread."""

    def __init__(self, timer: Callable[[], float], *, at_once: int, per_second: float) -> None:
        """Begin full; `timer` gives seconds."""
        self._timer = timer
        self._most = float(at_once)
        self._rate = per_second
        self._left = self._most
        self._at = timer()

    def take(self) -> bool:
        """Take one, or say that none is left."""
        now = self._timer()
        self._left = min(self._most, self._left + (now - self._at) * self._rate)
        self._at = now
        if self._left < 1:
            return False
        self._left -= 1
        return True
