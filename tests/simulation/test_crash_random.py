"""Random layouts, jobs, refusals and deaths; whatever comes together, no promise is broken."""

from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryDirectory

from hypothesis import given, settings
from hypothesis import strategies as st

from migscaler.model.layout import GpuModel, Layout
from migscaler.sim.codes import Code
from migscaler.sim.faults import fails, loses_answer
from tests.builders import model
from tests.simulation.acting import Crash, Desk, Shape, desk

BOARDS = ("A100-SXM4-40GB", "A30", "H100-80GB")
FUNCTIONS = (
    "nvmlDeviceCreateGpuInstanceWithPlacement",
    "nvmlGpuInstanceCreateComputeInstance",
    "nvmlComputeInstanceDestroy",
    "nvmlGpuInstanceDestroy",
)


@st.composite
def layouts(draw: st.DrawFn, of: GpuModel, fixed: Layout) -> Layout:
    """Fill a GPU at random around what is fixed; never empty."""
    made = fixed
    places = [
        spec
        for profile in of.profiles
        for spec in map(of.spec, (f"{profile.name}@{start}" for start in profile.starts))
    ]
    for spec in draw(st.permutations(places))[: draw(st.integers(6, len(places)))]:
        if not spec.mask & made.mask and of.violation(made.with_specs((spec,))) is None:
            made = made.with_specs((spec,))
    return made


@st.composite
def shapes(draw: st.DrawFn) -> Shape:
    """Draw two layouts that share the instances in use."""
    board = draw(st.sampled_from(BOARDS))
    of = model("h100-sxm5-80gb" if board.startswith("H100") else board)
    before = draw(layouts(of, Layout()))
    busy = draw(st.sets(st.sampled_from(before.specs), max_size=2))
    after = draw(layouts(of, Layout(tuple(busy))))
    return Shape(
        name="random",
        board=board,
        before=str(before),
        after=str(after),
        busy=tuple(map(str, busy)),
        variant=draw(st.sampled_from(("normal", "mirrored"))),
    )


def meddle(made: Desk, at: int, choice: int, births: dict[int, int]) -> None:
    """Let a job start on some instance right before the call of that number; note its birth."""
    calls: list[str] = []

    def come(name: str, gi_id: int | None) -> None:
        calls.append(name)
        gpu = made.node.state.gpus[0]
        free = [
            gi.id
            for gi in gpu.instances.values()
            if gi.compute and not any(job.gi_id == gi.id for job in gpu.jobs)
        ]
        if len(calls) == at and free:
            made.node.start_job(0, free[choice % len(free)])
            births.update(made.births())

    made.writer.before_call = come


@settings(max_examples=120)
@given(
    shape=shapes(),
    die_at=st.none() | st.integers(1, 120),
    settle_die_at=st.none() | st.integers(1, 40),
    job_at=st.integers(1, 24),
    choice=st.integers(0, 6),
    fault=st.none() | st.tuples(st.sampled_from(FUNCTIONS), st.booleans(), st.integers(1, 6)),
)
def test_nothing_that_comes_together_breaks_a_promise(
    shape: Shape,
    die_at: int | None,
    settle_die_at: int | None,
    job_at: int,
    choice: int,
    fault: tuple[str, bool, int] | None,
) -> None:
    with TemporaryDirectory() as directory, desk(shape, Path(directory) / "s.db") as made:
        births = made.births()
        made.restart(die_at=die_at)
        meddle(made, job_at, choice, births)
        if fault is not None:
            function, lost, nth = fault
            code = Code.UNKNOWN if lost else Code.INSUFFICIENT_RESOURCES
            made.node.add_fault((loses_answer if lost else fails)(function, code, nth=nth))
        try:
            made.execute()
        except Crash:
            made.restart(die_at=settle_die_at)
            with suppress(Crash):
                made.settle()
            made.restart()
            made.settle()
        assert made.wrongs(births) == []
