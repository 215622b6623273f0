"""Explanations: what is wanted, there, decided, and who is in the way."""

from dataclasses import replace
from datetime import timedelta

from migscaler.model.decision import (
    DecisionInput,
    GpuHistory,
    PauseRecord,
    RuleHistory,
    TargetSample,
)
from migscaler.model.gpu import PinReason
from migscaler.model.ids import RuleName
from migscaler.model.plan import Hold, Plan
from migscaler.policy.decide import decide
from migscaler.policy.explain import explain
from tests.builders import (
    A100,
    MONOTONIC,
    NOW,
    decision_input,
    gpu_state,
    hold_record,
    policy,
    rule,
    snapshot,
    source_status,
    uuid,
)


def told(inp: DecisionInput) -> dict[str, tuple[str, ...]]:
    """Return the paragraphs by title."""
    return {part.title: part.lines for part in explain(inp, decide(inp))}


def waiting(*states: object, wants: int = 1) -> DecisionInput:
    """Return a node on which 7g jobs wait."""
    return decision_input(
        snapshot(*states),  # type: ignore[arg-type]  # test shorthand
        policy(rule("training", "7g", "queue")),
        source_status("queue", {"7g": wants}),
    )


def test_explanation_of_a_plan_shows_its_steps() -> None:
    parts = told(waiting(gpu_state(A100, "3g@0 3g@4")))
    assert parts["Decision"] == ("Reshape GPU 0 from 3g+3g to 7g: training waits for 1 x 7g",)
    assert (
        "now: GPU 0 from 3g+3g to 7g (destroy 3g.20gb@0, destroy 3g.20gb@4 and create 7g.40gb@0)"
    ) in parts["GPU 0 (enforce)"]


def test_explanation_of_a_hold_shows_what_would_be_done_with_open_gates() -> None:
    inp = waiting(gpu_state(A100, "-"))
    rest = GpuHistory(gpu_uuid=uuid(0), rest_until=NOW + timedelta(minutes=2))
    parts = told(replace(inp, history=replace(inp.history, gpus=(rest,))))
    assert parts["Decision"] == (
        "Hold: GPU 0 rests (until 12:02 UTC)",
        "with every gate open: GPU 0 from nothing to 7g (create 7g.40gb@0)",
    )
    assert parts["GPU 0 (enforce)"] == (
        "there: nothing",
        "wanted: from nothing to 7g; GPU 0 rests (until 12:02 UTC)",
    )
    gate = "1 stay unmet: gate (a change that a gate keeps back would serve them)"
    assert gate in parts["Rule training (7g)"]


def test_explanation_names_who_is_in_the_way() -> None:
    state = gpu_state(A100, "3g@0 3g@4", {"3g@0": PinReason.PROCESS, "3g@4": PinReason.HELD})
    lines = told(waiting(state))["Rule training (7g)"]
    assert lines == (
        "wanted 1 x 7g; there: 0 in use and 0 free; 1 missing",
        "queue says 1",
        "unmet for 0 s",
        "gate not_idle blocks: training lacks 1 x 7g; 2 pinned instance(s) in the way",
        "1 stay unmet: capacity (no room beside what is in use)",
        "in the way: GPU 0 3g.20gb@4 pinned (held); nothing has run on it for 10 h",
        "in the way: GPU 0 3g.20gb@0 pinned (process)",
    )


def test_gates_that_nobody_can_open_are_told_apart_from_the_others() -> None:
    """ "with every gate open: nothing would change" stood beside a gate that blocks."""
    pinned = gpu_state(A100, "3g@0 3g@4", {"3g@0": PinReason.PROCESS})
    full = gpu_state(A100, "7g@0")

    assert told(waiting(pinned))["Decision"][1:] == (
        "with every other gate open: nothing would change until what is in the way is idle",
    )
    assert told(waiting(full, wants=2))["Decision"][1:] == (
        "with every other gate open: nothing would change; there is no room for more",
    )


def test_strangers_learn_since_when_what_settles_is_quiet() -> None:
    state = gpu_state(A100, "3g@0", {"3g@0": PinReason.SETTLING})
    (one,) = state.instances or ()
    quiet = replace(one, explanation="quiet for 7 s of 300 s", quiet_since_monotonic=MONOTONIC - 7)
    inp = waiting(replace(state, instances=(quiet,)))

    *_, gpu = explain(inp, decide(inp), names=False)

    assert gpu.lines[-1] == "3g.20gb@0 pinned (settling); nothing has run on it for 7 s"


def test_explanation_counts_the_many_in_the_way() -> None:
    pins = {f"1g@{n}": PinReason.PROCESS for n in range(7)}
    text = " ".join(pins)
    states = [gpu_state(A100, text, pins, index=n) for n in range(2)]
    lines = told(waiting(*states))["Rule training (7g)"]
    assert lines[-1] == "in the way: 6 more"


def test_explanation_of_a_silent_source_says_what_is_kept() -> None:
    inp = waiting(gpu_state(A100, "7g@0"))
    inp = replace(inp, demand=(source_status("queue", {"7g": 1}, known=False),))
    assert told(inp)["Rule training (7g)"][0] == (
        "wanted 0 x 7g; there: 0 in use and 1 free; unknown: queue: no answer, so 1 idle are kept"
    )


