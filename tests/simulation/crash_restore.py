"""A node whose process may die at every write of its state and around every call that changes GPUs.

Made for restores: the whole start is cut, settling and restoring together, for what one leaves
undone the other must see. `crash_matrix` cuts plans of the executor.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from migscaler.hardware.nvml import NvmlReader, NvmlWriter
from migscaler.hardware.nvml_calls import install_library
from migscaler.hardware.worker import NvmlWorker
from migscaler.model.ports import GpuWriter
from migscaler.sim.nvml_library import NvmlLibrary
from migscaler.store.store import Store
from tests.simulation.acting import Crash, Death, QuietHost
from tests.simulation.clockwork import WatchedLibrary
from tests.simulation.crash_matrix import watched_database
from tests.simulation.verdict import births_of, destroyed_in_use, half_made
from tests.unit.app.nodes import ENFORCE, NodeAtWork


class MortalNode(NodeAtWork):
    """A node at work; `start` begins a process that may be told to die."""

    def __init__(self, directory: Path, layouts: tuple[str, ...], *, spec: str) -> None:
        self.death = Death()
        super().__init__(directory, ENFORCE, layouts, spec=spec)
        self.wanted = [self.layout(index) for index in range(len(layouts))]
        self.runtime.begin()
        snapshot = self.runtime.loop.sample()
        for gpu in () if snapshot is None else snapshot.gpus:
            assert gpu.layout is not None
            self.store.write_wanted(gpu.uuid, gpu.layout, self.node.boot_id)
        self._since = len(self.node.call_log())

    def start(self, die_at: int | None = None) -> bool:
        """Begin a process and do all of its start; False if it died on the way."""
        self.death = Death()
        self.restart()
        self.death = Death(at=die_at)
        try:
            self.runtime.begin()
        except Crash:
            return False
        self.death = Death()
        return True

    def live(self, seconds: int) -> None:
        """Sample every 5 seconds, decide every 15, keep house every 30."""
        for second in range(5, seconds + 1, 5):
            self.clock.advance(5)
            self.runtime.sample()
            if second % 15 == 0:
                self.runtime.tick()
            if second % 30 == 0:
                self.runtime.housekeeping()

    def start_jobs(self) -> int:
        """Start a job on every instance that can run one; return how many there are."""
        for gpu in self.node.state.gpus:
            for gi in gpu.instances.values():
                if gi.compute:
                    self.node.start_job(gpu.index, gi.id)
        return sum(len(gpu.jobs) for gpu in self.node.state.gpus)

    def births(self) -> list[dict[int, int]]:
        """Return the birth marks of the instances that run a job, by GPU."""
        return [births_of(gpu) for gpu in self.node.state.gpus]

    def wrongs(self, births: list[dict[int, int]] | None = None) -> list[str]:
        """Return what differs from the layouts last wanted, and every promise that is broken."""
        found = destroyed_in_use(self.node.call_log()[self._since :])
        for index, wanted in enumerate(self.wanted):
            gpu = self.node.state.gpus[index]
            there = self.layout(index)
            found += [f"GPU {index} has {there or 'nothing'} of {wanted}"] * (there != wanted)
            found += half_made(gpu)
            if births is not None and births[index].items() - births_of(gpu).items():
                found.append("an instance in use is not the one it was")
        found += [f"{plan.plan_id} is open" for plan in self.store.open_plans()]
        boots = {record.boot_id for record in self.store.wanted()}
        found += [f"wanted in {sorted(boots)}"] * (boots != {self.node.boot_id})
        return found

    def _open_store(self) -> Store:
        database = watched_database()
        database.committed = self._point
        return Store(database, self.clock)

    def _hardware(self) -> tuple[NvmlReader | NvmlWorker, GpuWriter]:
        install_library(WatchedLibrary(NvmlLibrary(self.node, "migscaler"), self._around))
        reader = NvmlReader(self.clock, QuietHost())
        return reader, NvmlWriter(reader)

    def _around(self, name: str, arguments: tuple[object, ...], call: Callable[[], int]) -> int:
        self._point()
        answer = call()
        self._point()
        return answer

    def _point(self) -> None:
        self.death.point()


@contextmanager
def mortal_node(directory: Path, *layouts: str, spec: str) -> Iterator[MortalNode]:
    """Give such a node; afterwards nothing simulated stays installed."""
    directory.mkdir()
    made = MortalNode(directory, layouts, spec=spec)
    try:
        yield made
    finally:
        made.close()
        made.store.close()
