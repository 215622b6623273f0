"""What is decided: plans for demand, holds with their reason, and nothing for lack of data."""

from dataclasses import replace
from datetime import timedelta

import pytest

from migscaler.model.decision import Decision, DecisionInput, GpuHistory, RuleHistory
from migscaler.model.demand import Counts, SourceStatus
from migscaler.model.gpu import Gap, PinReason
from migscaler.model.ids import RuleName
from migscaler.model.plan import GateReason, Hold, Plan, Unmet, UnmetCause
from migscaler.model.policy import Mode, Pace
from migscaler.policy.decide import decide
from tests.builders import (
    A30,
    A100,
    H100,
    MONOTONIC,
    NOW,
    decision_input,
    gpu_entry,
    gpu_state,
    instance_reading,
    instance_state,
    layout,
    policy,
    rule,
    rule_history,
    snapshot,
    source_status,
    spec,
    uuid,
    window,
)

PROCESS, UNKNOWN = PinReason.PROCESS, PinReason.UNKNOWN


def planned(decision: Decision) -> dict[int, str]:
    """Return the layouts after the plan by GPU index; empty for a hold."""
    if isinstance(decision.outcome, Hold):
        return {}
    return {int(p.gpu_uuid[-12:]): str(p.after) for p in decision.outcome.gpu_plans}


def reason(decision: Decision) -> GateReason:
    """Return why a decision holds."""
    assert isinstance(decision.outcome, Hold), decision.sentence
    return decision.outcome.reason


def closed(decision: Decision) -> list[GateReason]:
    """Return the reasons of all closed gates, each once."""
    return list(dict.fromkeys(gate.reason for gate in decision.gates))


def whole_gpus(count: int, waiting: dict[str, int]) -> DecisionInput:
    """Return whole idle A100s, and jobs waiting for notebooks (1g) and training (7g)."""
    state = snapshot(*(gpu_state(A100, "7g@0", index=n) for n in range(count)))
    rules = policy(rule("notebooks", "1g", "queue"), rule("training", "7g", "queue"))
    return decision_input(state, rules, source_status("queue", waiting))


def test_waiting_jobs_reshape_an_idle_gpu() -> None:
    decision = decide(whole_gpus(2, {"1g": 2}))
    assert planned(decision) == {1: "1g.5gb@0 1g.5gb@1"}
    assert decision.sentence == "Reshape GPU 1 from 7g to 1g+1g: notebooks waits for 2 x 1g"
    assert decision.gates == ()
    assert decision.wanted == decision.outcome


def test_jobs_that_may_already_run_justify_nothing_and_keep_what_is_free() -> None:
    """Where nobody looked when 2 waited, those 2 may be the ones in use, or want the free ones."""
    state = gpu_state(A100, "1g@0 1g@1 1g@2 1g@3 3g@4", {"1g@0": PROCESS, "1g@1": PROCESS})
    rules = policy(rule("big", "2g", "jobs"), rule("notebooks", "1g", "queue"))
    told = (source_status("queue", {"1g": 2}), source_status("jobs", {"2g": 1}))

    decision = decide(decision_input(snapshot(state), rules, *told))

    assert planned(decision) == {0: "1g.5gb@0 1g.5gb@1 1g.5gb@2 1g.5gb@3 2g.10gb@4"}
    notebooks = next(one for one in decision.rules if one.rule == "notebooks")
    assert (notebooks.wanted, notebooks.unmet) == (2, 0)
    assert "what was in use when jobs waited is not known" in notebooks.explanation


def test_no_demand_is_satisfied() -> None:
    decision = decide(whole_gpus(2, {}))
    assert reason(decision) is GateReason.SATISFIED
    assert decision.sentence == "Hold: no change is wanted"
    assert decision.wanted is None


def test_idle_supply_serves_before_anything_is_made() -> None:
    state = snapshot(gpu_state(A100, "1g@0 1g@1"))
    inp = decision_input(state, policy(rule("r", "1g", "queue")), source_status("queue", {"1g": 2}))
    assert reason(decide(inp)) is GateReason.SATISFIED


def test_settling_instances_are_supply() -> None:
    pins = {"1g@0": PinReason.SETTLING, "1g@1": PinReason.SETTLING}
    state = snapshot(gpu_state(A100, "1g@0 1g@1", pins))
    inp = decision_input(state, policy(rule("r", "1g", "queue")), source_status("queue", {"1g": 2}))
    assert reason(decide(inp)) is GateReason.SATISFIED


