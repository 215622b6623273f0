"""One misbehaving NVML function under the whole daemon but its processes and threads.

    python -m tests.simulation.driver_faults SEED SHARE OF

tries the SHAREth of OF parts of all cases and prints one JSON object.

The runtime, the worker's asking side and the reader are real; the worker's processes are played in
this one, so that a call which hangs can run into its deadline on the virtual clock. While a change
is slow or hangs, the sampler's thread goes on. Judged are the published samples, the node's own
books, and how often the library was called.
"""

import ctypes
import random
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory

from migscaler.errors import DeadlineExceeded, HardwareError
from migscaler.hardware.nvml import NvmlReader, NvmlWriter
from migscaler.hardware.nvml_calls import install_library
from migscaler.hardware.nvml_discovery import ENUM_BOUND
from migscaler.hardware.worker import NvmlWorker, WorkerLimits
from migscaler.hardware.worker_messages import Reply, Request
from migscaler.hardware.worker_serving import operations_of
from migscaler.metrics.collector import collect
from migscaler.model.ports import GpuWriter
from migscaler.model.status import Status
from migscaler.sim.codes import Code
from migscaler.sim.faults import fails, loses_answer
from migscaler.sim.nvml_library import NvmlLibrary
from tests.simulation.acting import QuietHost
from tests.simulation.clockwork import CHANGING
from tests.simulation.verdict import births_of, destroyed_in_use, told
from tests.unit.app.nodes import NodeAtWork

# mig-facts 3, "Errors to handle by class".
CODES = tuple(code for code in Code if code is not Code.SUCCESS)
SICK, WELL = 0, 1  # the H100 knows every call that an A100 knows, and GPM
SPEC = "H100-SXM5-80GB,A100-SXM4-40GB"
CONFIG = """
mode: enforce
gpus: [{model: "*"}]
sampling: {interval: 5s}
tick: 5s
idle: {after: 20s}
pace: {raise_after: 0s, lower_after: 0s, rest: 10s, rest_after_failure: 20s, per_day: 500}
rules:
  - {name: small, size: 1g, min: 0, max: 20}
  - {name: big, size: 3g, min: 0, max: 4}
"""
_PERIOD = 5.0
_CYCLES_EACH = 8
_CYCLES_AFTER = 20
_ENUMERATING = (
    "nvmlDeviceGetGpuInstanceProfileInfoV",
    "nvmlGpuInstanceGetComputeInstanceProfileInfoV",
)
# What a GPU is: asked once, or at each look until it is told.
_UNTIL_TOLD = (
    *("nvmlDeviceGetVirtualizationMode", "nvmlSystemGetConfComputeState"),
    *("nvmlDeviceGetArchitecture", "nvmlDeviceGetMinorNumber"),
    *("nvmlDeviceGetPciInfo_v3", "nvmlDeviceGetSerial"),
)
_DENIALS = (Code.NOT_SUPPORTED, Code.ARGUMENT_VERSION_MISMATCH)
TIMES = {"once": 1, "3 times": 3, "for ever": None}


@dataclass(slots=True, kw_only=True)
class LateCall:
    """A call under way in a process that was given up on; `due` in monotonic seconds."""

    gpu_uuid: str
    call: Callable[[], int]
    due: float
    changes: bool
    made: bool = False


class HungUp(BaseException):
    """The call does not come back within the deadline; with a `LateCall` it comes through later."""

    def __init__(self, late: LateCall | None = None) -> None:
        self.late = late


@dataclass(slots=True)
class Delay:
    """A call that takes so many seconds; None: it never comes back.

    `unkillable`: its process does not end before the call has come through.
    """

    function: str
    seconds: float | None
    times: int | None
    unkillable: bool = False


class Library:
    """The simulated library, every call of it counted and perhaps slow."""

    def __init__(self, inner: NvmlLibrary, desk: "Sickbed") -> None:
        self._inner = inner
        self._desk = desk
        self.nvmlErrorString = inner.nvmlErrorString

    def __getattr__(self, name: str) -> Callable[..., int]:
        function: Callable[..., int] = getattr(self._inner, name)

        def called(*arguments: object) -> int:
            self._desk.note(name)
            return self._desk.delayed(name, arguments, lambda: function(*arguments))

        setattr(self, name, called)
        return called


