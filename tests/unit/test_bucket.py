"""How often something may happen: a burst, then a steady rate, and no credit beyond the burst."""

from migscaler.model.bucket import Bucket


def taken(bucket: Bucket, tries: int, now: float) -> int:
    return sum(bucket.take(now) for _ in range(tries))


def test_burst_is_given_and_then_no_more() -> None:
    bucket = Bucket(2.0, 3, 100.0)

    assert [bucket.take(100.0) for _ in range(5)] == [True, True, True, False, False]


def test_it_fills_at_its_rate() -> None:
    bucket = Bucket(2.0, 3, 100.0)
    taken(bucket, 5, 100.0)

    assert not bucket.is_full(101.0)
    assert taken(bucket, 5, 101.0) == 2


def test_a_long_rest_gives_no_more_than_the_burst() -> None:
    bucket = Bucket(2.0, 3, 100.0, tokens=0.0)

    assert bucket.is_full(3_700.0)
    assert taken(bucket, 10, 3_700.0) == 3
