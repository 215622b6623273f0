"""How many instances were in use when a number of waiting jobs was true."""

from collections import deque
from collections.abc import Collection
from datetime import datetime, timedelta

from migscaler.control.clock_watch import moved

# How far back a reading's "true for" moment can lie when it is first seen.
_REMEMBERED = timedelta(minutes=15)

Use = tuple[tuple[str, int], ...]
"""Instances in use by size text; empty where that is not known."""

Key = tuple[str, bool]
"""A source's name, and whether it is an override set by hand."""


class UseBook:
    """Pictures of what was in use, and the one that goes with each source's reading.

    A reading keeps the picture found when it was first seen: what is pushed once holds for hours,
    and a picture of jobs that have started since would count them twice. Not safe for several
    threads; whoever holds the book has a lock.
    """

    def __init__(self) -> None:
        """Know of no picture yet."""
        self._pictures: deque[tuple[datetime, Use]] = deque()
        self._found: dict[Key, tuple[datetime, Use]] = {}

    def note(self, at: datetime, use: Use) -> None:
        """Remember what is in use at a moment, later than those before."""
        self._pictures.append((at, use))
        while self._pictures and at - self._pictures[0][0] > _REMEMBERED:
            self._pictures.popleft()

    def use_at(self, key: Key, moment: datetime) -> Use:
        """Return what was in use when a source's reading was true; empty if nobody looked then.

        That is the last picture not after the moment; a later one proves nothing of it.
        """
        found = self._found.get(key)
        if found is None or found[0] != moment:
            earlier = [use for at, use in self._pictures if at <= moment]
            found = self._found[key] = (moment, earlier[-1] if earlier else ())
        return found[1]

    def forget_overrides(self, but: Collection[str]) -> None:
        """Forget the overrides that have ended."""
        self._found = {k: v for k, v in self._found.items() if not k[1] or k[0] in but}

    def follow_clock(self, step: timedelta) -> None:
        """Move all moments with a clock that was stepped."""
        self._pictures = deque((moved(at, step), use) for at, use in self._pictures)
        self._found = {k: (moved(at, step), use) for k, (at, use) in self._found.items()}
