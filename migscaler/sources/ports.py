"""What sources are asked through, and what they ask themselves."""

from typing import Protocol

from migscaler.model.demand import Fetched, Reading, VetoStatus
from migscaler.model.ids import SourceName


class DemandSource(Protocol):
    """Anything that says how many instances are wanted."""

    def fetch(self) -> Fetched:
        """Ask once; a problem is part of the answer, never an exception."""


class VetoSource(Protocol):
    """Anything that says whether changes are forbidden just now."""

    def fetch_veto(self) -> VetoStatus:
        """Ask once; unknown is part of the answer."""


class PushBook(Protocol):
    """Keeps what was pushed (the state file does)."""

    def pushed(self, source: SourceName) -> Reading | None:
        """Return the last reading pushed to a source, expired or not; None if there is none.

        Raises:
            StoreError: the book can't be read.
        """
