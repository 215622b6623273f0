"""What is wanted: readings of demand sources, and what is known of each source."""

import enum
from dataclasses import dataclass
from datetime import datetime

from migscaler.model.ids import SourceName


class Counts(enum.Enum):
    """What a source's numbers mean: wanted beyond those in use, or in total."""

    WAITING = "waiting"
    TOTAL = "total"


@dataclass(frozen=True, slots=True, kw_only=True)
class Want:
    """One line of demand: this many of a size class or profile name."""

    size: str
    count: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """An answer of a source, true for the moment `true_at`, held until `expires_at`.

    `absent_is_zero`: a size that is missing from `wants` is wanted 0 times; otherwise it is
    unknown. `overrides`: set by hand; it replaces the rule's other sources while it lasts.
    """

    counts: Counts
    true_at: datetime
    expires_at: datetime
    wants: tuple[Want, ...]
    absent_is_zero: bool = False
    overrides: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class RawRow:
    """One row as the source sent it: labels as text, value as text; for `source test`."""

    labels: str
    value: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Fetched:
    """Result of asking a source once: a reading, or the problem in words; rows as they came."""

    reading: Reading | None
    problem: str | None = None
    rows: tuple[RawRow, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceStatus:
    """A source at one moment.

    `reading` is the last good one, kept after it expired. `known` says whether it holds now;
    `problem` says why not. `unknown_since` is when it stopped to hold. `own_count_at_reading` is
    filled by the loop: instances in use per size text at the reading's time, so that a just-started
    job is not counted twice.
    """

    name: SourceName
    known: bool
    reading: Reading | None = None
    problem: str | None = None
    asked_at: datetime | None = None
    unknown_since: datetime | None = None
    in_use_at_reading: tuple[tuple[str, int], ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class VetoStatus:
    """A veto condition: active or not; None when its source does not answer (then it stands)."""

    name: str
    active: bool | None
    explanation: str = ""