class PlayedWorker:
    """A worker process, played in this one: its own library and session, its deadlines virtual."""

    pid = 0
    inherited = ()

    def __init__(self, bed: "Sickbed") -> None:
        self._bed = bed
        self._library = Library(NvmlLibrary(bed.node, "migscaler"), bed)
        self._reader = NvmlReader(bed.clock, QuietHost())
        self._do = operations_of(self._reader, NvmlWriter(self._reader))
        self._do["read_index"] = self._reader.read_index
        self._stuck_in: LateCall | None = None
        bed.workers += 1

    def ask(self, request: Request, seconds: float) -> Reply:
        with self._bed.in_process(self._library, self._bed.clock.monotonic() + seconds):
            try:
                value = self._do[request.name](*request.arguments)
            except HungUp as hung:
                self._stuck_in = hung.late
                raise DeadlineExceeded(request.name, seconds) from None
            except HardwareError as error:
                return Reply(error=error, stats=self._reader.take_call_stats())
        return Reply(value=value, stats=self._reader.take_call_stats())

    def has_ended(self) -> bool:
        return False

    def abandon(self) -> None:
        """Leave it where it hangs."""

    def stop(self, seconds: float) -> None:
        with self._bed.in_process(self._library, float("inf")):
            self._reader.close()

    def is_gone(self, seconds: float) -> bool:
        return self._stuck_in is None or self._stuck_in.made


class Sickbed(NodeAtWork):
    """A daemon on two GPUs, of which one may fall ill."""

    def __init__(self, directory: Path) -> None:
        self.deadline = float("inf")
        self.library: Library | None = None
        self.on_sample: Callable[[], None] = lambda: None
        self.delays: list[Delay] = []
        self.late: list[LateCall] = []
        self.too_late: list[str] = []
        self.most_stuck = 0
        self.workers = 0
        self.calls: Counter[str] = Counter()
        self.burst: Counter[str] = Counter()
        self.longest_burst: Counter[str] = Counter()
        self._burst_at = 0.0
        layouts = ("3g@0 3g@4", "3g@0 3g@4")
        super().__init__(directory, CONFIG, layouts, spec=SPEC)

    def _hardware(self) -> tuple[NvmlReader | NvmlWorker, GpuWriter]:
        worker = NvmlWorker(self.clock, limits=WorkerLimits())
        worker._start = lambda seconds: PlayedWorker(self)
        return worker, worker

    def note(self, name: str) -> None:
        """Count a call, also how many come in one moment."""
        now = self.clock.monotonic()
        if now != self._burst_at:
            self._burst_at, self.burst = now, Counter()
        self.calls[name] += 1
        self.burst[name] += 1
        self.longest_burst[name] = max(self.longest_burst[name], self.burst[name])

    def delayed(self, name: str, arguments: tuple[object, ...], call: Callable[[], int]) -> int:
        """Let the time pass that a slow call takes; past the deadline its answer is not heard."""
        for delay in self.delays:
            if delay.function == name and delay.times != 0 and self._is_sick(arguments):
                delay.times = None if delay.times is None else delay.times - 1
                began = self.clock.monotonic()
                left = self.deadline - began
                if delay.seconds is not None and delay.seconds < left:
                    self._pass(delay.seconds, name)
                    return call()
                self._pass(left if left < float("inf") else 0.0, name)
                if delay.unkillable:
                    due = began + (delay.seconds or 0.0)
                    self.late.append(
                        LateCall(
                            gpu_uuid=self.uuid(SICK), call=call, due=due, changes=name in CHANGING
                        )
                    )
                    stuck = sum(not late.made for late in self.late)
                    self.most_stuck = max(self.most_stuck, stuck)
                    raise HungUp(self.late[-1])
                if delay.seconds is not None:
                    call()
                raise HungUp
        return call()

    def _pass(self, seconds: float, name: str) -> None:
        """Let a call take so long; during a change the sampler's thread samples on."""
        while name in CHANGING and seconds > 0:
            step = min(seconds, _PERIOD)
            self.clock.advance(step)
            seconds -= step
            sampler = threading.Thread(target=self.runtime.loop.sample, daemon=True)
            sampler.start()
            sampler.join(30)
            assert not sampler.is_alive(), "samples wait for a change"
            self.on_sample()
        self.clock.advance(seconds)

    @contextmanager
    def in_process(self, library: Library, deadline: float) -> Iterator[None]:
        """Be the process with this library until the block ends."""
        before = self.library, self.deadline
        self.library, self.deadline = library, deadline
        install_library(library)
        try:
            yield
        finally:
            self.library, self.deadline = before
            install_library(self.library)

    def _is_sick(self, arguments: tuple[object, ...]) -> bool:
        """Say whether a call is about the sick GPU, or about none."""
        first = arguments[0] if arguments else None
        if isinstance(first, ctypes._Pointer):
            value = ctypes.cast(first, ctypes.c_void_p).value or 0
            return value >> 28 & 0xFFF == SICK
        if isinstance(first, ctypes.c_char_p):
            return first.value == self.uuid(SICK).encode()
        return not (
            isinstance(first, ctypes.c_uint) and len(arguments) == 2 and first.value != SICK
        )

    def cycle(self) -> None:
        """Do what the daemon's jobs do in one period; nothing may be raised."""
        self.clock.advance(_PERIOD)
        self._come_through()
        self.runtime.loop.sample()
        self.runtime.tick()
        self.runtime.housekeeping()

    def _come_through(self) -> None:
        """Make the calls that are due in processes given up on; their plan must be open still."""
        now = self.clock.monotonic()
        for late in [one for one in self.late if not one.made and one.due <= now]:
            if late.changes and all(
                plan.gpu_uuid != late.gpu_uuid for plan in self.store.open_plans()
            ):
                self.too_late.append("a call came through after its plan was settled")
            late.call()
            late.made = True

    def want(self, **counts: int) -> None:
        """Set the demand of rules."""
        for rule, count in counts.items():
            self.ask("demand_override", rule=rule, count=count, ttl_seconds=86_400)


