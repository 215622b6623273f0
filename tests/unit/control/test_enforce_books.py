"""What carrying out a plan leaves behind: history, what is missing, and when nothing is begun."""

from datetime import timedelta

from migscaler.control.enforce import missing
from migscaler.control.loop import Loop
from migscaler.control.recovery import settle
from migscaler.control.request import plan_layout
from migscaler.model.decision import GpuHistory
from migscaler.model.ids import GpuUuid
from migscaler.model.plan import Direction, Outcome, OutcomeKind, OutcomeReason, Plan
from migscaler.model.policy import IdlePolicy, Pace, Policy
from migscaler.model.status import Status
from migscaler.sim.codes import Code
from migscaler.sim.faults import fails
from tests.builders import A100, layout, policy
from tests.unit.control.room import Room, room

CREATE = "nvmlDeviceCreateGpuInstanceWithPlacement"
QUICK = policy(
    idle=IdlePolicy(after=timedelta(seconds=10)),
    pace=Pace(rest=timedelta(minutes=2), rest_after_failure=timedelta(minutes=10)),
)


def begun(here: Room, rules: Policy = QUICK) -> Loop:
    """Return a loop whose instances have become idle."""
    loop = here.loop(rules)
    here.watch(loop, timedelta(seconds=30))
    return loop


def plan_of(loop: Loop, *wanted: str) -> Plan:
    snapshot = loop.status().snapshot
    assert snapshot is not None
    plans = [plan_layout(gpu, text) for gpu, text in zip(snapshot.gpus, wanted, strict=True)]
    return Plan(gpu_plans=tuple(plan for plan in plans if plan is not None))


def history(here: Room) -> GpuHistory:
    (found,) = here.store.gpu_histories()
    return found


def only(outcomes: tuple[Outcome, ...]) -> Outcome:
    (outcome,) = outcomes
    return outcome


def test_success_is_written_to_the_gpus_history() -> None:
    with room("7g@0") as here:
        loop = begun(here)

        outcome = only(loop.request(plan_of(loop, "3g 3g")))

        assert (outcome.kind, outcome.direction) == (OutcomeKind.DONE, Direction.FINER)
        kept = history(here)
        assert (kept.last_change_at, kept.last_direction) == (here.clock.now(), Direction.FINER)
        assert kept.rest_until == here.clock.now() + timedelta(minutes=2)
        assert str(kept.wanted) == "3g.20gb@0 3g.20gb@4"


def test_running_plan_is_shown_before_the_first_call_and_gone_at_the_end() -> None:
    with room("7g@0") as here:
        loop = begun(here)
        seen: list[tuple[GpuUuid, ...]] = []

        def note(*_call: object) -> None:
            last: Status = here.shown[-1]
            assert last.running is not None
            seen.append(last.withheld)

        here.writer.before_call = note

        loop.request(plan_of(loop, "3g 3g"))

        assert seen == [(here.uuid(),)] * 6
        assert here.shown[-1].running is None
        assert here.shown[-1].withheld == ()


def test_who_asks_why_nothing_else_changes_is_not_sent_to_settle_what_is_under_way() -> None:
    with room("7g@0") as here:
        loop = begun(here)
        told: list[str | None] = []

        def ask(*_call: object) -> None:
            inp = loop.assemble()
            assert inp is not None
            told.append(inp.conditions.open_plan)

        here.writer.before_call = ask

        loop.request(plan_of(loop, "3g 3g"))

        (words,) = set(told)
        assert words is not None
        assert words.endswith(" on GPU 0 is being carried out")
        after = loop.assemble()
        assert after is not None
        assert after.conditions.open_plan is None


def test_failed_create_is_put_back_and_counts_once() -> None:
    with room("7g@0") as here:
        loop = begun(here)
        here.node.add_fault(fails(CREATE, Code.INSUFFICIENT_RESOURCES))

        outcome = only(loop.request(plan_of(loop, "3g 3g")))

        assert outcome.kind is OutcomeKind.FAILED
        assert here.layout() == "7g.40gb@0"
        assert (history(here).failures_in_row, loop.status().usable_lost) == (1, ())


