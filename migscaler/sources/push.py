"""A source that is told: the last pushed reading while it holds."""

from migscaler.errors import StoreError
from migscaler.model.demand import Fetched, RawRow, Reading
from migscaler.model.ids import SourceName
from migscaler.model.ports import Clock
from migscaler.sources.ports import PushBook


class PushSource:
    """Answers from the book of pushed readings; nothing pushed, or expired, is unknown."""

    def __init__(self, *, name: SourceName, book: PushBook, clock: Clock) -> None:
        """Take the source's name in the configuration and where pushes are kept."""
        self._name = name
        self._book = book
        self._clock = clock

    def fetch(self) -> Fetched:
        """Return the last pushed reading, or why there is none that holds."""
        try:
            reading = self._book.pushed(self._name)
        except StoreError as error:
            return Fetched(reading=None, problem=f"pushed demand can't be read: {error}")
        if reading is None:
            return Fetched(reading=None, problem="nothing was pushed yet")
        rows = _rows(reading)
        if self._clock.now() >= reading.expires_at:
            problem = f"what was pushed expired at {reading.expires_at:%Y-%m-%d %H:%M:%S} UTC"
            return Fetched(reading=None, problem=problem, rows=rows)
        return Fetched(reading=reading, rows=rows)


def _rows(reading: Reading) -> tuple[RawRow, ...]:
    return tuple(RawRow(labels=want.size, value=str(want.count)) for want in reading.wants)
