"""NVML in a process of its own: what hangs or crashes there costs a GPU a while, nothing else."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TypeVar

from migscaler.errors import HardwareError
from migscaler.hardware.exclusions import Exclusions
from migscaler.hardware.host import ProcHost
from migscaler.hardware.roll_call import GpuAnswer, NodeFacts, RollCall, known_by
from migscaler.hardware.turns import Turns
from migscaler.hardware.worker_lane import Lane
from migscaler.hardware.worker_link import Worker
from migscaler.hardware.worker_messages import Setup
from migscaler.hardware.worker_process import WorkerProcess
from migscaler.hardware.worker_records import WorkerRecords
from migscaler.hardware.worker_remote import RemoteWorker
from migscaler.model.gpu import GpuReading, ModeChange, NodeReading
from migscaler.model.host import HostTable
from migscaler.model.ids import CiId, GiId, GpuUuid
from migscaler.model.ports import Clock, HostProcesses
from migscaler.model.profile import InstanceSpec
from migscaler.model.stats import CallStats

_NODE = "node"
_HOST = "host"
# How long a reading waits before it looks again whether a change began before it had its turn.
_LOOK_SECONDS = 0.5

T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerLimits:
    """How long things may take, in seconds.

    A GI destroy takes about 1 s, walks up to 10 s under contention (issue 1480 and nvlib.go of
    kubernetes-sigs/dra-driver-nvidia-gpu); hence the deadlines. `pass_seconds` bounds one reading
    of the whole node but for one read deadline: after it, GPUs not asked yet are gaps; those that
    do not answer within `prompt_seconds` are asked last (`turns.Turns`), and a reading that took
    longer than `fresh_seconds` all the same is made again without them. A change
    that takes longer than `patience_seconds` no longer keeps readings waiting; one of the MIG mode,
    which resets the GPU and which another session may spoil, `mode_patience_seconds`. With samples
    every 5 s both stay below the 15 s after which a sample is too old to be shown. A process that
    is to end is ended by force after `stop_seconds`.
    """

    read_seconds: float = 10.0
    write_seconds: float = 60.0
    start_seconds: float = 30.0
    pass_seconds: float = 30.0
    prompt_seconds: float = 0.5
    brief_seconds: float = 5.0
    full_seconds: float = 10.0
    fresh_seconds: float = 12.0
    patience_seconds: float = 3.0
    mode_patience_seconds: float = 7.0
    first_backoff_seconds: float = 30.0
    longest_backoff_seconds: float = 600.0
    stop_seconds: float = 3.0


@dataclass(frozen=True, slots=True, kw_only=True)
class _Change:
    """A change under way; `since` in monotonic seconds."""

    key: str
    since: float
    patience: float


class NvmlWorker:
    """Reads and changes GPUs through another process, one request at a time.

    Safe for several threads; they take turns. A request past its deadline abandons that process,
    leaves the GPU it was about alone for a while, and the next request starts another one.

    While a change takes long, readings of the other GPUs go to a second process, the relief. It
    ends before the next change begins: what one process has open of an instance may keep another
    from destroying it (NVIDIA/DCGM #276). The relief of a process that was given up on takes its
    place.
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
        self._address = address
        self._bequeathed: Callable[[], tuple[int, ...]] = tuple
        self._start: Callable[[float], Worker] = (
            partial(self._new_child, setup) if address is None else partial(RemoteWorker, address)
        )
        self._records = WorkerRecords(
            Exclusions(
                clock,
                first=self._limits.first_backoff_seconds,
                longest=self._limits.longest_backoff_seconds,
            )
        )
        stop = self._limits.stop_seconds
        self._main = Lane(_NODE, self._records, self._new_process, stop)
        self._relief = Lane("relief", self._records, self._new_process, stop)
        self._roll = RollCall()
        self._turns = Turns(
            clock,
            prompt=self._limits.prompt_seconds,
            brief=self._limits.brief_seconds,
            full=self._limits.full_seconds,
        )
        self._has_read = False
        # Set and cleared by who holds the main lane; set only while holding the relief too.
        self._change_under_way: _Change | None = None

    def _new_process(self) -> Worker:
        return self._start(self._limits.start_seconds)

    def _new_child(self, setup: Setup, start_seconds: float) -> Worker:
        return WorkerProcess(setup, start_seconds, self._bequeathed())

    def bequeath(self, descriptors: Callable[[], tuple[int, ...]]) -> None:
        """Have children keep open what is open here, for as long as they live.

        A change is made only by a child that has all of it: what it holds is not free before the
        change has ended, whatever becomes of this process. A worker of another account gets none.
        """
        if self._address is None:
            self._bequeathed = descriptors

    # Reading

    def read_node(self) -> NodeReading:
        """Read every GPU, each within its own deadline; one that does not answer is a gap.

        Raises:
            HardwareError: NVML as a whole does not answer, or the driver is released.
        """
        with self._reading() as lane:
            began = self._clock.monotonic()
            reading = self._read_node(lane)
            is_old = self._clock.monotonic() - began > self._limits.fresh_seconds
            # Two that began to hang at once, say: too old by now to be shown, and the others are
            # well. Who reads for the first time may read but once, and wants all there is.
            if self._has_read and is_old and self._turns.has_prompt():
                reading = self._read_node(lane, prompt_only=True)
            self._has_read = True
            return reading

    def _read_node(self, lane: Lane, *, prompt_only: bool = False) -> NodeReading:
        end = self._clock.monotonic() + self._limits.pass_seconds
        seconds = self._limits.read_seconds
        facts = lane.ask(lane.node_key, "begin", kind=NodeFacts, seconds=seconds)
        return self._roll.read(
            facts,
            lambda index, uuid: self._read_index(lane, index, uuid, end),
            partial(self._turns.arrange, prompt_only=prompt_only),
        )

    def _read_index(self, lane: Lane, index: int, uuid: GpuUuid | None, end: float) -> GpuAnswer:
        if self._clock.monotonic() > end:
            raise HardwareError(f"not asked: the pass took {self._limits.pass_seconds:g} s")
        change = self._change_under_way
        self._refuse_half_changed(change, uuid)
        # The full deadline even for the last: a GPU is not to be blamed for the time others took.
        seconds = self._limits.read_seconds
        key = known_by(index, uuid)
        self._records.admit(key)  # who is left alone has no turn to lose
        lane.ready()  # nor is it slow because the one before hung, and a process has to be started
        with self._turns.asking(key):
            answer = lane.ask(key, "read_index", index, kind=GpuAnswer, seconds=seconds)
        self._refuse_half_changed(change, answer.reading.uuid)
        return answer

    def read_gpu(self, uuid: GpuUuid) -> GpuReading:
        """Read mode, layout, processes and memory of one GPU afresh (no activity).

        Plans are begun and ended by this look, so it must hold until the next change of ours.

        Raises:
            HardwareError: the GPU does not answer, is left alone for now, or a process given up on
                over it is still there: what it was asked for may yet happen.
        """
        seconds = self._limits.read_seconds
        with self._reading() as lane:
            self._refuse_half_changed(self._change_under_way, uuid)
            return lane.ask(uuid, "read_gpu", uuid, kind=GpuReading, seconds=seconds)

    def call_stats(self) -> CallStats:
        """Return the counts of all workers so far; what a hung one did last is not among them."""
        return self._records.stats()

    def read_host(self, with_traces: bool) -> HostTable:
        """Have the host's processes looked at, with what ties them to MIG devices or without.

        Only a worker of another account does; whoever has a child may look as well itself.

        Raises:
            HardwareError: they can't be listed.
        """
        seconds = self._limits.read_seconds
        with self._reading() as lane:
            key = f"{_HOST} of {lane.node_key}"
            return lane.ask(key, "read_host", with_traces, kind=HostTable, seconds=seconds)

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
        patience = self._limits.mode_patience_seconds
        return self._change(uuid, "set_mig_mode", enabled, kind=ModeChange, patience=patience)

    def make_device_nodes(self) -> str | None:
        """Have the device nodes of new instances made; return what went wrong, None if nothing.

        Only a worker of another account does, as `read_host`.
        """
        seconds = self._limits.write_seconds
        try:
            with self._changing(_HOST, self._limits.patience_seconds):
                return self._main.ask(_HOST, "make_device_nodes", kind=str, seconds=seconds) or None
        except HardwareError as error:
            return str(error)

    def _change(
        self,
        uuid: GpuUuid,
        name: str,
        *arguments: object,
        kind: type[T],
        patience: float | None = None,
    ) -> T:
        """Change a GPU, once no other process of ours has NVML open."""
        if patience is None:
            patience = self._limits.patience_seconds
        with self._changing(uuid, patience):
            seconds = self._limits.write_seconds
            return self._main.ask(uuid, name, uuid, *arguments, kind=kind, seconds=seconds)

    # The processes

    def release_driver(self) -> None:
        """End the processes, so that the driver can be unloaded; refuse requests until `resume`."""
        with self._main.lock:
            self._records.release(released=True)
            self._main.stop()
            self._relief.stop()

    def resume(self) -> None:
        """Serve again after `release_driver`."""
        self._records.release(released=False)

    def close(self) -> None:
        """End the processes and refuse further requests."""
        self.release_driver()
        for lane in (self._main, self._relief):
            lane.reap(1.0)

    @property
    def child_pid(self) -> int | None:
        """Return the present worker's process id, None while there is none."""
        process = self._main.process
        return process.pid if process else None

    @property
    def relief_pid(self) -> int | None:
        """Return the process id of the relief, None while there is none."""
        process = self._relief.process
        return process.pid if process else None

    @contextmanager
    def _reading(self) -> Iterator[Lane]:
        """Hold the lane that readings go to: the main one, while a change takes long the relief.

        Who holds the relief keeps the next change from beginning, so what is read there is not
        changed meanwhile, but for the GPU of the change under way.
        """
        while True:
            if self._main.lock.acquire(timeout=self._patience_left()):
                try:
                    self._end_relief()
                    yield self._main
                finally:
                    self._main.lock.release()
                return
            with self._relief.lock:
                # One that has come back since, or did not take too long yet: wait on.
                if self._patience_left() == 0.0:
                    yield self._relief
                    return

    def _patience_left(self) -> float:
        """Return how many seconds to wait for the main lane before looking again; 0: no more."""
        change = self._change_under_way
        if change is None:
            return _LOOK_SECONDS
        left = change.since + change.patience - self._clock.monotonic()
        return max(0.0, min(left, _LOOK_SECONDS))

    @contextmanager
    def _changing(self, key: str, patience: float) -> Iterator[None]:
        """Hold the main lane for a change, once no other process of ours has NVML open."""
        with self._main.lock:
            with self._relief.lock:
                self._end_relief()
                process = self._main.process
                if process is not None and process.inherited != self._bequeathed():
                    self._main.stop()
                since = self._clock.monotonic()
                self._change_under_way = _Change(key=key, since=since, patience=patience)
            try:
                yield
            finally:
                self._change_under_way = None

    def _end_relief(self) -> None:
        """End the relief, or let it take the place of a process that was given up on."""
        with self._relief.lock:
            if self._main.process is None:
                self._main.process, self._relief.process = self._relief.process, None
            self._relief.stop()

    def _refuse_half_changed(self, change: _Change | None, uuid: GpuUuid | None) -> None:
        """Refuse to look at, or to believe, a GPU in the middle of a change.

        Raises:
            HardwareError: it is the one.
        """
        if change is not None and change.key == uuid:
            seconds = self._clock.monotonic() - change.since
            raise HardwareError(f"a change of this GPU has been under way for {seconds:.0f} s")
