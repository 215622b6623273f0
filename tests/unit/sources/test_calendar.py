from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from migscaler.errors import ParseError
from migscaler.model.decision import WindowState
from migscaler.sources.calendar import check_window, evaluate

BERLIN = "Europe/Berlin"


def at(text: str, zone: str = "UTC") -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=ZoneInfo(zone))


def state(window: str, now: datetime, zone: str = "UTC") -> WindowState:
    (found,) = evaluate([window], zone, now)
    return found


def open_until(window: str, now: datetime, zone: str = "UTC") -> tuple[bool, str | None]:
    found = state(window, now, zone)
    change = found.next_change
    return found.open, change.strftime("%a %d %H:%M") if change else None


# 2026-03-02 is a Monday.
@pytest.mark.parametrize(
    ("window", "now", "expected"),
    [
        ("mon-fri 08:30-19:00", "2026-03-02T08:29", (False, "Mon 02 08:30")),
        ("mon-fri 08:30-19:00", "2026-03-02T08:30", (True, "Mon 02 19:00")),
        ("mon-fri 08:30-19:00", "2026-03-02T19:00", (False, "Tue 03 08:30")),
        ("mon-fri 08:30-19:00", "2026-03-06T20:00", (False, "Mon 09 08:30")),
        ("sat,sun", "2026-03-02T12:00", (False, "Sat 07 00:00")),
        ("sat,sun", "2026-03-07T12:00", (True, "Mon 09 00:00")),
        ("fri-mon", "2026-03-02T23:59", (True, "Tue 03 00:00")),
        ("sun", "2026-03-08T00:00", (True, "Mon 09 00:00")),
        ("22:00-06:00", "2026-03-02T05:59", (True, "Mon 02 06:00")),
        ("22:00-06:00", "2026-03-02T06:00", (False, "Mon 02 22:00")),
        ("22:00-06:00", "2026-03-02T23:00", (True, "Tue 03 06:00")),
        ("fri 22:00-06:00", "2026-03-07T03:00", (True, "Sat 07 06:00")),
        ("fri 22:00-06:00", "2026-03-06T03:00", (False, "Fri 06 22:00")),
        ("mon 08:00-12:00,13:00-18:00", "2026-03-02T12:30", (False, "Mon 02 13:00")),
        ("mon 08:00-12:00,12:00-18:00", "2026-03-02T09:00", (True, "Mon 02 18:00")),
        ("20:00-24:00", "2026-03-02T23:00", (True, "Tue 03 00:00")),
        ("MON-Fri 08:30-19:00", "2026-03-02T10:00", (True, "Mon 02 19:00")),
        ("mon-sun", "2026-03-02T10:00", (True, None)),
        ("00:00-24:00", "2026-03-02T10:00", (True, None)),
        ("mon-sat", "2026-03-02T10:00", (True, "Sun 08 00:00")),
        ("2026-12-20..2027-01-04", "2026-12-19T23:59", (False, "Sun 20 00:00")),
        ("2026-12-20..2027-01-04", "2027-01-04T23:59", (True, "Tue 05 00:00")),
        ("2026-12-20..2027-01-04", "2027-01-05T00:00", (False, None)),
        ("2026-12-20T18:00..2027-01-04T08:00", "2027-01-04T07:59", (True, "Mon 04 08:00")),
        ("2026-12-20 18:00 .. 2027-01-04", "2026-12-20T17:00", (False, "Sun 20 18:00")),
        ("2026-12-24..2026-12-24", "2026-12-24T12:00", (True, "Fri 25 00:00")),
    ],
)
def test_window_is_open_and_changes_when_the_calendar_says(
    window: str, now: str, expected: tuple[bool, str | None]
) -> None:
    assert open_until(window, at(now)) == expected


def test_window_follows_the_wall_clock_of_its_zone() -> None:
    window = "mon-fri 08:30-19:00"

    winter = state(window, at("2026-03-02T08:30", BERLIN), BERLIN)
    summer = state(window, at("2026-07-06T08:30", BERLIN), BERLIN)

    assert (winter.open, winter.next_change) == (True, datetime(2026, 3, 2, 18, 0, tzinfo=UTC))
    assert (summer.open, summer.next_change) == (True, datetime(2026, 7, 6, 17, 0, tzinfo=UTC))


def openings(window: str, first: datetime, hours: int) -> list[tuple[str, str]]:
    """Return the open intervals met on a walk in steps of ten minutes, in UTC."""
    spans: list[tuple[str, str]] = []
    begun: datetime | None = None
    for step in range(hours * 6):
        now = first + timedelta(minutes=10 * step)
        is_open = state(window, now, BERLIN).open
        if is_open and begun is None:
            begun = now
        elif not is_open and begun is not None:
            spans.append((f"{begun:%d %H:%M}", f"{now:%d %H:%M}"))
            begun = None
    return spans


