"""One writer per machine, whatever state directories, accounts and sandboxes the processes have.

The lock of the state directory can't see a second process with another `--state-dir`. This one is a
name in the kernel's abstract socket namespace (unix(7)): it needs no directory that all share (the
unit has a private /tmp and a read-only /run), is given up with the process however it ends, and
tells who has it. It reaches as far as the network namespace: run the daemon in the host's.

The processes that change GPUs for the holder inherit it (`descriptors`): one that a killed holder
left behind inside a driver call may still change a GPU, and keeps the lock until it has ended.
The processes of `migscaler nvml-worker` can't; each has a name for the GPU that it is just changing
(`of_gpu`), and whoever has the lock believes no look at such a GPU.
"""

import errno
import hashlib
import os
import socket
import struct
from collections.abc import Callable
from pathlib import Path

from migscaler.errors import HardwareError
from migscaler.model.gpu import GpuReading, NodeReading
from migscaler.model.ids import GpuUuid
from migscaler.model.ports import Clock, GpuReader
from migscaler.model.stats import CallStats

# struct ucred: pid, uid, gid (unix(7), SO_PEERCRED); of a listening socket, those of `listen`.
_CREDENTIALS = struct.Struct("3i")
# Who asks is not accepted before our next `take`, or look at a GPU; beyond so many the holder stays
# nameless.
_CALLERS = 128
# What a dead holder left behind ends at once, or after 1 s from within a call that lets it.
_LEFT_BEHIND_SECONDS = 1.5
_PAUSE_SECONDS = 0.02
NOT_BACK = "an earlier change of this GPU has not come back"


def named_hardware(simulated: object | None, boot_id: Callable[[], str], directory: Path) -> str:
    """Return what hardware is called that nobody named: a machine by its boot id.

    Boot ids of simulated nodes are alike; such a node is taken for its state directory's own.
    """
    return boot_id() if simulated is None else f"simulated for {directory.resolve()}"


class HardwareLock:
    """The right to change the GPUs of one piece of hardware, held until `release`."""

    def __init__(self, hardware: str) -> None:
        """Name the hardware: the boot id of a machine, the directory of a simulated node."""
        self._hardware = hardware
        self._name = b"\0migscaler/" + hashlib.sha256(hardware.encode()).hexdigest()[:32].encode()
        self._socket: socket.socket | None = None

    def of_gpu(self, uuid: str) -> "HardwareLock":
        """Return the lock of who just changes one of these GPUs for a process that has this lock.

        It goes with the process that has it, however late that ends and whoever else has ended.
        """
        return HardwareLock(f"{self._hardware} changing {uuid.lower()}")

    def take(self) -> str | None:
        """Take the lock; None if it is ours now (or was), else who has it. Never waits."""
        problem = self._bind()
        return self._rival() if problem == errno.EADDRINUSE else self._unknown(problem)

    def is_ours(self) -> bool:
        """Take the lock if nobody has it, and say whether it is ours; asks nobody who has it.

        One that has ended dismisses no callers: asking it again and again would use them up.
        """
        return self._bind() is None

    def take_at_start(self, clock: Clock) -> str | None:
        """Take the lock as `take`; wait 1.5 s at most for what a dead holder left behind."""
        problem = self._bind()
        if problem != errno.EADDRINUSE:
            return self._unknown(problem)
        held_by = self.held_by()
        # By nobody: it was let go of between the two questions.
        if held_by is not None and not _has_ended(held_by[0]):
            return self._rival()
        end = clock.monotonic() + _LEFT_BEHIND_SECONDS
        while not self.is_ours():
            if clock.monotonic() > end:
                return self._rival()
            clock.sleep(_PAUSE_SECONDS)
        return None

    def _bind(self) -> int | None:
        """Take the lock; None if it is ours now (or was), else the number of the error."""
        if self._socket is not None:
            self.dismiss()
            return None
        try:
            mine = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        except OSError as error:
            return error.errno or errno.EIO
        try:
            mine.bind(self._name)
            mine.listen(_CALLERS)
            mine.setblocking(False)
        except OSError as error:
            mine.close()
            return error.errno or errno.EIO
        self._socket = mine
        return None

    def _unknown(self, problem: int | None) -> str | None:
        if problem is None:
            return None
        return f"it can't be told whether others change these GPUs: {os.strerror(problem)}"

    def descriptors(self) -> tuple[int, ...]:
        """Return what a process must have open to hold the lock too; nothing if it is not ours."""
        return () if self._socket is None else (self._socket.fileno(),)

    def release(self) -> None:
        """Give the lock up."""
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    def dismiss(self) -> None:
        """Hang up on who asked since the last time, if it is ours; any thread may."""
        mine = self._socket
        while mine is not None:
            try:
                mine.accept()[0].close()
            except OSError:
                return

    def held_by(self) -> tuple[int, int] | None:
        """Return process id and uid of who has the lock, None if nobody or it does not tell."""
        try:
            return self._holder()
        except OSError:
            return None

    def refuse_if_held(self) -> None:
        """Refuse to go by what its holder may be changing, without having it for a moment.

        Raises:
            HardwareError: somebody has the lock, or that can't be told.
        """
        try:
            holder = "process {} of uid {}".format(*self._holder())
        except ConnectionRefusedError:
            return
        except BlockingIOError:
            holder = "a process that was asked too often to answer"
        except OSError as error:
            raise HardwareError(
                f"it can't be told whether an earlier change has come back: {error.strerror}"
            ) from error
        raise HardwareError(f"{NOT_BACK} ({holder}): it may still come through")

    def _holder(self) -> tuple[int, int]:
        """Return process id and uid of who has the lock.

        Raises:
            ConnectionRefusedError: nobody has it.
            OSError: it can't be asked.
        """
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as asking:
            asking.setblocking(False)
            asking.connect(self._name)
            found = asking.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
        pid, uid, _gid = _CREDENTIALS.unpack(found)
        return pid, uid

    def _rival(self) -> str:
        """Say who has the lock."""
        held_by = self.held_by()
        if held_by is None:
            return "another process may change these GPUs already"
        holder = "process {} of uid {}".format(*held_by)
        if _has_ended(held_by[0]):
            return f"{holder} has ended, but not its call into the driver, which may change a GPU"
        return f"{holder} may change these GPUs already"


class SettledReader:
    """A reader that refuses the look by which plans are begun and ended while it may not hold.

    It may not while a process of `migscaler nvml-worker` changes the GPU, also for a daemon that
    has ended: that change may still come through.
    """

    def __init__(self, reader: GpuReader, lock: HardwareLock) -> None:
        """Take what reads, and the lock of who may change what it reads."""
        self._reader = reader
        self._lock = lock

    def read_node(self) -> NodeReading:
        """Return what the reader says; a sample changes nothing."""
        return self._reader.read_node()

    def read_gpu(self, uuid: GpuUuid) -> GpuReading:
        """Read one GPU afresh.

        Raises:
            HardwareError: it does not answer, or a change of it has not come back.
        """
        self._lock.of_gpu(uuid).refuse_if_held()
        # Whoever makes the change that comes next asks whose the right is, as at the one before.
        self._lock.dismiss()
        return self._reader.read_gpu(uuid)

    def call_stats(self) -> CallStats:
        """Return the reader's counts."""
        return self._reader.call_stats()


def _has_ended(pid: int) -> bool:
    """Say whether there is no such process, or nothing but its exit code; 0 is out of our sight."""
    if pid == 0:
        return False
    try:
        os.kill(pid, 0)
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] in "ZX"
    except ProcessLookupError:
        return True
    except OSError:
        return False  # another account's, and perhaps hidden from us
