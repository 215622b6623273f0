"""What the bare scheduler is told by the state file."""

from collections.abc import Sequence
from datetime import datetime
from typing import Protocol

from migscaler.model.decision import HoldRecord


class Waiting(Protocol):
    """Somebody who waits for an instance of a size."""

    @property
    def size(self) -> str:
        """Size class or profile name."""


class LeaseBook(Protocol):
    """Keeps leases and who waits for one (the state file does)."""

    def holds(self, now: datetime) -> tuple[HoldRecord, ...]:
        """Return holds and leases that last at this moment; only those of kind lease count here.

        Raises:
            StoreError: the book can't be read.
        """

    def lease_waits(self, now: datetime) -> Sequence[Waiting]:
        """Return the waits that last at this moment.

        Raises:
            StoreError: the book can't be read.
        """
