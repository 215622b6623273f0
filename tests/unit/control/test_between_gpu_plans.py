"""What closes while the first GPU of a decision is changed stops the second."""

from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta

import pytest

from migscaler.control.loop import Loop
from migscaler.model.decision import PauseRecord
from migscaler.model.gpu import ForeignOwners
from migscaler.model.plan import GateReason, Hold, Outcome, OutcomeReason, Plan
from migscaler.model.policy import Freeze, IdlePolicy, Mode
from tests.builders import gpu_entry, policy, rule
from tests.simulation.process import Objection
from tests.unit.control.room import A100, Room, room

WINDOW = "mon-fri 13:00-14:00"
RULES = policy(
    rule("small", "1g", minimum=14),
    idle=IdlePolicy(after=timedelta(seconds=10)),
    vetoes=("objection",),
    freezes=(Freeze(window=WINDOW),),
)


class TwoGpus:
    """Two GPUs with one instance each, both of which are to be cut into pieces."""

    def __init__(self, here: Room, *, mode: Mode = Mode.ENFORCE) -> None:
        self.here, self.objection = here, Objection()
        self.loop: Loop = here.loop(
            replace(RULES, gpus=(gpu_entry(mode),)),
            vetoes={"objection": self.objection},
            windows=(WINDOW,),
        )
        self.loop.gather_veto("objection")
        here.watch(self.loop, timedelta(seconds=30))

    def outcomes(self) -> tuple[Outcome, ...]:
        """Return the outcomes so far, oldest first."""
        return tuple(reversed(self.loop.status().outcomes))

    def layouts(self) -> tuple[int, str]:
        """Return how many instances the first GPU has, and what the second one has."""
        return len(self.here.layout(0).split()), self.here.layout(1)


def owner_comes(two: TwoGpus) -> None:
    two.here.owners = ForeignOwners(found="mig-manager", remedy="stop it")


def owner_is_not_known(two: TwoGpus) -> None:
    two.here.owners = ForeignOwners(unknown="LSF's configuration can't be read")


def veto_stands(two: TwoGpus) -> None:
    two.objection.active = True
    two.loop.gather_veto("objection")


def freeze_begins(two: TwoGpus) -> None:
    two.here.clock.advance(3600)
    two.loop.gather_veto("objection")


def somebody_pauses(two: TwoGpus) -> None:
    two.here.store.write_pause(PauseRecord(who="ada", why="exam", since=two.here.clock.now()))


def somebody_holds_the_second(two: TwoGpus) -> None:
    two.here.store.add_hold(two.here.uuid(1), None, owner="ada", reason="exam")


def clock_is_stepped(two: TwoGpus) -> None:
    two.here.clock.step_wall(60)


@pytest.mark.parametrize(
    ("happens", "reason", "words", "then"),
    [
        (owner_comes, "gate_closed", "the layout belongs to mig-manager", "foreign_owner"),
        (owner_is_not_known, "gate_closed", "it is not known who else", "foreign_owner"),
        (veto_stands, "gate_closed", "veto objection is active", "veto"),
        (freeze_begins, "gate_closed", f"changes are frozen: {WINDOW}", "frozen"),
        (somebody_pauses, "paused", "paused by ada: exam", "paused"),
        (somebody_holds_the_second, "held", "GPU 1 is held by ada: exam", "protected"),
        (clock_is_stepped, "gate_closed", "the clock was stepped", "clock_step"),
    ],
)
def test_second_gpu_plan_is_not_begun(
    happens: Callable[[TwoGpus], None], reason: str, words: str, then: str
) -> None:
    """A foreign owner stood in the newest snapshot, and the second GPU was cut up beside it."""
    with room("7g@0", "7g@0", spec=f"2x{A100}") as here:
        two = TwoGpus(here)
        here.after_change = lambda: happens(two)

        decision = two.loop.tick()
        first, second = two.outcomes()
        next_one = two.loop.tick()

        assert decision is not None
        assert isinstance(decision.outcome, Plan)
        assert two.layouts() == (7, "7g.40gb@0")
        assert first.reason is OutcomeReason.COMPLETED
        assert (second.reason.value, second.steps) == (reason, ())
        assert second.explanation.startswith("not begun: ")
        assert words in second.explanation
        assert next_one is not None
        assert isinstance(next_one.outcome, Hold)
        assert GateReason(then) in {gate.reason for gate in next_one.gates}


def test_both_are_changed_where_nothing_closes() -> None:
    with room("7g@0", "7g@0", spec=f"2x{A100}") as here:
        two = TwoGpus(here)

        two.loop.tick()

        assert [one.reason for one in two.outcomes()] == [OutcomeReason.COMPLETED] * 2


def test_mode_that_a_person_asked_past_stops_no_second_gpu_plan() -> None:
    """`apply` of GPUs in recommend: what it raised to enforce at the first stays raised."""
    with room("7g@0", "7g@0", spec=f"2x{A100}") as here:
        two = TwoGpus(here, mode=Mode.RECOMMEND)
        decision = two.loop.tick()
        assert decision is not None
        assert decision.wanted is not None

        outcomes = two.loop.request(decision.wanted)

        assert [one.reason for one in outcomes] == [OutcomeReason.COMPLETED] * 2


def test_owner_that_comes_before_the_first_call_of_a_plan_stops_it() -> None:
    with room("7g@0", spec=A100) as here:
        two = TwoGpus(here)

        def fenced() -> None:
            owner_comes(two)
            two.loop.sample()

        here.scheduler.on_fence = fenced
        two.loop.tick()

        (outcome,) = two.outcomes()
        assert here.layout() == "7g.40gb@0"
        assert here.our_calls() == []
        assert outcome.reason is OutcomeReason.GATE_CLOSED
