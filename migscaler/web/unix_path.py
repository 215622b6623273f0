"""Unix socket paths of any length: the kernel takes 107 bytes, directories are often deeper."""

import contextlib
import os
from pathlib import Path

# sun_path of unix(7) holds 108 bytes with the final NUL.
_LONGEST = 107


def short_path(path: Path) -> str:
    """Return a path to the same socket that fits into an address.

    For a long one its directory is opened and named by the descriptor, which stays open for the
    life of the process (a daemon opens one, a command one).

    Raises:
        OSError: the directory can't be opened.
    """
    if len(os.fsencode(path)) <= _LONGEST:
        return str(path)
    directory = os.open(path.parent, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    return f"/proc/self/fd/{directory}/{path.name}"


def let_go(short: str) -> None:
    """Close the descriptor of a short path that came to nothing; it is not kept then."""
    with contextlib.suppress(ValueError, OSError):
        os.close(int(short.removeprefix("/proc/self/fd/").split("/")[0]))
