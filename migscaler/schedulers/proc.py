"""The process table as files: who runs, whose child, which files open, which environment.

Everything is read below a root that is passed in, so that tests and the simulation can lay one out.
Processes end while they are read; that is not a failure. What may not be read is told as such.
"""

import os
from collections.abc import Iterable
from pathlib import Path

from migscaler.model.host import Process as Process  # processes are read here
from migscaler.model.printable import printable

# What files of a process that has ended answer. Anything else (no descriptor left, no memory) does
# not say that there is nothing to see.
_ENDED = (FileNotFoundError, ProcessLookupError, NotADirectoryError)


def processes(root: Path) -> tuple[Process, ...]:
    """Return every process that can be seen, by rising id.

    Raises:
        OSError: the directory, or a process that is there, can't be read (no descriptor left).
    """
    pids = sorted(int(name) for name in os.listdir(root) if name.isdigit())
    found = (_process(root, pid) for pid in pids)
    return tuple(process for process in found if process is not None)


def family(table: Iterable[Process], ancestor: int) -> frozenset[int]:
    """Return a process and all its descendants."""
    children: dict[int, list[int]] = {}
    for process in table:
        children.setdefault(process.parent, []).append(process.pid)
    found, pending = {ancestor}, [ancestor]
    while pending:
        for pid in children.get(pending.pop(), []):
            if pid not in found:
                found.add(pid)
                pending.append(pid)
    return frozenset(found)


def without_kernel_threads(table: Iterable[Process]) -> tuple[Process, ...]:
    """Return the processes that can have files: kernel threads are half of a large host's table.

    They are children of kthreadd, process 2 of the host. In a PID namespace process 2 is anybody.
    """
    known = tuple(table)
    if not any(process.pid == 2 and process.name == "kthreadd" for process in known):
        return known
    return tuple(process for process in known if process.parent != 2 and process.pid != 2)


def open_files(root: Path, pid: int) -> tuple[str, ...] | None:
    """Return the targets of a process's open files; None if they can't be read.

    Cost: about 1 us per open file. A process that has ended has none.
    """
    targets = []
    try:
        # Links are read relative to the open directory, so that the path to it is walked once.
        directory = os.open(f"{root}/{pid}/fd", os.O_RDONLY | os.O_DIRECTORY)
        try:
            for name in os.listdir(directory):
                target = _link(name, directory)
                if target is not None:
                    targets.append(target)
        finally:
            os.close(directory)
    except _ENDED:
        return ()
    except OSError:
        return None
    return tuple(targets)


def environment(root: Path, pid: int) -> bytes | None:
    """Return a process's initial environment, NUL-separated; None if it can't be read."""
    try:
        return _content(f"{root}/{pid}/environ")
    except _ENDED:
        return b""
    except OSError:
        return None


def _content(path: str) -> bytes:
    """Return a small file's bytes: cheaper than a file object, which asks for its size."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        parts = []
        while part := os.read(descriptor, 65_536):
            parts.append(part)
        return b"".join(parts)
    finally:
        os.close(descriptor)


def _process(root: Path, pid: int) -> Process | None:
    """Read one process; None if it has ended. The name may contain blanks and brackets."""
    try:
        text = _content(f"{root}/{pid}/stat").decode("utf-8", "replace")
    except _ENDED:
        return None
    first, last = text.find("("), text.rfind(")")
    fields = text[last + 1 :].split(None, 2)
    if first < 0 or len(fields) < 2:
        return None
    # Its owner chooses the name, and logs, answers and terminals show it.
    return Process(pid=pid, name=printable(text[first + 1 : last]), parent=int(fields[1]))


def _link(name: str, directory: int) -> str | None:
    try:
        return os.readlink(name, dir_fd=directory)
    except FileNotFoundError:
        return None