def test_second_failure_in_a_row_opens_the_breaker_in_the_store() -> None:
    with room("7g@0") as here:
        loop = begun(here)
        here.node.add_fault(fails(CREATE, Code.INSUFFICIENT_RESOURCES))
        loop.request(plan_of(loop, "3g 3g"))
        here.watch(loop, timedelta(seconds=30))
        here.node.add_fault(fails(CREATE, Code.INSUFFICIENT_RESOURCES))

        loop.request(plan_of(loop, "3g 3g"))

        kept = history(here)
        assert (kept.failures_in_row, kept.breaker_trips) == (2, 1)
        assert kept.breaker_open_until == here.clock.now() + timedelta(hours=1)


def test_what_could_not_be_put_back_is_told_as_lost_until_it_is_made_again() -> None:
    with room("2g@0 2g@2 3g@4") as here:
        loop = begun(here)
        fault = here.node.add_fault(fails(CREATE, Code.INSUFFICIENT_RESOURCES, times=None))

        outcome = only(loop.request(plan_of(loop, "3g@0 2g@4 1g@6")))
        lost = loop.status().usable_lost
        here.node.clear_faults(fault)
        settled = settle(here.site(), act=True, pace=Pace())
        loop.note_outcomes(settled, "settle")

        assert outcome.reason is OutcomeReason.ROLLBACK_INCOMPLETE
        assert lost == ((here.uuid(), "2g.10gb", 1), (here.uuid(), "3g.20gb", 1))
        assert loop.status().usable_lost == ()
        assert here.layout() == "2g.10gb@0 2g.10gb@2 3g.20gb@4"


def test_mode_that_was_asked_to_change_since_the_plan_drops_it() -> None:
    with room("7g@0") as here:
        loop = begun(here)
        plan = plan_of(loop, "3g 3g")
        with here.node.changing() as state:
            state.gpus[0].mig_pending = 0

        outcome = only(loop.request(plan))

        assert (outcome.kind, outcome.reason) == (
            OutcomeKind.ABANDONED,
            OutcomeReason.CHANGED_UNDERNEATH,
        )
        assert outcome.explanation.startswith("MIG mode is off, or was asked to change")
        assert here.our_calls() == []


def test_no_plan_is_begun_after_stop() -> None:
    with room("7g@0", "7g@0", spec=f"2x{A100}") as here:
        loop = begun(here)
        plan = plan_of(loop, "3g 3g", "3g 3g")
        enforcer = loop.parts.enforcer
        assert enforcer is not None
        enforcer.stop()

        outcomes = loop.request(plan)

        assert [(one.kind, one.reason) for one in outcomes] == [
            (OutcomeKind.ABANDONED, OutcomeReason.STOPPING)
        ]
        assert (here.our_calls(), here.store.past_plans(10)) == ([], ())


def test_stop_lets_the_gpu_plan_under_way_end_and_begins_no_other() -> None:
    with room("7g@0", "7g@0", spec=f"2x{A100}") as here:
        loop = begun(here)
        enforcer = loop.parts.enforcer
        assert enforcer is not None
        here.writer.before_call = lambda _name, _gi: enforcer.stop()

        outcomes = loop.request(plan_of(loop, "3g 3g", "3g 3g"))

        assert [one.kind for one in outcomes] == [OutcomeKind.DONE]
        assert (here.layout(0), here.layout(1)) == ("3g.20gb@0 3g.20gb@4", "7g.40gb@0")


def test_missing_is_what_falls_short_of_the_smaller_of_before_and_after() -> None:
    before = layout(A100, "3g@0 1g@4 1g@5 1g@6")
    after = layout(A100, "2g@0 1g@4 1g@5 1g@6")

    assert missing(before, after, layout(A100, "1g@6")) == (("1g.5gb", 2),)
    assert missing(before, after, after) == ()
    assert missing(before, before, layout(A100, "-")) == (("1g.5gb", 3), ("3g.20gb", 1))
