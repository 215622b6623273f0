"""2,000 random nodes against the exact answer of independent code."""

from dataclasses import replace

import pytest

from migscaler.model.layout import Layout
from migscaler.model.plan import StepAction, direction_between
from migscaler.planner.cache import OptionCache
from migscaler.planner.optimise import solve
from migscaler.planner.problem import PlanGpu, Problem, Solution
from migscaler.planner.steps import order_gpu_plans
from tests.unit.planner.exact import missing_by_key, optimum
from tests.unit.planner.random_nodes import random_problem

BLOCKS = 20
PER_BLOCK = 100


@pytest.mark.parametrize("block", range(BLOCKS))
def test_random_node_is_planned_exactly(block: int) -> None:
    cache = OptionCache()
    for number in range(PER_BLOCK):
        seed = block * PER_BLOCK + number
        problem = random_problem(seed, limits=seed % 2 == 1)
        solution = solve(problem, cache)
        _check_rules(problem, solution, seed)
        _check_optimum(problem, solution, seed)
        _check_steps(problem, solution, seed)
        if seed % 2 == 0:
            again = solve(_applied(problem, solution))
            assert again.levels[-3].value == 0, f"seed {seed}: planned again, changes again"


def _check_rules(problem: Problem, solution: Solution, seed: int) -> None:
    """Pinned kept, legal, nothing unwanted made, no GPU emptied, every row respected."""
    after = dict(solution.layouts)
    demanded = {key for key, n in missing_by_key(problem).items() if n} - problem.no_create
    touched = 0
    kept: dict[str, int] = {}
    present: dict[str, int] = {}
    for gpu in problem.gpus:
        layout = after[gpu.uuid]
        keys = dict(gpu.keys)
        assert gpu.model.violation(layout) is None, f"seed {seed}"
        assert all(spec in layout for spec in gpu.pinned), f"seed {seed}: pinned moved"
        assert len(layout) or not len(gpu.layout), f"seed {seed}: emptied"
        created = [spec for spec in layout.specs if spec not in gpu.layout]
        assert all(keys.get(spec.profile) in demanded for spec in created), f"seed {seed}"
        if layout != gpu.layout:
            touched += 1
            assert not gpu.fixed, f"seed {seed}: fixed GPU changed"
            assert direction_between(gpu.layout, layout) in gpu.directions, f"seed {seed}"
        for spec in gpu.idle:
            key = keys.get(spec.profile)
            if key is not None and spec not in gpu.idle_not_supply:
                present[key] = present.get(key, 0) + 1
                kept[key] = kept.get(key, 0) + (spec in layout)
    assert problem.max_touched is None or touched <= problem.max_touched, f"seed {seed}"
    for key, floor in problem.kept:
        assert kept.get(key, 0) >= min(floor, present.get(key, 0)), f"seed {seed}: floor of {key}"


def _check_optimum(problem: Problem, solution: Solution, seed: int) -> None:
    """Unmet, churn and touched are the exact optimum; what is called proved is true."""
    unmet, churn, touched, wasted = optimum(problem)
    values = [level.value for level in solution.levels]
    assert tuple(values[:-3]) == unmet, f"seed {seed}: unmet"
    assert values[-3] == churn, f"seed {seed}: churn"
    assert all(level.proved for level in solution.levels[:-2]), f"seed {seed}: not proved"
    assert all(level.bound <= level.value for level in solution.levels), f"seed {seed}"
    assert values[-2] >= touched, f"seed {seed}: touched below the optimum"
    if solution.levels[-2].proved:
        assert values[-2] == touched, f"seed {seed}: touched"
        assert values[-1] >= wasted, f"seed {seed}: fragmentation below the optimum"
        assert not solution.levels[-1].proved or values[-1] == wasted, f"seed {seed}: fragmentation"


def _check_steps(problem: Problem, solution: Solution, seed: int) -> None:
    """Steps are exactly the difference, and every prefix of them is legal."""
    after = dict(solution.layouts)
    gpus = {gpu.uuid: gpu for gpu in problem.gpus}
    plans = order_gpu_plans(problem, solution)
    changed = {gpu.uuid for gpu in problem.gpus if after[gpu.uuid] != gpu.layout}
    assert {plan.gpu_uuid for plan in plans} == changed, f"seed {seed}"
    assert len(plans) == len(changed), f"seed {seed}"
    for plan in plans:
        layout: Layout = plan.before
        for step in plan.steps:
            if step.action is StepAction.DESTROY:
                layout = layout.without((step.spec,))
            else:
                layout = layout.with_specs((step.spec,))
            assert gpus[plan.gpu_uuid].model.violation(layout) is None, f"seed {seed}"
        assert layout == plan.after == after[plan.gpu_uuid], f"seed {seed}"
        assert len(plan.steps) == len(set(plan.before.specs) ^ set(plan.after.specs)), (
            f"seed {seed}"
        )
    assert sum(len(plan.steps) for plan in plans) == solution.levels[-3].value, f"seed {seed}"


def _applied(problem: Problem, solution: Solution) -> Problem:
    """Return the problem as it stands once the plan has been carried out."""
    after = dict(solution.layouts)

    def moved(gpu: PlanGpu) -> PlanGpu:
        return replace(
            gpu,
            idle=tuple(spec for spec in after[gpu.uuid].specs if spec not in gpu.pinned),
        )

    return replace(problem, gpus=tuple(moved(gpu) for gpu in problem.gpus))


@pytest.mark.parametrize("seed", [14_214, 16_064, 16_318])
def test_node_whose_rounded_relaxation_is_not_best_is_searched(seed: int) -> None:
    """Of 10,000 nodes these three are where neither bound nor rounding gives the optimum."""
    problem = random_problem(seed, limits=seed % 2 == 1)
    solution = solve(problem)
    _check_rules(problem, solution, seed)
    _check_optimum(problem, solution, seed)