@contextmanager
def sickbed() -> Iterator[Sickbed]:
    with TemporaryDirectory() as directory:
        made = Sickbed(Path(directory))
        try:
            yield made
        finally:
            made.close()
            made.store.close()


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """What is wrong: `kind` fail, lose, slow, hang or late; `cold`: from before the first reading.

    Slow and late calls take `seconds`; the process of a late one can't be killed meanwhile.
    """

    function: str
    kind: str
    code: int = 0
    times: str = "once"
    seconds: float | None = None
    cold: bool = False

    def __str__(self) -> str:
        """Return all of it, to be found again."""
        what = Code(self.code).name if self.code else f"{self.seconds} s"
        return f"{self.function} {self.kind} {what} {self.times}{' cold' * self.cold}"


@dataclass(slots=True, kw_only=True)
class Tally:
    """What was tried, and what was wrong."""

    cases: int = 0
    functions: Counter[str] = field(default_factory=Counter)
    kinds: Counter[str] = field(default_factory=Counter)
    gpu_down: int = 0
    node_blind: int = 0
    workers_replaced: int = 0
    plans: int = 0
    rolled_back: int = 0
    left_open: int = 0
    seconds: float = 0.0
    wrongs: list[str] = field(default_factory=list)


def recorded() -> tuple[Counter[str], Counter[str], Counter[str]]:
    """Return how often the loop calls which function: in all, once under way, in one moment."""
    with sickbed() as bed:
        bed.runtime.begin()
        bed.watch(40)
        before = Counter(bed.calls)
        demand(bed)
        for _ in range(_CYCLES_AFTER):
            bed.cycle()
        return bed.calls, bed.calls - before, bed.longest_burst


def demand(bed: Sickbed, judge: Callable[[], None] = lambda: None) -> None:
    """Let fine and then coarse instances be wanted, so that both GPUs are changed."""
    for counts in ({"small": 9, "big": 0}, {"small": 0, "big": 4}):
        bed.want(**counts)
        for _ in range(_CYCLES_EACH):
            bed.cycle()
            judge()


