"""How the last attempt of each collector fared: NVML, DCGM, each source and veto."""

import logging
import threading
from collections.abc import Iterable

from migscaler.model.ports import Clock
from migscaler.model.status import CollectorStatus

_log = logging.getLogger("migscaler.loop")


class Collectors:
    """Notes of attempts, by collector; safe for several threads."""

    def __init__(self, clock: Clock) -> None:
        """Know of no attempt yet."""
        self._clock = clock
        self._lock = threading.Lock()
        self._last: dict[str, CollectorStatus] = {}
        self._kept: frozenset[str] | None = None

    def keep_only(self, names: Iterable[str]) -> None:
        """Forget all others, also those whose last attempt is still under way.

        What is no longer configured would else count as failing for as long as the process lives.
        """
        with self._lock:
            self._kept = frozenset(names)
            self._last = {name: last for name, last in self._last.items() if name in self._kept}

    def note(self, name: str, began: float, *, problem: str | None) -> None:
        """Note an attempt begun at a monotonic second; logged when it turned out another way."""
        with self._lock:
            if self._kept is not None and name not in self._kept:
                return
            before = self._last.get(name)
            last = before.last_success_at if before else None
            if (problem is None) != (before is None or before.success):
                _log.warning("collector_turned collector=%s problem=%s", name, problem or "none")
            self._last[name] = CollectorStatus(
                name=name,
                success=problem is None,
                duration_seconds=max(0.0, self._clock.monotonic() - began),
                last_success_at=self._clock.now() if problem is None else last,
                problem=problem,
            )

    def statuses(self) -> tuple[CollectorStatus, ...]:
        """Return the last attempt of each, by name."""
        with self._lock:
            return tuple(self._last[name] for name in sorted(self._last))
