"""Calendar windows: from text and moment to open or closed, without memory.

A window is one of
  days and times   `mon-fri 08:30-19:00`, `sat,sun 10:00-12:00,14:00-16:00`; a range over midnight
                   (`22:00-06:00`) belongs to the day on which it begins
  days             `sat,sun`: from midnight to midnight
  dates            `2026-12-20..2027-01-04`, both days included
  moments          `2026-12-20T18:00..2027-01-04T08:00`

Times are wall-clock times of the configured zone. When clocks go forward, a time that is skipped is
taken later by the length of the gap; when they go back, a window begins at the first and ends at
the second of two equal times. So a window never opens twice in one night, and lasts as long as the
wall clock says. Plain zoneinfo instead of APScheduler's CronTrigger: a window is an interval, and a
cron trigger fires twice in autumn and numbers weekdays from Monday = 0 (measured with 3.11.3).
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from zoneinfo import ZoneInfo

from migscaler.errors import ParseError
from migscaler.model.decision import WindowState

DAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
_TIMES = re.compile(r"^(?P<from>\d{1,2}:\d{2})-(?P<to>\d{1,2}:\d{2})$")
_DATE = r"\d{4}-\d{2}-\d{2}"
_MOMENT = rf"{_DATE}(?:[T ]\d{{2}}:\d{{2}})?"
_DATES = re.compile(rf"^(?P<from>{_MOMENT})\s*\.\.\s*(?P<to>{_MOMENT})$")
_MIDNIGHT_MINUTES = 24 * 60
# A weekly pattern shows its next change within 8 days; one more for midnight and clock changes.
_DAYS_BACK, _DAYS_AHEAD = 2, 9

Interval = tuple[datetime, datetime]


@dataclass(frozen=True, slots=True, kw_only=True)
class Weekly:
    """Days on which it begins (0 is Monday); (first, end) in minutes from midnight, end later."""

    days: frozenset[int]
    spans: tuple[tuple[int, int], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Once:
    """One interval of naive wall-clock moments, the end not included."""

    first: datetime
    end: datetime


def check_window(text: str) -> None:
    """Check the text of a window.

    Raises:
        ParseError: it can't be read; the message says which part.
    """
    parse_window(text)


def parse_window(text: str) -> Weekly | Once:
    """Read the text of a window.

    Raises:
        ParseError: it can't be read; the message says which part.
    """
    dates = _DATES.match(text.strip())
    if dates:
        return _once(dates["from"], dates["to"])
    words = text.strip().lower().split()
    if not 1 <= len(words) <= 2:
        raise ParseError(f"{text!r} is not a window: days, times, or dates with ..")
    if len(words) == 1 and ":" in words[0]:
        return Weekly(days=frozenset(range(7)), spans=_spans(words[0]))
    spans = _spans(words[1]) if len(words) == 2 else ((0, _MIDNIGHT_MINUTES),)
    return Weekly(days=_days(words[0]), spans=spans)


def evaluate(windows: Iterable[str], timezone: str, now: datetime) -> tuple[WindowState, ...]:
    """Return the state of each window at an aware moment, in the order given.

    Raises:
        ParseError: a window or the time zone can't be read; a checked configuration has none such.
    """
    zone = _zone(timezone)
    return tuple(_state(text, parse_window(text), zone, now.astimezone(UTC)) for text in windows)


def _zone(timezone: str) -> ZoneInfo:
    try:
        return ZoneInfo(timezone)
    except (OSError, ValueError, KeyError) as error:
        raise ParseError(f"{timezone!r} is not a known time zone") from error


def _state(text: str, window: Weekly | Once, zone: ZoneInfo, now: datetime) -> WindowState:
    today = now.astimezone(zone).date()
    horizon = _utc(datetime.combine(today + timedelta(days=_DAYS_AHEAD), time()), zone, last=True)
    for first, end in _merged(_intervals(window, zone, today)):
        if now < first:
            return WindowState(window=text, open=False, next_change=first)
        if now < end:
            endless = isinstance(window, Weekly) and end >= horizon
            return WindowState(window=text, open=True, next_change=None if endless else end)
    return WindowState(window=text, open=False)


def _intervals(window: Weekly | Once, zone: ZoneInfo, today: date) -> list[Interval]:
    """Return the intervals around today in UTC, without those that a clock change swallows."""
    if isinstance(window, Once):
        walls = [(window.first, window.end)]
    else:
        nights = [
            datetime.combine(today + timedelta(days=n), time())
            for n in range(-_DAYS_BACK, _DAYS_AHEAD)
        ]
        walls = [
            (night + timedelta(minutes=first), night + timedelta(minutes=end))
            for night in nights
            if night.weekday() in window.days
            for first, end in window.spans
        ]
    moments = [(_utc(first, zone, last=False), _utc(end, zone, last=True)) for first, end in walls]
    return [(first, end) for first, end in moments if first < end]


def _utc(wall: datetime, zone: ZoneInfo, *, last: bool) -> datetime:
    """Return a wall-clock moment in UTC.

    Of two equal moments the `last` or the first. A skipped one has fold 0 always: with fold 1
    Python would move it back, before the change (PEP 495).
    """
    early, late = (wall.replace(tzinfo=zone, fold=fold).astimezone(UTC) for fold in (0, 1))
    return late if last and late > early else early


def _merged(intervals: Iterable[Interval]) -> list[Interval]:
    """Return intervals in order, those that touch joined."""
    joined: list[Interval] = []
    for first, end in sorted(intervals):
        if joined and first <= joined[-1][1]:
            joined[-1] = (joined[-1][0], max(end, joined[-1][1]))
        else:
            joined.append((first, end))
    return joined


def _once(first_text: str, end_text: str) -> Once:
    first, end = _moment(first_text), _moment(end_text)
    if len(end_text) == len("2026-12-20"):
        end += timedelta(days=1)
    if end <= first:
        raise ParseError(f"{first_text}..{end_text} ends before it begins")
    return Once(first=first, end=end)


def _moment(text: str) -> datetime:
    try:
        return datetime.fromisoformat(text)
    except ValueError as error:
        raise ParseError(f"{text!r} is not a date of the calendar") from error


def _spans(text: str) -> tuple[tuple[int, int], ...]:
    spans = []
    for part in text.split(","):
        match = _TIMES.match(part)
        if match is None:
            raise ParseError(f"{part!r} is not a time range such as 08:30-19:00")
        first, end = _minutes(match["from"]), _minutes(match["to"])
        if first == _MIDNIGHT_MINUTES:
            raise ParseError(f"{part!r} begins at 24:00; a day begins at 00:00")
        if first == end:
            raise ParseError(f"{part!r} is empty; for a whole day write the day alone")
        spans.append((first, end if end > first else end + _MIDNIGHT_MINUTES))
    return tuple(spans)


def _minutes(text: str) -> int:
    hours, minutes = (int(part) for part in text.split(":"))
    if minutes > 59 or hours * 60 + minutes > _MIDNIGHT_MINUTES:
        raise ParseError(f"{text!r} is not a time of day")
    return hours * 60 + minutes


def _days(text: str) -> frozenset[int]:
    days: set[int] = set()
    for part in text.split(","):
        ends = part.split("-")
        if len(ends) > 2 or not all(end in DAYS for end in ends):
            hint = " (weekdays by name: numbers mean different days to different programs)"
            raise ParseError(f"{part!r} is not a day mon..sun{hint if part[:1].isdigit() else ''}")
        first, last = DAYS.index(ends[0]), DAYS.index(ends[-1])
        days.update((first + n) % 7 for n in range((last - first) % 7 + 1))
    return frozenset(days)
