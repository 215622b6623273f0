"""NVML in a process of its own: what hangs or crashes there costs a GPU a while, nothing else."""

import threading
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import NoReturn, TypeVar

from migscaler.errors import DeadlineExceeded, DriverGone, ForeignAnswer, HardwareError
from migscaler.hardware.call_counter import CallCounter
from migscaler.hardware.exclusions import Exclusions
from migscaler.hardware.host import ProcHost
from migscaler.hardware.roll_call import GpuAnswer, NodeFacts, RollCall
from migscaler.hardware.worker_link import Worker
from migscaler.hardware.worker_messages import Request, Setup
from migscaler.hardware.worker_process import WorkerProcess
from migscaler.hardware.worker_remote import RemoteWorker
from migscaler.model.gpu import GpuReading, ModeChange, NodeReading
from migscaler.model.host import HostTable
from migscaler.model.ids import CiId, GiId, GpuUuid
from migscaler.model.ports import Clock, HostProcesses
from migscaler.model.profile import InstanceSpec
from migscaler.model.stats import CallStats

_NODE = "node"
_HOST = "host"
_STOP_SECONDS = 3.0

T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerLimits:
    """How long things may take, in seconds.

    A GI destroy takes about 1 s, walks up to 10 s under contention (issue 1480 and nvlib.go of
    kubernetes-sigs/dra-driver-nvidia-gpu); hence the deadlines. `pass_seconds` bounds one reading
    of the whole node but for one read deadline: after it, GPUs not asked yet are gaps.
    """

    read_seconds: float = 10.0
    write_seconds: float = 60.0
    start_seconds: float = 30.0
    pass_seconds: float = 30.0
    first_backoff_seconds: float = 30.0
    longest_backoff_seconds: float = 600.0


