"""What one connection to `migscaler nvml-worker` may have done, in a process of its own."""

import gc
import logging
import select
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from multiprocessing.connection import Connection
from pathlib import Path

from migscaler.app.hardware_lock import NOT_BACK, HardwareLock
from migscaler.app.nvml_guard import GuardedWriter
from migscaler.errors import HardwareError
from migscaler.hardware.host import ProcHost
from migscaler.hardware.nvml import NvmlReader
from migscaler.hardware.worker_commands import COMMANDS, RequestRefused
from migscaler.hardware.worker_serving import Operation, operations_of, outlive_nobody, serve
from migscaler.model.bucket import Bucket
from migscaler.model.host import HostTable
from migscaler.model.ports import Clock, HostProcesses
from migscaler.schedulers.bare import MIG_MINORS
from migscaler.schedulers.traces import read_host

_log = logging.getLogger("migscaler.nvml_worker")

# Per second, after a burst of so many. A sample of 16 GPUs takes 18 requests, a step of a plan
# three; nothing honest comes near these.
_REQUESTS = 200.0, 2_000
# An 8-GPU node rebuilt whole takes at most 224 changes, each of about a second on real GPUs.
_CHANGES = 2.0, 600


@dataclass(frozen=True, slots=True, kw_only=True)
class Served:
    """The node that is served, fixed for the life of the service.

    `prepare` runs before the first call, `make_host` makes the view of the GPUs' processes, `proc`
    is where holders are looked for, `hardware` names the lock of who may change these GPUs.
    """

    clock: Clock
    hardware: str
    make_device_nodes: Callable[[], str | None]
    prepare: Callable[[], None] | None = None
    make_host: Callable[[], HostProcesses] = ProcHost
    proc: Path = field(default=Path("/proc"))


@dataclass(frozen=True, slots=True, kw_only=True)
class Peer:
    """Who is at the other end, by the kernel's word (SO_PEERCRED)."""

    pid: int
    uid: int


def serve_peer(served: Served, peer: Peer, descriptor: int, own_pid: int) -> None:
    """Serve one connection until it ends; runs in a process made for it.

    `own_pid` is the service's process: it and its children are no holders.
    """
    outlive_nobody(descriptor)
    with Connection(descriptor) as connection:
        if served.prepare is not None:
            served.prepare()
        reader = NvmlReader(served.clock, served.make_host())
        look = partial(_look, served.proc, own_pid)
        writer = GuardedWriter(reader, served.clock, look, served.proc / MIG_MINORS)
        operations: dict[str, Operation] = {
            **operations_of(reader, writer),
            "read_host": partial(_read_host, look),
            "make_device_nodes": lambda: served.make_device_nodes() or "",
        }
        gc.freeze()
        bounds = Bounds(served.clock, HardwareLock(served.hardware), peer, connection)
        checked = {name: bounds.around(name, one) for name, one in operations.items()}
        try:
            serve(connection, reader, checked)
        except RequestRefused as error:
            _log.error("request_refused pid=%s uid=%s why=%s", peer.pid, peer.uid, error)
        except OSError as error:
            _log.info("connection_ended pid=%s uid=%s why=%s", peer.pid, peer.uid, error)


def _look(proc: Path, own_pid: int, with_traces: bool) -> HostTable:
    return read_host(proc, own_pid, with_traces=with_traces)


def _read_host(look: Callable[[bool], HostTable], with_traces: bool) -> HostTable:
    """Look at the host's processes for somebody else.

    Raises:
        HardwareError: they can't be listed.
    """
    try:
        return look(with_traces)
    except OSError as error:
        raise HardwareError(f"processes can't be listed: {error.strerror}") from error


class Bounds:
    """How often, by whom and how many at once; every change leaves a line in the log."""

    def __init__(self, clock: Clock, lock: HardwareLock, peer: Peer, link: Connection) -> None:
        """Bound what that process asks over that connection; `lock` is never taken here."""
        self._hung_up = select.poll()
        self._hung_up.register(link, 0)  # hang-up is always reported
        timer = clock.monotonic
        self._timer = timer
        self._peer = peer
        self._lock = lock
        self._requests = Bucket(*_REQUESTS, timer())
        self._changes = Bucket(*_CHANGES, timer())

    def around(self, name: str, operation: Operation) -> Operation:
        """Return the operation within its bounds."""
        changes = COMMANDS[name].changes

        def bounded(*arguments: object) -> object:
            if not self._requests.take(self._timer()):
                raise HardwareError("too many requests to the NVML worker")
            if changes:
                return self._change(name, operation, arguments)
            if name == "read_gpu":
                self._lock.of_gpu(str(arguments[0])).refuse_if_held()
            return operation(*arguments)

        return bounded

    def _change(self, name: str, operation: Operation, arguments: tuple[object, ...]) -> object:
        """Make a change and say so."""
        began, outcome = self._timer(), "not known"
        try:
            with self._alone_on(arguments):
                # Asked last: whoever gave us up or started since either is refused its look, or is
                # seen here.
                self._refuse_given_up()
                self._refuse_others()
                result = operation(*arguments)
            outcome = "done"
            return result
        except HardwareError as error:
            outcome = str(error)
            raise
        finally:
            _log.info(
                "nvml_change command=%s arguments=%s pid=%s uid=%s outcome=%s seconds=%.3f",
                name,
                " ".join(map(str, arguments)) or "-",
                self._peer.pid,
                self._peer.uid,
                outcome,
                self._timer() - began,
            )

    def _refuse_given_up(self) -> None:
        """Refuse what nobody waits for any more: what has become of the GPU was looked at since.

        Raises:
            HardwareError: the other end has hung up.
        """
        if self._hung_up.poll(0):
            raise HardwareError("whoever asked for this change has hung up")

    def _refuse_others(self) -> None:
        """Refuse changes beyond the rate, and of a process that is not the machine's one writer.

        Raises:
            HardwareError: either.
        """
        if not self._changes.take(self._timer()):
            raise HardwareError("too many changes asked of the NVML worker")
        holder = self._lock.held_by()
        if holder is None or holder != (self._peer.pid, self._peer.uid):
            found = "nobody" if holder is None else "process {} of uid {}".format(*holder)
            raise HardwareError(
                f"{found} holds the right to change these GPUs, not process {self._peer.pid}"
            )

    @contextmanager
    def _alone_on(self, arguments: tuple[object, ...]) -> Iterator[None]:
        """Keep other connections from changing the same GPU, also one whose call hangs.

        Raises:
            HardwareError: another connection's change of this GPU has not come back.
        """
        changing = self._lock.of_gpu(str(arguments[0]) if arguments else "")
        rival = changing.take()
        if rival is not None:
            raise HardwareError(f"{NOT_BACK}: {rival}")
        try:
            yield
        finally:
            changing.release()
