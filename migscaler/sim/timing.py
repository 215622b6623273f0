"""Measures the CPU time spent inside the simulated library, to tell it apart in benchmarks."""

import threading
import time
from collections.abc import Callable
from pathlib import Path

TIMES_VARIABLE = "MIGSCALER_SIM_TIMES"
"""Environment variable: directory where each process keeps its seconds and calls by pid."""

_WRITE_EVERY_SECONDS = 1.0


class TimedLibrary:
    """Passes every symbol on to a library and adds up the thread CPU time its functions take."""

    def __init__(self, library: object, file: Path) -> None:
        """Wrap a library; the sums are written to `file` about once a second."""
        self._library = library
        self._file = file
        self._lock = threading.Lock()
        self._seconds = 0.0
        self._calls = 0
        self._written = 0.0
        self._wrapped: dict[str, Callable[..., object]] = {}

    def __getattr__(self, symbol: str) -> Callable[..., object]:
        """Return the symbol's function, timed; AttributeError as the library raises it."""
        wrapped = self._wrapped.get(symbol)
        if wrapped is None:
            wrapped = self._timed(getattr(self._library, symbol))
            self._wrapped[symbol] = wrapped
        return wrapped

    def _timed(self, function: Callable[..., object]) -> Callable[..., object]:
        def call(*arguments: object) -> object:
            began = time.thread_time()
            try:
                return function(*arguments)
            finally:
                self._add(time.thread_time() - began)

        return call

    def _add(self, seconds: float) -> None:
        with self._lock:
            self._seconds += seconds
            self._calls += 1
            now = time.monotonic()
            if now - self._written >= _WRITE_EVERY_SECONDS:
                self._written = now
                self._file.write_text(f"{self._seconds} {self._calls}\n", "utf-8")
