"""A loop whose wall clock is stepped: nothing is justified by it, nothing waits for a year."""

from dataclasses import replace
from datetime import datetime, timedelta

import pytest

from migscaler.control.loop import Loop
from migscaler.model.demand import Counts
from migscaler.model.plan import GateReason
from migscaler.model.policy import IdlePolicy
from tests.builders import A100, policy, rule, source_policy, spec
from tests.simulation.process import Queue
from tests.unit.control.room import Room, room

HOUR, YEAR = 3600.0, 365 * 86400.0
STEPS = pytest.mark.parametrize("step", [HOUR, -HOUR, YEAR, -YEAR])
FORWARDS = pytest.mark.parametrize("step", [HOUR, YEAR])
MINUTE = timedelta(minutes=1)
FINER = policy(rule("notebooks", "1g", minimum=3), idle=IdlePolicy(after=timedelta(seconds=10)))


def gates(loop: Loop) -> set[GateReason]:
    decision = loop.tick()
    assert decision is not None
    return {gate.reason for gate in decision.gates}


def ticks(here: Room, loop: Loop, lasting: timedelta) -> None:
    """Sample every 5 seconds, decide every 15."""
    for _ in range(int(lasting.total_seconds() // 15)):
        here.watch(loop, timedelta(seconds=15))
        loop.tick()


@STEPS
def test_instance_held_before_a_step_stays_until_its_time_is_over(step: float) -> None:
    with room("3g@0 3g@4") as here:
        loop = here.loop(FINER)
        for place in ("3g@0", "3g@4"):
            here.store.add_hold(
                here.uuid(),
                spec(A100, place),
                owner="ada",
                reason="measuring",
                expires_at=here.clock.now() + timedelta(minutes=8),
            )
        ticks(here, loop, MINUTE)
        here.clock.step_wall(step)

        ticks(here, loop, 6 * MINUTE)
        held = here.layout()
        ticks(here, loop, 3 * MINUTE)

        assert held == "3g.20gb@0 3g.20gb@4"
        assert here.layout() != held


@FORWARDS
def test_step_proves_no_instance_idle(step: float) -> None:
    """Ten minutes of quiet are wanted; a year on the wall clock is none of them."""
    with room("3g@0 3g@4") as here:
        loop = here.loop(replace(FINER, idle=IdlePolicy(after=10 * MINUTE)))
        here.watch(loop, 5 * MINUTE)
        here.clock.step_wall(step)

        ticks(here, loop, 4 * MINUTE)

        assert here.our_calls() == []
        assert GateReason.NOT_IDLE in gates(loop)


@STEPS
def test_gate_closes_with_the_step_and_opens_again_for_the_plan(step: float) -> None:
    with room("3g@0 3g@4") as here:
        loop = here.loop(FINER)
        here.watch(loop, MINUTE)
        here.clock.step_wall(step)

        closed = gates(loop)
        untouched = here.our_calls() == []
        ticks(here, loop, 2 * MINUTE)

        assert GateReason.CLOCK_STEP in closed
        assert untouched
        assert here.our_calls() != []


@STEPS
def test_rest_after_a_change_is_as_long_as_ever(step: float) -> None:
    with room("3g@0 3g@4") as here:
        loop = here.loop(FINER)
        ticks(here, loop, MINUTE)
        changed = len(here.our_calls())
        more = policy(rule("notebooks", "1g", minimum=7), idle=FINER.idle)
        more = replace(more, pace=replace(more.pace, rest=8 * MINUTE))
        loop.reconfigure(replace(loop.parts, policy=FINER))
        here.store.update_gpu_history(
            here.uuid(), lambda h: replace(h, rest_until=here.clock.now() + 8 * MINUTE)
        )
        loop.reconfigure(replace(loop.parts, policy=more))
        here.clock.step_wall(step)

        ticks(here, loop, 6 * MINUTE)
        rested = len(here.our_calls())
        ticks(here, loop, 3 * MINUTE)

        assert (changed > 0, rested) == (True, changed)
        assert len(here.our_calls()) > rested


@STEPS
def test_unmet_demand_has_waited_as_long_as_it_has_waited(step: float) -> None:
    with room("3g@0 3g@4") as here:
        busy = replace(FINER, idle=IdlePolicy(after=timedelta(hours=9)))
        loop = here.loop(busy)
        ticks(here, loop, 5 * MINUTE)
        before = _unmet_for(here, loop)
        here.clock.step_wall(step)

        ticks(here, loop, 5 * MINUTE)

        assert before is not None
        assert _unmet_for(here, loop) == before + 5 * MINUTE


def _unmet_for(here: Room, loop: Loop) -> timedelta | None:
    decision = loop.status().decision
    assert decision is not None
    (history,) = decision.rule_histories
    since: datetime | None = history.unmet_since
    return None if since is None else here.clock.now() - since


def _with_queue(here: Room) -> tuple[Loop, Queue]:
    """A loop with one 1g instance wanted by a source; three are there."""
    queue = Queue(here.clock, Counts.TOTAL, 2 * MINUTE, {"1g": 3})
    loop = here.loop(
        policy(
            rule("notebooks", "1g", "queue"),
            rule("training", "7g", minimum=1),
            idle=FINER.idle,
            sources=(source_policy("queue", unknown_for=10 * MINUTE),),
        ),
        sources={"queue": queue},
    )
    return loop, queue


@STEPS
def test_source_that_fell_silent_is_believed_gone_only_after_its_time(step: float) -> None:
    """For ten minutes an unknown source's supply is kept; a step forwards is none of them."""
    with room("1g@0 1g@1 1g@2") as here:
        loop, queue = _with_queue(here)
        name = loop.parts.gatherer.names()[0]
        loop.gather(name)
        here.watch(loop, MINUTE)
        queue.problem = "no answer"
        loop.gather(name)
        here.clock.step_wall(step)

        ticks(here, loop, 8 * MINUTE)
        kept = here.layout()
        ticks(here, loop, 4 * MINUTE)

        assert kept == "1g.5gb@0 1g.5gb@1 1g.5gb@2"
        assert here.layout() == "7g.40gb@0"


@STEPS
def test_last_answer_holds_for_its_age_and_no_longer(step: float) -> None:
    """Nobody asks any more: an answer true for two minutes is unknown after two minutes."""
    with room("1g@0") as here:
        loop, _queue = _with_queue(here)
        loop.gather(loop.parts.gatherer.names()[0])
        here.clock.advance(60)
        here.clock.step_wall(step)
        (then,) = loop.parts.gatherer.statuses()
        here.clock.advance(59)
        (just,) = loop.parts.gatherer.statuses()
        here.clock.advance(1)
        (late,) = loop.parts.gatherer.statuses()

        assert (then.known, just.known, late.known) == (True, True, False)


@STEPS
def test_override_read_before_the_file_was_lost_ends_in_time(step: float) -> None:
    with room("1g@0") as here:
        loop, queue = _with_queue(here)
        fetched = queue.fetch().reading
        assert fetched is not None
        here.store.push("override:notebooks", replace(fetched, overrides=True))
        assert len(loop.parts.gatherer.statuses()) == 2
        here.store.close()
        here.clock.step_wall(step)
        here.clock.advance(119)
        still = len(loop.parts.gatherer.statuses())
        here.clock.advance(1)

        assert (still, len(loop.parts.gatherer.statuses())) == (2, 1)


@STEPS
def test_use_at_the_reading_s_time_is_found_again_after_a_step(step: float) -> None:
    """Else a job that just started counts as running and as waiting."""
    with room("1g@0 1g@1") as here:
        loop, queue = _with_queue(here)
        here.watch(loop, MINUTE)
        here.node.start_job(0, here.gi_of("1g.5gb@0"))
        here.watch(loop, MINUTE)
        here.clock.step_wall(step)
        ticks(here, loop, MINUTE)

        name = loop.parts.gatherer.names()[0]
        loop.gather(name)
        (status,) = loop.parts.gatherer.statuses()

        assert dict(status.in_use_at_reading)["1g"] == 1
        assert queue.known()
