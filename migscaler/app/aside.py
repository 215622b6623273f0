"""Work that may wait for a plan or a sample under way, kept off the thread that supervises."""

import logging
import threading
from collections.abc import Callable

_log = logging.getLogger("migscaler.daemon")


class Aside:
    """Runs what it is given in a thread of its own, one lot at a time; who gives it never waits."""

    def __init__(self) -> None:
        """Nothing runs yet."""
        self._thread: threading.Thread | None = None

    def is_free(self) -> bool:
        """Say whether the last lot has ended; only one thread asks and gives."""
        return self._thread is None or not self._thread.is_alive()

    def run(self, works: tuple[Callable[[], object], ...]) -> None:
        """Begin these one after another; one that fails keeps none of the others back."""
        if works:
            self._thread = threading.Thread(
                target=_run_all, args=(works,), name="aside", daemon=True
            )
            self._thread.start()


def _run_all(works: tuple[Callable[[], object], ...]) -> None:
    """Run them; what they raise is told."""
    for work in works:
        try:
            work()
        except Exception:  # noqa: BLE001 - nobody above would hear of it; see the daemon's `tick`
            _log.exception("aside_failed")