def test_unknown_instances_are_no_supply_for_waiting_jobs() -> None:
    state = snapshot(gpu_state(A100, "1g@0 1g@1", {"1g@0": UNKNOWN, "1g@1": UNKNOWN}))
    inp = decision_input(state, policy(rule("r", "1g", "queue")), source_status("queue", {"1g": 1}))
    [after] = planned(decide(inp)).values()
    assert len(after.split()) == 3


def test_unknown_instances_count_as_present_for_floors_totals_and_spare() -> None:
    state = snapshot(gpu_state(A100, "1g@0 1g@1", {"1g@0": UNKNOWN, "1g@1": UNKNOWN}))
    total = source_status("queue", {"1g": 2}, counts=Counts.TOTAL)
    assert reason(decide(decision_input(state, policy(rule(minimum=2))))) is GateReason.SATISFIED
    assert reason(decide(decision_input(state, policy(rule(spare=2))))) is GateReason.SATISFIED
    ruled = policy(rule("r", "1g", "queue"))
    assert reason(decide(decision_input(state, ruled, total))) is GateReason.SATISFIED


def test_gpu_out_of_sight_does_not_make_a_floor_be_built_twice() -> None:
    blind = gpu_state(A100, "-", index=1, excluded="no answer for 10 s")
    blind = replace(
        blind,
        instances=None,
        reading=replace(
            blind.reading, instances=None, model=None, gaps=(Gap(what="gpu", why="lost"),)
        ),
    )
    state = snapshot(gpu_state(A100, "-"), blind)
    history = GpuHistory(gpu_uuid=uuid(1), wanted=layout(A100, "1g@0 1g@1"))
    inp = decision_input(state, policy(rule(minimum=2)), gpus=(history,))
    assert reason(decide(inp)) is GateReason.SATISFIED
    inp = decision_input(state, policy(rule(minimum=3)), gpus=(history,))
    assert planned(decide(inp)) == {0: "1g.5gb@0"}


def test_floor_is_made_without_waiting_for_pace() -> None:
    slow = rule("r", "1g", minimum=1, raise_after=timedelta(hours=1))
    assert planned(decide(decision_input(snapshot(gpu_state(A100)), policy(slow)))) == {
        0: "1g.5gb@0"
    }


def test_floor_of_a_window_holds_while_it_is_open() -> None:
    ruled = policy(rule("r", "7g", at_least=[(1, "mon 08:00-18:00")]))
    state = snapshot(gpu_state(A100, "1g@0"))
    shut = (window("mon 08:00-18:00", is_open=False),)
    opened = (window("mon 08:00-18:00", is_open=True),)
    assert reason(decide(decision_input(state, ruled, windows=shut))) is GateReason.SATISFIED
    assert planned(decide(decision_input(state, ruled, windows=opened))) == {0: "7g.40gb@0"}


def test_maximum_limits_what_is_wanted() -> None:
    inp = decision_input(
        snapshot(gpu_state(A100, "1g@0", {"1g@0": PROCESS})),
        policy(rule("r", "1g", "queue", maximum=3, spare=2)),
        source_status("queue", {"1g": 9}),
    )
    decision = decide(inp)
    [after] = planned(decision).values()
    assert len(after.split()) == 3
    assert (decision.rules[0].wanted, decision.rules[0].target) == (3, 3)


def test_spare_is_kept_free_beyond_use() -> None:
    inp = decision_input(
        snapshot(gpu_state(A100, "1g@0", {"1g@0": PROCESS})), policy(rule(spare=1))
    )
    [after] = planned(decide(inp)).values()
    assert len(after.split()) == 2


def test_order_of_rules_is_priority() -> None:
    waiting = source_status("queue", {"3g": 2, "7g": 1})
    state = snapshot(gpu_state(A100, "1g@0"))
    first = policy(rule("a", "3g", "queue"), rule("b", "7g", "queue"))
    second = policy(rule("b", "7g", "queue"), rule("a", "3g", "queue"))
    assert planned(decide(decision_input(state, first, waiting))) == {0: "3g.20gb@0 3g.20gb@4"}
    assert planned(decide(decision_input(state, second, waiting))) == {0: "7g.40gb@0"}


def test_floor_of_a_later_rule_comes_before_the_wanted_of_an_earlier() -> None:
    state = snapshot(gpu_state(A100, "1g@0"))
    ruled = policy(rule("a", "3g", "queue"), rule("b", "7g", minimum=1))
    inp = decision_input(state, ruled, source_status("queue", {"3g": 2}))
    assert planned(decide(inp)) == {0: "7g.40gb@0"}


