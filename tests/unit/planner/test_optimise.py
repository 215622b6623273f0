"""What the planner chooses in situations that can be checked by hand."""

import subprocess
import sys
from dataclasses import replace

import pytest

from migscaler.errors import PlanningFailed
from migscaler.model.ids import GpuUuid
from migscaler.model.layout import Layout
from migscaler.model.plan import Direction
from migscaler.model.profile import InstanceSpec, Placement
from migscaler.planner.cache import OptionCache
from migscaler.planner.optimise import solve
from migscaler.planner.problem import PlanGpu, Problem, Solution, Tier, Want
from migscaler.planner.steps import order_gpu_plans
from tests.builders import A30, A100, H100, layout, model


def _gpu(number: int, pinned: str = "-", idle: str = "-", board: str = A100) -> PlanGpu:
    of = model(board)
    return PlanGpu(
        uuid=GpuUuid(f"GPU-{number}"),
        model=of,
        pinned=layout(board, pinned).specs,
        idle=layout(board, idle).specs,
        keys=tuple((p.name, p.size_class) for p in of.profiles),
    )


def _tiers(*tiers: dict[str, int]) -> tuple[Tier, ...]:
    return tuple(
        Tier(
            name=f"tier {number}",
            wants=tuple(Want(key=key, count=count) for key, count in wants.items()),
        )
        for number, wants in enumerate(tiers)
    )


def _values(solution: Solution) -> list[int]:
    return [level.value for level in solution.levels]


def _text(solution: Solution) -> list[str]:
    return [str(found) for _, found in solution.layouts]


def test_empty_fleet_leaves_all_unmet() -> None:
    solution = solve(Problem(gpus=(), tiers=_tiers({"1g": 3})))
    assert solution.layouts == ()
    assert solution.unmet == (("tier 0", "1g", 3),)
    assert [level.proved for level in solution.levels] == [True] * 4


def test_nothing_wanted_changes_nothing() -> None:
    solution = solve(Problem(gpus=(_gpu(0, idle="3g@0 1g@5"),)))
    assert _text(solution) == ["3g.20gb@0 1g.5gb@5"]
    assert _values(solution)[:2] == [0, 0]


def test_demand_already_supplied_changes_nothing() -> None:
    solution = solve(Problem(gpus=(_gpu(0, idle="3g@0 3g@4"),), tiers=_tiers({"3g": 2})))
    assert _text(solution) == ["3g.20gb@0 3g.20gb@4"]


def test_mix_that_defeats_default_placement_is_served_whole() -> None:
    # `nvidia-smi mig -cgi 19,19,14,9` fails: by default placement the 3g finds no free half.
    solution = solve(Problem(gpus=(_gpu(0),), tiers=_tiers({"1g": 2, "2g": 1, "3g": 1})))
    assert solution.unmet == ()
    assert _values(solution) == [0, 4, 1, 0]
    assert solution.layouts[0][1].profiles() == {"1g.5gb": 2, "2g.10gb": 1, "3g.20gb": 1}


def test_pinned_instances_keep_their_places() -> None:
    solution = solve(Problem(gpus=(_gpu(0, pinned="1g@1"),), tiers=_tiers({"3g": 2})))
    assert _text(solution) == ["1g.5gb@1 3g.20gb@4"]
    assert solution.unmet == (("tier 0", "3g", 1),)


def test_all_busy_fleet_stays() -> None:
    gpus = tuple(_gpu(n, pinned="3g@0 3g@4") for n in range(3))
    solution = solve(Problem(gpus=gpus, tiers=_tiers({"1g": 5})))
    assert _values(solution) == [5, 0, 0, 0]
    assert all(level.proved for level in solution.levels)


def test_frozen_fleet_stays_and_its_idle_instances_count() -> None:
    gpus = tuple(replace(_gpu(n, idle="3g@0"), fixed=True) for n in range(2))
    solution = solve(Problem(gpus=gpus, tiers=_tiers({"1g": 5, "3g": 3})))
    assert _text(solution) == ["3g.20gb@0", "3g.20gb@0"]
    assert solution.unmet == (("tier 0", "1g", 5), ("tier 0", "3g", 1))


def test_idle_instance_goes_only_when_unmet_demand_shrinks() -> None:
    useless = solve(Problem(gpus=(_gpu(0, idle="7g@0"),), tiers=_tiers({"7g": 1}, {"1g": 7})))
    assert _text(useless) == ["7g.40gb@0"]
    useful = solve(Problem(gpus=(_gpu(0, idle="7g@0"),), tiers=_tiers({"1g": 1}, {"7g": 1})))
    assert useful.layouts[0][1].profiles() == {"1g.5gb": 1}


