"""Stops a GPU plan at every state that a crash can leave, and settles each of them.

    python -m tests.simulation.crash_matrix SEED SHARE OF

tries the SHAREth of OF parts of all cases and prints one JSON object.

What a crash leaves is the state file, the node, and the scheduler's fence; the process's memory is
gone. So a plan is carried out once, and after every committed write and around every NVML call that
changes the GPU a copy is taken of what would be left. Each copy is settled by fresh parts. Between
two such points nothing changes, so stopping before or in a call that only reads is covered.
"""

import copy
import random
import sqlite3
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import product

from migscaler.control.executor import Executor
from migscaler.control.recovery import settle
from migscaler.control.site import Site
from migscaler.hardware.nvml import NvmlReader, NvmlWriter
from migscaler.hardware.nvml_calls import install_library
from migscaler.model.gpu import GpuState, InstanceState
from migscaler.model.ids import GpuUuid, PlanId
from migscaler.model.layout import GpuModel, Layout
from migscaler.model.plan import GpuPlan, Outcome, OutcomeKind
from migscaler.model.policy import Pace, Policy
from migscaler.planner.layouts import all_layouts
from migscaler.planner.steps import order_steps
from migscaler.sim.codes import Code
from migscaler.sim.node import SimNode, build_node
from migscaler.sim.nvml_library import NvmlLibrary
from migscaler.sim.state import NodeState, decode, encode
from migscaler.sim.store import MemoryStore
from migscaler.store.database import Database, open_database
from migscaler.store.store import Store
from tests.builders import model
from tests.simulation.acting import Death, DeskScheduler, QuietHost
from tests.simulation.clockwork import WatchedLibrary
from tests.simulation.verdict import births_of, broken, layout_of, told
from tests.unit.store.fixed_clock import FixedClock

