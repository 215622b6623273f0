"""Where a simulated node's state lives: in memory, or in a directory shared by processes.

The directory holds `state.json`, replaced by rename under an flock on `lock`, and `calls.jsonl`,
the log of changing calls. It survives a kill -9 of any writer at any point: a reader sees the state
before or after a write, never half. It is not synced: a power cut may lose it.
"""

import fcntl
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from migscaler.sim.state import NodeState, decode, encode


class MemoryStore:
    """State of a node inside one process."""

    shared = False

    def __init__(self, state: NodeState) -> None:
        """Keep the state as it is."""
        self._lock = threading.RLock()
        self._state = state
        self._lines: list[str] = []

    def read(self) -> NodeState:
        """Return the state; not to be changed."""
        return self._state

    @contextmanager
    def changing(self) -> Iterator[NodeState]:
        """Give the state to change, one thread at a time."""
        with self._lock:
            yield self._state
            self._state.generation += 1

    def append(self, line: str) -> None:
        """Add a line to the call log."""
        self._lines.append(line)

    def lines(self) -> tuple[str, ...]:
        """Return the call log."""
        return tuple(self._lines)


class DirectoryStore:
    """State of a node in a directory."""

    shared = True

    def __init__(self, directory: Path, initial: NodeState | None = None) -> None:
        """Open the directory; with `initial` make it anew.

        Raises:
            FileNotFoundError: no node was built in the directory.
        """
        self._directory = directory
        self._path = directory / "state.json"
        self._log = directory / "calls.jsonl"
        self._thread_lock = threading.RLock()
        self._depth = 0
        self._seen: tuple[int, int] = (-1, -1)
        if initial is not None:
            directory.mkdir(parents=True, exist_ok=True)
            self._log.write_text("")
            with self._locked():
                self._write(initial)
        self._state = initial if initial is not None else self._load()

    def read(self) -> NodeState:
        """Return the newest state; costs one stat when nothing changed."""
        with self._thread_lock:
            if not self._depth:
                found = os.stat(self._path)
                if (found.st_mtime_ns, found.st_ino) != self._seen:
                    self._state = self._load()
            return self._state

    @contextmanager
    def changing(self) -> Iterator[NodeState]:
        """Give the newest state to change, one process and thread at a time; written at the end.

        An exception leaves the file as it was.
        """
        with self._thread_lock:
            if self._depth:
                yield self._state
                return
            with self._locked():
                state = self._state = self._load()
                self._depth = 1
                try:
                    yield state
                    self._write(state)
                except BaseException:
                    self._seen = (-1, -1)
                    raise
                finally:
                    self._depth = 0

    @contextmanager
    def _locked(self) -> Iterator[None]:
        lock = os.open(self._directory / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield
        finally:
            os.close(lock)

    def _load(self) -> NodeState:
        with open(self._path, encoding="utf-8") as file:
            found = os.fstat(file.fileno())
            state = decode(file.read())
        self._seen = (found.st_mtime_ns, found.st_ino)
        return state

    def _write(self, state: NodeState) -> None:
        state.generation += 1
        draft = self._directory / "state.json.new"
        draft.write_text(encode(state), encoding="utf-8")
        # The kernel's own time stamps are coarse (4 ms) and inode numbers are reused, so a reader
        # could take a new file for the one it knows. The generation as time stamp is unique.
        stamp = state.generation * 1000
        os.utime(draft, ns=(stamp, stamp))
        os.replace(draft, self._path)
        found = os.stat(self._path)
        self._seen = (found.st_mtime_ns, found.st_ino)

    def append(self, line: str) -> None:
        """Add a line to the call log."""
        log = os.open(self._log, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        try:
            os.write(log, line.encode() + b"\n")
        finally:
            os.close(log)

    def lines(self) -> tuple[str, ...]:
        """Return the call log; a line that is just being written is not there yet."""
        return tuple(self._log.read_text(encoding="utf-8").rpartition("\n")[0].splitlines())


Store = MemoryStore | DirectoryStore