def test_earlier_tier_of_one_key_is_filled_first() -> None:
    tiers = _tiers({"7g": 1}, {"3g": 2}, {"7g": 1})
    solution = solve(Problem(gpus=(_gpu(0), _gpu(1)), tiers=tiers))
    assert solution.unmet == (("tier 2", "7g", 1),)
    assert _values(solution)[:3] == [0, 0, 1]


def test_weight_decides_within_a_tier() -> None:
    def served(weight: int) -> list[str]:
        wants = (Want(key="7g", count=1, weight=weight), Want(key="1g", count=7))
        return _text(solve(Problem(gpus=(_gpu(0),), tiers=(Tier(name="t", wants=wants),))))

    assert served(8) == ["7g.40gb@0"]
    assert len(served(6)[0].split()) == 7


def test_two_weights_of_one_key_leave_the_lighter_unmet() -> None:
    wants = (Want(key="7g", count=1), Want(key="7g", count=1, weight=5))
    solution = solve(Problem(gpus=(_gpu(0),), tiers=(Tier(name="t", wants=wants),)))
    assert solution.levels[0].value == 1


def test_profile_without_key_is_never_made() -> None:
    gpu = replace(_gpu(0), keys=(("1g.5gb", "1g"),))
    solution = solve(Problem(gpus=(gpu,), tiers=_tiers({"1g": 2, "3g": 1})))
    assert solution.layouts[0][1].profiles() == {"1g.5gb": 2}


def test_gpu_with_an_instance_is_never_emptied() -> None:
    # 1g may not be created, so the only way to be rid of 7g would be an empty GPU.
    problem = Problem(
        gpus=(_gpu(0, idle="7g@0"),), tiers=_tiers({"1g": 1}), no_create=frozenset({"1g"})
    )
    assert _text(solve(problem)) == ["7g.40gb@0"]


def test_budget_of_touched_gpus_goes_where_it_helps_most() -> None:
    gpus = (_gpu(0, pinned="3g@0"), _gpu(1), _gpu(2, pinned="4g@0"))
    solution = solve(Problem(gpus=gpus, tiers=_tiers({"1g": 20}), max_touched=1))
    assert [len(found) for _, found in solution.layouts] == [1, 7, 1]
    assert _values(solution)[:3] == [13, 7, 1]


def test_budget_of_zero_changes_nothing() -> None:
    solution = solve(Problem(gpus=(_gpu(0),), tiers=_tiers({"1g": 2}), max_touched=0))
    assert _text(solution) == ["-"]
    assert solution.levels[0].value == 2


def test_kept_floor_holds_against_destruction() -> None:
    gpus = (_gpu(0, idle="3g@0 3g@4"), _gpu(1, idle="3g@0"))
    free = solve(Problem(gpus=gpus, tiers=_tiers({"7g": 2})))
    assert free.unmet == ()
    held = solve(Problem(gpus=gpus, tiers=_tiers({"7g": 2}), kept=(("3g", 2),)))
    assert _text(held) == ["3g.20gb@0 3g.20gb@4", "7g.40gb@0"]
    more_than_there_is = solve(Problem(gpus=gpus, tiers=_tiers({"7g": 2}), kept=(("3g", 9),)))
    assert more_than_there_is.levels[0].value == 2


def test_pinned_supply_counts_as_met() -> None:
    gpu = replace(_gpu(0, pinned="2g@0"), supply_pinned=layout(A100, "2g@0").specs)
    solution = solve(Problem(gpus=(gpu,), tiers=_tiers({"2g": 1})))
    assert _text(solution) == ["2g.10gb@0"]
    assert solution.unmet == ()


def test_idle_instance_that_is_no_supply_serves_nobody_but_may_go() -> None:
    gpu = replace(_gpu(0, idle="7g@0"), idle_not_supply=frozenset(layout(A100, "7g@0").specs))
    solution = solve(Problem(gpus=(gpu,), tiers=_tiers({"3g": 1, "7g": 1})))
    assert solution.layouts[0][1].profiles() == {"3g.20gb": 1}


@pytest.mark.parametrize(("direction", "unmet"), [(Direction.FINER, 2), (Direction.COARSER, 1)])
def test_closed_direction_is_not_taken(direction: Direction, unmet: int) -> None:
    gpus = (
        replace(_gpu(0, idle="1g@0 1g@1"), directions=frozenset({direction})),
        replace(_gpu(1, pinned="1g@0"), directions=frozenset({direction})),
    )
    solution = solve(Problem(gpus=gpus, tiers=_tiers({"7g": 2})))
    assert solution.levels[0].value == unmet


