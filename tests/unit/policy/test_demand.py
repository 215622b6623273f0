"""What sources ask for: the largest, never a guess."""

from dataclasses import replace
from datetime import timedelta

from migscaler.model.demand import Counts, SourceStatus
from migscaler.model.gpu import PinReason
from migscaler.model.policy import Mode, Policy, Rule
from migscaler.policy.demand import RuleDemand, demand_of
from migscaler.policy.supply import survey
from tests.builders import (
    A100,
    NOW,
    decision_input,
    gpu_entry,
    gpu_state,
    policy,
    rule,
    snapshot,
    source_policy,
    source_status,
)

BUSY = {"1g@0": PinReason.PROCESS, "1g@1": PinReason.ALLOCATION}


def asked(of: Rule, *demand: SourceStatus, rules: Policy | None = None) -> RuleDemand:
    """Return a rule's demand on an A100 with two 1g in use, then as now, and one idle."""
    state = gpu_state(A100, "1g@0 1g@1 1g@2", BUSY)
    seen = [replace(one, in_use_at_reading=one.in_use_at_reading or (("1g", 2),)) for one in demand]
    inp = decision_input(snapshot(state), rules or policy(of), *seen)
    return demand_of(of, inp, survey(inp))


def test_waiting_comes_on_top_of_those_in_use() -> None:
    found = asked(rule("r", "1g", "queue"), source_status("queue", {"1g": 3}))
    assert (found.waiting, found.total, found.unknown) == (5, None, ())


def test_waiting_does_not_count_a_just_started_job_twice() -> None:
    status = source_status("queue", {"1g": 3}, in_use_at_reading={"1g": 1})
    assert asked(rule("r", "1g", "queue"), status).waiting == 4


def test_waiting_of_an_unrecorded_moment_may_be_the_very_jobs_that_run() -> None:
    """A reload forgot what was in use: 3 pushed as waiting, 2 of them running, and 2 + 3 made."""
    state = gpu_state(A100, "1g@0 1g@1 1g@2", BUSY)
    of = rule("r", "1g", "queue")
    inp = decision_input(snapshot(state), policy(of), source_status("queue", {"1g": 3}))

    found = demand_of(of, inp, survey(inp))

    assert (found.waiting, found.most) == (3, 5)


def test_waiting_never_makes_again_what_ended_since_the_reading() -> None:
    status = source_status("queue", {"1g": 3}, in_use_at_reading={"1g": 6})
    assert asked(rule("r", "1g", "queue"), status).waiting == 5


def test_total_counts_as_it_is() -> None:
    status = source_status("queue", {"1g": 3}, counts=Counts.TOTAL)
    found = asked(rule("r", "1g", "queue"), status)
    assert (found.waiting, found.total, found.known) == (None, 3, 3)


def test_several_sources_the_largest_counts() -> None:
    found = asked(
        rule("r", "1g", "a", "b"), source_status("a", {"1g": 3}), source_status("b", {"1g": 1})
    )
    assert found.waiting == 5
    assert found.counts == (("a", 3), ("b", 1))


def test_several_waitings_add_up_where_told() -> None:
    found = asked(
        rule("r", "1g", "a", "b", sum_waiting=True),
        source_status("a", {"1g": 3}),
        source_status("b", {"1g": 1}),
    )
    assert found.waiting == 6


def test_size_matches_by_the_profile_it_means() -> None:
    assert asked(rule("r", "1g", "queue"), source_status("queue", {"1g.5gb": 3})).waiting == 5
    assert asked(rule("r", "1g.5gb", "queue"), source_status("queue", {"1g": 3})).waiting == 5


def test_other_size_is_not_mine() -> None:
    assert asked(rule("r", "1g", "queue"), source_status("queue", {"2g": 3})).waiting == 2


def test_absent_size_is_unknown_unless_the_source_is_alive() -> None:
    status = source_status("queue", {"2g": 3}, absent_is_zero=False)
    found = asked(rule("r", "1g", "queue"), status)
    assert (found.known, found.unknown) == (None, ("queue",))
    assert found.problems == ("queue says nothing of 1g",)


def test_silent_source_is_unknown() -> None:
    found = asked(rule("r", "1g", "queue"), source_status("queue", {"1g": 3}, known=False))
    assert (found.known, found.unknown) == (None, ("queue",))
    assert found.problems == ("queue: no answer",)


def test_source_that_was_never_asked_is_unknown() -> None:
    assert asked(rule("r", "1g", "queue")).unknown == ("queue",)


def test_known_partner_is_a_lower_bound() -> None:
    found = asked(rule("r", "1g", "a", "b"), source_status("a", {"1g": 3}))
    assert (found.waiting, found.unknown) == (5, ("b",))


def test_source_unknown_for_too_long_is_left_out() -> None:
    late = source_status("queue", {"1g": 3}, known=False, unknown_since=NOW - timedelta(hours=4))
    found = asked(rule("r", "1g", "queue"), late)
    assert (found.known, found.unknown, found.lapsed) == (None, (), ("queue",))


def test_override_replaces_the_other_sources() -> None:
    found = asked(
        rule("r", "1g", "queue", "hand"),
        source_status("queue", {"1g": 9}),
        source_status("hand", {"1g": 1}, overrides=True),
    )
    assert found.waiting == 3
    assert found.overridden_by == "hand"


def test_override_of_a_rule_whose_source_is_silent_needs_no_configuration() -> None:
    found = asked(
        rule("r", "1g", "queue"),
        source_status("queue", {"1g": 9}, known=False),
        source_status("override", {"1g": 4}, counts=Counts.TOTAL, overrides=True),
    )
    assert (found.total, found.unknown) == (4, ())


def test_override_of_another_size_changes_nothing() -> None:
    found = asked(
        rule("r", "1g", "queue"),
        source_status("queue", {"1g": 9}),
        source_status("override", {"7g": 4}, overrides=True),
    )
    assert found.waiting == 11
    assert found.overridden_by is None


def test_override_on_another_rules_source_changes_nothing() -> None:
    mine, other = rule("r", "1g", "queue"), rule("s", "2g", "hand")
    found = asked(
        mine,
        source_status("queue", {"1g": 9}),
        source_status("hand", {"1g": 4}, overrides=True),
        rules=policy(mine, other),
    )
    assert found.waiting == 11


def test_shared_number_without_share_is_unknown_where_changes_are_allowed() -> None:
    one = rule("r", "1g", "queue")
    shared = (source_policy("queue", shared=True),)
    status = source_status("queue", {"1g": 3})
    assert asked(one, status, rules=policy(one, sources=shared)).unknown == ("queue",)
    watching = policy(one, sources=shared, gpus=(gpu_entry(Mode.RECOMMEND),))
    assert asked(one, status, rules=watching).waiting == 5


def test_share_is_rounded_down_so_that_no_herd_answers() -> None:
    one = rule("r", "1g", "queue")
    shared = (source_policy("queue", shared=True, share=0.3),)
    rules = policy(one, sources=shared)
    assert asked(one, source_status("queue", {"1g": 1}), rules=rules).waiting == 2
    assert asked(one, source_status("queue", {"1g": 10}), rules=rules).waiting == 5
