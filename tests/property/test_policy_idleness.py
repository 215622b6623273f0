"""Whatever the samples: idle means that every one of the last minutes said so, without a gap."""

from dataclasses import dataclass
from datetime import timedelta

from hypothesis import given, settings
from hypothesis import strategies as st

from migscaler.model.gpu import GpuReading, PinReason
from migscaler.model.ids import GiId
from migscaler.model.policy import IdlePolicy
from migscaler.policy.idleness import IdleMemory, judge
from tests.builders import (
    A100,
    EMPTY_BYTES,
    MIB,
    MONOTONIC,
    NOW,
    allocations,
    claim,
    gpu_reading,
    instance_reading,
    node_reading,
    policy,
    process,
    spec,
    uuid,
)

AFTER = 30.0
RULES = policy(idle=IdlePolicy(after=timedelta(seconds=AFTER)))
LONGEST_GAP = 15.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Moment:
    """One sample: seconds since the one before, and what it shows of the only instance."""

    wait: float
    kind: str
    born: int

    @property
    def is_quiet(self) -> bool:
        """Say whether every signal is there and quiet."""
        return self.kind == "quiet"

    def reading(self) -> GpuReading:
        """Return the GPU as it shows then."""
        one = instance_reading(
            spec(A100, "1g@0"),
            processes={"process": (process(),), "no processes": None}.get(self.kind, ()),
            used={"memory": 900 * MIB, "no memory": None}.get(self.kind, EMPTY_BYTES),
        )
        return gpu_reading(A100, readings=[one])


KINDS = ("quiet",) * 30 + ("process", "memory", "no processes", "no memory", "claim", "silent")
MOMENTS = st.lists(
    st.builds(
        Moment,
        wait=st.sampled_from((5.0, 5.0, 5.0, 5.0, 5.0, 10.0, 15.0, 16.0)),
        kind=st.sampled_from(KINDS),
        born=st.sampled_from((1,) * 20 + (2,)),
    ),
    min_size=1,
    max_size=40,
)


def verdicts(moments: list[Moment]) -> list[PinReason | None]:
    """Return the verdict at every moment."""
    memory, now, found = IdleMemory(), 0.0, []
    for moment in moments:
        now += moment.wait
        memory, states = judge(
            memory,
            reading=node_reading(
                moment.reading(), at=NOW + timedelta(seconds=now), monotonic=MONOTONIC + now
            ),
            born={(uuid(0), GiId(1)): moment.born},
            allocations=allocations(
                *([claim(0, 1)] if moment.kind == "claim" else ()), known=moment.kind != "silent"
            ),
            holds=(),
            policy=RULES,
            processes_visible=True,
        )
        found.append(states[uuid(0)][0].pin)
    return found


def was_quiet_long_enough(moments: list[Moment]) -> bool:
    """Say, from the whole past, whether the last moment proves the instance idle."""
    quiet, born = 0.0, moments[-1].born
    for number in range(len(moments) - 1, -1, -1):
        moment = moments[number]
        if not moment.is_quiet or moment.born != born:
            return False
        if quiet >= AFTER:
            return True
        if moment.wait > LONGEST_GAP:
            return False
        quiet += moment.wait
    return False


@given(moments=MOMENTS)
@settings(max_examples=150)
def test_instance_is_idle_exactly_when_all_the_past_minutes_prove_it(
    moments: list[Moment],
) -> None:
    found = verdicts(moments)
    expected = [was_quiet_long_enough(moments[: n + 1]) for n in range(len(moments))]
    assert [pin is None for pin in found] == expected


@given(moments=MOMENTS)
@settings(max_examples=60)
def test_instance_in_use_or_not_known_is_never_idle(moments: list[Moment]) -> None:
    allowed: dict[str, set[PinReason | None]] = {
        "process": {PinReason.PROCESS},
        "claim": {PinReason.ALLOCATION},
        "memory": {PinReason.MEMORY},
        "quiet": {None, PinReason.SETTLING, PinReason.UNKNOWN},
    }
    for moment, pin in zip(moments, verdicts(moments), strict=True):
        assert pin in allowed.get(moment.kind, {PinReason.UNKNOWN})
