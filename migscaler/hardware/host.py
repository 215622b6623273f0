"""The host's processes as /proc shows them."""

import pwd
from pathlib import Path

# Kernel threads exist only in the initial PID namespace, and pid 2 has been their parent since
# Linux 2.6; `hidepid` hides it from those who may not see other users' processes.
_KTHREADD = ("2", "kthreadd")


class ProcHost:
    """Reads /proc; `proc_root` is elsewhere in a container with the host's /proc mounted."""

    def __init__(self, proc_root: Path = Path("/proc")) -> None:
        self._root = proc_root

    def visible(self) -> bool:
        """Say whether this process sees all processes of the host."""
        pid, comm = _KTHREADD
        return self._read(pid, "comm") == comm

    def exists(self, pid: int) -> bool:
        """Say whether such a process exists."""
        return (self._root / str(pid)).exists()

    def name_and_user(self, pid: int) -> tuple[str | None, str | None]:
        """Return comm and account (its number where it has no name), None where not readable."""
        try:
            uid = (self._root / str(pid)).stat().st_uid
        except OSError:
            return None, None
        try:
            user = pwd.getpwuid(uid).pw_name
        except KeyError:
            user = str(uid)
        return self._read(str(pid), "comm"), user

    def _read(self, *path: str) -> str | None:
        """Return a file's text without its last newline, None if it can't be read."""
        try:
            return self._root.joinpath(*path).read_text("utf-8", "replace").rstrip("\n")
        except OSError:
            return None
