"""What the sources of each rule ask for, as far as they answer.

An override set by hand replaces a rule's other sources. Of several sources the largest counts. What
doesn't hold any more is unknown, never zero; after `unknown_for` it no longer counts at all.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction

from migscaler.model.decision import DecisionInput
from migscaler.model.demand import Counts, Reading, SourceStatus
from migscaler.model.ids import SourceName
from migscaler.model.layout import GpuModel
from migscaler.model.policy import Mode, Policy, Rule, SourcePolicy
from migscaler.policy.supply import Survey


@dataclass(frozen=True, slots=True, kw_only=True)
class RuleDemand:
    """What the sources of one rule ask for.

    `waiting` is the number wanted by sources that count jobs waiting (in use + waiting), `total` by
    those that count all; None where no source says. Both are lower bounds while `unknown` names
    sources. `problems` says why they are unknown; `lapsed` have been so for longer than
    `unknown_for`. `counts` are raw numbers by source. `most` is the number that may be wanted where
    it is not recorded what was in use when a number of waiting jobs was true; then `waiting` is
    only what is certain.
    """

    waiting: int | None = None
    total: int | None = None
    unknown: tuple[str, ...] = ()
    problems: tuple[str, ...] = ()
    lapsed: tuple[str, ...] = ()
    counts: tuple[tuple[str, int], ...] = ()
    overridden_by: str | None = None
    most: int | None = None

    @property
    def known(self) -> int | None:
        """Return the number wanted by the sources that answer, None if none does."""
        return max((n for n in (self.waiting, self.total) if n is not None), default=None)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Answer:
    """A source's number for one rule: `count` raw, `in_use` at its time (None: not recorded)."""

    source: str
    counts: Counts
    count: int
    in_use: int | None
    reading: Reading


@dataclass(frozen=True, slots=True, kw_only=True)
class _Silence:
    """A source that says nothing for a rule, and why; `lapsed` when for too long."""

    source: str
    why: str
    lapsed: bool


def demand_of(rule: Rule, inp: DecisionInput, found: Survey) -> RuleDemand:
    """Return what a rule's sources ask for."""
    by_name = {status.name: status for status in sorted(inp.demand, key=lambda s: s.name)}
    overrides = _overrides(rule, by_name, inp, found)
    if overrides:
        return _combined(rule, overrides, (), found)
    heard = [_hear(rule, name, by_name.get(name), inp, found) for name in rule.sources]
    answers = tuple(one for one in heard if isinstance(one, _Answer))
    silences = tuple(one for one in heard if isinstance(one, _Silence))
    return _combined(rule, answers, silences, found)


def means_same(first: str, second: str, models: tuple[GpuModel, ...]) -> bool:
    """Say whether two size texts are the same, or the same profile on some GPU here."""
    if first == second:
        return True
    for model in models:
        one = model.resolve(first)
        if one is not None and one is model.resolve(second):
            return True
    return False


def _overrides(
    rule: Rule, by_name: Mapping[SourceName, SourceStatus], inp: DecisionInput, found: Survey
) -> tuple[_Answer, ...]:
    """Return the overrides that name the rule's size.

    One counts if the rule lists its source, or if no configured source has its name: an operator
    must be able to override a rule whose only source is silent.
    """
    configured = {source.name for source in inp.policy.sources}
    answers = []
    for name, status in by_name.items():
        reading = status.reading
        if reading is None or not status.known or not reading.overrides:
            continue
        if name not in rule.sources and name in configured:
            continue
        count = _count(rule.size, reading, found.models)
        if count is not None:
            in_use = _in_use_then(rule.size, status, found.models)
            answers.append(_answer(name, reading, count, in_use))
    return tuple(answers)


def _hear(
    rule: Rule, name: SourceName, status: SourceStatus | None, inp: DecisionInput, found: Survey
) -> _Answer | _Silence:
    """Return what one source says for a rule."""
    source = next((s for s in inp.policy.sources if s.name == name), None)
    if status is None:
        return _Silence(source=name, why=f"{name} was never asked", lapsed=False)
    reading = status.reading
    if not status.known or reading is None:
        why = f"{name}: {status.problem or 'no answer that still holds'}"
        return _Silence(source=name, why=why, lapsed=_has_lapsed(status, source, inp))
    if source is not None and source.shared and source.share is None and _may_act(inp.policy):
        why = f"{name} tells every node the same number and no share is set for this one"
        return _Silence(source=name, why=why, lapsed=False)
    count = _count(rule.size, reading, found.models)
    if count is None and not reading.absent_is_zero:
        why = f"{name} says nothing of {rule.size}"
        return _Silence(source=name, why=why, lapsed=_has_lapsed(status, source, inp))
    mine = _share_of(count or 0, source)
    return _answer(name, reading, mine, _in_use_then(rule.size, status, found.models))