def test_profile_serves_the_first_rule_that_means_it() -> None:
    ruled = policy(rule("a", "1g", "queue"), rule("b", "1g.5gb", minimum=1))
    decision = decide(decision_input(snapshot(gpu_state(A100)), ruled, source_status("queue", {})))
    assert decision.unmet == (
        Unmet(rule=ruled.rules[1].name, count=1, cause=UnmetCause.CONFIGURATION),
    )
    assert reason(decision) is GateReason.INFEASIBLE


def test_size_class_is_served_on_every_model() -> None:
    state = snapshot(gpu_state(A30, "-"), gpu_state(H100, "-", index=1))
    inp = decision_input(state, policy(rule("r", "1g", minimum=11)))
    plans = planned(decide(inp))
    assert plans[0] == "1g.6gb@0 1g.6gb@1 1g.6gb@2 1g.6gb@3"
    assert plans[1].count("1g.10gb") == 7


def test_pinned_instances_keep_their_place() -> None:
    state = snapshot(gpu_state(A100, "1g@3 2g@4", {"1g@3": PROCESS}))
    inp = decision_input(state, policy(rule("r", "3g", "queue")), source_status("queue", {"3g": 2}))
    assert planned(decide(inp)) == {0: "1g.5gb@3 3g.20gb@4"}


def test_only_demand_justifies_a_destroy() -> None:
    state = snapshot(gpu_state(A100, "2g@0 1g@3 1g@5"))
    assert reason(decide(decision_input(state, policy(rule("r", "7g"))))) is GateReason.SATISFIED


def test_target_that_just_rose_settles_first() -> None:
    ruled = policy(rule("r", "1g", "queue", raise_after=timedelta(seconds=30)))
    state = snapshot(gpu_state(A100))
    status = source_status("queue", {"1g": 2})
    young = decide(
        decision_input(state, ruled, status, histories=(rule_history("r", (60, 0), (20, 2)),))
    )
    assert reason(young) is GateReason.SETTLING_TARGET
    [gate] = young.gates
    assert gate.opens_at == NOW + timedelta(seconds=10)
    assert gate.blocks
    old = decision_input(state, ruled, status, histories=(rule_history("r", (60, 0), (30, 2)),))
    assert planned(decide(old)) != {}


def test_first_sample_of_a_rule_counts_as_just_begun() -> None:
    ruled = policy(rule("r", "1g", "queue", raise_after=timedelta(seconds=30)))
    inp = decision_input(snapshot(gpu_state(A100)), ruled, source_status("queue", {"1g": 2}))
    decision = decide(inp)
    assert reason(decision) is GateReason.SETTLING_TARGET
    [history] = decision.rule_histories
    assert [(s.since_monotonic, s.target) for s in history.samples] == [(100_000.0, 2)]


def test_target_that_just_fell_keeps_its_instances_from_lower_rules() -> None:
    ruled = policy(
        rule("a", "7g", "queue", lower_after=timedelta(minutes=10)), rule("b", "1g", "queue")
    )
    state = snapshot(gpu_state(A100, "7g@0"))
    status = source_status("queue", {"1g": 1})
    young = decision_input(state, ruled, status, histories=(rule_history("a", (900, 1), (60, 0)),))
    decision = decide(young)
    assert reason(decision) is GateReason.SETTLING_TARGET
    assert decision.gates[0].opens_at == NOW + timedelta(minutes=9)
    old = decision_input(state, ruled, status, histories=(rule_history("a", (900, 1), (600, 0)),))
    assert planned(decide(old)) == {0: "1g.5gb@0"}


def test_hold_names_the_fall_that_refuses_and_not_a_gpu_that_stays_as_it_is() -> None:
    """5 wanted for long, none a minute ago, 3 now: the hold blamed the mode of another GPU."""
    state = snapshot(gpu_state(A100, "1g@0 1g@1 1g@2 1g@3 1g@4"), gpu_state(A100, "7g@0", index=1))
    slow = timedelta(minutes=10)
    ruled = policy(
        rule("notebooks", "1g", "queue", raise_after=timedelta(seconds=30), lower_after=slow),
        rule("big", "3g", "jobs"),
        gpus=(gpu_entry(Mode.OBSERVE, index=1), gpu_entry(index=0)),
    )
    past = (
        rule_history("notebooks", (3600, 5), (60, 0), last_known_target=0),
        rule_history("big", (3600, 1), last_known_target=1),
    )
    told = (source_status("queue", {"1g": 3}), source_status("jobs", {"3g": 1}))

    decision = decide(decision_input(state, ruled, *told, histories=past))

    assert decision.wanted is not None
    assert reason(decision) is GateReason.SETTLING_TARGET
    assert decision.sentence.startswith("Hold: notebooks: the target fell to 3, not long enough")
    blocking = [gate.reason for gate in decision.gates if gate.blocks]
    assert blocking == [GateReason.SETTLING_TARGET]


