"""What each source said last, until when it holds, and what was in use at that time."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta

import pytest

from migscaler.control.gather import Gatherer
from migscaler.model.demand import Counts, Fetched, Reading, SourceStatus, Want
from migscaler.model.gpu import PinReason
from migscaler.model.ids import SourceName
from migscaler.sources.push import PushSource
from migscaler.store.store import Store
from tests.builders import A100, NOW, gpu_entry, gpu_state, policy, rule, snapshot
from tests.simulation.clockwork import VirtualClock
from tests.simulation.process import Objection, Queue

QUEUE = SourceName("queue")
TOLD = SourceName("told")


@dataclass
class Round:
    """A gatherer over a queue, a pushed source and a veto."""

    clock: VirtualClock
    queue: Queue
    objection: Objection
    store: Store
    gatherer: Gatherer

    def status(self, name: str = "queue") -> SourceStatus:
        return next(one for one in self.gatherer.statuses() if one.name == name)

    def push(
        self,
        name: str,
        *,
        true_at: datetime,
        overrides: bool = False,
        ttl: timedelta = timedelta(minutes=10),
    ) -> None:
        self.store.push(
            name,
            Reading(
                counts=Counts.TOTAL,
                true_at=true_at,
                expires_at=self.clock.now() + ttl,
                wants=(Want(size="1g", count=4),),
                overrides=overrides,
            ),
        )

    def see(self, *busy: str) -> None:
        """Remember a picture in which these of three instances run a process.

        So does one on a GPU that is not managed: it was counted too, and delayed a reading.
        """
        pins = dict.fromkeys(busy, PinReason.PROCESS)
        gpu = gpu_state(A100, "3g@0 1g@4 1g@5", pins)
        left_alone = gpu_state(A100, "1g@4", {"1g@4": PinReason.PROCESS}, index=1)
        rules = policy(rule("small", "1g"), rule("big", "3g"), gpus=(gpu_entry(index=0),))
        self.gatherer.remember_use(snapshot(gpu, left_alone, at=self.clock.now()), rules)


@contextmanager
def rounds() -> Iterator[Round]:
    clock = VirtualClock(NOW)
    queue = Queue(clock, Counts.WAITING, timedelta(minutes=2), {"1g": 3})
    objection = Objection(active=None)
    store = Store.open(None, clock)
    gatherer = Gatherer(
        sources={
            QUEUE: queue,
            SourceName("told"): PushSource(name=SourceName("told"), book=store, clock=clock),
        },
        vetoes={"objection": objection},
        clock=clock,
        overrides=store.all_pushed,
    )
    yield Round(clock, queue, objection, store, gatherer)
    store.close()


def test_source_that_was_never_asked_is_unknown_since_the_start() -> None:
    with rounds() as made:
        made.clock.advance(30)

        status = made.status()

        assert (status.known, status.problem, status.unknown_since) == (
            False,
            "not asked yet",
            NOW,
        )


def test_answer_is_known_from_the_moment_it_was_asked() -> None:
    with rounds() as made:
        made.clock.advance(30)

        made.gatherer.gather(QUEUE)

        status = made.status()
        assert (status.known, status.problem, status.unknown_since) == (True, None, None)
        assert status.asked_at == NOW + timedelta(seconds=30)
        assert status.reading is not None
        assert status.reading.wants == (Want(size="1g", count=3),)


def test_error_makes_a_source_unknown_at_once_and_keeps_its_last_reading() -> None:
    with rounds() as made:
        made.gatherer.gather(QUEUE)
        made.clock.advance(15)
        made.queue.problem = "connection refused"

        made.gatherer.gather(QUEUE)

        status = made.status()
        assert (status.known, status.problem) == (False, "connection refused")
        assert status.unknown_since == NOW + timedelta(seconds=15)
        assert status.reading is not None
        assert status.reading.wants == (Want(size="1g", count=3),)


@pytest.mark.parametrize("step", [365 * 86400.0, -365 * 86400.0])
@pytest.mark.parametrize("seen_by_others", [False, True])
def test_answer_read_across_a_step_of_the_clock_is_no_answer(
    step: float, seen_by_others: bool
) -> None:
    """Its times are of one clock or the other; a source that died then was known for a year."""
    with rounds() as made:
        fetch = made.queue.fetch

        def slow() -> Fetched:
            answer = fetch() if step < 0 else None
            made.clock.step_wall(step)
            if seen_by_others:
                made.gatherer.statuses()
            return answer or fetch()

        made.gatherer.gather(QUEUE)
        made.queue.fetch = slow  # type: ignore[method-assign]
        made.gatherer.gather(QUEUE)

        status = made.status()
        made.clock.advance(3600)

        assert (status.known, status.problem) == (False, "the clock was stepped while it was asked")
        assert made.status().known is False


def test_second_error_does_not_make_the_silence_younger() -> None:
    with rounds() as made:
        made.gatherer.gather(QUEUE)
        made.queue.problem = "connection refused"
        made.clock.advance(15)
        made.gatherer.gather(QUEUE)
        made.clock.advance(15)
        made.queue.problem = "no answer within 5 s"

        made.gatherer.gather(QUEUE)

        status = made.status()
        assert status.problem == "no answer within 5 s"
        assert status.unknown_since == NOW + timedelta(seconds=15)
        assert status.asked_at == NOW + timedelta(seconds=30)


def test_answer_after_silence_is_known_again() -> None:
    with rounds() as made:
        made.queue.problem = "connection refused"
        made.gatherer.gather(QUEUE)
        made.queue.problem = None

        made.gatherer.gather(QUEUE)

        status = made.status()
        assert (status.known, status.problem, status.unknown_since) == (True, None, None)


def test_reading_holds_until_its_expiry_and_no_longer() -> None:
    with rounds() as made:
        made.gatherer.gather(QUEUE)

        made.clock.advance(119)
        just_before = made.status()
        made.clock.advance(1)
        at_expiry = made.status()
        made.clock.advance(600)
        later = made.status()

        assert just_before.known is True
        assert (at_expiry.known, at_expiry.problem) == (
            False,
            "its last answer expired at 12:02:00 UTC",
        )
        assert later.unknown_since == NOW + timedelta(minutes=2)


def test_override_is_listed_while_it_lasts() -> None:
    with rounds() as made:
        made.push("override:notebooks", true_at=NOW, overrides=True)

        made.clock.advance(599)
        lasting = [str(one.name) for one in made.gatherer.statuses()]
        made.clock.advance(1)
        over = [str(one.name) for one in made.gatherer.statuses()]

        assert lasting == ["queue", "told", "override:notebooks"]
        assert over == ["queue", "told"]


def test_pushed_reading_of_a_source_is_no_override() -> None:
    with rounds() as made:
        made.push("told", true_at=NOW)

        assert [str(one.name) for one in made.gatherer.statuses()] == ["queue", "told"]


def test_use_is_counted_at_the_moment_that_the_reading_is_true_for() -> None:
    """A queue that lags names a job as waiting that has started since: it must not count twice."""
    with rounds() as made:
        made.see()
        made.clock.advance(30)
        made.see("1g@4")
        made.clock.advance(30)
        made.see("1g@4", "1g@5")
        made.push("told", true_at=NOW + timedelta(seconds=45))

        made.gatherer.gather(SourceName("told"))

        counted = dict(made.status("told").in_use_at_reading)
        assert counted == {"1g": 1, "3g": 0}


def test_reading_older_than_every_picture_has_no_use() -> None:
    """The oldest picture may show the very jobs that waited: 3 wanted became 6 after a reload."""
    with rounds() as made:
        made.see("1g@4")
        made.push("told", true_at=NOW - timedelta(minutes=1))

        made.gatherer.gather(TOLD)

        assert made.status("told").in_use_at_reading == ()


def test_use_of_more_than_a_quarter_of_an_hour_ago_is_forgotten() -> None:
    with rounds() as made:
        made.see("1g@4", "1g@5")
        made.clock.advance(901)
        made.see("1g@4")
        made.push("told", true_at=NOW)

        made.gatherer.gather(TOLD)

        assert made.status("told").in_use_at_reading == ()


def test_reading_keeps_the_use_that_was_found_when_it_was_first_seen() -> None:
    """A number pushed for two hours counted its jobs twice from the sixteenth minute on."""
    with rounds() as made:
        made.see()
        made.push("told", true_at=NOW, ttl=timedelta(hours=2))
        made.push("by-hand", true_at=NOW, overrides=True, ttl=timedelta(hours=2))
        made.gatherer.gather(TOLD)
        made.gatherer.statuses()
        for _ in range(25):
            made.clock.advance(60)
            made.see("1g@4", "1g@5")

        made.gatherer.gather(TOLD)

        assert dict(made.status("told").in_use_at_reading)["1g"] == 0
        assert dict(made.status("by-hand").in_use_at_reading)["1g"] == 0


def test_use_outlives_a_reload() -> None:
    with rounds() as made:
        made.see()
        made.clock.advance(1)
        made.push("told", true_at=made.clock.now())
        made.clock.advance(5)
        made.see("1g@4", "1g@5")
        told = PushSource(name=TOLD, book=made.store, clock=made.clock)
        after = Gatherer(sources={TOLD: told}, vetoes={}, clock=made.clock)

        after.take_over(made.gatherer)
        after.gather(TOLD)

        (status,) = after.statuses()
        assert dict(status.in_use_at_reading)["1g"] == 0


def test_silence_does_not_begin_anew_at_a_reload() -> None:
    """A file rewritten more often than `unknown_for` kept a dead source from ever lapsing."""
    with rounds() as made:
        made.queue.problem = "connection refused"
        made.gatherer.gather(QUEUE)
        made.clock.advance(3600)
        after = Gatherer(sources={QUEUE: made.queue}, vetoes={}, clock=made.clock)

        after.take_over(made.gatherer)

        (status,) = after.statuses()
        assert status.unknown_since == NOW


@pytest.mark.parametrize("error", [AttributeError("items"), RecursionError(), OSError("gone")])
def test_source_and_veto_that_raise_are_unknown(error: Exception) -> None:
    """A veto that had said no once went on saying it for days while every question failed."""
    with rounds() as made:
        made.objection.active = False
        made.gatherer.gather_veto("objection")
        made.gatherer.gather(QUEUE)
        made.objection.error = made.queue.error = error

        made.gatherer.gather_veto("objection")
        fetched = made.gatherer.gather(QUEUE)

        (veto,) = made.gatherer.vetoes()
        words = f"asking it failed: {type(error).__name__}"
        assert (veto.active, veto.explanation) == (None, words)
        assert (fetched.reading, fetched.problem) == (None, words)
        assert (made.status().known, made.status().problem) == (False, words)


def test_answer_of_a_veto_that_can_not_be_asked_again_grows_old() -> None:
    """Asking may hang for ever; what it said last must not stand for as long."""
    with rounds() as made:
        made.objection.active = False
        made.gatherer.gather_veto("objection")
        made.clock.advance(120)
        (still,) = made.gatherer.vetoes()
        made.clock.advance(1)

        (old,) = made.gatherer.vetoes()

        assert still.active is False
        assert (old.active, old.explanation) == (None, "its last answer is more than 120 s old")


def test_reading_before_any_picture_has_no_use() -> None:
    with rounds() as made:
        made.gatherer.gather(QUEUE)

        assert made.status().in_use_at_reading == ()


def test_veto_is_unknown_until_asked_and_keeps_its_last_answer() -> None:
    with rounds() as made:
        unasked = made.gatherer.vetoes()
        made.objection.active = True
        made.gatherer.gather_veto("objection")

        (asked,) = made.gatherer.vetoes()

        assert [(one.name, one.active, one.explanation) for one in unasked] == [
            ("objection", None, "not asked yet")
        ]
        assert (asked.name, asked.active) == ("objection", True)


def test_names_are_in_configuration_order() -> None:
    with rounds() as made:
        assert made.gatherer.names() == ("queue", "told")
        assert [one.name for one in made.gatherer.vetoes()] == ["objection"]
