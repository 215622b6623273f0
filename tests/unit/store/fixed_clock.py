"""A clock that stands still until it is told otherwise."""

from datetime import datetime, timedelta

from tests.builders import MONOTONIC, NOW


class FixedClock:
    """Moves only by `sleep` and `advance`."""

    def __init__(self, now: datetime = NOW) -> None:
        self._now = now
        self._monotonic = MONOTONIC

    def now(self) -> datetime:
        return self._now

    def monotonic(self) -> float:
        return self._monotonic

    def sleep(self, seconds: float) -> None:
        self._now += timedelta(seconds=seconds)
        self._monotonic += seconds

    advance = sleep