def test_what_was_missing_stays_missing_while_its_source_is_silent() -> None:
    since = NOW - timedelta(minutes=40)
    past = RuleHistory(rule=RuleName("training"), unmet_since=since, last_known_target=3)
    ruled = policy(rule("training", "7g", "queue"))
    busy = snapshot(gpu_state(A100, "7g@0", {"7g@0": PROCESS}))
    silent = source_status("queue", {"7g": 2}, known=False)

    decision = decide(decision_input(busy, ruled, silent, histories=(past,)))

    assert decision.rule_histories[0].unmet_since == since


@pytest.mark.parametrize("was_known", [True, False])
def test_silence_is_no_time_of_a_lower_target(was_known: bool) -> None:
    """A queue exporter that just restarted says 0: five instances went at the first tick."""
    state = gpu_state(A100, "1g@0 1g@1 1g@2 1g@3 1g@4")
    ten_minutes = timedelta(minutes=10)
    ruled = policy(
        rule("notebooks", "1g", "queue", lower_after=ten_minutes), rule("training", "7g", "train")
    )
    histories: tuple[RuleHistory, ...] = ()

    def tick(second: float, queue: SourceStatus) -> Decision:
        nonlocal histories
        monotonic = MONOTONIC + second
        decision = decide(
            decision_input(
                snapshot(state, monotonic=monotonic),
                ruled,
                queue,
                source_status("train", {"7g": 1}),
                monotonic=monotonic,
                histories=histories,
            )
        )
        histories = decision.rule_histories
        return decision

    for second in range(0, 1_200, 60):
        tick(second, source_status("queue", {"1g": 5}, known=was_known))
    for second in range(1_200, 2_400, 60):
        tick(second, source_status("queue", {"1g": 5}, known=False))

    returned = [tick(second, source_status("queue", {"1g": 0})) for second in (2_400, 2_999, 3_000)]

    assert [planned(one) for one in returned] == [{}, {}, {0: "7g.40gb@0"}]
    assert reason(returned[0]) is GateReason.SETTLING_TARGET


def test_silent_source_keeps_its_supply_and_creates_nothing() -> None:
    state = snapshot(gpu_state(A100, "7g@0"), gpu_state(A100, "-", index=1))
    ruled = policy(rule("a", "7g", "prom", minimum=2), rule("b", "1g", "queue"))
    silent = source_status("prom", {"7g": 1}, known=False)
    inp = decision_input(state, ruled, silent, source_status("queue", {"1g": 9}))
    decision = decide(inp)
    assert planned(decision) == {1: str(layout(A100, " ".join(f"1g@{n}" for n in range(7))))}
    assert GateReason.SOURCE_UNKNOWN in closed(decision)
    assert decision.rules[0].source_unknown == ("prom",)


def test_silent_source_frees_what_is_above_the_last_known_target() -> None:
    state = snapshot(gpu_state(A100, "7g@0"), gpu_state(A100, "7g@0", index=1))
    ruled = policy(rule("a", "7g", "prom"), rule("b", "1g", "queue"))
    silent = source_status("prom", {"7g": 1}, known=False)
    waiting = source_status("queue", {"1g": 14})
    past = (rule_history("a", (900, 1), last_known_target=1),)
    decision = decide(decision_input(state, ruled, silent, waiting, histories=past))
    assert len(planned(decision)) == 1
    assert decision.rule_histories[0].last_known_target == 1


def test_silent_source_alone_holds_as_unknown() -> None:
    silent = source_status("queue", {"1g": 1}, known=False)
    inp = decision_input(
        snapshot(gpu_state(A100, "1g@0")), policy(rule("r", "1g", "queue")), silent
    )
    assert reason(decide(inp)) is GateReason.SOURCE_UNKNOWN


def test_known_partner_of_a_silent_source_may_create() -> None:
    inp = decision_input(
        snapshot(gpu_state(A100)),
        policy(rule("r", "1g", "a", "b", spare=3)),
        source_status("a", {"1g": 2}),
        source_status("b", {"1g": 5}, known=False),
    )
    [after] = planned(decide(inp)).values()
    assert len(after.split()) == 2


def test_source_silent_for_too_long_falls_back_to_the_floor() -> None:
    late = source_status("queue", {"7g": 1}, known=False, unknown_since=NOW - timedelta(hours=5))
    state = snapshot(gpu_state(A100, "7g@0"))
    ruled = policy(rule("a", "7g", "queue"), rule("b", "1g", minimum=1))
    assert planned(decide(decision_input(state, ruled, late))) == {0: "1g.5gb@0"}


