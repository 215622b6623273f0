"""What must hold of every plan, whatever the node: laws checked on small worlds and random ones."""

import itertools
import random
from dataclasses import replace

import pytest

from migscaler.model.ids import GpuUuid
from migscaler.model.layout import Layout
from migscaler.model.profile import InstanceSpec
from migscaler.planner.cache import OptionCache
from migscaler.planner.layouts import all_layouts
from migscaler.planner.optimise import solve
from migscaler.planner.problem import PlanGpu, Problem, Solution, Tier, Want
from migscaler.planner.steps import order_gpu_plans
from tests.builders import A30, A100, model
from tests.unit.planner.dips import area, least_area
from tests.unit.planner.exact import optimum
from tests.unit.planner.random_nodes import random_problem

CLASSES = ("1g", "2g", "4g")
PLAIN_A30 = ("1g.6gb", "2g.12gb", "4g.24gb")


def _gpu(number: int, pinned: tuple[InstanceSpec, ...], idle: tuple[InstanceSpec, ...]) -> PlanGpu:
    return PlanGpu(
        uuid=GpuUuid(f"GPU-{number}"),
        model=model(A30),
        pinned=pinned,
        idle=idle,
        keys=tuple(zip(PLAIN_A30, CLASSES, strict=True)),
    )


def _tiers(first: tuple[int, ...], second: tuple[int, ...]) -> tuple[Tier, ...]:
    return tuple(
        Tier(
            name=name,
            wants=tuple(
                Want(key=key, count=count) for key, count in zip(CLASSES, counts, strict=True)
            ),
        )
        for name, counts in (("floor", first), ("spare", second))
    )


def _agrees(problem: Problem, cache: OptionCache) -> None:
    solution = solve(problem, cache)
    unmet, churn, touched, wasted = optimum(problem)
    assert tuple(level.value for level in solution.levels) == (*unmet, churn, touched, wasted), (
        f"{problem.gpus} {problem.tiers}"
    )
    assert all(level.proved for level in solution.levels), f"{problem.gpus} {problem.tiers}"


def test_every_state_of_one_a30_is_planned_exactly() -> None:
    cache = OptionCache()
    states = [
        (tuple(s for s in one.specs if s in chosen), tuple(s for s in one.specs if s not in chosen))
        for one in all_layouts(model(A30), PLAIN_A30)
        for size in range(len(one) + 1)
        for chosen in itertools.combinations(one.specs, size)
    ]
    assert len(states) == 123
    demands = [((1, 0, 0), (2, 1, 1)), ((0, 1, 0), (4, 0, 0)), ((0, 0, 1), (1, 1, 0))]
    for (pinned, idle), (first, second) in itertools.product(states, demands):
        gpus = (_gpu(0, pinned, idle),)
        _agrees(Problem(gpus=gpus, tiers=_tiers(first, second)), cache)


def test_every_pair_of_idle_a30_layouts_is_planned_exactly() -> None:
    cache = OptionCache()
    layouts = all_layouts(model(A30), PLAIN_A30)
    for first, second in itertools.combinations_with_replacement(layouts, 2):
        gpus = (_gpu(0, (), first.specs), _gpu(1, (), second.specs))
        _agrees(Problem(gpus=gpus, tiers=_tiers((1, 1, 0), (1, 0, 1))), cache)


def _shuffled(problem: Problem, rng: random.Random) -> Problem:
    def mixed(gpu: PlanGpu) -> PlanGpu:
        return replace(
            gpu,
            pinned=tuple(rng.sample(gpu.pinned, len(gpu.pinned))),
            idle=tuple(rng.sample(gpu.idle, len(gpu.idle))),
            keys=tuple(rng.sample(gpu.keys, len(gpu.keys))),
        )

    tiers = tuple(
        replace(tier, wants=tuple(rng.sample(tier.wants, len(tier.wants))))
        for tier in problem.tiers
    )
    gpus = [mixed(gpu) for gpu in problem.gpus]
    rng.shuffle(gpus)
    return replace(problem, gpus=tuple(gpus), tiers=tiers)


@pytest.mark.parametrize("seed", range(40))
def test_order_of_gpus_keys_and_wants_changes_no_byte(seed: int) -> None:
    problem = random_problem(seed, limits=seed % 2 == 0)
    expected = solve(problem)
    for turn in range(3):
        shuffled = _shuffled(problem, random.Random(seed * 10 + turn))
        found = solve(shuffled)
        assert repr(found) == repr(expected)
        assert repr(order_gpu_plans(shuffled, found)) == repr(order_gpu_plans(problem, expected))


@pytest.mark.parametrize("seed", range(5_000, 5_040))
def test_one_more_gpu_never_raises_unmet(seed: int) -> None:
    problem = random_problem(seed, limits=False)
    fewer = solve(replace(problem, gpus=problem.gpus[1:]))
    more = solve(problem)
    assert _unmet(more) <= _unmet(fewer)


def _unmet(solution: Solution) -> tuple[int, ...]:
    return tuple(level.value for level in solution.levels[:-3])


def test_steps_of_plans_dip_as_little_as_any_order() -> None:
    ours = least = sampled = 0
    for seed in range(0, 240, 2):
        problem = random_problem(seed, limits=False)
        solution = solve(problem)
        ours_now, least_now = _areas(problem, solution, most=9, phases=False)
        ours, least, sampled = ours + ours_now, least + least_now, sampled + 1
    assert sampled == 120
    assert ours <= 1.2 * least


def test_steps_of_wild_changes_dip_as_little_as_phases_allow() -> None:
    # Layouts that no plan would choose, drawn at random, with two sizes to protect.
    rng = random.Random(7)
    keys = tuple((p.name, p.size_class) for p in model(A100).profiles[:5])
    layouts = [one for one in all_layouts(model(A100), [name for name, _ in keys]) if len(one)]
    ours = least = 0
    for _ in range(60):
        gpus = tuple(
            PlanGpu(
                uuid=GpuUuid(f"GPU-{n}"),
                model=model(A100),
                idle=rng.choice(layouts).specs,
                keys=keys,
            )
            for n in range(2)
        )
        wants = tuple(Want(key=key, count=1) for key in rng.sample(("1g", "2g", "3g", "4g"), 2))
        after: list[tuple[GpuUuid, Layout]] = [(gpu.uuid, rng.choice(layouts)) for gpu in gpus]
        ours_now, least_now = _areas(
            Problem(gpus=gpus, tiers=(Tier(name="t", wants=wants),)),
            Solution(layouts=tuple(after), levels=(), unmet=()),
            most=12,
            phases=True,
        )
        ours, least = ours + ours_now, least + least_now
    assert 0 < ours <= 1.2 * least


def _areas(problem: Problem, solution: Solution, *, most: int, phases: bool) -> tuple[int, int]:
    """Return (area of our order, least area); both 0 where there are too many steps to be exact."""
    plans = order_gpu_plans(problem, solution)
    steps = [(plan.gpu_uuid, step) for plan in plans for step in plan.steps]
    if not 2 <= len(steps) <= most:
        return 0, 0
    gpus = {gpu.uuid: gpu for gpu in problem.gpus}
    wanted = frozenset(want.key for tier in problem.tiers for want in tier.wants if want.count)
    return area(gpus, steps, wanted), least_area(
        gpus, steps, wanted, gpu_by_gpu=phases, phases=phases
    )