def _answer(source: str, reading: Reading, count: int, in_use: int | None) -> _Answer:
    """Return a source's number."""
    return _Answer(
        source=source, counts=reading.counts, count=count, in_use=in_use, reading=reading
    )


def _count(size: str, reading: Reading, models: tuple[GpuModel, ...]) -> int | None:
    """Return what a reading wants of a size, None if it does not mention it."""
    wants = [want.count for want in reading.wants if means_same(want.size, size, models)]
    return max(0, sum(wants)) if wants else None


def is_taken_up(
    policy: Policy, source: SourceName, size: str, models: tuple[GpuModel, ...]
) -> bool:
    """Say whether any rule makes instances of a size because this source wants them."""
    return any(
        source in rule.sources and means_same(size, rule.size, models) for rule in policy.rules
    )


def _share_of(count: int, source: SourcePolicy | None) -> int:
    """Return this node's part of a number that every node is told.

    Rounded down: several nodes must not answer one job. What rounding loses is served once more
    jobs wait, or by a node whose share is 1.
    """
    if source is None or not source.shared or source.share is None:
        return count
    return int(count * Fraction(str(source.share)))


def _in_use_then(size: str, status: SourceStatus, models: tuple[GpuModel, ...]) -> int | None:
    """Return the instances in use when the reading was true, None if not recorded."""
    recorded = dict(status.in_use_at_reading)
    if size in recorded:
        return recorded[size]
    meant = [(model, one) for model in models if (one := model.resolve(size)) is not None]
    # A class is another profile on each model: `1g` is 1g.5gb here and 1g.10gb there.
    alike = [
        n
        for text, n in sorted(recorded.items())
        if any(model.resolve(text) is one for model, one in meant)
    ]
    return sum(alike) if alike else None


def _has_lapsed(status: SourceStatus, source: SourcePolicy | None, inp: DecisionInput) -> bool:
    """Say whether a source has been unknown for longer than it may be."""
    if source is None or status.unknown_since is None:
        return False
    return inp.now - status.unknown_since >= source.unknown_for


def _may_act(policy: Policy) -> bool:
    """Say whether any GPU may be changed by itself."""
    return any(entry.mode is Mode.ENFORCE for entry in policy.gpus)


def _combined(
    rule: Rule, answers: tuple[_Answer, ...], silences: tuple[_Silence, ...], found: Survey
) -> RuleDemand:
    """Return what a rule's sources want together."""
    in_use = found.supply[rule.name].in_use
    totals = [answer.count for answer in answers if answer.counts is Counts.TOTAL]
    waits = [answer for answer in answers if answer.counts is Counts.WAITING]
    beyond = [answer.count + _base(answer, in_use, missing=0) for answer in waits]
    at_most = [answer.count + _base(answer, in_use, missing=in_use) for answer in waits]
    if rule.sum_waiting and waits:
        latest = max(waits, key=lambda answer: (answer.reading.true_at, answer.source))
        total = sum(answer.count for answer in waits)
        beyond = [total + _base(latest, in_use, missing=0)]
        at_most = [total + _base(latest, in_use, missing=in_use)]
    pending = [silence for silence in silences if not silence.lapsed]
    overrides = sorted(answer.source for answer in answers if answer.reading.overrides)
    return RuleDemand(
        waiting=max(beyond, default=None),
        total=max(totals, default=None),
        unknown=tuple(silence.source for silence in pending),
        problems=tuple(silence.why for silence in pending),
        lapsed=tuple(silence.source for silence in silences if silence.lapsed),
        counts=tuple(sorted((answer.source, answer.count) for answer in answers)),
        overridden_by=", ".join(overrides) or None,
        most=max(at_most, default=None),
    )


def _base(answer: _Answer, in_use: int, *, missing: int) -> int:
    """Return the instances in use that a number of waiting jobs comes on top of.

    Those at the reading's time, else a job that just started would count twice; but never more than
    now, else instances that are out of sight or were given back would be made again. `missing`
    where that is not recorded: 0 for what may be created, since all that is in use now may be the
    very jobs that waited.
    """
    return missing if answer.in_use is None else min(answer.in_use, in_use)
