"""A whole node in one process: the real runtime over a simulated GPU node, and virtual time."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from migscaler.app.runtime import Outside, Runtime
from migscaler.app.start import load_in_force, with_rival
from migscaler.app.wiring import Assembly, Ground
from migscaler.hardware.host import ProcHost
from migscaler.hardware.nvml import NvmlReader, NvmlWriter
from migscaler.hardware.nvml_calls import install_library
from migscaler.hardware.worker import NvmlWorker
from migscaler.model.ids import GpuUuid
from migscaler.model.layout import Layout
from migscaler.model.ports import GpuWriter
from migscaler.model.stats import SchedulerStats
from migscaler.model.status import Status
from migscaler.sim.node import build_node
from migscaler.sim.nvml_library import NvmlLibrary
from migscaler.store.store import Store
from migscaler.web.ports import Actor
from tests.builders import NOW
from tests.simulation.acting import QuietHost
from tests.simulation.clockwork import VirtualClock
from tests.unit.schedulers.host_files import HostFiles

ROOT = Actor(name="uid 0", trusted=True, uid=0, pid=1)
ADA = Actor(name="uid 1000", trusted=False, uid=1000, pid=777)
BOB = Actor(name="uid 1001", trusted=False, uid=1001, pid=778)

RECOMMEND = """
mode: recommend
gpus: [{model: "*"}]
idle: {after: 20s}
"""
ENFORCE = """
mode: enforce
gpus: [{model: "*"}]
idle: {after: 20s}
"""


class NodeAtWork:
    """A node under a configuration file; `start` begins another process on the same state."""

    def __init__(
        self,
        directory: Path,
        config: str,
        layouts: tuple[str, ...],
        *,
        spec: str,
        driver: str = "580.65.06",
        mig: bool = True,
    ) -> None:
        self.clock = VirtualClock(NOW)
        self.node = build_node(spec, driver, mig=mig, clock=self.clock.monotonic)
        for index, text in enumerate(layouts):
            for one in text.split():
                self.node.foreign_create(index, one, actor="setup")
        self.host = HostFiles(directory)
        self.config = directory / "migscaler.yaml"
        self.config.write_text(config)
        self.store = self._open_store()
        self.told: list[str] = []
        self.nodes_made: list[str] = []
        self.shown: list[Status] = []
        self.after_change: Callable[[], object] = str  # called once the last call was made
        self._begin()

    def _make_nodes(self, _uuid: GpuUuid, layout: Layout) -> str | None:
        """Stand in for nvidia-smi."""
        self.nodes_made.append(str(layout))
        self.after_change()
        return None

    def _open_store(self) -> Store:
        """Open the state, which outlives the processes."""
        return Store.open(None, self.clock)

    def _begin(self, rival: str | None = None) -> None:
        self.reader, writer = self._hardware()
        self.assembly = Assembly(
            Ground(
                clock=self.clock,
                reader=self.reader,
                writer=writer,
                host=QuietHost(),
                store=self.store,
                boot_id=self.node.boot_id,
                roots=self.host.roots,
                tell_node=(self._make_nodes,),
            )
        )
        outside = Outside(
            publish=self.shown.append,
            call_stats=self.reader.call_stats,
            job_stats=SchedulerStats,
            real_host=ProcHost(self.host.roots.proc),
            release_driver=lambda: self.told.append("release"),
            resume_driver=lambda: self.told.append("resume"),
            config_changed=lambda: self.told.append("config"),
        )
        in_force = load_in_force(self.config, {}, self.store, self.clock)
        in_force = with_rival(in_force, rival)
        self.runtime = Runtime(self.assembly, in_force, outside)

    def _hardware(self) -> tuple[NvmlReader | NvmlWorker, GpuWriter]:
        """Open the GPUs, as the process begins."""
        install_library(NvmlLibrary(self.node, "migscaler"))
        reader = NvmlReader(self.clock, QuietHost())
        return reader, NvmlWriter(reader)

    def restart(self) -> None:
        """End the process and begin another."""
        self.close()
        self._begin()

    def begin_beside(self, rival: str) -> None:
        """End the process and begin another beside one that may change these GPUs."""
        self.close()
        self._begin(rival)

    def close(self) -> None:
        """End the process."""
        self.assembly.close()
        self.reader.close()
        install_library(None)

    def ask(self, name: str, **arguments: object) -> dict[str, object]:
        """Give a command as root."""
        return self.runtime.commands.execute(name, arguments, ROOT)

    def ask_as(self, actor: Actor, name: str, **arguments: object) -> dict[str, object]:
        """Give a command as somebody else."""
        return self.runtime.commands.execute(name, arguments, actor)

    def watch(self, seconds: int = 60) -> None:
        """Ask every source and sample, every 5 seconds for so long."""
        loop = self.runtime.loop
        for _ in range(seconds // 5):
            self.clock.advance(5)
            for name in loop.parts.gatherer.names():
                loop.gather(name)
            loop.sample()

    def uuid(self, index: int = 0) -> GpuUuid:
        """The UUID of a GPU."""
        return GpuUuid(self.node.state.gpus[index].uuid)

    def layout(self, index: int = 0) -> str:
        """What the node has, from its own books."""
        found = self.node.state.gpus[index].instances.values()
        return " ".join(f"{g.profile}@{g.start}" for g in sorted(found, key=lambda g: g.start))

    def our_calls(self) -> list[str]:
        """Our changing calls that worked, by NVML function."""
        return [
            call.function
            for call in self.node.call_log()
            if call.code == 0 and call.actor.startswith("migscaler")
        ]


@contextmanager
def node_at_work(
    directory: Path,
    *layouts: str,
    config: str = RECOMMEND,
    spec: str = "A100-SXM4-40GB",
    driver: str = "580.65.06",
    mig: bool = True,
) -> Iterator[NodeAtWork]:
    """Give a node whose GPUs have these layouts; afterwards nothing simulated stays installed."""
    made = NodeAtWork(directory, config, layouts, spec=spec, driver=driver, mig=mig)
    try:
        yield made
    finally:
        made.close()
        made.store.close()
