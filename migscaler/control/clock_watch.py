"""Notices that the wall clock was stepped, and by how much."""

import threading
from datetime import datetime, timedelta

from migscaler.model.ports import Clock, one_moment

# Wall and monotonic time may drift apart this much between two looks before it counts as a step.
_STEP = timedelta(seconds=2)
# What sets a clock wrong is often followed by what sets it right: nothing is changed meanwhile.
_EVEN_SECONDS = 60.0


class ClockWatch:
    """Compares the wall clock with the monotonic one; safe for several threads."""

    def __init__(self, clock: Clock) -> None:
        """Take the clocks as they are now for even."""
        self._clock = clock
        self._lock = threading.Lock()
        self._last = one_moment(clock)
        self._stepped: tuple[timedelta, float] | None = None

    def look(self) -> timedelta:
        """Return by how much the wall clock was stepped since the last look, zero if it was not."""
        with self._lock:
            before, self._last = self._last, one_moment(self._clock)
            step = _drift(before, self._last)
            if abs(step) <= _STEP:
                return timedelta()
            self._stepped = (step, self._last[1])
            return step

    def problem(self) -> str | None:
        """Say that the clock was stepped within the last minute, None if it runs evenly."""
        with self._lock:
            now = one_moment(self._clock)
            step = _drift(self._last, now)
            if abs(step) > _STEP:
                return _words(step)
            if self._stepped is None:
                return None
            step, at = self._stepped
            return _words(step) if now[1] - at < _EVEN_SECONDS else None


def _drift(before: tuple[datetime, float], after: tuple[datetime, float]) -> timedelta:
    """Return how far wall and monotonic time drifted apart between two moments."""
    return after[0] - before[0] - timedelta(seconds=after[1] - before[1])


def moved(moment: datetime, step: timedelta) -> datetime:
    """Return a moment after a step of the clock; one beyond the calendar stays where it was."""
    try:
        return moment + step
    except OverflowError:
        return moment


def _words(step: timedelta) -> str:
    """Say how the clock was stepped."""
    return f"the clock was stepped by {step.total_seconds():+.0f} s"
