"""Order of steps: phases, legal prefixes, wanted instances away as little as can be."""

from dataclasses import replace

import pytest

from migscaler.model.ids import GpuUuid
from migscaler.planner.problem import PlanGpu, Problem, Solution, Tier, Want
from migscaler.planner.steps import order_gpu_plans, order_steps
from tests.builders import A100, layout, model


def _texts(before: str, after: str, wanted: tuple[str, ...] = ()) -> list[str]:
    steps = order_steps(model(), layout(A100, before), layout(A100, after), wanted)
    return [str(step) for step in steps]


def test_no_change_has_no_steps() -> None:
    assert _texts("3g@0", "3g@0") == []


def test_creates_that_fit_come_before_destroys_and_the_others_after() -> None:
    assert _texts("1g@0 1g@1", "4g@0 2g@4") == [
        "create 2g.10gb@4",
        "destroy 1g.5gb@0",
        "destroy 1g.5gb@1",
        "create 4g.20gb@0",
    ]


def test_create_that_only_lacks_compute_waits_for_a_destroy() -> None:
    # Slice 6 is free, but 3g + 2g + 1g@6 + 1g would need eight compute slices beside 4g.
    assert _texts("4g@0 2g@4 1g@6", "3g@0 3g@4") == [
        "destroy 4g.20gb@0",
        "destroy 2g.10gb@4",
        "destroy 1g.5gb@6",
        "create 3g.20gb@0",
        "create 3g.20gb@4",
    ]


def test_instance_maximum_holds_in_every_prefix() -> None:
    steps = _texts("1g+me@0", "1g@0 1g+me@4")
    assert steps == ["destroy 1g.5gb+me@0", "create 1g.5gb@0", "create 1g.5gb+me@4"]


def test_wanted_profile_goes_last_and_comes_back_first() -> None:
    assert _texts("1g@0 2g@2 1g@4", "2g@4 1gx@0 1g@2", ("2g.10gb",)) == [
        "destroy 1g.5gb@0",
        "destroy 1g.5gb@4",
        "destroy 2g.10gb@2",
        "create 2g.10gb@4",
        "create 1g.10gb@0",
        "create 1g.5gb@2",
    ]


def test_surplus_of_a_wanted_profile_goes_before_what_will_be_missed() -> None:
    # Two 2g go and one comes: one of them is no loss. 1g is away and back, so it goes last.
    steps = _texts("2g@0 2g@2 1g@4", "1g@0 2g@4", ("2g.10gb", "1g.5gb"))
    assert steps[0] == "destroy 2g.10gb@0"


def _gpu(number: int, idle: str) -> PlanGpu:
    return PlanGpu(
        uuid=GpuUuid(f"GPU-{number}"),
        model=model(),
        idle=layout(A100, idle).specs,
        keys=tuple((p.name, p.size_class) for p in model().profiles),
    )


def _order(gpus: dict[int, tuple[str, str]], wanted: str) -> list[str]:
    problem = Problem(
        gpus=tuple(_gpu(number, before) for number, (before, _) in gpus.items()),
        tiers=(Tier(name="t", wants=(Want(key=wanted, count=1),)),),
    )
    solution = Solution(
        layouts=tuple(
            (GpuUuid(f"GPU-{number}"), layout(A100, after)) for number, (_, after) in gpus.items()
        ),
        levels=(),
        unmet=(),
    )
    return [plan.gpu_uuid for plan in order_gpu_plans(problem, solution)]


def test_gpu_that_brings_a_wanted_instance_comes_before_the_one_that_loses_it() -> None:
    changes = {0: ("7g@0", "1g@0"), 1: ("1g@0", "7g@0"), 2: ("2g@0", "1gx@0")}
    assert _order(changes, "7g") == ["GPU-1", "GPU-0", "GPU-2"]


def test_order_of_equal_gpu_plans_is_by_uuid() -> None:
    changes = {2: ("7g@0", "1g@0"), 0: ("7g@0", "1g@0"), 1: ("7g@0", "1g@0")}
    assert _order(changes, "2g") == ["GPU-0", "GPU-1", "GPU-2"]


def test_instance_that_serves_nobody_is_not_missed() -> None:
    loses = replace(_gpu(0, "7g@0"), idle_not_supply=frozenset(layout(A100, "7g@0").specs))
    problem = Problem(
        gpus=(loses, _gpu(1, "2g@0")), tiers=(Tier(name="t", wants=(Want(key="7g", count=1),)),)
    )
    solution = Solution(
        layouts=(
            (GpuUuid("GPU-0"), layout(A100, "1g@0")),
            (GpuUuid("GPU-1"), layout(A100, "1g@0")),
        ),
        levels=(),
        unmet=(),
    )
    assert [plan.gpu_uuid for plan in order_gpu_plans(problem, solution)] == ["GPU-0", "GPU-1"]


@pytest.mark.parametrize("wanted", [(), ("1g.5gb",), ("3g.20gb", "2g.10gb")])
def test_steps_are_the_symmetric_difference(wanted: tuple[str, ...]) -> None:
    before, after = layout(A100, "3g@0 2g@4 1g@6"), layout(A100, "2g@0 1g@2 1g@3 3g@4")
    steps = order_steps(model(), before, after, wanted)
    assert {step.spec for step in steps} == set(before.specs) ^ set(after.specs)
    assert len(steps) == 7
