"""The whole loop over a desk: one simulated GPU, and every status that was published."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from migscaler.control.enforce import Enforcer
from migscaler.control.gather import Gatherer
from migscaler.control.loop import Loop
from migscaler.control.observe import Observer
from migscaler.control.parts import Parts
from migscaler.model.policy import Policy
from migscaler.model.status import Status
from tests.builders import policy, rule
from tests.simulation.acting import Desk, QuietHost, Shape, desk

COARSE = Shape(name="coarse", board="A100-SXM4-40GB", before="3g@0 3g@4", after="3g@4")
FINER = policy(rule("notebooks", "1g", minimum=3))
"""Wants one of the two 3g cut into pieces."""
STEP_SECONDS = 5.0


@dataclass
class LoopDesk:
    """A loop, its desk, and what it showed; `on_publish` lets the world act at each publishing."""

    desk: Desk
    rules: Policy
    shown: list[Status] = field(default_factory=list)
    on_publish: Callable[[Status], None] = lambda status: None

    def __post_init__(self) -> None:
        made = self.desk
        self.observer = Observer(
            reader=made.reader,
            scheduler=made.scheduler,
            store=made.store,
            host=QuietHost(),
            boot_id=made.boot_id,
        )
        self.loop = Loop(
            Parts(
                observer=self.observer,
                gatherer=Gatherer(
                    sources={}, vetoes={}, clock=made.clock, overrides=made.store.all_pushed
                ),
                store=made.store,
                clock=made.clock,
                policy=self.rules,
                evaluate_windows=lambda now: (),
                call_stats=made.reader.call_stats,
                publish=self.publish,
                version="test",
                enforcer=Enforcer(
                    executor=made.executor(),
                    observer=self.observer,
                    clock=made.clock,
                ),
            )
        )

    def publish(self, status: Status) -> None:
        self.shown.append(status)
        self.on_publish(status)

    def watch(self, seconds: float) -> None:
        """Sample for so long."""
        for _ in range(int(seconds / STEP_SECONDS)):
            self.loop.sample()
            self.desk.clock.sleep(STEP_SECONDS)
        self.loop.sample()

    def hide_memory(self, text: str, mib: int) -> None:
        """Let an instance's memory be in use by nobody that is listed."""
        gi_id = self.desk.gi_of(text)
        with self.desk.node.changing() as state:
            state.gpus[0].instances[gi_id].baseline_mib += mib


@contextmanager
def loop_desk(
    shape: Shape = COARSE, rules: Policy = FINER, path: Path | None = None
) -> Iterator[LoopDesk]:
    """Give a loop that has not looked yet; the scheduler's period makes time pass in a plan."""
    with desk(shape, path) as made:
        made.scheduler.period = 0.5
        yield LoopDesk(made, rules)
