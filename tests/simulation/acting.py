"""A simulated GPU with everything that acting needs, breakable at any point."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pynvml

from migscaler.control.executor import Executor
from migscaler.control.recovery import settle
from migscaler.control.site import Site
from migscaler.hardware.nvml import NvmlReader, NvmlWriter
from migscaler.hardware.nvml_calls import install_library
from migscaler.model.demand import Fetched
from migscaler.model.gpu import Allocations, Claim, GpuState, InstanceState, ModeChange, NodeReading
from migscaler.model.ids import CiId, GiId, GpuUuid, MigUuid, PlanId
from migscaler.model.layout import GpuModel, Layout
from migscaler.model.plan import GpuPlan, Outcome, Step, StepAction
from migscaler.model.policy import Pace, Policy
from migscaler.model.ports import Clock
from migscaler.model.process import HostProcess
from migscaler.model.profile import InstanceSpec
from migscaler.sim.node import SimNode, build_node
from migscaler.sim.nvml_library import NvmlLibrary
from migscaler.store.database import open_database
from migscaler.store.memory import HistoryChange
from migscaler.store.records import PlanRecord, StepRequest, StepState, StepTicket
from migscaler.store.store import Store
from tests.simulation.verdict import births_of, broken, layout_of
from tests.unit.store.fixed_clock import FixedClock


class Crash(BaseException):
    """The process dies here."""


@dataclass
class Death:
    """Dies at the n-th point that is passed (None: never); the dead do nothing more."""

    at: int | None = None
    passed: int = 0
    dead: bool = False

    def point(self) -> None:
        if self.dead:
            raise Crash
        self.passed += 1
        if self.passed == self.at:
            self.dead = True
            raise Crash


class DyingStore(Store):
    """A store whose process may die right before and right after each write of the journal.

    `before_begin` lets the world do something while a step is about to be written as begun.
    """

    death = Death()
    before_begin: Callable[[StepRequest], None] = staticmethod(lambda request: None)

    def begin_plan(self, record: PlanRecord) -> int:
        self.death.point()
        seq = super().begin_plan(record)
        self.death.point()
        return seq

    def begin_step(self, plan_seq: int, gpu_uuid: GpuUuid, request: StepRequest) -> StepTicket:
        self.death.point()
        self.before_begin(request)
        ticket = super().begin_step(plan_seq, gpu_uuid, request)
        self.death.point()
        return ticket

    def end_step(
        self,
        step_id: int,
        state: StepState,
        *,
        gi_id: GiId | None = None,
        ci_id: CiId | None = None,
        note: str = "",
    ) -> None:
        self.death.point()
        super().end_step(step_id, state, gi_id=gi_id, ci_id=ci_id, note=note)
        self.death.point()

    def verify_plan(self, plan_seq: int) -> None:
        self.death.point()
        super().verify_plan(plan_seq)
        self.death.point()

    def end_plan(
        self, plan_seq: int, outcome: Outcome, change: HistoryChange | None = None
    ) -> None:
        self.death.point()
        super().end_plan(plan_seq, outcome, change)
        self.death.point()


class DyingWriter:
    """A writer whose process may die right before and right after each call.

    `before_call` lets the world do something between the last look and the call.
    """

    def __init__(self, writer: NvmlWriter, death: Death) -> None:
        self._writer = writer
        self._death = death
        self.before_call: Callable[[str, GiId | None], None] = lambda name, gi_id: None

    def destroy_compute_instance(self, uuid: GpuUuid, gi_id: GiId, ci_id: CiId) -> None:
        with self._around("destroy_ci", gi_id):
            self._writer.destroy_compute_instance(uuid, gi_id, ci_id)

    def destroy_gpu_instance(self, uuid: GpuUuid, gi_id: GiId) -> None:
        with self._around("destroy_gi", gi_id):
            self._writer.destroy_gpu_instance(uuid, gi_id)

    def create_gpu_instance(self, uuid: GpuUuid, spec: InstanceSpec) -> GiId:
        with self._around("create_gi", None):
            return self._writer.create_gpu_instance(uuid, spec)

    def create_compute_instance(self, uuid: GpuUuid, gi_id: GiId) -> CiId:
        with self._around("create_ci", gi_id):
            return self._writer.create_compute_instance(uuid, gi_id)

    def set_mig_mode(self, uuid: GpuUuid, *, enabled: bool) -> ModeChange:
        with self._around("mode", None):
            return self._writer.set_mig_mode(uuid, enabled=enabled)

    @contextmanager
    def _around(self, name: str, gi_id: GiId | None) -> Iterator[None]:
        self._death.point()
        self.before_call(name, gi_id)
        yield
        self._death.point()


class DeskScheduler:
    """A scheduler on a desk: claims are set by hand, every request is written down."""

    def __init__(self, death: Death) -> None:
        self._death = death
        self.claims: tuple[Claim, ...] = ()
        self.known = True
        self.fenced: set[GpuUuid] = set()
        self.log: list[str] = []
        self.fence_problem: str | None = None
        self.unfence_problem: str | None = None
        self.refresh_problems = 0
        self.period = 0.0
        self.on_fence: Callable[[], None] = lambda: None

    def allocations(self, reading: NodeReading) -> Allocations:
        why = "" if self.known else "silent"
        return Allocations(known=self.known, why_unknown=why, claims=self.claims)

    def waiting(self) -> Fetched:
        return Fetched(reading=None)

    def fence(self, uuid: GpuUuid, specs: tuple[InstanceSpec, ...]) -> str | None:
        self._alive()
        self.log.append(f"fence {' '.join(map(str, specs))}")
        if self.fence_problem is None:
            self.fenced.add(uuid)
            self.on_fence()
        return self.fence_problem

    def unfence(self, uuid: GpuUuid) -> str | None:
        self._alive()
        self.log.append("unfence")
        if self.unfence_problem is None:
            self.fenced.discard(uuid)
        return self.unfence_problem

    def refresh(self, uuid: GpuUuid, layout: Layout) -> str | None:
        self._alive()
        self.log.append(f"refresh {layout}")
        self.refresh_problems -= 1
        return "not yet" if self.refresh_problems >= 0 else None

    def period_seconds(self) -> float:
        return self.period

    def _alive(self) -> None:
        if self._death.dead:
            raise Crash


class QuietHost:
    """Sees all processes, also the simulated ones, which are in no /proc."""

    def visible(self) -> bool:
        return True

    def exists(self, pid: int) -> bool:
        return True

    def process(self, pid: int) -> HostProcess:
        return HostProcess()


@dataclass(frozen=True, kw_only=True)
class Shape:
    """A plan of one GPU: board, layouts, and which instances run a job meanwhile."""

    name: str
    board: str
    before: str
    after: str
    busy: tuple[str, ...] = ()
    variant: str = "normal"
    driver: str = "580.65.06"


class Desk:
    """One node with one GPU, a store on disk, and a process that may die and come back."""

    def __init__(self, shape: Shape, path: Path | None, clock: Clock | None = None) -> None:
        self.shape = shape
        self.clock = clock or FixedClock()
        self.node: SimNode = build_node(
            shape.board, shape.driver, variant=shape.variant, clock=self.clock.monotonic
        )
        self.path = path
        # A fence is the scheduler's: it outlives the process that set it.
        self.fenced: set[GpuUuid] = set()
        self.uuid = GpuUuid(self.node.state.gpus[0].uuid)
        self.start()
        self.model: GpuModel = self._model()
        for text in shape.before.split():
            self.node.foreign_create(0, text, actor="setup")
        for text in shape.busy:
            self.start_job(text)
        self.setup_calls = len(self.node.call_log())
        self.before = self.model.layout(shape.before)
        self.after = self.model.layout(shape.after)

    def start(self, die_at: int | None = None) -> None:
        """Start a process: new session, new store on the same file, nothing remembered."""
        self.death = Death(at=die_at)
        install_library(NvmlLibrary(self.node, "migscaler"))
        self.reader = NvmlReader(self.clock, QuietHost())
        self.writer = DyingWriter(NvmlWriter(self.reader), self.death)
        self.scheduler = DeskScheduler(self.death)
        self.scheduler.fenced = self.fenced
        self.store = DyingStore(open_database(self.path, self.clock), self.clock)
        # The process dies here, never the power: syncing would only make the matrix slow.
        self.store._db.rows("PRAGMA synchronous = OFF")
        self.store.death = self.death
        self.boot_id = self.node.boot_id

    def stop(self) -> None:
        """End the process; what it had open is gone."""
        self.store.close()
        self.reader.close()
        install_library(None)

    def restart(self, die_at: int | None = None) -> None:
        self.stop()
        self.start(die_at)

    def site(self) -> Site:
        """Return what the process acts with."""
        return Site(
            store=self.store,
            reader=self.reader,
            writer=self.writer,
            scheduler=self.scheduler,
            clock=self.clock,
            boot_id=self.boot_id,
        )

    def executor(self, **options: object) -> Executor:
        # `after_change`, by the tests that need it.
        return Executor(self.site(), **options)  # type: ignore[arg-type]

    def plan(self) -> GpuPlan:
        return GpuPlan(gpu_uuid=self.uuid, before=self.before, after=self.after, steps=self.steps())

    def steps(self) -> tuple[Step, ...]:
        """Order as a plan does: creates that already fit, destroys, the other creates."""
        new = self.after.without(self.before.specs).specs
        early: list[InstanceSpec] = []
        for spec in new:
            room = not spec.mask & self.before.with_specs(early).mask
            if room and self.model.violation(self.before.with_specs((*early, spec))) is None:
                early.append(spec)
        create, destroy = StepAction.CREATE, StepAction.DESTROY
        return (
            *(Step(action=create, spec=spec) for spec in early),
            *(
                Step(action=destroy, spec=spec)
                for spec in self.before.without(self.after.specs).specs
            ),
            *(Step(action=create, spec=spec) for spec in new if spec not in early),
        )

    def state(self) -> GpuState:
        """Return the GPU as the plan was made from it."""
        reading = self.reader.read_gpu(self.uuid)
        return GpuState(
            reading=reading,
            generation=3,
            instances=tuple(
                InstanceState(reading=one, born=1, pin=None) for one in reading.instances or ()
            ),
        )

    def execute(self, **options: object) -> Outcome:
        state = self.state()
        return self.executor(**options).execute(PlanId("p1"), self.plan(), state, Policy())

    def settle(self, *, act: bool = True) -> tuple[Outcome, ...]:
        return settle(self.site(), act=act, pace=Pace())

    # The world

    def gi_of(self, text: str) -> int:
        spec = self.model.spec(text)
        gpu = self.node.state.gpus[0]
        return next(
            gi.id
            for gi in gpu.instances.values()
            if (gi.profile, gi.start) == (spec.profile, spec.placement.start)
        )

    def start_job(self, text: str) -> int:
        return self.node.start_job(0, self.gi_of(text))

    def mig_uuid(self, text: str) -> MigUuid:
        gpu = self.node.state.gpus[0]
        return MigUuid(self.node.mig_uuid(gpu, self.gi_of(text), 0))

    def layout(self) -> Layout:
        """Return what the node has, from its own books."""
        return layout_of(self.node, self.model)

    def calls(self) -> list[str]:
        """Return our changing calls that worked, as `destroy_gi 3g.20gb@4`."""
        words = {
            "nvmlComputeInstanceDestroy": "destroy_ci",
            "nvmlGpuInstanceDestroy": "destroy_gi",
            "nvmlDeviceCreateGpuInstanceWithPlacement": "create_gi",
            "nvmlGpuInstanceCreateComputeInstance": "create_ci",
        }
        return [
            f"{words[call.function]} {call.spec}"
            for call in self.node.call_log()[self.setup_calls :]
            if call.code == 0 and call.actor.startswith("migscaler")
        ]

    def births(self) -> dict[int, int]:
        """Return the birth mark of every instance that runs a job: another one means destroyed."""
        return births_of(self.node.state.gpus[0])

    def _model(self) -> GpuModel:
        model = self.reader.read_gpu(self.uuid).model
        assert model is not None
        return model

    # The judge

    def wrongs(self, births: dict[int, int] | None = None) -> list[str]:
        """Return every promise that the node breaks now, by its own books."""
        change = (self.before, self.after)
        found = broken(self.node, self.model, change, since=self.setup_calls, births=births)
        found += [f"plan {plan.seq} still open" for plan in self.store.open_plans()]
        return found + [f"still fenced: {uuid}" for uuid in self.scheduler.fenced]


@contextmanager
def desk(shape: Shape, path: Path | None = None, clock: Clock | None = None) -> Iterator[Desk]:
    """Give a desk; afterwards the process is ended and nothing simulated stays installed."""
    made = Desk(shape, path, clock)
    try:
        yield made
    finally:
        made.stop()
        assert pynvml.nvmlLib is None


SHAPES = (
    Shape(
        name="a100 coarse to fine beside a busy half",
        board="A100-SXM4-40GB",
        before="3g@0 3g@4",
        after="1g@0 1g@1 1g@2 1g@3 3g@4",
        busy=("3g@4",),
    ),
    Shape(
        name="a100 fine to coarse around a busy slice",
        board="A100-SXM4-40GB",
        before="1g@0 1g@1 1g@2 1g@3 1g@4 1g@6",
        after="4g@0 2g@4 1g@6",
        busy=("1g@6",),
    ),
    Shape(
        name="a100 mirrored whole to parts",
        board="A100-SXM4-40GB",
        before="7g@0",
        after="3g@0 2g@4 1g@6",
        variant="mirrored",
    ),
    Shape(
        name="a30 halves beside a busy half",
        board="A30",
        before="1g@0 1g@1 2g@2",
        after="2g@0 2g@2",
        busy=("2g@2",),
    ),
    Shape(
        name="h100 four to ones beside a busy three",
        board="H100-80GB",
        before="4g@0 3g@4",
        after="1g@0 1g@1 2g@2 3g@4",
        busy=("3g@4",),
    ),
    Shape(
        name="h100 mirrored double memory to three",
        board="H100-80GB",
        before="1gx@0 1g@2 1g@3 3g@4",
        after="3g@0 3g@4",
        busy=("3g@4",),
        variant="mirrored",
    ),
    Shape(
        name="a100 swap of halves",
        board="A100-SXM4-40GB",
        before="2g@0 2g@2 3g@4",
        after="3g@0 2g@4 1g@6",
    ),
    Shape(
        name="a100 only gains",
        board="A100-SXM4-40GB",
        before="1g@6",
        after="4g@0 2g@4 1g@6",
        busy=("1g@6",),
    ),
)
"""Plans that the crash tests cut at every point."""