# Berlin: on 2026-03-29 clocks go from 02:00 to 03:00 (01:00 UTC).
SPRING = datetime(2026, 3, 28, 12, 0, tzinfo=UTC)


@pytest.mark.parametrize(
    ("window", "expected"),
    [
        ("22:00-06:00", [("28 21:00", "29 04:00")]),  # 7 hours
        ("sun 02:30-04:00", [("29 01:30", "29 02:00")]),  # 02:30 is skipped: taken at 03:30
        ("sun 01:00-02:30", [("29 00:00", "29 01:30")]),  # its end is skipped: 03:30
        ("sun 02:00-03:00", []),  # the hour that does not exist
        ("sun 02:45-03:15", []),
        ("sun 03:00-04:00", [("29 01:00", "29 02:00")]),
    ],
)
def test_clocks_going_forward_shorten_or_swallow_a_window(
    window: str, expected: list[tuple[str, str]]
) -> None:
    assert openings(window, SPRING, 24) == expected


# Berlin: on 2026-10-25 clocks go from 03:00 back to 02:00 (01:00 UTC).
AUTUMN = datetime(2026, 10, 24, 12, 0, tzinfo=UTC)


@pytest.mark.parametrize(
    ("window", "expected"),
    [
        ("22:00-06:00", [("24 20:00", "25 05:00")]),  # 9 hours
        ("sun 02:30-04:00", [("25 00:30", "25 03:00")]),  # begins at the first 02:30
        ("sun 01:00-02:30", [("24 23:00", "25 01:30")]),  # ends at the second 02:30
        ("sun 02:00-02:30", [("25 00:00", "25 01:30")]),  # opens once, not twice
    ],
)
def test_clocks_going_back_lengthen_a_window_and_never_open_it_twice(
    window: str, expected: list[tuple[str, str]]
) -> None:
    assert openings(window, AUTUMN, 24) == expected


def test_next_change_over_a_clock_change_is_a_true_moment() -> None:
    saturday_night = state("22:00-06:00", datetime(2026, 10, 24, 21, 0, tzinfo=UTC), BERLIN)

    assert saturday_night.next_change == datetime(2026, 10, 25, 5, 0, tzinfo=UTC)


WINDOWS = st.sampled_from(
    ["mon-fri 08:30-19:00", "22:00-06:00", "sat,sun", "sun 02:15-02:45", "fri-mon 23:30-02:30"]
)
ZONES = st.sampled_from(["UTC", BERLIN, "America/New_York", "Asia/Seoul", "Australia/Lord_Howe"])


@given(WINDOWS, ZONES, st.integers(0, 366 * 24 * 4))
def test_state_holds_until_its_next_change_and_not_longer(
    window: str, zone: str, quarter: int
) -> None:
    now = datetime(2026, 1, 1, tzinfo=UTC) + timedelta(minutes=15 * quarter)
    here = state(window, now, zone)

    assert here.next_change is not None
    assert here.next_change > now
    just_before = state(window, here.next_change - timedelta(seconds=1), zone)
    assert (just_before.open, just_before.next_change) == (here.open, here.next_change)
    assert state(window, here.next_change, zone).open is not here.open


def test_states_come_in_the_order_asked_with_the_texts_given() -> None:
    now = at("2026-03-07T12:00")

    states = evaluate(["sat,sun", "mon 08:00-09:00"], "UTC", now)

    assert [(s.window, s.open) for s in states] == [("sat,sun", True), ("mon 08:00-09:00", False)]


@pytest.mark.parametrize(
    "text",
    [
        "",
        "   ",
        "monday",
        "1-5 08:00-18:00",
        "mon--fri",
        "mon-wed-fri",
        "mon,",
        "mon 08:00",
        "mon 8-19",
        "mon 08:00-08:00",
        "mon 24:00-25:00",
        "24:00-06:00",
        "mon 08:60-09:00",
        "mon 08:00-09:00 extra",
        "08:00-09:00 mon",
        "0 9 * * 1-5",
        "2026-13-01..2026-14-01",
        "2026-02-30..2026-03-01",
        "2027-01-04..2026-12-20",
        "2026-12-20T18:00..2026-12-20T18:00",
        "2026-12-20",
    ],
)
def test_unreadable_window_is_refused(text: str) -> None:
    with pytest.raises(ParseError):
        check_window(text)


def test_unknown_zone_is_refused() -> None:
    with pytest.raises(ParseError, match="not a known time zone"):
        evaluate(["sat"], "Asia/Soul", at("2026-03-07T12:00"))
