"""Regret: verdicts of idleness that use proved wrong, counted once each."""

from dataclasses import replace
from datetime import datetime, timedelta

from migscaler.model.decision import Decision
from migscaler.model.gpu import NodeSnapshot, PinReason
from migscaler.model.policy import Mode
from migscaler.model.status import Regret
from migscaler.policy.decide import decide
from migscaler.policy.regret import RegretBook, observe
from tests.builders import (
    A100,
    NOW,
    decision_input,
    gpu_entry,
    gpu_state,
    policy,
    rule,
    snapshot,
    source_status,
)


def node(
    pin: PinReason | None, generation: int = 1, used_at: datetime | None = None
) -> NodeSnapshot:
    """Return one A100 with one 7g instance in that state."""
    pins = {} if pin is None else {"7g@0": pin}
    gpu = gpu_state(A100, "7g@0", pins, generation=generation)
    instances = tuple(replace(one, last_activity_at=used_at) for one in gpu.instances or ())
    return snapshot(replace(gpu, instances=instances))


def blind() -> NodeSnapshot:
    """Return the same A100 while its instances can't be read."""
    gpu = gpu_state(A100, "7g@0")
    return snapshot(replace(gpu, instances=None, reading=replace(gpu.reading, instances=None)))


def destroying() -> Decision:
    """Return a recommendation to replace the whole GPU."""
    ruled = policy(rule("r", "1g", "queue"), gpus=(gpu_entry(Mode.RECOMMEND),))
    decision = decide(decision_input(node(None), ruled, source_status("queue", {"1g": 2})))
    assert decision.wanted is not None
    return decision


def run(*ticks: tuple[float, NodeSnapshot, Decision | None]) -> Regret:
    """Return the counts after ticks of (second, snapshot, decision)."""
    book = RegretBook()
    for at, picture, decision in ticks:
        book, _ = observe(book, picture, decision, at)
    return book.counts


def test_regret_starts_at_zero() -> None:
    assert run((0.0, node(PinReason.UNKNOWN), None)) == Regret(
        verdicts=(("destroy", 0), ("kept", 0)),
        regrets=(
            ("destroy", 300, 0),
            ("destroy", 1800, 0),
            ("kept", 300, 0),
            ("kept", 1800, 0),
        ),
    )


def test_idle_instance_gets_one_verdict_while_it_stays_idle() -> None:
    counts = run((0.0, node(None), None), (15.0, node(None), None))
    assert counts.verdicts == (("destroy", 0), ("kept", 1))


def test_use_soon_after_is_regretted_in_both_windows() -> None:
    counts = run((0.0, node(None), None), (300.0, node(PinReason.PROCESS), None))
    assert counts.regrets[2:] == (("kept", 300, 1), ("kept", 1800, 1))


def test_use_later_is_regretted_in_the_long_window() -> None:
    counts = run((0.0, node(None), None), (301.0, node(PinReason.ALLOCATION), None))
    assert counts.regrets[2:] == (("kept", 300, 0), ("kept", 1800, 1))


def test_use_much_later_is_not_regretted() -> None:
    counts = run((0.0, node(None), None), (1801.0, node(PinReason.PROCESS), None))
    assert counts.regrets[2:] == (("kept", 300, 0), ("kept", 1800, 0))


def test_recommended_destroy_is_a_verdict_of_its_own() -> None:
    counts = run((0.0, node(None), destroying()), (60.0, node(PinReason.PROCESS), None))
    assert counts.verdicts == (("destroy", 1), ("kept", 0))
    assert counts.regrets[:2] == (("destroy", 300, 1), ("destroy", 1800, 1))


def test_busy_without_process_keeps_the_verdict_open() -> None:
    counts = run(
        (0.0, node(None), None),
        (100.0, node(PinReason.ACTIVITY, used_at=NOW), None),
        (200.0, node(PinReason.PROCESS, used_at=NOW), None),
    )
    assert counts.regrets[2] == ("kept", 300, 1)


def test_verdict_outlives_a_moment_in_which_the_gpu_can_not_be_read() -> None:
    used = run(
        (0.0, node(None), None), (15.0, blind(), None), (30.0, node(PinReason.PROCESS), None)
    )
    unused = run((0.0, node(None), None), (15.0, blind(), None), (30.0, node(None), None))

    assert used.regrets[2:] == (("kept", 300, 1), ("kept", 1800, 1))
    assert unused.verdicts == (("destroy", 0), ("kept", 1))


def test_job_that_ended_before_the_next_tick_is_regretted() -> None:
    """Samples saw it, the tick found the instance quiet again: the count was in our favour."""
    later = NOW + timedelta(seconds=5)
    counts = run(
        (0.0, node(None, used_at=NOW), None),
        (15.0, node(PinReason.SETTLING, used_at=later), None),
        (30.0, node(PinReason.SETTLING, used_at=later), None),
    )
    assert counts.regrets[2:] == (("kept", 300, 1), ("kept", 1800, 1))


def test_first_job_of_an_instance_between_two_ticks_is_regretted() -> None:
    counts = run((0.0, node(None), None), (15.0, node(PinReason.SETTLING, used_at=NOW), None))
    assert counts.regrets[2] == ("kept", 300, 1)


def test_instance_born_anew_is_another_one() -> None:
    counts = run((0.0, node(None), None), (60.0, node(PinReason.PROCESS, generation=2), None))
    assert counts.regrets[2] == ("kept", 300, 0)


def test_each_idle_time_gets_its_verdict() -> None:
    counts = run(
        (0.0, node(None), None),
        (60.0, node(PinReason.PROCESS), None),
        (900.0, node(None), None),
    )
    assert counts.verdicts == (("destroy", 0), ("kept", 2))
