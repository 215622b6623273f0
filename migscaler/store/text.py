"""Text forms in which values lie in the file: layouts with sizes, times, steps."""

import functools
import zlib
from collections.abc import Callable
from datetime import UTC, datetime
from typing import TypeVar

from migscaler.errors import StoreDamaged
from migscaler.model.layout import Layout
from migscaler.model.plan import Step, StepAction
from migscaler.model.profile import InstanceSpec, Placement

Read = TypeVar("Read")
Given = TypeVar("Given")


def decodes(read: Callable[[Given], Read]) -> Callable[[Given], Read]:
    """Turn whatever a row that makes no sense raises into `StoreDamaged`.

    A file can be sound to SQLite and hold nonsense: a disk that lost a page of it, or a hand.
    """

    @functools.wraps(read)
    def reading(given: Given) -> Read:
        try:
            return read(given)
        except (ValueError, TypeError, LookupError, AttributeError, zlib.error) as problem:
            why = f"a row of the state file makes no sense ({read.__name__.strip('_')}): {problem}"
            raise StoreDamaged(why) from problem

    return reading


def spec_text(spec: InstanceSpec) -> str:
    """Return `3g.20gb@4:4`: with the size, so that no GPU model is needed to read it."""
    return f"{spec.profile}@{spec.placement}"


def parse_spec(text: str) -> InstanceSpec:
    """Read `3g.20gb@4:4`.

    Raises:
        StoreDamaged: the text has another form; it was not written by this store.
    """
    profile, _, place = text.rpartition("@")
    start, _, size = place.partition(":")
    if not (profile and start.isdecimal() and size.isdecimal()):
        raise StoreDamaged(f"{text!r} in the state file is not an instance")
    return InstanceSpec(Placement(int(start), int(size)), profile)


def layout_text(layout: Layout) -> str:
    """Return the instances separated by blanks, empty for none."""
    return " ".join(spec_text(spec) for spec in layout.specs)


def parse_layout(text: str) -> Layout:
    """Read what `layout_text` wrote.

    Raises:
        StoreDamaged: the text has another form.
    """
    return Layout(tuple(parse_spec(word) for word in text.split()))


def steps_text(steps: tuple[Step, ...]) -> str:
    """Return `destroy 3g.20gb@4:4, create ...` in order."""
    return ",".join(f"{step.action.value} {spec_text(step.spec)}" for step in steps)


def parse_steps(text: str) -> tuple[Step, ...]:
    """Read what `steps_text` wrote.

    Raises:
        StoreDamaged: the text has another form.
    """
    pairs = (word.strip().partition(" ") for word in text.split(",") if word)
    return tuple(
        Step(action=StepAction(action), spec=parse_spec(spec)) for action, _, spec in pairs
    )


def time_text(moment: datetime | None) -> str | None:
    """Return an aware time as ISO 8601 in UTC with microseconds, so that texts sort as times do."""
    return None if moment is None else moment.astimezone(UTC).isoformat(timespec="microseconds")


def parse_time(text: str | None) -> datetime | None:
    """Read what `time_text` wrote.

    Raises:
        StoreDamaged: the text is no time.
    """
    return None if text is None else some_time(text)


@decodes
def some_time(text: str) -> datetime:
    """Read a time that is always there.

    Raises:
        StoreDamaged: the text is no aware time.
    """
    moment = datetime.fromisoformat(text)
    if moment.tzinfo is None:
        raise ValueError(f"{text!r} has no time zone")
    return moment
