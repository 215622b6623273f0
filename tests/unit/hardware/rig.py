"""A simulated node with a reader and a writer over it, in process or through the worker."""

import functools
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from migscaler.hardware.nvml import NvmlReader, NvmlWriter
from migscaler.hardware.nvml_calls import install_library
from migscaler.hardware.worker import NvmlWorker, WorkerLimits
from migscaler.model.gpu import GpuReading, InstanceReading
from migscaler.model.ids import GiId, GpuUuid
from migscaler.model.layout import GpuModel
from migscaler.model.ports import Clock, GpuReader, GpuWriter
from migscaler.model.process import HostProcess
from migscaler.sim.node import SimNode, build_node, open_node
from migscaler.sim.nvml_library import NvmlLibrary

FIRST_SIMULATED_PID = 3_900_000
# Long enough for a busy machine to answer in, short enough to wait for when something hangs.
QUICK = WorkerLimits(read_seconds=4.0, write_seconds=4.0)


class RealClock:
    """The machine's clocks; can be pickled into a worker."""

    def now(self) -> datetime:
        return datetime.now(UTC)

    def monotonic(self) -> float:
        return time.clock_gettime(time.CLOCK_BOOTTIME)

    def sleep(self, seconds: float) -> None:
        time.sleep(seconds)


class SteppedClock:
    """A clock that moves only when told to; one pickled into a worker stands still there."""

    def __init__(self) -> None:
        self.seconds = 1000.0

    def now(self) -> datetime:
        return datetime(2026, 3, 2, tzinfo=UTC) + timedelta(seconds=self.seconds)

    def monotonic(self) -> float:
        return self.seconds

    def sleep(self, seconds: float) -> None:
        self.seconds += seconds


class SimulatedHost:
    """Knows the processes that a simulated node starts by itself, and no others."""

    def visible(self) -> bool:
        return True

    def exists(self, pid: int) -> bool:
        return pid >= FIRST_SIMULATED_PID

    def process(self, pid: int) -> HostProcess:
        if not self.exists(pid):
            return HostProcess()
        return HostProcess(name=f"job{pid - FIRST_SIMULATED_PID}", user="alice")


def install_directory(directory: str) -> None:
    """Install the library of the node in a directory; runs in the worker."""
    install_library(NvmlLibrary(open_node(Path(directory))))


@dataclass(kw_only=True)
class Rig:
    """GPUs with a reader and a writer; `uuids` are those that a test may change."""

    reader: GpuReader
    writer: GpuWriter
    clock: Clock
    uuids: tuple[GpuUuid, ...]

    def gpu(self, index: int = 0) -> GpuReading:
        """The GPU in a fresh reading of the whole node."""
        return next(g for g in self.reader.read_node().gpus if g.uuid == self.uuids[index])

    def model(self, index: int = 0) -> GpuModel:
        model = self.reader.read_gpu(self.uuids[index]).model
        assert model is not None
        return model

    def create(self, spec: str, index: int = 0) -> GiId:
        """Make an instance with its compute instance through the writer."""
        gi_id = self.create_orphan(spec, index)
        self.writer.create_compute_instance(self.uuids[index], gi_id)
        return gi_id

    def create_orphan(self, spec: str, index: int = 0) -> GiId:
        """Make a GPU instance and leave it without compute instance."""
        return self.writer.create_gpu_instance(self.uuids[index], self.model(index).spec(spec))

    def destroy(self, gi_id: GiId, index: int = 0) -> None:
        """Remove an instance through the writer."""
        for ci in self.instance(gi_id, index).instance.compute_instances:
            self.writer.destroy_compute_instance(self.uuids[index], gi_id, ci.ci_id)
        self.writer.destroy_gpu_instance(self.uuids[index], gi_id)

    def instance(self, gi_id: GiId, index: int = 0) -> InstanceReading:
        """The instance in a fresh reading of the whole node."""
        found = self.gpu(index).instances or ()
        return next(r for r in found if r.instance.gi_id == gi_id)


@dataclass(kw_only=True)
class SimulatedRig(Rig):
    """A rig over a simulated node."""

    node: SimNode


@contextmanager
def in_process(
    spec: str, *, driver: str = "550.54.14", variant: str = "normal", mig: bool = True
) -> Iterator[SimulatedRig]:
    """Reader and writer in this process, over a node in memory with a clock that stands still."""
    clock = SteppedClock()
    node = build_node(spec, driver, variant=variant, mig=mig, clock=clock.monotonic)
    install_library(NvmlLibrary(node))
    reader = NvmlReader(clock, SimulatedHost())
    try:
        yield SimulatedRig(
            node=node,
            reader=reader,
            writer=NvmlWriter(reader),
            clock=clock,
            uuids=tuple(GpuUuid(gpu.uuid) for gpu in node.state.gpus),
        )
    finally:
        reader.close()
        install_library(None)


@contextmanager
def through_worker(
    spec: str,
    directory: Path,
    *,
    driver: str = "550.54.14",
    variant: str = "normal",
    mig: bool = True,
    limits: WorkerLimits | None = None,
    clock: Clock | None = None,
) -> Iterator[SimulatedRig]:
    """The same through a worker, over a node in a directory; deadlines are real for any `clock`."""
    node = build_node(spec, driver, directory, variant=variant, mig=mig)
    clock = clock or RealClock()
    worker = NvmlWorker(
        clock,
        functools.partial(install_directory, str(directory)),
        SimulatedHost,
        limits or WorkerLimits(),
    )
    try:
        yield SimulatedRig(
            node=node,
            reader=worker,
            writer=worker,
            clock=clock,
            uuids=tuple(GpuUuid(gpu.uuid) for gpu in node.state.gpus),
        )
    finally:
        node.clear_faults()
        worker.close()


@contextmanager
def real_gpu() -> Iterator[Rig]:
    """The first real GPU with MIG on and no instance; left as it was."""
    clock = RealClock()
    worker = NvmlWorker(clock)
    try:
        free = (g for g in worker.read_node().gpus if g.mig_enabled and g.instances == ())
        rig = Rig(reader=worker, writer=worker, clock=clock, uuids=(next(free).uuid,))
        yield rig
        for reading in rig.gpu().instances or ():
            rig.destroy(reading.instance.gi_id)
        assert rig.gpu().instances == ()
    finally:
        worker.close()
