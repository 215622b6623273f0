"""Somebody comes in between: what is caught by our own look, what by the journal, what by nobody.

Each is judged by the node's own books (`verdict`).
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial

import pytest

from migscaler.hardware.nvml_calls import install_library
from migscaler.model.ids import PlanId
from migscaler.model.layout import Layout
from migscaler.model.plan import Outcome, OutcomeKind, OutcomeReason, StepAction
from migscaler.model.policy import Policy
from migscaler.sim.codes import Code
from migscaler.sim.faults import fails
from migscaler.sim.nvml_library import NvmlLibrary
from migscaler.store.records import NvmlAction, StepRequest
from tests.simulation.acting import SHAPES, Desk, Shape, desk

FINER = Shape(
    name="three to ones", board="A100-SXM4-40GB", before="3g@0 1g@4", after="1g@0 1g@1 1g@4"
)
DESTROY_CI = "nvmlComputeInstanceDestroy"


class EveryCall:
    """A library that tells of every call before it is made."""

    def __init__(self, inner: NvmlLibrary, before: Callable[[str], None]) -> None:
        self._inner = inner
        self._before = before
        self.nvmlErrorString = inner.nvmlErrorString

    def __getattr__(self, name: str) -> Callable[..., int]:
        function: Callable[..., int] = getattr(self._inner, name)

        def called(*arguments: object) -> int:
            self._before(name)
            return function(*arguments)

        setattr(self, name, called)
        return called


@contextmanager
def watched_desk(shape: Shape, before: Callable[[Desk, str], None]) -> Iterator[Desk]:
    """Give a desk whose every NVML call is told before it is made, once acting begins."""
    with desk(shape) as made:
        state = made.state()
        library = EveryCall(NvmlLibrary(made.node, "migscaler"), lambda name: before(made, name))
        made.reader.close()
        install_library(library)
        made.state = lambda: state  # type: ignore[method-assign]  # as it was planned from
        yield made


def carried_out(
    shape: Shape, job_at: int, on: str, *, refuses: bool
) -> tuple[Outcome, list[str], list[str]]:
    """Let a job start before the NVML call of that number; return the end, calls and losses."""
    calls: list[str] = []
    acting: list[bool] = []

    def come(made: Desk, name: str) -> None:
        calls.extend([name] * len(acting))
        if acting and len(calls) == job_at:
            made.start_job(on)

    with watched_desk(shape, come) as made:
        made.node.refuse_in_use(refuses=refuses)
        state = made.state()
        acting.append(True)
        outcome = made.executor().execute(PlanId("p1"), made.plan(), state, Policy())
        acting.clear()
        jobs = sum(len(gpu.jobs) for gpu in made.node.state.gpus)
        gone = ["the job is gone"] * bool(job_at and not jobs)
        return outcome, calls, gone + made.wrongs()


def at_call(made: Desk, nth: int, happen: Callable[[], object]) -> list[str]:
    """Let something happen right before our nth changing call; return their names as they come."""
    seen: list[str] = []

    def before(name: str, gi_id: int | None) -> None:
        seen.append(name)
        if len(seen) == nth:
            happen()

    made.writer.before_call = before
    return seen


def other_tool_comes(made: Desk) -> None:
    """Let another tool make an instance."""
    made.node.foreign_create(0, "1g@6")


def moments(shape: Shape) -> list[str]:
    """Return every NVML call of an undisturbed plan."""
    outcome, calls, wrongs = carried_out(shape, 0, "", refuses=True)
    assert (outcome.kind, wrongs) == (OutcomeKind.DONE, [])
    return calls


def test_only_what_comes_after_our_last_look_depends_on_the_driver() -> None:
    """The window, call by call, had a driver let the destroy of an instance in use pass.

    A process is seen by us if it is there when processes are listed; if it comes while the rest of
    the GPU is read, by its memory, should it have any by then.
    """
    calls = moments(FINER)
    destroy = calls.index(DESTROY_CI) + 1
    lost = []
    for job_at in (*range(1, destroy - 15, 5), *range(destroy - 15, destroy + 1)):
        outcome, _, wrongs = carried_out(FINER, job_at, "3g@0", refuses=False)
        if wrongs:
            lost.append(job_at)
        else:
            assert outcome.reason is OutcomeReason.NO_LONGER_IDLE
            assert outcome.kind is OutcomeKind.ABANDONED
    assert lost == list(range(lost[0], destroy + 1))
    assert calls[lost[0] - 2 : destroy] == [
        "nvmlDeviceGetMemoryInfo_v2",  # the instance's own, the last that shows us anything
        "nvmlDeviceGetMemoryErrorCounter",
        "nvmlDeviceGetMemoryInfo_v2",
        "nvmlDeviceGetMemoryErrorCounter",
        "nvmlDeviceGetHandleByUUID",
        "nvmlDeviceGetGpuInstanceById",
        "nvmlGpuInstanceGetComputeInstanceById",
        "nvmlComputeInstanceDestroy",
    ]


@pytest.mark.parametrize("on", ["1g@4", "3g@0"])
def test_with_a_driver_that_refuses_no_moment_costs_a_job_its_instance(on: str) -> None:
    calls = moments(FINER)
    last = len(calls) if on == "1g@4" else calls.index(DESTROY_CI) + 1
    for job_at in range(1, last + 1, 7):
        _, _, wrongs = carried_out(FINER, job_at, on, refuses=True)
        assert wrongs == [], f"a job on {on} before call {job_at}"


@pytest.mark.parametrize("shape", SHAPES[:5], ids=[shape.name for shape in SHAPES[:5]])
def test_job_there_at_the_last_look_is_seen_by_us_whatever_the_driver_would_do(
    shape: Shape,
) -> None:
    """It starts while the step is written as begun, before every destroy in turn."""
    with desk(shape) as made:
        going = [str(one.spec) for one in made.steps() if one.action is StepAction.DESTROY]
    assert going
    for spec in going:
        with desk(shape) as made:

            def begin(request: StepRequest, made: Desk = made, spec: str = spec) -> None:
                if request.action is NvmlAction.DESTROY_CI and str(request.spec) == spec:
                    made.start_job(spec)

            made.node.refuse_in_use(refuses=False)
            made.store.before_begin = begin
            outcome = made.execute()
            assert outcome.reason is OutcomeReason.NO_LONGER_IDLE, spec
            assert made.layout() == made.before
            assert made.wrongs(made.births()) == []


@pytest.mark.parametrize("nth", [1, 2, 3, 4, 5, 6])
@pytest.mark.parametrize("on_gpu", [False, True])
def test_hold_placed_in_the_middle_keeps_what_is_still_there(nth: int, on_gpu: bool) -> None:
    """The transaction that begins a step reads who holds what."""
    with desk(SHAPES[1]) as made:
        births, held = made.births(), list[str]()

        def hold() -> None:
            held.extend(str(spec) for spec in made.layout().specs if spec in made.before)
            for text in held:
                spec = None if on_gpu else made.model.spec(text)
                made.store.add_hold(made.uuid, spec, owner="ada", reason="mine now")

        at_call(made, nth, hold)
        outcome = made.execute()
        assert held
        assert outcome.kind is OutcomeKind.ABANDONED
        # The call before which it came had begun; no compute instance that was there goes after it.
        after = [call.split() for call in made.calls()[nth:]]
        assert not [spec for action, spec in after if action == "destroy_ci" and spec in held]
        assert made.wrongs(births) == []


@pytest.mark.parametrize("text", ["1g@6", "1g@4"])
def test_layout_changed_by_another_tool_at_any_call_is_left_as_it_is(text: str) -> None:
    """It makes 1g@6, or takes 1g@4 away, before each of our calls in turn."""
    for nth in range(1, 7):
        with desk(FINER) as made:
            if text == "1g@6":
                at_call(made, nth, partial(made.node.foreign_create, 0, text))
            else:
                at_call(made, nth, partial(made.node.foreign_destroy, 0, made.gi_of(text)))
            made.execute()
            there = [str(spec) for spec in made.layout().specs]
            assert ("1g.5gb@6" in there) if text == "1g@6" else ("1g.5gb@4" not in there)
            # What another tool took away is missing by its own doing.
            wrongs = [one for one in made.wrongs() if text == "1g@6" or "1g.5gb lost" not in one]
            assert wrongs == [], f"before call {nth}"


def test_layout_changed_between_plan_and_act_is_not_touched() -> None:
    with desk(FINER) as made:
        made.scheduler.on_fence = partial(other_tool_comes, made)
        outcome = made.execute()
        assert outcome.reason is OutcomeReason.CHANGED_UNDERNEATH
        assert made.calls() == []


def test_gpu_that_falls_off_at_any_call_is_settled_when_it_is_back() -> None:
    for nth in range(1, 9):
        with desk(SHAPES[2]) as made:
            at_call(made, nth, partial(made.node.lose_gpu, 0))
            outcome = made.execute()
            assert outcome.reason is OutcomeReason.DRIVER_FAULT
            assert len(made.store.open_plans()) == 1
            made.node.lose_gpu(0, lost=False)
            made.settle()
            assert made.layout() == made.before
            assert made.wrongs() == []


def test_driver_upgraded_at_any_call_leaves_the_plan_to_the_next_process() -> None:
    """A reload takes all instances away; a library of the old version answers mismatch for good."""
    for nth in range(1, 9):
        with desk(SHAPES[2]) as made:
            at_call(made, nth, partial(made.node.restart_driver, "585.10.01"))
            outcome = made.execute()
            assert outcome.reason is OutcomeReason.DRIVER_FAULT
            (again,) = made.settle()
            assert again.reason is OutcomeReason.DRIVER_FAULT  # the same process: no answer yet
            made.restart()
            made.settle()
            assert made.store.open_plans() == ()
            assert made.layout() in (made.before, Layout())


def test_mode_switched_off_underneath_is_not_switched_on_nor_filled() -> None:
    shape = Shape(name="h", board="H100-80GB", before="3g@0", after="1g@0 1g@1 3g@4")
    for nth in range(1, 5):
        with desk(shape) as made:

            def off(made: Desk = made) -> None:
                with made.node.changing() as state:
                    state.gpus[0].instances.clear()
                    state.gpus[0].mig_current = state.gpus[0].mig_pending = 0

            at_call(made, nth, off)
            outcome = made.execute()
            assert outcome.kind is not OutcomeKind.DONE
            ours = made.calls()
            made.settle()
            assert made.calls() == ours
            assert made.node.state.gpus[0].mig_current == 0
            assert made.node.state.gpus[0].instances == {}


@pytest.mark.parametrize("code", [Code.NOT_FOUND, Code.INVALID_ARGUMENT])
@pytest.mark.parametrize(
    "function",
    [
        "nvmlDeviceGetGpuInstanceById",
        "nvmlGpuInstanceGetComputeInstanceById",
        "nvmlGpuInstanceGetInfo",
        "nvmlComputeInstanceGetInfo_v2",
        "nvmlDeviceGetComputeRunningProcesses_v3",
        "nvmlDeviceGetUUID",
        "nvmlDeviceGetMemoryInfo_v2",
        "nvmlDeviceGetHandleByUUID",
    ],
)
def test_handle_that_went_stale_at_any_call_breaks_nothing(function: str, code: Code) -> None:
    for nth in range(1, 40, 6):
        with desk(SHAPES[0]) as made:
            births, state = made.births(), made.state()
            made.node.add_fault(fails(function, code, nth=nth))
            outcome = made.executor().execute(PlanId("p1"), made.plan(), state, Policy())
            if outcome.reason is OutcomeReason.DRIVER_FAULT:
                made.settle()
            assert made.layout() in (made.before, made.after)
            assert made.wrongs(births) == [], f"{function} at {nth}"
