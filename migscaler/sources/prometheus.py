"""Demand and vetoes from Prometheus: instant queries whose every doubt becomes "unknown".

An instant query answers an empty vector both for "nothing waits" and for "the exporter is gone".
The `alive` query tells the two apart; without it an empty answer is never taken for zero. Fractions
are rounded up (half a waiting job is a job), differences below a millionth are taken for arithmetic
noise.
"""

import math
import re
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from migscaler.errors import ParseError
from migscaler.model.demand import Counts, Fetched, RawRow, Reading, VetoStatus, Want
from migscaler.model.ids import SourceName
from migscaler.model.ports import Clock
from migscaler.model.profile import check_size_text
from migscaler.sources.prometheus_api import Answer, Connection, Sample, ask

if TYPE_CHECKING:
    import httpx

MAX_SERIES = 256
"""No node has so many sizes; such an answer has a label too many, or is somebody's attack."""
MAX_COUNT = 1_000_000
"""No node is wanted a million times; such a number is a mistake in the query."""
_NOISE = 1e-6
_COMPARISON = re.compile(r"^(?P<left>.*[^\s=!<>])\s*(?:==|!=|<=|>=|<|>)\s*-?[0-9.]+$", re.DOTALL)


@dataclass(frozen=True, slots=True, kw_only=True)
class PrometheusSettings:
    """A demand source: queries, and how its answers are read.

    `size` is what an answer without the label speaks of, None if that is not clear. `true_at` is a
    query for the moment (seconds since 1970) the numbers are true for.
    """

    name: SourceName
    connection: Connection
    query: str
    label: str
    counts: Counts
    interval: timedelta
    max_age: timedelta
    size: str | None = None
    alive: str | None = None
    true_at: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class VetoSettings:
    """A veto; `alive` decides whether an empty answer means "no veto" (see `shows_data`)."""

    name: str
    connection: Connection
    query: str
    interval: timedelta
    alive: str | None = None


class PrometheusSource:
    """Asks one query, and the two that say whether and for when it can be believed."""

    def __init__(
        self, *, settings: PrometheusSettings, client: "httpx.Client", clock: Clock
    ) -> None:
        """Take the settings and an open client (see `prometheus_api.open_client`)."""
        self._settings = settings
        self._client = client
        self._clock = clock

    def fetch(self) -> Fetched:
        """Return a reading, or why there is none; rows as they came. At most three requests."""
        settings = self._settings
        evaluated_at = self._clock.now()
        if settings.alive is not None:
            alive = self._ask(settings.alive)
            problem = _why_not_alive(alive)
            if problem is not None:
                return Fetched(reading=None, problem=problem)
            evaluated_at = alive.samples[0].at
        answer = self._ask(settings.query)
        shown = answer.samples[:MAX_SERIES]
        rows = tuple(RawRow(labels=s.label_text(), value=s.value) for s in shown)
        if answer.problem is not None:
            return Fetched(reading=None, problem=answer.problem, rows=rows)
        try:
            wants = _wants(answer.samples, settings)
            true_at = self._true_at(answer.samples, evaluated_at)
        except ParseError as error:
            return Fetched(reading=None, problem=str(error), rows=rows)
        return self._fetched(wants, true_at, rows)

    def _fetched(
        self, wants: tuple[Want, ...], true_at: datetime, rows: tuple[RawRow, ...]
    ) -> Fetched:
        """Return the reading unless it is already too old; nothing is true for the future."""
        settings, now = self._settings, self._clock.now()
        if not wants and settings.alive is None:
            problem = "the answer is empty, and without alive that may mean anything"
            return Fetched(reading=None, problem=problem, rows=rows)
        # A server whose clock is ahead would make its answers hold for longer than max_age.
        true_at = min(true_at, now)
        if true_at + settings.max_age <= now:
            age = (now - true_at).total_seconds()
            limit = settings.max_age.total_seconds()
            problem = f"the answer was true {age:.0f} s ago; max_age is {limit:.0f} s"
            return Fetched(reading=None, problem=problem, rows=rows)
        reading = Reading(
            counts=settings.counts,
            true_at=true_at,
            expires_at=true_at + settings.max_age,
            wants=wants,
            absent_is_zero=settings.alive is not None,
        )
        return Fetched(reading=reading, rows=rows)

    def _true_at(self, samples: tuple[Sample, ...], evaluated_at: datetime) -> datetime:
        """Return the moment the numbers are true for.

        An empty answer has no samples whose time could be asked for; it is true for its evaluation.

        Raises:
            ParseError: the query for the moment does not give one.
        """
        if not samples:
            return evaluated_at
        if self._settings.true_at is None:
            return samples[0].at
        answer = self._ask(self._settings.true_at)
        if answer.problem is not None:
            raise ParseError(f"true_at: {answer.problem}")
        if len(answer.samples) != 1:
            raise ParseError(f"true_at gives {len(answer.samples)} values instead of one")
        try:
            return datetime.fromtimestamp(float(answer.samples[0].value), UTC)
        except (ValueError, OverflowError, OSError) as error:
            raise ParseError(f"true_at gives {answer.samples[0].value}, not a time") from error

    def _ask(self, query: str) -> Answer:
        return ask(self._settings.connection, self._client, self._clock, query)