def test_budget_goes_where_it_helps_most() -> None:
    inp = whole_gpus(3, {"1g": 10})
    inp = replace(inp, policy=replace(inp.policy, pace=Pace(gpus_at_once=1)))
    decision = decide(inp)
    assert list(planned(decision).values()) == [
        str(layout(A100, " ".join(f"1g@{n}" for n in range(7))))
    ]
    assert decision.wanted is not None
    assert len(decision.wanted.gpu_plans) == 2
    assert closed(decision) == [GateReason.BUDGET]
    assert decision.unmet == (Unmet(rule=inp.policy.rules[0].name, count=3, cause=UnmetCause.GATE),)


def test_used_up_day_holds() -> None:
    inp = whole_gpus(1, {"1g": 1})
    inp = replace(inp, history=replace(inp.history, changes_last_day=48))
    decision = decide(inp)
    assert reason(decision) is GateReason.BUDGET
    assert decision.sentence == "Hold: 48 of 48 changes of a day are used"


def test_unmanaged_gpus_are_outside() -> None:
    state = snapshot(gpu_state(A100, "7g@0"), gpu_state(A100, "1g@0", index=1))
    ruled = policy(rule("r", "1g", minimum=1), gpus=(gpu_entry(index=0),))
    decision = decide(decision_input(state, ruled))
    assert planned(decision) == {0: "1g.5gb@0"}
    assert decision.gpus[1].mode is None
    assert decision.gpus[1].wanted is None


def test_recommend_publishes_the_plan_and_holds() -> None:
    inp = whole_gpus(1, {"1g": 1})
    inp = replace(inp, policy=replace(inp.policy, gpus=(gpu_entry(Mode.RECOMMEND),)))
    decision = decide(inp)
    assert reason(decision) is GateReason.MODE
    assert isinstance(decision.wanted, Plan)
    assert decision.gpus[0].wanted == layout(A100, "1g@0")
    assert decision.sentence == "Hold: GPU 0 is in mode recommend"


def test_gpu_behind_a_gate_leaves_the_plan_to_others() -> None:
    inp = whole_gpus(2, {"1g": 1})
    rests = GpuHistory(gpu_uuid=uuid(1), rest_until=NOW + timedelta(minutes=2))
    inp = replace(inp, history=replace(inp.history, gpus=(rests,)))
    decision = decide(inp)
    assert planned(decision) == {0: "1g.5gb@0"}
    assert closed(decision) == [GateReason.RESTING]


def test_satisfied_after_the_plan_was_carried_out() -> None:
    inp = whole_gpus(2, {"1g": 2, "7g": 1})
    [plan] = planned(decide(inp)).items()
    made = {f"1g@{n}": PinReason.SETTLING for n in (0, 1)}
    after = snapshot(gpu_state(A100, "7g@0"), gpu_state(A100, "1g@0 1g@1", made, index=plan[0]))
    assert reason(decide(replace(inp, snapshot=after))) is GateReason.SATISFIED


def test_unmet_since_is_kept_while_unmet() -> None:
    earlier = NOW - timedelta(minutes=7)
    past = replace(rule_history("r", (900, 9)), unmet_since=earlier)
    busy = snapshot(gpu_state(A100, "7g@0", {"7g@0": PROCESS}))
    ruled = policy(rule("r", "1g", "queue"))
    short = decide(
        decision_input(busy, ruled, source_status("queue", {"1g": 9}), histories=(past,))
    )
    assert short.rules[0].unmet_since == earlier
    done = decide(decision_input(busy, ruled, source_status("queue", {}), histories=(past,)))
    assert done.rules[0].unmet_since is None


def test_fault_of_the_planner_ends_in_a_hold() -> None:
    inp = whole_gpus(1, {"1g": 1})
    twice = replace(inp.snapshot, gpus=inp.snapshot.gpus * 2)
    decision = decide(replace(inp, snapshot=twice))
    assert reason(decision) is GateReason.INFEASIBLE
    assert decision.sentence == (
        "Hold: planning failed: a GPU appears twice in the planning problem"
    )
    assert decision.wanted is None


def test_overlapping_instances_are_a_fault_of_the_reading() -> None:
    torn = [instance_reading(spec(A100, text), gi_id=n) for n, text in enumerate(("7g@0", "1g@0"))]
    state = gpu_state(A100)
    state = replace(
        state,
        instances=tuple(instance_state(one) for one in torn),
        reading=replace(state.reading, instances=tuple(torn)),
    )
    inp = replace(whole_gpus(1, {"1g": 1}), snapshot=snapshot(state))
    assert reason(decide(inp)) is GateReason.DRIVER_FAULT