class Ward:
    """Tries case after case."""

    def __init__(self) -> None:
        self.calls, self.warm, self.bursts = recorded()
        self.tally = Tally()

    def try_case(self, case: Case) -> None:
        """Run the daemon with a fault, end it, and judge all along."""
        began = len(self.tally.wrongs)
        with sickbed() as bed:
            job = bed.node.start_job(SICK, self._gi(bed, SICK, 4))
            bed.node.start_job(WELL, self._gi(bed, WELL, 4))
            with bed.node.changing() as state:
                state.gpus[SICK].jobs[0].graphics = True
            births = [births_of(gpu) for gpu in bed.node.state.gpus]
            since = len(bed.node.call_log())
            if case.cold:
                self._plant(bed, case)
            bed.runtime.begin()
            bed.watch(40)
            if not case.cold:
                self._plant(bed, case)
            bed.on_sample = lambda: self._judge(bed, case)
            demand(bed, bed.on_sample)
            bed.on_sample = lambda: None
            bed.node.clear_faults()
            bed.delays.clear()
            self._note(bed)
            self._judge_calls(bed, case)
            # A GPU that hung is left alone for up to ten minutes, a plan that failed rests.
            for pause in (0, 700):
                bed.clock.advance(pause)
                for _ in range(_CYCLES_AFTER):
                    bed.cycle()
            self._judge_end(bed, births, since)
            if case.code != Code.FUNCTION_NOT_FOUND:  # a library does not get what it lacks
                self._judge_seen(bed, job)
        self.tally.wrongs[began:] = [f"{case}: {wrong}" for wrong in self.tally.wrongs[began:]]
        self.tally.cases += 1
        self.tally.functions[case.function] += 1
        self.tally.kinds[f"{case.kind} {case.times}"] += 1

    def _gi(self, bed: Sickbed, gpu: int, start: int) -> int:
        found = bed.node.state.gpus[gpu].instances.values()
        return next(gi.id for gi in found if gi.start == start)

    def _plant(self, bed: Sickbed, case: Case) -> None:
        """Let it begin."""
        times = TIMES[case.times]
        if case.kind in ("slow", "hang", "late"):
            late = case.kind == "late"
            bed.delays.append(Delay(case.function, case.seconds, times, unkillable=late))
            return
        make = loses_answer if case.kind == "lose" else fails
        gpu = SICK if self._is_about_a_gpu(case.function) else None
        bed.node.add_fault(make(case.function, Code(case.code), times=times, gpu=gpu))

    def _is_about_a_gpu(self, function: str) -> bool:
        words = ("nvmlDevice", "nvmlGpuInstance", "nvmlComputeInstance", "nvmlGpmMigSampleGet")
        return function.startswith(words) and function != "nvmlDeviceGetCount_v2"

    def _judge(self, bed: Sickbed, case: Case) -> None:
        """Judge one moment: what is shown of both GPUs."""
        status = bed.shown[-1]
        snapshot = status.snapshot
        # A reading that hangs keeps the others waiting for its deadline, at each look of a plan.
        patience = 3 if case.kind == "fail" or case.function in CHANGING else 15
        now = bed.clock.monotonic()
        if snapshot is None or snapshot.taken_monotonic < now - patience * _PERIOD:
            self.tally.node_blind += 1
            if self._is_about_a_gpu(case.function):
                self.tally.wrongs.append("one GPU's fault blinds the node")
            return
        ups = {}
        series: Counter[str] = Counter()
        for family in collect(status):
            for sample in family.samples:
                uuid = sample.labels.get("gpu_uuid", "")
                series[uuid] += 1
                if sample.name == "migscaler_gpu_up":
                    ups[uuid] = sample.value
        if self._is_about_a_gpu(case.function) and ups.get(bed.uuid(WELL)) != 1:
            self.tally.wrongs.append("the other GPU is not shown")
        if ups.get(bed.uuid(SICK)) == 0:
            self.tally.gpu_down += 1
            self._judge_down(bed, status)

    def _judge_down(self, bed: Sickbed, status: Status) -> None:
        """Judge that nothing is shown of a GPU that did not answer but that it did not."""
        stale = [
            sample.name
            for family in collect(status)
            for sample in family.samples
            if sample.labels.get("gpu_uuid") == bed.uuid(SICK)
            and sample.name.startswith(("migscaler_instance", "migscaler_gpu_memory"))
        ]
        if stale:
            self.tally.wrongs.append(f"a GPU that is down still shows {sorted(set(stale))}")

    def _judge_calls(self, bed: Sickbed, case: Case) -> None:
        """Judge that nothing was called in a tight loop."""
        function = case.function
        most = 3 * max(self.bursts[function], 4)
        if function in _ENUMERATING and case.code == Code.NOT_SUPPORTED:
            # Each answer says that there is no such profile, none that there are no more: three
            # versions of the structure (2 of a compute profile) for each number, at one reading.
            most = 3 * (3 * ENUM_BOUND + 20)
        if function in _UNTIL_TOLD and case.code in _DENIALS:
            most = 3 * self.bursts["nvmlDeviceGetMigMode"]
        if bed.longest_burst[function] > most:
            times = bed.longest_burst[function]
            self.tally.wrongs.append(f"called {times} times in one moment, else {most // 3}")
        changes = sum(call.actor.startswith("migscaler") for call in bed.node.call_log())
        if changes > 120:
            self.tally.wrongs.append(f"{changes} changing calls")
        most = (2 * _CYCLES_EACH + 12) * (1 if self._is_about_a_gpu(function) else 2)
        if case.kind == "slow" and function in CHANGING:
            most += changes  # each may need a relief
        if bed.most_stuck > (1 if self._is_about_a_gpu(function) else 2):
            self.tally.wrongs.append(f"{bed.most_stuck} processes were inside a call at once")
        if bed.workers > most:
            self.tally.wrongs.append(f"{bed.workers} workers were started")

    def _note(self, bed: Sickbed) -> None:
        """Count what happened."""
        outcomes = bed.runtime.loop.status().outcomes
        self.tally.workers_replaced += bed.workers - 1
        self.tally.plans += len(outcomes)
        self.tally.rolled_back += sum(one.rolled_back for one in outcomes)
        self.tally.left_open += bool(bed.store.open_plans())

    def _judge_end(self, bed: Sickbed, births: list[dict[int, int]], since: int) -> None:
        """Judge the node once the fault is over."""
        wrongs = self.tally.wrongs
        wrongs += destroyed_in_use(bed.node.call_log()[since:])
        wrongs += bed.too_late
        wrongs += ["a late call was not made" for late in bed.late if not late.made]
        for gpu, known in zip(bed.node.state.gpus, births, strict=True):
            if births_of(gpu) != known:
                wrongs.append(f"GPU {gpu.index} lost an instance in use")
            wrongs += [
                f"GPU {gpu.index}: {gi.profile}@{gi.start} has {len(gi.compute)} compute instances"
                for gi in gpu.instances.values()
                if len(gi.compute) != 1
            ]
            if len(gpu.instances) < 2:
                wrongs.append(f"GPU {gpu.index} has nothing but what is in use")
        wrongs += [f"plan {plan.seq} still open" for plan in bed.store.open_plans()]
        snapshot = bed.runtime.loop.status().snapshot
        gpus = () if snapshot is None else snapshot.gpus
        if len(gpus) != 2 or any(gpu.reading.gaps or gpu.instances is None for gpu in gpus):
            wrongs.append(f"not recovered: {[gpu.reading.gaps for gpu in gpus]}")

    def _judge_seen(self, bed: Sickbed, job: int) -> None:
        """Judge that no answer of then is believed still: what there is of the sick GPU is seen."""
        snapshot = bed.runtime.loop.status().snapshot
        if snapshot is None:
            return
        reading = snapshot.gpus[SICK].reading
        seen = [one for one in reading.instances or () if one.processes]
        if [[process.pid for process in one.processes or ()] for one in seen] != [[job]]:
            self.tally.wrongs.append("the process on the sick GPU is not seen")
        if not reading.gpm or any(one.activity is None for one in reading.instances or ()):
            self.tally.wrongs.append("activity of the sick GPU is not seen")
        if any(len(one.instance.compute_instances) != 1 for one in reading.instances or ()):
            self.tally.wrongs.append("an instance is seen without its compute instance")