DRIVER = "580.65.06"
BOARDS = {"A100": "A100-SXM4-40GB", "A30": "A30", "H100": "H100-SXM5-80GB"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Left:
    """What a crash leaves behind."""

    file: bytes
    node: str
    log: tuple[str, ...]
    fenced: frozenset[GpuUuid]


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """One plan of one GPU; `busy` are instances of before and after that run a job.

    `fault`: (number of the changing call, `lose` its answer or `fail` it, nvmlReturn_t).
    """

    board: str
    variant: str
    before: Layout
    after: Layout
    wanted: tuple[str, ...] = ()
    busy: tuple[str, ...] = ()
    fault: tuple[int, str, int] | None = None

    def __str__(self) -> str:
        """Return all of it, to be found again."""
        words = f"{self.board} {self.variant}: {self.before} -> {self.after}"
        return f"{words} wanted={self.wanted} busy={self.busy} fault={self.fault}"


class WatchedDatabase(Database):
    """Lets somebody look after every committed write."""

    committed: Callable[[], None] = staticmethod(lambda: None)

    @contextmanager
    def write(self) -> Iterator[sqlite3.Connection]:
        with super().write() as connection:
            yield connection
        self.committed()

    def content(self) -> bytes:
        """Return the file."""
        return self._connection.serialize()


def _empty_file() -> bytes:
    database = open_database(None, FixedClock())
    content: bytes = database._connection.serialize()
    database.close()
    return content


EMPTY_FILE = _empty_file()


def watched_database(content: bytes = EMPTY_FILE) -> WatchedDatabase:
    """Return a state file of that content, in memory."""
    connection = sqlite3.connect(":memory:", isolation_level=None, check_same_thread=False)
    connection.row_factory = sqlite3.Row
    connection.deserialize(content)
    return WatchedDatabase(connection, None)


# Reading the catalog takes longer than settling does; rules are facts and shared by all nodes.
_NODE = build_node("A30", DRIVER)


def node_of(state: NodeState, clock: FixedClock) -> SimNode:
    """Return a node in this state."""
    node = copy.copy(_NODE)
    node.store, node.clock = MemoryStore(state), clock.monotonic
    return node


class Life:
    """One process: opens what is left of the last one, and keeps what a crash of it would leave."""

    def __init__(self, left: Left) -> None:
        self.clock = FixedClock()
        self.node = node_of(decode(left.node), self.clock)
        for line in left.log:
            self.node.store.append(line)
        self._database = watched_database(left.file)
        self.store = Store(self._database, self.clock)
        self.fault: tuple[int, str, int] | None = None
        self.calls = 0
        self.lefts: list[Left] = []
        install_library(WatchedLibrary(NvmlLibrary(self.node, "migscaler"), self._around))
        self.reader = NvmlReader(self.clock, QuietHost())
        self.scheduler = DeskScheduler(Death())
        self.scheduler.fenced = set(left.fenced)
        self.site = Site(
            store=self.store,
            reader=self.reader,
            writer=NvmlWriter(self.reader),
            scheduler=self.scheduler,
            clock=self.clock,
            boot_id=self.node.boot_id,
        )
        self._database.committed = self.keep

    def keep(self) -> None:
        """Copy what would be left now."""
        self.lefts.append(
            Left(
                file=self._database.content(),
                node=encode(self.node.state),
                log=self.node.store.lines(),
                fenced=frozenset(self.scheduler.fenced),
            )
        )

    def _around(self, name: str, arguments: tuple[object, ...], call: Callable[[], int]) -> int:
        self.calls += 1
        kind, code = "", 0
        if self.fault is not None and self.fault[0] == self.calls:
            _, kind, code = self.fault
        if kind == "fail":
            return code
        answer = call()
        self.keep()
        return code if kind == "lose" and answer == 0 else answer

    def close(self) -> None:
        self.store.close()
        self.reader.close()
        install_library(None)


class Bench:
    """One board, on which case after case is tried; counts what it did."""

    def __init__(self, board: str, variant: str) -> None:
        self.model: GpuModel = model(BOARDS[board])
        self.template: str = encode(build_node(BOARDS[board], DRIVER, variant=variant).state)
        self.uuid = GpuUuid(decode(self.template).gpus[0].uuid)

    def plan(self, case: Case) -> GpuPlan:
        """Return the plan as the planner orders it."""
        steps = order_steps(self.model, case.before, case.after, case.wanted)
        return GpuPlan(gpu_uuid=self.uuid, before=case.before, after=case.after, steps=steps)

    def start(self, case: Case) -> Left:
        """Return a node with the layout before and its jobs, and an empty state file."""
        state: NodeState = decode(self.template)
        node = node_of(state, FixedClock())
        for spec in case.before.specs:
            node.foreign_create(0, str(spec), actor="setup")
        for text in case.busy:
            start_job(node, text)
        return Left(file=EMPTY_FILE, node=encode(state), log=node.store.lines(), fenced=frozenset())

    def carry_out(self, case: Case, left: Left) -> tuple[Outcome, Life]:
        """Carry the plan out to its end; return what every crash on the way would leave."""
        life = Life(left)
        life.fault = case.fault
        reading = life.reader.read_gpu(self.uuid)
        state = GpuState(
            reading=reading,
            generation=3,
            instances=tuple(
                InstanceState(reading=one, born=1, pin=None) for one in reading.instances or ()
            ),
        )
        executor = Executor(life.site)
        try:
            return executor.execute(PlanId("p"), self.plan(case), state, Policy()), life
        finally:
            life.close()

    def settle(self, left: Left) -> tuple[tuple[Outcome, ...], Life, int]:
        """Settle in a fresh process; return outcomes, what it left, and how many plans are open."""
        life = Life(left)
        try:
            outcomes = settle(life.site, act=True, pace=Pace())
            return outcomes, life, len(life.store.open_plans())
        finally:
            life.close()


def start_job(node: SimNode, text: str) -> None:
    """Start a job on the instance of that profile and start."""
    profile, _, start = text.partition("@")
    node.start_job(
        0,
        next(
            gi.id
            for gi in node.state.gpus[0].instances.values()
            if (gi.profile, gi.start) == (profile, int(start))
        ),
    )


@dataclass(slots=True, kw_only=True)
class Tally:
    """What was tried, and what was wrong."""

    plans: int = 0
    with_jobs: int = 0
    with_fault: int = 0
    crashes: int = 0
    crashes_while_settling: int = 0
    with_new_job: int = 0
    undone: int = 0
    seconds: float = 0.0
    boards: Counter[str] = field(default_factory=Counter)
    wrongs: list[str] = field(default_factory=list)


class Matrix:
    """Cuts cases at every point.

    At one of `second_each` crashes the settling is cut too, at a random point; at one of `job_each`
    a job starts on an instance made since.
    """

    def __init__(self, seed: int, *, second_each: int = 2, job_each: int = 6) -> None:
        self.draw = random.Random(seed)
        self.second_each = second_each
        self.job_each = job_each
        self.tally = Tally()
        self._benches: dict[tuple[str, str], Bench] = {}

    def try_case(self, case: Case) -> None:
        """Carry a case out, and settle after every crash that could have cut it short."""
        bench = self._bench(case)
        left = bench.start(case)
        births, since = births_of(decode(left.node).gpus[0]), len(left.log)
        outcome, life = bench.carry_out(case, left)
        tally = self.tally
        tally.plans += 1
        tally.boards[f"{case.board} {case.variant}"] += 1
        tally.with_jobs += bool(case.busy)
        tally.with_fault += case.fault is not None
        change = (case.before, case.after)
        whole = (case.after,) if case.fault is None else change
        if layout_of(life.node, bench.model) not in whole:
            tally.wrongs.append(f"{case}: ended as {outcome}")
        found = broken(life.node, bench.model, change, since=since, births=births)
        tally.wrongs += [f"{case}: not cut: {wrong}" for wrong in found]
        for number, crashed in enumerate(life.lefts):
            tally.crashes += 1
            where = f"{case}: cut at {number}"
            lefts = self._settled(bench, case, crashed, births, since, where)
            if lefts and self.draw.randrange(self.second_each) == 0:
                tally.crashes_while_settling += 1
                again = self.draw.choice(lefts)
                self._settled(bench, case, again, births, since, f"{where}, and again")
            if self.draw.randrange(self.job_each) == 0:
                self._with_new_job(bench, case, crashed, since, where)

    def _bench(self, case: Case) -> Bench:
        key = (case.board, case.variant)
        if key not in self._benches:
            self._benches[key] = Bench(*key)
        return self._benches[key]

    def _settled(
        self,
        bench: Bench,
        case: Case,
        left: Left,
        births: dict[int, int],
        since: int,
        where: str,
        *,
        undisturbed: bool = True,
    ) -> list[Left]:
        """Settle, and judge; return what every crash of the settling would leave."""
        outcomes, life, still_open = bench.settle(left)
        change = (case.before, case.after)
        found = broken(life.node, bench.model, change, since=since, births=births)
        found += [f"{still_open} plans open"] * bool(still_open)
        found += ["still fenced"] * bool(life.scheduler.fenced)
        if undisturbed:
            layout = layout_of(life.node, bench.model)
            found += [] if layout in change else [f"left as {layout}"]
            found += [str(one.explanation) for one in outcomes if one.kind is OutcomeKind.FAILED]
            self.tally.undone += layout == case.before
        self.tally.wrongs += [f"{where}: {wrong}" for wrong in found]
        return life.lefts

    def _with_new_job(self, bench: Bench, case: Case, left: Left, since: int, where: str) -> None:
        """Let a job start on an instance that the plan made, before the next start."""
        state: NodeState = decode(left.node)
        node = node_of(state, FixedClock())
        made = [
            spec
            for spec in layout_of(node, bench.model).specs
            if spec not in case.before
            and any(
                gi.compute
                for gi in state.gpus[0].instances.values()
                if (gi.profile, gi.start) == (spec.profile, spec.placement.start)
            )
        ]
        if not made:
            return
        start_job(node, str(self.draw.choice(made)))
        self.tally.with_new_job += 1
        with_job = Left(file=left.file, node=encode(state), log=left.log, fenced=left.fenced)
        births = births_of(state.gpus[0])
        where = f"{where}, then a job"
        self._settled(bench, case, with_job, births, since, where, undisturbed=False)


# The cases


def cases_of(
    board: str, variant: str, pairs: Iterable[tuple[Layout, Layout]], seed: int
) -> Iterator[Case]:
    """Return a case per pair; drawn: what is wanted, and which kept instances run jobs."""
    draw = random.Random(seed)
    for before, after in pairs:
        kept = [spec for spec in before.specs if spec in after]
        busy = draw.sample(kept, draw.randint(0, len(kept)))
        names = sorted({spec.profile for spec in after.specs})
        yield Case(
            board=board,
            variant=variant,
            before=before,
            after=after,
            wanted=tuple(draw.sample(names, draw.randint(0, len(names)))),
            busy=tuple(f"{spec.profile}@{spec.placement.start}" for spec in sorted(busy)),
        )


def all_pairs(board: str) -> list[tuple[Layout, Layout]]:
    """Return every ordered pair of a board's legal layouts; no plan empties a GPU."""
    layouts = all_layouts(model(BOARDS[board]))
    return [(b, a) for b, a in product(layouts, layouts) if b != a and len(a)]


def stratum(before: Layout, after: Layout) -> tuple[int, int, int, bool, frozenset[str]]:
    """Return the shape of a plan: destroys, creates, kept, creates that fit first, profiles."""
    gone, come = before.without(after.specs), after.without(before.specs)
    fits_first = any(not spec.mask & before.mask for spec in come.specs)
    classes = frozenset(spec.profile.partition(".")[0] for spec in (*gone.specs, *come.specs))
    return (len(gone), len(come), len(before) - len(gone), fits_first, classes)


def stratified(
    board: str, seed: int, *, per_stratum: int, tries: int
) -> list[tuple[Layout, Layout]]:
    """Return pairs drawn at random until `tries`, at most so many of each shape."""
    layouts, draw = all_layouts(model(BOARDS[board])), random.Random(seed)
    kept: Counter[object] = Counter()
    found = []
    for _ in range(tries):
        before, after = draw.choice(layouts), draw.choice(layouts)
        if draw.random() < 0.5 and len(before):
            # Half of them around what stays: two random layouts of eight slices seldom share any.
            stays = Layout(tuple(draw.sample(before.specs, draw.randint(1, len(before)))))
            fitting = [one for one in draw.sample(layouts, 60) if not one.mask & stays.mask]
            more = draw.choice(fitting).specs if fitting else ()
            after = stays.with_specs(more)
            if model(BOARDS[board]).violation(after) is not None:
                continue
        shape = stratum(before, after)
        if before != after and len(after) and kept[shape] < per_stratum:
            kept[shape] += 1
            found.append((before, after))
    return found


def with_faults(cases: Iterable[Case], seed: int) -> Iterator[Case]:
    """Return cases whose every changing call in turn loses its answer or is refused."""
    draw = random.Random(seed)
    for case in cases:
        bench = Bench(case.board, case.variant)
        _, life = bench.carry_out(case, bench.start(case))
        for number in range(1, life.calls + 1):
            for kind, codes in (
                ("lose", (Code.UNKNOWN, Code.TIMEOUT)),
                ("fail", (Code.INSUFFICIENT_RESOURCES, Code.IN_USE, Code.UNKNOWN)),
            ):
                fault = (number, kind, int(draw.choice(codes)))
                yield Case(
                    board=case.board,
                    variant=case.variant,
                    before=case.before,
                    after=case.after,
                    wanted=case.wanted,
                    busy=case.busy,
                    fault=fault,
                )


def full(seed: int) -> Iterator[Case]:
    """Return the whole matrix: A30 exhaustive, the others by shape, a sample of all with faults."""
    yield from cases_of("A30", "normal", all_pairs("A30"), seed)
    sampled: list[Case] = []
    for board, variant in product(("A100", "H100"), ("normal", "mirrored")):
        pairs = stratified(board, seed + len(sampled), per_stratum=1, tries=4_000)
        sampled += list(cases_of(board, variant, pairs, seed))
    yield from sampled
    draw = random.Random(seed)
    a30 = list(cases_of("A30", "normal", draw.sample(all_pairs("A30"), 20), seed))
    yield from with_faults((*a30, *draw.sample(sampled, 30)), seed)


def small(seed: int, count: int) -> Iterator[Case]:
    """Return a sample of each board for `make test`, and one plan of each with faults."""
    for board, variant in product(BOARDS, ("normal", "mirrored")):
        if (board, variant) == ("A30", "mirrored"):
            continue
        pairs = stratified(board, seed, per_stratum=1, tries=count)
        cases = list(cases_of(board, variant, pairs[:count], seed))
        yield from cases
        yield from list(with_faults(cases[:1], seed))[:2]


def run(cases: Iterable[Case], matrix: Matrix, share: int = 0, of: int = 1) -> Tally:
    """Try a share of the cases."""
    began = time.monotonic()
    for number, case in enumerate(cases):
        if number % of == share:
            matrix.try_case(case)
    matrix.tally.seconds = time.monotonic() - began
    return matrix.tally


if __name__ == "__main__":
    seed, share, of = (int(word) for word in sys.argv[1:4])
    tally = run(full(seed), Matrix(seed + share), share, of)
    sys.stdout.write(told(tally))
