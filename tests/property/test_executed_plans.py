"""Plans of 2,000 random nodes, carried out on the simulated library: the calls are the plan."""

from dataclasses import dataclass, replace

import pytest

from migscaler.control.executor import Executor
from migscaler.control.site import Site
from migscaler.hardware.nvml import NvmlReader, NvmlWriter
from migscaler.hardware.nvml_calls import install_library
from migscaler.model.gpu import GpuState, InstanceState, PinReason
from migscaler.model.ids import GpuUuid, PlanId
from migscaler.model.layout import Layout
from migscaler.model.plan import GpuPlan, OutcomeKind, StepAction
from migscaler.model.policy import Policy
from migscaler.planner.cache import OptionCache
from migscaler.planner.optimise import solve
from migscaler.planner.problem import PlanGpu, Problem
from migscaler.planner.steps import order_gpu_plans
from migscaler.sim.node import SimNode, build_node
from migscaler.sim.nvml_library import NvmlLibrary
from migscaler.store.store import Store
from tests.simulation.acting import Death, DeskScheduler, QuietHost
from tests.unit.planner.random_nodes import random_problem
from tests.unit.store.fixed_clock import FixedClock

BLOCKS = 20
PER_BLOCK = 100
CALLS = {
    "nvmlComputeInstanceDestroy": "destroy_ci",
    "nvmlGpuInstanceDestroy": "destroy_gi",
    "nvmlDeviceCreateGpuInstanceWithPlacement": "create_gi",
    "nvmlGpuInstanceCreateComputeInstance": "create_ci",
}
DESTROYS, CREATES = ("destroy_ci", "destroy_gi"), ("create_gi", "create_ci")


@dataclass(frozen=True)
class Staged:
    """A random problem set up on simulated GPUs; `uuids` maps the problem's to the node's."""

    problem: Problem
    node: SimNode
    uuids: dict[GpuUuid, GpuUuid]


@pytest.mark.parametrize("block", range(BLOCKS))
def test_random_plan_is_carried_out_call_by_call(block: int) -> None:
    cache = OptionCache()
    for number in range(PER_BLOCK):
        seed = block * PER_BLOCK + number
        problem = random_problem(seed, limits=seed % 2 == 1)
        plans = order_gpu_plans(problem, solve(problem, cache))
        if plans:
            _carry_out(_stage(problem, seed, plans), plans, seed)


def _stage(problem: Problem, seed: int, plans: tuple[GpuPlan, ...]) -> Staged:
    """Build the GPUs that the plans change, with a job on every pinned instance."""
    changed = {plan.gpu_uuid for plan in plans}
    gpus = [gpu for gpu in problem.gpus if gpu.uuid in changed]
    mirrored = seed % 3 == 0
    node = build_node(
        ",".join(f"1x{gpu.model.name}" for gpu in gpus),
        "580.65.06",
        variant=[
            "mirrored" if mirrored and gpu.model.memory_slices == 8 else "normal" for gpu in gpus
        ],
        seed=seed,
    )
    for index, gpu in enumerate(gpus):
        for spec in gpu.layout.specs:
            gi_id = node.foreign_create(index, str(spec), actor="setup")
            if spec in gpu.pinned:
                node.start_job(index, gi_id)
    uuids = {gpu.uuid: GpuUuid(node.state.gpus[i].uuid) for i, gpu in enumerate(gpus)}
    return Staged(problem=problem, node=node, uuids=uuids)


def _carry_out(staged: Staged, plans: tuple[GpuPlan, ...], seed: int) -> None:
    """Execute the plans in order and compare the library's log with them."""
    clock = FixedClock()
    install_library(NvmlLibrary(staged.node, "migscaler"))
    reader = NvmlReader(clock, QuietHost())
    store = Store.open(None, clock)
    site = Site(
        store=store,
        reader=reader,
        writer=NvmlWriter(reader),
        scheduler=DeskScheduler(Death()),
        clock=clock,
        boot_id=staged.node.boot_id,
    )
    executor = Executor(site)
    by_uuid = {gpu.uuid: gpu for gpu in staged.problem.gpus}
    try:
        for number, plan in enumerate(plans):
            here = replace(plan, gpu_uuid=staged.uuids[plan.gpu_uuid])
            state = _state(reader, here.gpu_uuid, by_uuid[plan.gpu_uuid])
            seen = len(staged.node.call_log())
            outcome = executor.execute(PlanId(f"p{number}"), here, state, Policy())
            assert outcome.kind is OutcomeKind.DONE, f"seed {seed}: {outcome.explanation}"
            assert outcome.layout == plan.after, f"seed {seed}"
            _check_log(staged, plan, seen, seed)
            _check_prefixes(by_uuid[plan.gpu_uuid], plan, seed)
    finally:
        store.close()
        reader.close()
        install_library(None)


def _state(reader: NvmlReader, uuid: GpuUuid, gpu: PlanGpu) -> GpuState:
    """Return the GPU as a plan would have been made from it."""
    reading = reader.read_gpu(uuid)
    assert reading.layout == gpu.layout
    instances = tuple(
        InstanceState(
            reading=one,
            born=1,
            pin=PinReason.PROCESS if one.instance.spec in gpu.pinned else None,
        )
        for one in reading.instances or ()
    )
    return GpuState(reading=reading, generation=1, instances=instances)


def _check_log(staged: Staged, plan: GpuPlan, seen: int, seed: int) -> None:
    """The calls are the plan's steps in order; none was refused, none touched what is in use."""
    log = staged.node.call_log()[seen:]
    expected = [
        f"{call} {step.spec}"
        for step in plan.steps
        for call in (DESTROYS if step.action is StepAction.DESTROY else CREATES)
    ]
    assert [f"{CALLS[call.function]} {call.spec}" for call in log] == expected, f"seed {seed}"
    assert all(call.code == 0 and not call.in_use for call in log), f"seed {seed}"


def _check_prefixes(gpu: PlanGpu, plan: GpuPlan, seed: int) -> None:
    """Every prefix of the steps is a legal layout with all pinned instances in place."""
    layout = Layout(plan.before.specs)
    for step in plan.steps:
        if step.action is StepAction.DESTROY:
            layout = layout.without((step.spec,))
        else:
            layout = layout.with_specs((step.spec,))
        assert gpu.model.violation(layout) is None, f"seed {seed}: {step}"
        assert all(spec in layout for spec in gpu.pinned), f"seed {seed}: {step}"
    assert layout == plan.after
