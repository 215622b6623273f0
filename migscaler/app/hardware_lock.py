"""One writer per machine, whatever state directories, accounts and sandboxes the processes have.

The lock of the state directory can't see a second process with another `--state-dir`. This one is a
name in the kernel's abstract socket namespace (unix(7)): it needs no directory that all share (the
unit has a private /tmp and a read-only /run), is given up with the process however it ends, and
tells who has it. It reaches as far as the network namespace: run the daemon in the host's.
"""

import errno
import hashlib
import socket
import struct
from collections.abc import Callable
from pathlib import Path

# struct ucred: pid, uid, gid (unix(7), SO_PEERCRED); of a listening socket, those of `listen`.
_CREDENTIALS = struct.Struct("3i")
# Who asks is not accepted before our next `take`; beyond so many the holder stays nameless.
_CALLERS = 128


def named_hardware(simulated: object | None, boot_id: Callable[[], str], directory: Path) -> str:
    """Return what hardware is called that nobody named: a machine by its boot id.

    Boot ids of simulated nodes are alike; such a node is taken for its state directory's own.
    """
    return boot_id() if simulated is None else f"simulated for {directory.resolve()}"


class HardwareLock:
    """The right to change the GPUs of one piece of hardware, held until `release`."""

    def __init__(self, hardware: str) -> None:
        """Name the hardware: the boot id of a machine, the directory of a simulated node."""
        self._name = b"\0migscaler/" + hashlib.sha256(hardware.encode()).hexdigest()[:32].encode()
        self._socket: socket.socket | None = None

    def take(self) -> str | None:
        """Take the lock; None if it is ours now (or was), else who has it. Never waits."""
        if self._socket is not None:
            self._dismiss()
            return None
        mine = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            mine.bind(self._name)
            mine.listen(_CALLERS)
            mine.setblocking(False)
        except OSError as error:
            mine.close()
            if error.errno == errno.EADDRINUSE:
                return f"{self._holder()} may change these GPUs already"
            return f"it can't be told whether others change these GPUs: {error.strerror}"
        self._socket = mine
        return None

    def release(self) -> None:
        """Give the lock up."""
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    def _dismiss(self) -> None:
        """Hang up on who asked since the last time."""
        while self._socket is not None:
            try:
                self._socket.accept()[0].close()
            except OSError:
                return

    def held_by(self) -> tuple[int, int] | None:
        """Return process id and uid of who has the lock, None if nobody or it does not tell."""
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as asking:
            asking.setblocking(False)
            try:
                asking.connect(self._name)
                found = asking.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
            except OSError:
                return None
        pid, uid, _gid = _CREDENTIALS.unpack(found)
        return pid, uid

    def _holder(self) -> str:
        """Name who has the lock."""
        held_by = self.held_by()
        return "another process" if held_by is None else "process {} of uid {}".format(*held_by)
