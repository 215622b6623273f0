"""Demand that was pushed once: its jobs start, and are not counted on top of themselves."""

from dataclasses import replace
from datetime import timedelta

from migscaler.control.gather import Gatherer
from migscaler.model.demand import Counts, Reading, Want
from migscaler.model.ids import SourceName
from migscaler.sources.push import PushSource
from tests.builders import policy, rule
from tests.simulation.acting import Shape
from tests.unit.control.loop_desk import LoopDesk, loop_desk

TOLD = SourceName("told")
SHAPE = Shape(name="x", board="A100-SXM4-40GB", before="1g@0 1g@1 3g@4", after="1g@0 3g@4")


def reload(made: LoopDesk) -> None:
    """Give the loop a gatherer that has asked nobody yet."""
    parts = made.loop.parts
    told = PushSource(name=TOLD, book=parts.store, clock=parts.clock)
    gatherer = Gatherer(
        sources={TOLD: told}, vetoes={}, clock=parts.clock, overrides=parts.store.all_pushed
    )
    made.loop.reconfigure(replace(parts, gatherer=gatherer))


def test_jobs_that_waited_are_not_made_room_for_again_after_a_reload() -> None:
    """2 waiting became 2 running; a minute after a SIGHUP two instances more were made."""
    with loop_desk(SHAPE, policy(rule("notebooks", "1g", "told"))) as made:
        reload(made)
        made.watch(10)
        now = made.desk.clock.now()
        told = Reading(
            counts=Counts.WAITING,
            true_at=now,
            expires_at=now + timedelta(hours=1),
            wants=(Want(size="1g", count=2),),
        )
        made.loop.parts.store.push("told", told)
        made.watch(10)
        made.desk.start_job("1g@0")
        made.desk.start_job("1g@1")
        made.watch(10)

        reload(made)
        made.loop.gather(TOLD)
        decision = made.loop.tick()

        assert decision is not None
        assert [(one.in_use, one.wanted) for one in decision.rules] == [(2, 2)]
        inp = made.loop.assemble()
        assert inp is not None
        assert [dict(one.in_use_at_reading)["1g"] for one in inp.demand] == [0]
