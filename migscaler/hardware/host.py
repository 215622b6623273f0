"""The host's processes as /proc shows them."""

import os
import pwd
from pathlib import Path

from migscaler.hardware.cgroups import container_of
from migscaler.model.printable import printable
from migscaler.model.process import HostProcess

# Kernel threads exist only in the initial PID namespace, and pid 2 has been their parent since
# Linux 2.6; `hidepid` hides it from those who may not see other users' processes.
_KTHREADD = ("2", "kthreadd")

_OWN_PROC = Path("/proc")


class ProcHost:
    """Reads /proc; `proc_root` is elsewhere in a container with the host's /proc mounted."""

    def __init__(self, proc_root: Path = _OWN_PROC) -> None:
        self._root = proc_root

    def visible(self) -> bool:
        """Say whether this process sees all processes of the host."""
        pid, comm = _KTHREADD
        return self._read(pid, "comm") == comm

    def exists(self, pid: int) -> bool:
        """Say whether such a process exists.

        A /proc mounted with hidepid hides other users' processes; the kernel still tells that there
        is one. Their leases must not end because we may not look.
        """
        if (self._root / str(pid)).exists():
            return True
        return self._root == _OWN_PROC and may_be_signalled(pid)

    def process(self, pid: int) -> HostProcess:
        """Return name, account and container of a process; nothing once it has ended.

        Cost: two small files of /proc, about 50 us.
        """
        try:
            uid = (self._root / str(pid)).stat().st_uid
        except OSError:
            return HostProcess()
        try:
            user = pwd.getpwuid(uid).pw_name
        except KeyError:
            user = str(uid)
        name = self._read(str(pid), "comm")
        return HostProcess(
            name=None if name is None else printable(name),  # its owner chooses it
            user=user,
            container=container_of(self._read(str(pid), "cgroup") or ""),
        )

    def _read(self, *path: str) -> str | None:
        """Return a file's text without its last newline, None if it can't be read."""
        try:
            return self._root.joinpath(*path).read_text("utf-8", "replace").rstrip("\n")
        except OSError:
            return None


def may_be_signalled(pid: int) -> bool:
    """Say whether a process is there to be signalled, by us or somebody (kill(2), signal 0)."""
    if pid <= 0:
        return False  # a group of processes
    try:
        os.kill(pid, 0)
    except PermissionError:
        return True
    except (OSError, OverflowError):
        return False
    return True