class NvmlWorker:
    """Reads and changes GPUs through another process, one request at a time.

    Safe for several threads; they take turns. A request past its deadline abandons that process,
    leaves the GPU it was about alone for a while, and the next request starts another one.
    """

    def __init__(
        self,
        clock: Clock,
        prepare: Callable[[], None] | None = None,
        make_host: Callable[[], HostProcesses] = ProcHost,
        limits: WorkerLimits | None = None,
        address: Path | None = None,
    ) -> None:
        """Nothing is started yet.

        Without `address` the process is our child; `clock`, `prepare` and `make_host` are pickled
        into it. With it, it is one of `migscaler nvml-worker` listening there, under an account of
        its own, and the other three are its own affair.
        """
        self._clock = clock
        self._limits = limits or WorkerLimits()
        setup = Setup(clock=clock, make_host=make_host, prepare=prepare)
        self._start: Callable[[float], Worker] = (
            partial(WorkerProcess, setup) if address is None else partial(RemoteWorker, address)
        )
        self._lock = threading.RLock()
        self._process: Worker | None = None
        self._abandoned: list[Worker] = []
        self._given_up: dict[str, Worker] = {}
        self._released = False
        self._restarts = 0
        self._counter = CallCounter()
        self._roll = RollCall()
        self._gone_for: set[str] = set()
        self._exclusions = Exclusions(
            clock,
            first=self._limits.first_backoff_seconds,
            longest=self._limits.longest_backoff_seconds,
        )

    # Reading

    def read_node(self) -> NodeReading:
        """Read every GPU, each within its own deadline; one that does not answer is a gap.

        Raises:
            HardwareError: NVML as a whole does not answer, or the driver is released.
        """
        with self._lock:
            end = self._clock.monotonic() + self._limits.pass_seconds
            facts = self._ask(_NODE, "begin", kind=NodeFacts, seconds=self._limits.read_seconds)
            return self._roll.read(facts, lambda index, uuid: self._read_index(index, uuid, end))

    def _read_index(self, index: int, uuid: GpuUuid | None, end: float) -> GpuAnswer:
        if self._clock.monotonic() > end:
            raise HardwareError(f"not asked: the pass took {self._limits.pass_seconds:g} s")
        # The full deadline even for the last: a GPU is not to be blamed for the time others took.
        seconds = self._limits.read_seconds
        key = uuid or f"index {index}"
        return self._ask(key, "read_index", index, kind=GpuAnswer, seconds=seconds)

    def read_gpu(self, uuid: GpuUuid) -> GpuReading:
        """Read mode, layout, processes and memory of one GPU afresh (no activity).

        Raises:
            HardwareError: the GPU does not answer, or is left alone for now.
        """
        seconds = self._limits.read_seconds
        return self._ask(uuid, "read_gpu", uuid, kind=GpuReading, seconds=seconds)

    def call_stats(self) -> CallStats:
        """Return the counts of all workers so far; what a hung one did last is not among them."""
        with self._lock:
            return self._counter.stats(worker_restarts=self._restarts)

    def read_host(self, with_traces: bool) -> HostTable:
        """Have the host's processes looked at, with what ties them to MIG devices or without.

        Only a worker of another account does; whoever has a child may look as well itself.

        Raises:
            HardwareError: they can't be listed.
        """
        seconds = self._limits.read_seconds
        return self._ask(_HOST, "read_host", with_traces, kind=HostTable, seconds=seconds)

    # Writing

    def destroy_compute_instance(self, uuid: GpuUuid, gi_id: GiId, ci_id: CiId) -> None:
        """Destroy one compute instance.

        Raises:
            InUse: somebody holds it.
            HardwareError: anything else; DeadlineExceeded leaves open whether it happened.
        """
        self._change(uuid, "destroy_compute_instance", gi_id, ci_id, kind=type(None))

    def destroy_gpu_instance(self, uuid: GpuUuid, gi_id: GiId) -> None:
        """Destroy one GPU instance without compute instances.

        Raises:
            InUse: somebody holds it.
            HardwareError: anything else; DeadlineExceeded leaves open whether it happened.
        """
        self._change(uuid, "destroy_gpu_instance", gi_id, kind=type(None))

    def create_gpu_instance(self, uuid: GpuUuid, spec: InstanceSpec) -> GiId:
        """Create a GPU instance at exactly that placement.

        Raises:
            InsufficientResources: no room there.
            HardwareError: anything else; DeadlineExceeded leaves open whether it happened.
        """
        return GiId(self._change(uuid, "create_gpu_instance", spec, kind=int))

    def create_compute_instance(self, uuid: GpuUuid, gi_id: GiId) -> CiId:
        """Create the full-width compute instance in a GPU instance.

        Raises:
            HardwareError: it could not be made; DeadlineExceeded leaves open whether it happened.
        """
        return CiId(self._change(uuid, "create_compute_instance", gi_id, kind=int))

    def set_mig_mode(self, uuid: GpuUuid, *, enabled: bool) -> ModeChange:
        """Ask for MIG mode on or off.

        Raises:
            HardwareError: the request was refused.
        """
        return self._change(uuid, "set_mig_mode", enabled, kind=ModeChange)

    def make_device_nodes(self) -> str | None:
        """Have the device nodes of new instances made; return what went wrong, None if nothing.

        Only a worker of another account does, as `read_host`.
        """
        seconds = self._limits.write_seconds
        try:
            return self._ask(_HOST, "make_device_nodes", kind=str, seconds=seconds) or None
        except HardwareError as error:
            return str(error)

    def _change(self, uuid: GpuUuid, name: str, *arguments: object, kind: type[T]) -> T:
        """Change a GPU, unless a process given up on over it is still there.

        One inside a driver call is not ended by SIGKILL before the call returns, and that call may
        be the change that was given up on.
        """
        with self._lock:
            old = self._given_up.get(uuid)
            if old is not None and not old.is_gone(0.0):
                raise HardwareError(
                    f"not changed: process {old.pid}, given up on over this GPU, has not ended"
                )
            self._given_up.pop(uuid, None)
            seconds = self._limits.write_seconds
            return self._ask(uuid, name, uuid, *arguments, kind=kind, seconds=seconds)

    # The process

    def release_driver(self) -> None:
        """End the process, so that the driver can be unloaded; refuse requests until `resume`."""
        with self._lock:
            self._released = True
            self._stop()

    def resume(self) -> None:
        """Serve again after `release_driver`."""
        with self._lock:
            self._released = False

    def close(self) -> None:
        """End the process and refuse further requests."""
        with self._lock:
            self.release_driver()
            for process in self._abandoned:
                process.is_gone(1.0)

    @property
    def child_pid(self) -> int | None:
        """Return the present worker's process id, None while there is none."""
        with self._lock:
            return self._process.pid if self._process else None

    def _ask(self, key: str, name: str, *arguments: object, kind: type[T], seconds: float) -> T:
        """Have something done about `key`; `kind` is what the answer must be."""
        with self._lock:
            if self._released:
                raise HardwareError("the driver is released; `migscaler resume` takes it up again")
            self._exclusions.check(key)
            try:
                process = self._started()
                reply = process.ask(Request(name=name, arguments=arguments), seconds)
            except DeadlineExceeded as error:
                self._exclusions.add(key, str(error))
                self._abandon(key)
                raise
            except ConnectionError as error:
                self._exclusions.add(key, str(error))
                self._abandon(key)
                raise HardwareError(str(error)) from error
            self._counter.add(reply.stats)
            if isinstance(reply.error, DriverGone):
                self._driver_gone(key, reply.error)
            self._exclusions.clear(key)
            self._gone_for.discard(key)
            if reply.error is not None:
                raise reply.error
            if not isinstance(reply.value, kind):
                raise ForeignAnswer(f"{name} answered {type(reply.value).__name__}")
            return reply.value

    def _driver_gone(self, key: str, error: DriverGone) -> NoReturn:
        """End the worker: a library loaded for another driver stays wrong while its process lives.

        Asked once more by another worker, a GPU that answers so again is the only one concerned:
        NVML as a whole began the pass. It is left alone then, or it would blind the others.
        """
        self._stop()
        self._restarts += 1
        if key in self._gone_for and key != _NODE:
            self._exclusions.add(key, str(error))
            raise HardwareError(str(error)) from error
        self._gone_for.add(key)
        raise error

    def _started(self) -> Worker:
        """Return the worker, started if there is none.

        One that ended between two requests (its service was restarted, the kernel was short of
        memory) is replaced: that is no GPU's fault.
        """
        self._abandoned = [old for old in self._abandoned if not old.is_gone(0.0)]
        if self._process is not None and self._process.has_ended():
            self._abandon(None)
        if self._process is None:
            self._process = self._start(self._limits.start_seconds)
        return self._process

    def _abandon(self, key: str | None) -> None:
        """Give up on the worker over `key` without waiting for it."""
        process, self._process = self._process, None
        self._restarts += 1
        if process is not None:
            process.abandon()
            self._abandoned.append(process)
            if key is not None:
                self._given_up[key] = process

    def _stop(self) -> None:
        process, self._process = self._process, None
        if process is not None:
            process.stop(_STOP_SECONDS)
