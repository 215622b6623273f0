"""What every part of the store has: the file and the clock that stamps its rows."""

from migscaler.model.ports import Clock
from migscaler.store.database import Database


class Concern:
    """One subject of the store over the shared connection."""

    def __init__(self, database: Database, clock: Clock) -> None:
        """Keep the connection; tables are there since it was opened."""
        self._db = database
        self._clock = clock
