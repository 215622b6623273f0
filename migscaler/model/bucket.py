"""How often something may happen: a burst, then a steady rate."""


class Bucket:
    """Tokens that refill with time, up to a burst; times are seconds of one monotonic clock."""

    __slots__ = ("_at", "_burst", "_per_second", "_tokens")

    def __init__(
        self, per_second: float, burst: float, now: float, *, tokens: float | None = None
    ) -> None:
        """Begin full, or with so many tokens."""
        self._per_second = per_second
        self._burst = burst
        self._tokens = burst if tokens is None else tokens
        self._at = now

    def take(self, now: float) -> bool:
        """Take a token if there is one."""
        self._refill(now)
        if self._tokens < 1.0:
            return False
        self._tokens -= 1.0
        return True

    def is_full(self, now: float) -> bool:
        """Say whether the whole burst is there again."""
        self._refill(now)
        return self._tokens >= self._burst

    def _refill(self, now: float) -> None:
        self._tokens = min(self._burst, self._tokens + (now - self._at) * self._per_second)
        self._at = now
