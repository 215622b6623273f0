"""Who may not be asked for a while, because asking did not come back."""

from dataclasses import dataclass

from migscaler.errors import HardwareError
from migscaler.model.ports import Clock


@dataclass(frozen=True, slots=True, kw_only=True)
class _Entry:
    why: str
    until: float
    backoff: float


class Exclusions:
    """Doubles the time (seconds) at each failure, up to a longest; one success clears it."""

    def __init__(self, clock: Clock, *, first: float, longest: float) -> None:
        self._clock = clock
        self._first = first
        self._longest = longest
        self._entries: dict[str, _Entry] = {}

    def check(self, key: str) -> None:
        """Refuse while the key is excluded.

        Raises:
            HardwareError: it is; the message says why and for how long.
        """
        entry = self._entries.get(key)
        if entry is None:
            return
        left = entry.until - self._clock.monotonic()
        if left > 0:
            raise HardwareError(f"left alone for {left:.0f} s more: {entry.why}")

    def add(
        self, key: str, why: str, first: float | None = None, longest: float | None = None
    ) -> None:
        """Exclude the key from now on, twice as long as the last time; bounds are for this key."""
        known = self._entries.get(key)
        most = longest or self._longest
        backoff = min(most, 2 * known.backoff) if known else first or self._first
        until = self._clock.monotonic() + backoff
        self._entries[key] = _Entry(why=why, until=until, backoff=backoff)

    def clear(self, key: str) -> None:
        """Forget the key's failures."""
        self._entries.pop(key, None)
