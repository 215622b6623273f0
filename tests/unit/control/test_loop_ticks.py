"""Each tick ends in one recorded sentence; what it depends on, and what is shown meanwhile."""

from dataclasses import replace
from datetime import timedelta

from migscaler.control.loop import Loop
from migscaler.model.decision import Decision, PauseRecord
from migscaler.model.demand import Counts
from migscaler.model.plan import GateReason, Hold, Plan
from migscaler.model.policy import IdlePolicy, Mode
from migscaler.policy.decide import decide
from migscaler.store.codec import decode_input, encode_decision
from tests.builders import gpu_entry, policy, rule
from tests.simulation.process import Objection, Queue
from tests.unit.control.room import Room, room

SOON = IdlePolicy(after=timedelta(seconds=10))
QUIET = policy(rule("halves", "3g", minimum=2), idle=SOON)
FINER = policy(rule("notebooks", "1g", minimum=3), idle=SOON)
RECOMMENDED = replace(FINER, gpus=(gpu_entry(Mode.RECOMMEND),))


def watched(here: Room, loop: Loop) -> Loop:
    here.watch(loop, timedelta(seconds=30))
    return loop


def reason(decision: Decision | None) -> GateReason:
    assert decision is not None
    assert isinstance(decision.outcome, Hold)
    return decision.outcome.reason


def closed(decision: Decision | None) -> dict[GateReason, str]:
    assert decision is not None
    return {gate.reason: gate.explanation for gate in decision.gates}


def test_tick_before_the_first_sample_decides_nothing() -> None:
    with room("3g@0") as here:
        loop = here.loop(QUIET)

        assert loop.tick() is None
        assert here.store.decisions(10) == ()


def test_hold_that_says_the_same_is_recorded_once_and_counted_each_time() -> None:
    with room("3g@0 3g@4") as here:
        loop = watched(here, here.loop(QUIET))

        for _ in range(5):
            loop.tick()
            here.watch(loop, timedelta(seconds=15))

        (record,) = here.store.decisions(10)
        assert (record.kind, record.reason) == ("hold", "satisfied")
        counters = loop.status().counters
        assert (counters.ticks, counters.holds) == (5, (("satisfied", 5),))


def test_rule_that_means_another_size_after_a_reload_begins_anew() -> None:
    """A rule of the same name took the other size's past for its own: no `raise_after`."""
    slow = timedelta(minutes=30)
    with room("7g@0") as here:
        small = policy(rule("r", "1g", "queue", raise_after=slow), idle=SOON)
        loop = watched(here, here.loop(small))
        loop.tick()
        kept = loop.assemble()
        large = policy(rule("r", "3g", "queue", raise_after=slow), idle=SOON)

        loop.reconfigure(replace(loop.parts, policy=large))

        begun = loop.assemble()
        assert kept is not None
        assert [one.rule for one in kept.history.rules] == ["r"]
        assert begun is not None
        assert begun.history.rules == ()


def test_hold_for_another_reason_is_recorded_again() -> None:
    with room("3g@0 3g@4") as here:
        loop = watched(here, here.loop(FINER))
        here.store.write_pause(PauseRecord(who="ada", why="upgrade", since=here.clock.now()))
        loop.tick()
        loop.reconfigure(replace(loop.parts, policy=QUIET))

        loop.tick()

        assert [one.reason for one in here.store.decisions(10)] == ["satisfied", "paused"]


def test_recorded_input_gives_the_recorded_decision_again() -> None:
    with room("3g@0 3g@4") as here:
        queue = Queue(here.clock, Counts.WAITING, timedelta(minutes=2), {"1g": 2})
        rules = policy(rule("notebooks", "1g", "queue"), idle=SOON, vetoes=("objection",))
        loop = here.loop(
            replace(rules, gpus=(gpu_entry(Mode.RECOMMEND),)),
            sources={"queue": queue},
            vetoes={"objection": Objection()},
            windows=("mon-fri 09:00-11:00",),
        )
        watched(here, loop)
        loop.gather(loop.parts.gatherer.names()[0])
        loop.gather_veto("objection")
        loop.sample()

        loop.tick()

        (record,) = here.store.decisions(1)
        again = decode_input(here.store.decision_input_text(record.seq))
        assert encode_decision(decide(again)) == here.store.decision_text(record.seq)


def test_plan_that_may_not_be_carried_out_is_published_as_wanted() -> None:
    with room("3g@0 3g@4") as here:
        loop = watched(here, here.loop(RECOMMENDED))

        decision = loop.tick()

        assert reason(decision) is GateReason.MODE
        shown = here.shown[-1].decision
        assert shown is not None
        assert isinstance(shown.wanted, Plan)
        assert here.our_calls() == []


def test_loop_without_enforcer_decides_a_plan_and_calls_nothing() -> None:
    with room("3g@0 3g@4") as here:
        loop = here.loop(FINER)
        loop.reconfigure(replace(loop.parts, enforcer=None))
        watched(here, loop)

        decision = loop.tick()

        assert decision is not None
        assert isinstance(decision.outcome, Plan)
        assert here.our_calls() == []
        assert loop.request(decision.outcome) == ()


def test_clock_that_was_stepped_holds_until_it_ran_evenly_for_a_minute() -> None:
    with room("3g@0 3g@4") as here:
        loop = watched(here, here.loop(RECOMMENDED))
        even = loop.tick()
        here.watch(loop, timedelta(seconds=15))
        here.clock.step_wall(-3600)
        stepped = loop.tick()
        here.watch(loop, timedelta(seconds=55))
        soon = loop.tick()
        here.watch(loop, timedelta(seconds=5))
        after = loop.tick()

        assert GateReason.CLOCK_STEP not in closed(even)
        assert closed(stepped)[GateReason.CLOCK_STEP] == "the clock was stepped by -3600 s"
        assert closed(soon)[GateReason.CLOCK_STEP] == "the clock was stepped by -3600 s"
        assert GateReason.CLOCK_STEP not in closed(after)