def test_explanation_says_since_when_a_kept_instance_is_unused() -> None:
    state = gpu_state(A100, "3g@0 3g@4", {"3g@0": PinReason.PROCESS, "3g@4": PinReason.PROCESS})
    first, second = state.instances or ()
    unused = replace(first, held_unused_since_monotonic=MONOTONIC - 1500)
    lines = told(waiting(replace(state, instances=(unused, second))))["GPU 0 (enforce)"]

    assert lines[-2:] == (
        "3g.20gb@0 pinned (process); nothing has run on it for 25 min",
        "3g.20gb@4 pinned (process)",
    )


def test_explanation_for_strangers_names_nobody() -> None:
    state = gpu_state(A100, "3g@0 3g@4", {"3g@0": PinReason.ALLOCATION})
    first, second = state.instances or ()
    named = replace(first, explanation="it belongs to job 12 of ada")
    inp = waiting(replace(state, instances=(named, second)), gpu_state(A100, "-", index=1))
    pause = PauseRecord(
        who="grace", why="driver upgrade", since=NOW, until=NOW + timedelta(minutes=30)
    )
    inp = replace(
        inp,
        holds=(replace(hold_record(0), owner="edsger", reason="measuring"),),
        conditions=replace(inp.conditions, pause=pause),
    )
    decision = decide(inp)

    full = " ".join(line for one in explain(inp, decision) for line in one.lines)
    plain = {one.title: one.lines for one in explain(inp, decision, names=False)}
    text = " ".join(line for lines in plain.values() for line in lines)

    assert [name for name in ("ada", "grace", "edsger") if name not in full] == []
    assert [name for name in ("ada", "grace", "edsger", "measuring") if name in text] == []
    assert plain["Decision"][0] == "Hold: paused"
    assert plain["Decision"][1] == "gate paused blocks until 12:30 UTC"
    assert plain["GPU 0 (enforce)"] == (
        "there: 3g+3g",
        "gate protected closed",
        "3g.20gb@0 pinned (allocation)",
        "3g.20gb@4 idle",
    )


def test_explanation_names_what_no_rule_makes() -> None:
    inp = decision_input(
        snapshot(gpu_state(A100, "3g@0")),
        policy(rule("training", "7g", "queue")),
        source_status("queue", {"7g": 0, "3g.20gb": 0}),
        source_status("scheduler", {"7g": 1, "3g": 0}),
    )

    assert (
        "scheduler wants 1 x 7g, which no rule makes: none of that size is from: [scheduler]"
    ) in told(inp)["Decision"]
    assert len(told(inp)["Decision"]) == 3


def test_size_that_only_a_gpu_without_mig_offers_is_not_called_too_much() -> None:
    """It said that there was no room for more, and one line below that a gate kept it back."""
    parts = told(waiting(gpu_state(A100, "-", mig=False)))

    assert parts["Decision"][-1] == (
        "with every gate open: not known; only GPUs that can't change now offer what is missing"
    )
    assert any(
        line.endswith("training lacks 1 x 7g, which only GPUs offer that can't change now")
        for line in parts["Rule training (7g)"]
    )


def ticks(*answers: bool) -> DecisionInput:
    """Return the input of the last of some ticks 15 s apart; True where the queue answered 1."""
    state, rules = (
        gpu_state(A100, "-"),
        policy(rule("training", "7g", "queue", raise_after=timedelta(minutes=1))),
    )
    inp = decision_input(snapshot(state), rules)
    for number, known in enumerate(answers):
        monotonic = MONOTONIC + 15 * number
        inp = decision_input(
            snapshot(state, monotonic=monotonic),
            rules,
            source_status("queue", {"7g": 1}, known=known),
            monotonic=monotonic,
            histories=decide(inp).rule_histories if number else (),
        )
    return inp


def test_explanation_says_that_a_missed_answer_began_the_count_anew() -> None:
    """A source that missed each fourth answer never had anything made, and nothing said why."""
    steady, gappy = ticks(*[True] * 5), ticks(*[True, True, True, False] * 9, True, True, True)

    assert isinstance(decide(steady).outcome, Plan)
    assert isinstance(decide(gappy).outcome, Hold)
    assert (
        "0 may be created for so far: 1 wanted for 30 s of 60 s (raise_after); what was wanted"
        " before is not known, so the count began anew"
    ) in told(gappy)["Rule training (7g)"]


def test_explanation_says_how_long_more_is_wanted() -> None:
    inp = ticks(True, True)
    low = TargetSample(since_monotonic=MONOTONIC - 60, target=0)
    high = TargetSample(since_monotonic=MONOTONIC, target=1)
    past = RuleHistory(rule=RuleName("training"), samples=(low, high))

    known = told(replace(inp, history=replace(inp.history, rules=(past,))))

    line = "0 may be created for so far: 1 wanted for 15 s of 60 s (raise_after)"
    assert line in known["Rule training (7g)"]
    assert line not in told(inp)["Rule training (7g)"]  # nor is it known what was before
