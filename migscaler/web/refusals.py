"""Counts whom the web server turned away for being too much."""

from migscaler.model.stats import Refused, WebStats


class Refusals:
    """One number per reason; counted in the server's event loop, read by any thread."""

    def __init__(self) -> None:
        self._counts = dict.fromkeys(Refused, 0)

    def add(self, reason: Refused) -> None:
        """Count one more."""
        self._counts[reason] += 1

    def stats(self) -> WebStats:
        """Return the counts so far, every reason with its own."""
        return WebStats(refused=tuple((why.value, n) for why, n in self._counts.items()))