def test_clock_that_is_slewed_by_a_second_is_no_step() -> None:
    with room("3g@0 3g@4") as here:
        loop = watched(here, here.loop(RECOMMENDED))
        loop.tick()
        here.watch(loop, timedelta(seconds=15))
        here.clock.step_wall(1.5)

        assert GateReason.CLOCK_STEP not in closed(loop.tick())


def test_clock_step_keeps_a_plan_from_being_carried_out() -> None:
    with room("3g@0 3g@4") as here:
        loop = here.loop(QUIET)
        watched(here, loop)
        loop.tick()
        loop.reconfigure(replace(loop.parts, policy=FINER))
        here.watch(loop, timedelta(seconds=15))
        here.clock.step_wall(600)

        assert reason(loop.tick()) is GateReason.CLOCK_STEP
        assert here.our_calls() == []


def test_stale_snapshot_is_published_once_it_is_three_periods_old() -> None:
    with room("3g@0") as here:
        loop = here.loop(QUIET)
        loop.sample()
        here.clock.advance(15)
        fresh = loop.publish_if_stale()
        here.clock.advance(0.5)

        stale = loop.publish_if_stale()

        assert (fresh, stale) == (False, True)
        assert [one.snapshot_stale for one in here.shown] == [False, True]
        # Whoever shows the first one needs nobody to tell that it is too old by now.
        first = here.shown[0]
        began = here.clock.monotonic() - 15.5
        ages = [first.at(began + age).snapshot_stale for age in (0.0, 15.0, 15.5)]
        assert ages == [False, False, True]


def test_stale_snapshot_decides_nothing() -> None:
    with room("3g@0 3g@4") as here:
        loop = watched(here, here.loop(FINER))
        here.clock.advance(16)

        assert reason(loop.tick()) is GateReason.SNAPSHOT_STALE
        assert here.our_calls() == []


def test_nothing_is_stale_before_the_first_sample() -> None:
    with room("3g@0") as here:
        loop = here.loop(QUIET)
        here.clock.advance(600)

        assert loop.publish_if_stale() is False
        assert here.shown == []


def test_sample_that_fails_keeps_the_old_picture_and_names_the_problem() -> None:
    with room("3g@0") as here:
        loop = here.loop(QUIET)
        loop.sample()
        here.node.unload_driver()

        failed = loop.sample()

        assert failed is None
        last = here.shown[-1]
        assert last.snapshot is not None
        (collector,) = last.collectors
        assert (collector.name, collector.success) == ("nvml", False)
        assert collector.last_success_at == here.clock.now()
        assert collector.problem is not None


def test_series_of_a_gpu_are_withheld_before_its_first_call() -> None:
    with room("3g@0 3g@4") as here:
        loop = watched(here, here.loop(FINER))
        shown_at_calls: list[bool] = []

        def note(*_call: object) -> None:
            shown_at_calls.append(here.uuid() not in here.shown[-1].withheld)

        here.writer.before_call = note

        decision = loop.tick()

        assert decision is not None
        assert isinstance(decision.outcome, Plan)
        assert len(shown_at_calls) == len(here.our_calls()) > 0
        assert shown_at_calls == [False] * len(shown_at_calls)
        assert here.shown[-1].withheld == ()


def test_foreign_change_lets_the_gpu_rest_and_forgets_what_was_wanted() -> None:
    with room("3g@0") as here:
        loop = here.loop(QUIET)
        snapshot = loop.sample()
        assert snapshot is not None
        layout = snapshot.gpus[0].layout
        assert layout is not None
        here.store.write_wanted(here.uuid(), layout, here.node.boot_id)
        here.node.foreign_create(0, "3g@4")
        here.clock.advance(5)

        loop.sample()

        (history,) = here.store.gpu_histories()
        assert (history.rest_until, history.wanted) == (
            here.clock.now() + timedelta(minutes=2),
            None,
        )


def test_budget_counts_gpu_plans_of_the_last_day() -> None:
    with room("3g@0 3g@4") as here:
        loop = watched(here, here.loop(FINER))
        before = loop.status().budget_left
        loop.tick()
        after = loop.status().budget_left
        here.clock.advance(24 * 3600 + 1)

        assert (before, after, loop.status().budget_left) == (48, 47, 48)


def test_reload_keeps_histories_of_rules_that_are_still_there() -> None:
    both = policy(rule("halves", "3g", minimum=2), rule("ones", "1g"), idle=SOON)
    with room("3g@0 3g@4") as here:
        loop = watched(here, here.loop(both))
        loop.tick()

        loop.reconfigure(replace(loop.parts, policy=QUIET))

        inp = loop.assemble()
        assert inp is not None
        assert [one.rule for one in inp.history.rules] == ["halves"]


def test_source_that_fails_is_a_collector_that_failed() -> None:
    with room("3g@0") as here:
        queue = Queue(here.clock, Counts.WAITING, timedelta(minutes=2))
        loop = here.loop(QUIET, sources={"queue": queue})
        (name,) = loop.parts.gatherer.names()
        loop.gather(name)
        here.clock.advance(15)
        queue.problem = "connection refused"

        loop.gather(name)

        (collector,) = loop.status().collectors
        assert (collector.name, collector.success, collector.problem) == (
            "source:queue",
            False,
            "connection refused",
        )
        assert collector.last_success_at == here.clock.now() - timedelta(seconds=15)
