"""A simulated node with the real parts of one daemon process over it, and virtual time."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

from migscaler.control.enforce import Enforcer
from migscaler.control.executor import Executor
from migscaler.control.gather import Gatherer
from migscaler.control.loop import Loop
from migscaler.control.observe import Observer
from migscaler.control.parts import Parts
from migscaler.control.site import Site
from migscaler.hardware.nvml import NvmlReader, NvmlWriter
from migscaler.hardware.nvml_calls import install_library
from migscaler.model.decision import WindowState
from migscaler.model.gpu import ForeignOwners, GpuState, NodeSnapshot
from migscaler.model.ids import GpuUuid, SourceName
from migscaler.model.layout import Layout
from migscaler.model.policy import Policy
from migscaler.model.status import Status
from migscaler.sim.node import build_node
from migscaler.sim.nvml_library import NvmlLibrary
from migscaler.sources import calendar
from migscaler.sources.ports import DemandSource, VetoSource
from migscaler.store.store import Store
from tests.builders import NOW
from tests.builders import policy as make_policy
from tests.simulation.acting import Death, DeskScheduler, DyingWriter, QuietHost
from tests.simulation.clockwork import VirtualClock


@dataclass
class Setting:
    """Policy and sources of a loop; `windows` are calendar texts in UTC."""

    policy: Policy
    sources: Mapping[SourceName, DemandSource]
    vetoes: Mapping[str, VetoSource]
    windows: tuple[str, ...] = ()


class Room:
    """One node; `observer` is the running process's, `restart` begins another process."""

    def __init__(self, spec: str, layouts: tuple[str, ...], *, driver: str, mig: bool) -> None:
        self.clock = VirtualClock(NOW)
        self.node = build_node(spec, driver, mig=mig, clock=self.clock.monotonic)
        for index, text in enumerate(layouts):
            for one in text.split():
                self.node.foreign_create(index, one, actor="setup")
        self.store = Store.open(None, self.clock)
        self.shown: list[Status] = []
        self.owners = ForeignOwners()
        self.after_change: Callable[[], object] = str  # called once the last call was made
        self._begin()

    def _begin(self) -> None:
        install_library(NvmlLibrary(self.node, "migscaler"))
        self.reader = NvmlReader(self.clock, QuietHost())
        # Never dies: only its `before_call` is of use here.
        self.writer = DyingWriter(NvmlWriter(self.reader), Death())
        self.scheduler = DeskScheduler(Death())
        self.observer = Observer(
            reader=self.reader,
            scheduler=self.scheduler,
            store=self.store,
            host=QuietHost(),
            boot_id=self.node.boot_id,
            find_owners=lambda: self.owners,
        )

    def restart(self) -> None:
        """Begin another process on the same store: nothing else is remembered."""
        self.close()
        self._begin()

    def close(self) -> None:
        """End the process."""
        self.reader.close()
        install_library(None)

    def uuid(self, index: int = 0) -> GpuUuid:
        """The UUID of a GPU."""
        return GpuUuid(self.node.state.gpus[index].uuid)

    def look(self, policy: Policy | None = None) -> NodeSnapshot:
        """Observe once, 5 seconds after whatever was before."""
        self.clock.advance(5)
        return self.observer.observe(policy or Policy(), self.store.holds(self.clock.now()))

    def gpu(self, index: int = 0) -> GpuState:
        """One GPU in a fresh look."""
        return self.look().gpus[index]

    def gi_of(self, text: str, index: int = 0) -> int:
        """The GI id of an instance, `3g.20gb@4`, from the node's own books."""
        profile, _, start = text.partition("@")
        return next(
            gi.id
            for gi in self.node.state.gpus[index].instances.values()
            if (gi.profile, gi.start) == (profile, int(start))
        )

    def remake(self, text: str, index: int = 0) -> None:
        """Destroy an instance and make it again at the same place, all by ourselves."""
        actor = "migscaler"
        self.node.foreign_destroy(index, self.gi_of(text, index), actor=actor)
        self.node.foreign_create(index, text, actor=actor)

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

    def site(self) -> Site:
        """What acting on this node needs."""
        return Site(
            store=self.store,
            reader=self.reader,
            writer=self.writer,
            scheduler=self.scheduler,
            clock=self.clock,
            boot_id=self.node.boot_id,
        )

    def enforcer(self) -> Enforcer:
        """What acts on this node."""
        return Enforcer(
            executor=Executor(self.site(), (self._tell,)),
            observer=self.observer,
            clock=self.clock,
        )

    def _tell(self, _uuid: GpuUuid, _layout: Layout) -> str | None:
        """Tell the node of a changed GPU."""
        self.after_change()
        return None

    def loop(
        self,
        policy: Policy | None = None,
        *,
        sources: Mapping[str, DemandSource] | None = None,
        vetoes: Mapping[str, VetoSource] | None = None,
        windows: tuple[str, ...] = (),
    ) -> Loop:
        """A loop that may act; what it publishes is kept in `shown`."""

        def evaluate(now: datetime) -> tuple[WindowState, ...]:
            return calendar.evaluate(windows, "UTC", now)

        named = {SourceName(name): source for name, source in (sources or {}).items()}
        return Loop(
            Parts(
                observer=self.observer,
                gatherer=Gatherer(
                    sources=named,
                    vetoes=vetoes or {},
                    clock=self.clock,
                    overrides=self.store.all_pushed,
                ),
                store=self.store,
                clock=self.clock,
                policy=policy or make_policy(),
                evaluate_windows=evaluate,
                call_stats=self.reader.call_stats,
                publish=self.shown.append,
                version="1.2.3",
                enforcer=self.enforcer(),
            )
        )

    def watch(self, loop: Loop, duration: timedelta) -> None:
        """Sample every 5 seconds for as long as that."""
        for _ in range(int(duration.total_seconds() // 5)):
            self.clock.advance(5)
            loop.sample()


A100 = "A100-SXM4-40GB"
H100 = "H100-80GB"


@contextmanager
def room(
    *layouts: str, spec: str = A100, driver: str = "580.65.06", mig: bool = True
) -> Iterator[Room]:
    """Give a node whose GPUs have these layouts; afterwards nothing simulated stays installed."""
    made = Room(spec, layouts, driver=driver, mig=mig)
    try:
        yield made
    finally:
        made.close()
        made.store.close()


def small_store(path: Path, clock: VirtualClock) -> Store:
    """Make a state file and open it so that nothing can be written to it."""
    Store.open(path, clock).close()
    return Store.open(path, clock, read_only=True)
