"""Asks demand sources and remembers what each said last, and since when it has been silent."""

import logging
import threading
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from migscaler.control.clock_watch import ClockWatch, moved
from migscaler.control.use_book import UseBook
from migscaler.errors import StoreError
from migscaler.model.demand import Fetched, Reading, SourceStatus, VetoStatus
from migscaler.model.gpu import NodeSnapshot
from migscaler.model.ids import SourceName
from migscaler.model.policy import Policy
from migscaler.model.ports import Clock
from migscaler.policy.supply import in_use_by_size
from migscaler.sources.ports import DemandSource, VetoSource

_log = logging.getLogger("migscaler.gather")

# An answer of a veto that is older proves nothing, unless told otherwise.
_VETO_HOLDS = timedelta(minutes=2)


@dataclass(slots=True)
class _Memory:
    """Last answers of one source."""

    status: SourceStatus
    last: Fetched | None = None


class Gatherer:
    """Keeps the last reading of every source; safe for several threads."""

    def __init__(
        self,
        *,
        sources: Mapping[SourceName, DemandSource],
        vetoes: Mapping[str, VetoSource],
        clock: Clock,
        overrides: Callable[[], tuple[tuple[str, Reading], ...]] = tuple,
        veto_holds: Mapping[str, timedelta] | None = None,
    ) -> None:
        """Take the sources by name; nothing is asked yet, so everything is unknown.

        `overrides` returns what was set by hand, by name, expired or not. `veto_holds`: for how
        long a veto's answer counts.
        """
        self._veto_holds = dict(veto_holds or {})
        self._overrides = overrides
        self._by_hand: tuple[tuple[str, Reading], ...] = ()
        self._sources = dict(sources)
        self._veto_sources = dict(vetoes)
        self._clock = clock
        self._watch = ClockWatch(clock)
        self._steps = 0
        self._lock = threading.Lock()
        now = clock.now()
        self._memories = {
            name: _Memory(
                SourceStatus(name=name, known=False, problem="not asked yet", unknown_since=now)
            )
            for name in sources
        }
        self._vetoes = {
            name: VetoStatus(name=name, active=None, explanation="not asked yet") for name in vetoes
        }
        self._asked_vetoes: dict[str, float] = {}
        self._book = UseBook()

    def take_over(self, before: "Gatherer") -> None:
        """Go on from the gatherer of the configuration before; its answers are not taken over.

        What was in use is: readings pushed before a reload are true for a moment before it.
        """
        with before._lock:
            before._follow_clock()
            book, memories = before._book, dict(before._memories)
        with self._lock:
            self._follow_clock()
            self._book = book
            for name, memory in self._memories.items():
                since = memories[name].status.unknown_since if name in memories else None
                if since is not None:  # else a source that stays silent would never lapse
                    memory.status = replace(memory.status, unknown_since=since)

    def names(self) -> tuple[SourceName, ...]:
        """Return the names of all sources, in configuration order."""
        return tuple(self._sources)

    def collectors(self) -> tuple[str, ...]:
        """Return what attempts at asking are noted as."""
        sources, vetoes = self._sources, self._veto_sources
        return (*(f"source:{name}" for name in sources), *(f"veto:{name}" for name in vetoes))

    def unasked(self) -> tuple[SourceName, ...]:
        """Return the sources that were never asked."""
        with self._lock:
            return tuple(name for name, memory in self._memories.items() if memory.last is None)

    def unasked_vetoes(self) -> tuple[str, ...]:
        """Return the vetoes that were never asked."""
        with self._lock:
            return tuple(name for name in self._veto_sources if name not in self._asked_vetoes)

    def remember_use(self, snapshot: NodeSnapshot, policy: Policy) -> None:
        """Note how many instances of each rule's size are in use at this moment.

        Counted as supply is: on managed GPUs only. A job on another GPU is no part of the demand.
        """
        at = snapshot.taken_at
        counts = in_use_by_size(snapshot, policy, at)
        with self._lock:
            self._follow_clock()
            self._book.note(at, counts)

    def gather(self, name: SourceName) -> Fetched:
        """Ask one source; an error makes it unknown at once, its last reading is kept."""
        with self._lock:
            self._follow_clock()
            steps = self._steps
        source = self._sources[name]
        try:
            fetched = source.fetch()
        except Exception as error:  # noqa: BLE001 - whatever it is, the source did not answer
            _log.warning("source_raised source=%s", name, exc_info=True)
            fetched = Fetched(reading=None, problem=_raised(error))
        with self._lock:
            self._follow_clock()
            if steps != self._steps:
                # Nobody can say which clock its times were read from.
                why = "the clock was stepped while it was asked"
                fetched = Fetched(reading=None, problem=why)
            now = self._clock.now()
            memory = self._memories[name]
            memory.last = fetched
            old = memory.status
            if fetched.reading is not None:
                memory.status = SourceStatus(
                    name=name,
                    known=True,
                    reading=fetched.reading,
                    asked_at=now,
                    in_use_at_reading=self._book.use_at((name, False), fetched.reading.true_at),
                )
            else:
                memory.status = replace(
                    old,
                    known=False,
                    problem=fetched.problem,
                    asked_at=now,
                    unknown_since=old.unknown_since or now,
                )
        return fetched

    def gather_veto(self, name: str) -> VetoStatus:
        """Ask one veto and keep its answer; unknown stands as a veto, and so does an old answer."""
        began, veto = self._clock.monotonic(), self._veto_sources[name]
        try:
            status = veto.fetch_veto()
        except Exception as error:  # noqa: BLE001 - the "no" before must not outlive it
            _log.warning("veto_raised veto=%s", name, exc_info=True)
            status = VetoStatus(name=name, active=None, explanation=_raised(error))
        with self._lock:
            self._vetoes[name] = status
            self._asked_vetoes[name] = began
        return status

    def statuses(self) -> tuple[SourceStatus, ...]:
        """Return every source as it is now: a reading past its expiry is unknown."""
        with self._lock:
            self._follow_clock()
            now = self._clock.now()
            for memory in self._memories.values():
                memory.status = _aged(memory.status, now)
            configured = tuple(memory.status for memory in self._memories.values())
        # What was set by hand holds until it expires, whether it can be read again or not.
        with suppress(StoreError):
            self._by_hand = self._overrides()
        lasting = [
            (name, reading)
            for name, reading in self._by_hand
            if reading.overrides and now < reading.expires_at
        ]
        with self._lock:
            self._book.forget_overrides(but=[name for name, _ in lasting])
            by_hand = tuple(
                SourceStatus(
                    name=SourceName(name),
                    known=True,
                    reading=reading,
                    asked_at=now,
                    in_use_at_reading=self._book.use_at((name, True), reading.true_at),
                )
                for name, reading in lasting
            )
        return (*configured, *by_hand)

    def vetoes(self) -> tuple[VetoStatus, ...]:
        """Return the last answer of every veto; one that is too old is unknown."""
        with self._lock:
            return tuple(map(self._fresh, self._vetoes.values()))

    def _fresh(self, status: VetoStatus) -> VetoStatus:
        """Return a veto's answer as of now: asking that hangs must not prolong a "no"."""
        asked = self._asked_vetoes.get(status.name)
        limit = self._veto_holds.get(status.name, _VETO_HOLDS).total_seconds()
        if asked is None or self._clock.monotonic() - asked <= limit:
            return status
        words = f"its last answer is more than {limit:.0f} s old"
        return replace(status, active=None, explanation=words)

    def _follow_clock(self) -> None:
        """Move what is remembered with a clock that was stepped: ages stay what they were.

        Else a clock set forwards would make every source unknown for a year, so that its rule falls
        back to its floor, and one set back would let a last answer hold for a year.
        """
        step = self._watch.look()
        if not step:
            return
        self._steps += 1
        for memory in self._memories.values():
            memory.status = _moved(memory.status, step)
        self._by_hand = tuple((name, _reading(one, step)) for name, one in self._by_hand)
        self._book.follow_clock(step)


def _raised(error: Exception) -> str:
    """Return why a source that raised did not answer."""
    return f"asking it failed: {type(error).__name__}"


def _moved(status: SourceStatus, step: timedelta) -> SourceStatus:
    """Return a source's status after a step of the clock."""
    since, reading = status.unknown_since, status.reading
    return replace(
        status,
        reading=None if reading is None else _reading(reading, step),
        unknown_since=None if since is None else moved(since, step),
    )


def _reading(reading: Reading, step: timedelta) -> Reading:
    """Return a reading after a step of the clock."""
    return replace(
        reading,
        true_at=moved(reading.true_at, step),
        expires_at=moved(reading.expires_at, step),
    )


def _aged(status: SourceStatus, now: datetime) -> SourceStatus:
    """Return the status as of now."""
    if not status.known or status.reading is None or now < status.reading.expires_at:
        return status
    return replace(
        status,
        known=False,
        problem=f"its last answer expired at {status.reading.expires_at:%H:%M:%S} UTC",
        unknown_since=status.reading.expires_at,
    )
