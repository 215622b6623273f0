"""Count NVML calls: how many, how long, which errors."""

from collections import Counter

from migscaler.model.stats import CallCount, CallStats


class CallCounter:
    """Cumulative counts by function. Used from one thread at a time."""

    def __init__(self) -> None:
        self._calls: Counter[str] = Counter()
        self._seconds: dict[str, float] = {}
        self._errors: dict[str, Counter[str]] = {}

    def count(self, function: str, seconds: float, error: str | None = None) -> None:
        """Add one call; `error` is the code name of an answer that was not expected."""
        self._calls[function] += 1
        self._seconds[function] = self._seconds.get(function, 0.0) + seconds
        if error is not None:
            self._errors.setdefault(function, Counter())[error] += 1

    def add(self, stats: CallStats) -> None:
        """Add counts that were made elsewhere."""
        for entry in stats.functions:
            self._calls[entry.function] += entry.calls
            self._seconds[entry.function] = self._seconds.get(entry.function, 0.0) + entry.seconds
            for name, number in entry.errors:
                self._errors.setdefault(entry.function, Counter())[name] += number

    def stats(self, worker_restarts: int = 0) -> CallStats:
        """Return everything counted so far, by function name."""
        return CallStats(
            functions=tuple(
                CallCount(
                    function=function,
                    calls=calls,
                    seconds=self._seconds[function],
                    errors=tuple(sorted(self._errors.get(function, {}).items())),
                )
                for function, calls in sorted(self._calls.items())
            ),
            worker_restarts=worker_restarts,
        )

    def take(self) -> CallStats:
        """Return what was counted since the last `take` and start from nothing."""
        stats = self.stats()
        self._calls.clear()
        self._seconds.clear()
        self._errors.clear()
        return stats