def cases_of(calls: Counter[str], warm: Counter[str]) -> Iterator[Case]:
    """Return every function with every answer; what is asked only at the start, from the start."""
    changing = ("Create", "Destroy")
    for function in sorted(calls):
        for cold in (True,) if not warm[function] else (False, True):
            for code in CODES:
                for times in TIMES if not cold or not warm[function] else ("for ever",):
                    yield Case(
                        function=function, kind="fail", code=int(code), times=times, cold=cold
                    )
            for times in ("once", "for ever"):
                yield Case(function=function, kind="hang", times=times, cold=cold)
                yield Case(function=function, kind="slow", seconds=3.0, times=times, cold=cold)
        if any(word in function for word in changing):
            for times in TIMES:
                yield Case(function=function, kind="lose", code=int(Code.UNKNOWN), times=times)
                yield Case(function=function, kind="lose", code=int(Code.TIMEOUT), times=times)
                yield Case(function=function, kind="slow", seconds=90.0, times=times)
                if function in CHANGING:
                    yield Case(function=function, kind="late", seconds=200.0, times=times)
        if function not in CHANGING:
            yield Case(function=function, kind="late", seconds=400.0, times="for ever")


def run(cases: Iterable[Case], ward: Ward, share: int = 0, of: int = 1) -> Tally:
    """Try a share of the cases."""
    began = time.monotonic()
    for number, case in enumerate(cases):
        if number % of == share:
            ward.try_case(case)
    ward.tally.seconds = time.monotonic() - began
    return ward.tally


def drawn(cases: Iterable[Case], seed: int, count: int) -> list[Case]:
    """Return so many of the cases."""
    return random.Random(seed).sample(list(cases), count)


if __name__ == "__main__":
    seed, share, of = (int(word) for word in sys.argv[1:4])
    ward = Ward()
    everything = list(cases_of(ward.calls, ward.warm))
    random.Random(seed).shuffle(everything)
    sys.stdout.write(told(run(everything, ward, share, of)))
