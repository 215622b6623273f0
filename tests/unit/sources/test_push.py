from datetime import UTC, datetime, timedelta

from migscaler.errors import StoreError
from migscaler.model.demand import Counts, Fetched, RawRow, Reading, Want
from migscaler.model.ids import SourceName
from migscaler.sources.push import PushSource

NOW = datetime(2026, 3, 2, 12, 0, tzinfo=UTC)
NAME = SourceName("portal")


class FixedClock:
    def now(self) -> datetime:
        return NOW

    def monotonic(self) -> float:
        return 0.0

    def sleep(self, seconds: float) -> None:
        raise AssertionError(seconds)


class Book:
    def __init__(self, answer: Reading | StoreError | None) -> None:
        self.answer = answer

    def pushed(self, source: SourceName) -> Reading | None:
        assert source == NAME
        if isinstance(self.answer, StoreError):
            raise self.answer
        return self.answer


def pushed(expires_in: timedelta) -> Reading:
    return Reading(
        counts=Counts.TOTAL,
        true_at=NOW - timedelta(minutes=1),
        expires_at=NOW + expires_in,
        wants=(Want(size="1g", count=3),),
    )


def fetch(answer: Reading | StoreError | None) -> Fetched:
    return PushSource(name=NAME, book=Book(answer), clock=FixedClock()).fetch()


def test_pushed_reading_holds_until_it_expires() -> None:
    reading = pushed(timedelta(seconds=1))

    fetched = fetch(reading)

    assert fetched == Fetched(reading=reading, rows=(RawRow(labels="1g", value="3"),))


def test_expired_push_is_unknown_and_still_shown() -> None:
    fetched = fetch(pushed(timedelta(0)))

    assert fetched.reading is None
    assert fetched.problem == "what was pushed expired at 2026-03-02 12:00:00 UTC"
    assert fetched.rows == (RawRow(labels="1g", value="3"),)


def test_nothing_pushed_is_unknown() -> None:
    assert fetch(None) == Fetched(reading=None, problem="nothing was pushed yet")


def test_unreadable_book_is_unknown() -> None:
    fetched = fetch(StoreError("disk gone"))

    assert fetched == Fetched(reading=None, problem="pushed demand can't be read: disk gone")