def test_unexplained_gpu_is_left_alone_and_counts() -> None:
    odd = InstanceSpec(Placement(1, 4), "3g.20gb")
    gpus = (replace(_gpu(0), idle=(odd,)), _gpu(1))
    solution = solve(Problem(gpus=gpus, tiers=_tiers({"3g": 2})))
    assert solution.layouts[0][1] == Layout((odd,))
    assert _values(solution)[:3] == [0, 1, 1]


def test_one_rule_is_served_across_models() -> None:
    gpus = (_gpu(0, pinned="7g@0"), _gpu(1, board=A30, pinned="2g@0"), _gpu(2, board=H100))
    solution = solve(Problem(gpus=gpus, tiers=_tiers({"2g": 4})))
    assert _values(solution)[:2] == [0, 4]
    assert solution.layouts[1][1].profiles() == {"2g.12gb": 2}


def test_fragmentation_breaks_ties_so_that_large_jobs_still_fit() -> None:
    gpu = replace(_gpu(0), keys=(("1g.5gb", "1g"), ("3g.20gb", "3g"), ("4g.20gb", "4g")))
    solution = solve(Problem(gpus=(gpu,), tiers=_tiers({"1g": 1})))
    # Anywhere in the right half: the left one can still become 4g.
    assert solution.layouts[0][1].specs[0].placement.start >= 4
    assert solution.levels[-1].proved


def test_old_driver_gets_no_4g_beside_3g() -> None:
    gpu = replace(_gpu(0), model=model(A100, 470))
    solution = solve(Problem(gpus=(gpu,), tiers=_tiers({"4g": 1}, {"3g": 1})))
    assert _text(solution) == ["4g.20gb@0"]


def test_more_than_a_byte_of_demand_is_counted_right() -> None:
    gpus = tuple(_gpu(n) for n in range(40))
    solution = solve(Problem(gpus=gpus, tiers=_tiers({"1g": 300})))
    assert _values(solution)[:3] == [20, 280, 40]


def test_cache_changes_no_answer() -> None:
    cache = OptionCache()
    problem = Problem(gpus=(_gpu(0, idle="3g@0"), _gpu(1)), tiers=_tiers({"2g": 4, "7g": 1}))
    assert solve(problem, cache) == solve(problem) == solve(problem, cache)


def test_duplicate_gpu_is_refused() -> None:
    with pytest.raises(PlanningFailed, match="twice"):
        Problem(gpus=(_gpu(0), _gpu(0)))


def test_overlapping_present_instances_are_refused() -> None:
    overlapping = replace(_gpu(0, pinned="3g@0"), idle=layout(A100, "2g@0").specs)
    with pytest.raises(PlanningFailed, match="overlaps"):
        solve(Problem(gpus=(overlapping,), tiers=_tiers({"1g": 1})))


def test_quiet_node_loads_neither_solver_nor_numpy_and_solving_prints_nothing() -> None:
    script = """
import sys
from migscaler.model.ids import GpuUuid
from migscaler.planner.optimise import solve
from migscaler.planner.problem import PlanGpu, Problem, Tier, Want
import migscaler.planner.steps, migscaler.planner.layouts, migscaler.planner.cache
from tests.builders import layout, model
def problem(count):
    gpu = PlanGpu(uuid=GpuUuid("GPU-0"), model=model(), idle=layout("A100-SXM4-40GB", "1g@0").specs,
                  keys=(("1g.5gb", "1g"),))
    return Problem(gpus=(gpu,), tiers=(Tier(name="t", wants=(Want(key="1g", count=count),)),))
solve(problem(1))
assert "highspy" not in sys.modules and "numpy" not in sys.modules
assert solve(problem(3)).levels[0].value == 0
assert "highspy" in sys.modules
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_plans_are_only_for_gpus_that_change() -> None:
    problem = Problem(gpus=(_gpu(0, idle="7g@0"), _gpu(1)), tiers=_tiers({"7g": 1, "2g": 3}))
    plans = order_gpu_plans(problem, solve(problem))
    assert [plan.gpu_uuid for plan in plans] == ["GPU-1"]
    assert plans[0].direction is Direction.FINER


@pytest.mark.parametrize(("scopes", "tables"), [(64, 16), (8, 4)])
def test_cache_stays_small_while_demand_wanders(scopes: int, tables: int) -> None:
    cache = OptionCache(most_scopes=scopes, most_tables=tables)
    gpus = (_gpu(0, pinned="1g@0"), _gpu(1, pinned="4g@0"))
    for count in range(4, 74):
        solution = solve(Problem(gpus=gpus, tiers=_tiers({"1g": count})), cache)
        assert solution.levels[0].value == max(0, count - 9)
    assert len(cache.makers) <= scopes + 1
    assert sum(map(len, cache.tables.values())) <= tables + 1