class PrometheusVeto:
    """Asks whether changes are forbidden; every doubt is unknown, and unknown stands as a veto."""

    def __init__(self, *, settings: VetoSettings, client: "httpx.Client", clock: Clock) -> None:
        """Take the settings and an open client."""
        self._settings = settings
        self._client = client
        self._clock = clock

    def fetch_veto(self) -> VetoStatus:
        """Return active for any value but 0; an empty answer is inactive only where data is."""
        settings = self._settings
        answer = ask(settings.connection, self._client, self._clock, settings.query)
        if answer.problem is not None:
            return self._status(None, answer.problem)
        if not answer.samples:
            return self._empty()
        try:
            values = [_number(sample) for sample in answer.samples]
        except ParseError as error:
            return self._status(None, str(error))
        raised = [s for s, value in zip(answer.samples, values, strict=True) if value != 0]
        if raised:
            return self._status(
                True, f"{settings.query} gives {raised[0].value} {raised[0].label_text()}"
            )
        return self._status(False, f"{settings.query} gives 0")

    def _empty(self) -> VetoStatus:
        """Judge an empty answer: false while there is data, unknown without."""
        settings = self._settings
        shown_by = settings.alive or shows_data(settings.query)
        if shown_by is None:
            return self._status(
                None, "the answer is empty, and without alive that may mean anything"
            )
        answer = ask(settings.connection, self._client, self._clock, shown_by)
        problem = _why_not_alive(answer) if settings.alive else _why_no_data(answer, shown_by)
        if problem is not None:
            return self._status(None, problem)
        return self._status(False, f"{settings.query} is false")

    def _status(self, active: bool | None, explanation: str) -> VetoStatus:
        return VetoStatus(name=self._settings.name, active=active, explanation=explanation)


def shows_data(query: str) -> str | None:
    """Return the left side of a comparison with a number, which has a value where there is data.

    `max(maintenance) > 0` answers nothing both when it is false and when nobody measures it; its
    left side tells the two apart. None for anything less simple (and, or, unless; no comparison).
    """
    match = _COMPARISON.match(query.strip())
    if match is None:
        return None
    left = match["left"]
    words = re.sub(r'"(?:\\.|[^"\\])*"|\'(?:\\.|[^\'\\])*\'', "", left)
    if re.search(r"\b(?:and|or|unless)\b", words) or words.count("(") != words.count(")"):
        return None
    return left


def _why_no_data(answer: Answer, query: str) -> str | None:
    """Say why the left side of a comparison does not show that there is data, None if it does."""
    if answer.problem is not None:
        return answer.problem
    if not answer.samples:
        return f"{query} gives nothing: what is measured may be gone"
    try:
        for sample in answer.samples:
            _number(sample)
    except ParseError as error:
        return str(error)
    return None


def _why_not_alive(answer: Answer) -> str | None:
    """Say why the alive query does not hold, None if it does: series, none of them 0 or NaN."""
    if answer.problem is not None:
        return f"alive: {answer.problem}"
    if not answer.samples:
        return "alive gives nothing: what is measured may be gone"
    try:
        values = [_number(sample) for sample in answer.samples]
    except ParseError as error:
        return f"alive: {error}"
    return None if all(values) else "alive gives 0: the data can't be trusted"


def _wants(samples: tuple[Sample, ...], settings: PrometheusSettings) -> tuple[Want, ...]:
    """Return one want per series, by size.

    Raises:
        ParseError: a value or label makes the whole answer doubtful; the message names the series.
    """
    if len(samples) > MAX_SERIES:
        remedy = f"join them: sum by ({settings.label}) (...)"
        raise ParseError(f"{len(samples)} series, more than {MAX_SERIES}; {remedy}")
    counts: dict[str, int] = {}
    for sample in samples:
        size = _size(sample, len(samples), settings)
        if size in counts:
            remedy = f"join them: sum by ({settings.label}) (...)"
            raise ParseError(f"two series for {settings.label}={size}; {remedy}")
        counts[size] = _count(sample)
    return tuple(Want(size=size, count=count) for size, count in sorted(counts.items()))


def _size(sample: Sample, of: int, settings: PrometheusSettings) -> str:
    """Return the size that a series speaks of; ParseError if that is not clear."""
    text = sample.label(settings.label)
    if text is not None:
        return check_size_text(text)
    if of > 1:
        raise ParseError(
            f"several series, one without label {settings.label}: {sample.label_text()}"
        )
    if settings.size is None:
        raise ParseError(
            f"no label {settings.label} in the answer, and no size set for this source"
        )
    return settings.size


def _count(sample: Sample) -> int:
    """Return a series' value rounded up; ParseError if it can't be a count."""
    value = _number(sample)
    if value < 0 or value > MAX_COUNT:
        raise ParseError(
            f"{sample.label_text()} is {sample.value}, which can't be a number of instances"
        )
    return math.ceil(value - _NOISE)


def _number(sample: Sample) -> float:
    """Return a series' value; ParseError for NaN, infinity and what is no number."""
    try:
        value = float(sample.value)
    except ValueError as error:
        raise ParseError(f"{sample.label_text()} is {sample.value!r}, not a number") from error
    if not math.isfinite(value):
        raise ParseError(f"{sample.label_text()} is {sample.value}")
    return value
