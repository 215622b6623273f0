"""Gates: every closed one is recorded, the first that blocks is the reason."""

from dataclasses import replace
from datetime import timedelta

import pytest

from migscaler.model.decision import Conditions, DecisionInput, GpuHistory, PauseRecord
from migscaler.model.gpu import GpuOwner, PinReason
from migscaler.model.plan import Direction, Gate, GateReason, Hold, Plan
from migscaler.model.policy import Freeze, Mode
from migscaler.policy.decide import decide
from tests.builders import (
    A100,
    NOW,
    decision_input,
    gpu_entry,
    gpu_state,
    hold_record,
    policy,
    rule,
    snapshot,
    source_status,
    uuid,
    veto,
    window,
)

SOON = NOW + timedelta(minutes=2)


def wanting() -> DecisionInput:
    """Return one whole idle A100 and a job waiting for 1g: a plan, were it not for gates."""
    return decision_input(
        snapshot(gpu_state(A100, "7g@0")),
        policy(rule("r", "1g", "queue")),
        source_status("queue", {"1g": 1}),
    )


def resting(**changes: object) -> DecisionInput:
    """Return the input with this history of its GPU."""
    inp = wanting()
    history = GpuHistory(gpu_uuid=uuid(0), **changes)  # type: ignore[arg-type]  # test shorthand
    return replace(inp, history=replace(inp.history, gpus=(history,)))


def conditioned(**changes: object) -> DecisionInput:
    """Return the input under these conditions of the node."""
    return replace(wanting(), conditions=Conditions(**changes))  # type: ignore[arg-type]  # test shorthand


def left_alone(owner: GpuOwner) -> DecisionInput:
    """Return the input with a GPU whose layout is not this node's to change."""
    inp = wanting()
    (gpu,) = inp.snapshot.gpus
    owned = replace(gpu, reading=replace(gpu.reading, foreign_owner=owner))
    return replace(inp, snapshot=replace(inp.snapshot, gpus=(owned,)))


PAUSE = PauseRecord(who="ada", why="driver upgrade", since=NOW, until=SOON)
CASES: list[tuple[GateReason, DecisionInput, str]] = [
    (GateReason.MODE, conditioned(forced_observe="bad file"), "observing only: bad file"),
    (
        GateReason.PAUSED,
        conditioned(pause=PAUSE),
        "paused by ada: driver upgrade (until 12:02 UTC)",
    ),
    (
        GateReason.VETO,
        replace(wanting(), vetoes=(veto("maintenance"),)),
        "veto maintenance is active (max(maintenance) > 0)",
    ),
    (
        GateReason.VETO,
        replace(wanting(), vetoes=(veto("maintenance", active=None),)),
        "veto maintenance does not answer (max(maintenance) > 0)",
    ),
    (
        GateReason.VETO,
        replace(wanting(), policy=replace(wanting().policy, vetoes=("maintenance",))),
        "veto maintenance does not answer",
    ),
    (
        GateReason.FOREIGN_OWNER,
        replace(wanting(), snapshot=replace(wanting().snapshot, foreign_owner="mig-manager")),
        "the layout belongs to mig-manager",
    ),
    (
        GateReason.FOREIGN_OWNER,
        replace(
            wanting(),
            snapshot=replace(
                wanting().snapshot, foreign_owner="mig-manager", foreign_owner_remedy="stop it"
            ),
        ),
        "the layout belongs to mig-manager; way out: stop it",
    ),
    (
        GateReason.FOREIGN_OWNER,
        replace(
            wanting(),
            snapshot=replace(wanting().snapshot, foreign_owner_unknown="no lsf.conf"),
        ),
        "it is not known who else shapes the GPUs: no lsf.conf",
    ),
    (
        GateReason.FOREIGN_OWNER,
        left_alone(GpuOwner.HYPERVISOR),
        "GPU 0 is left alone: it is a vGPU of a virtual machine; the hypervisor owns its layout",
    ),
    (
        GateReason.FOREIGN_OWNER,
        left_alone(GpuOwner.CONFIDENTIAL_COMPUTING),
        "GPU 0 is left alone: confidential computing is on, with which MIG is not known to work",
    ),
    (
        GateReason.ALLOCATIONS_UNKNOWN,
        replace(
            wanting(),
            snapshot=replace(wanting().snapshot, allocations_known=False, allocations_why="slurmd"),
        ),
        "it is not known who was given what: slurmd",
    ),
    (
        GateReason.ALLOCATIONS_UNKNOWN,
        replace(wanting(), snapshot=replace(wanting().snapshot, processes_visible=False)),
        "the host's processes are not all visible from here",
    ),
    (
        GateReason.JOURNAL_UNWRITABLE,
        conditioned(journal_problem="disk full"),
        "the journal can't be written: disk full",
    ),
    (GateReason.OPEN_PLAN, conditioned(open_plan="20260302-1"), "a plan is still open: 20260302-1"),
    (GateReason.CLOCK_STEP, conditioned(clock_step="stepped by 40 s"), "stepped by 40 s"),
    (
        GateReason.SNAPSHOT_STALE,
        replace(wanting(), now_monotonic=wanting().now_monotonic + 16),
        "the GPUs were last read 16 s ago, more than 15 s",
    ),
    (
        GateReason.BREAKER_OPEN,
        resting(breaker_open_until=SOON, failures_in_row=2),
        "GPU 0 failed 2 times in a row (until 12:02 UTC)",
    ),
    (
        GateReason.FROZEN,
        replace(
            wanting(),
            policy=replace(wanting().policy, freezes=(Freeze(window="mon"),)),
            windows=(window("mon", is_open=True, next_change=SOON),),
        ),
        "changes are frozen: mon (until 12:02 UTC)",
    ),
    (
        GateReason.PROTECTED,
        replace(wanting(), holds=(hold_record(0),)),
        "GPU 0 is held by ada: measuring",
    ),
    (
        GateReason.HELD_BY_CLIENT,
        resting(held_by_client_until=SOON),
        "a client holds an instance of GPU 0 without showing as a process (until 12:02 UTC)",
    ),
    (GateReason.RESTING, resting(rest_until=SOON), "GPU 0 rests (until 12:02 UTC)"),
    (
        GateReason.FLAPPING,
        resting(rest_until=SOON, flapping=True, reversals=3),
        "GPU 0 rests longer: 3 reversals within an hour (until 12:02 UTC)",
    ),
]


@pytest.mark.parametrize(("expected", "inp", "words"), CASES)
def test_gate_blocks_with_its_reason_and_words(
    expected: GateReason, inp: DecisionInput, words: str
) -> None:
    decision = decide(inp)
    assert decision.outcome == Hold(reason=expected, explanation=words)
    assert decision.sentence == f"Hold: {words}"
    assert [gate.reason for gate in decision.gates] == [expected]
    assert decision.gates[0].blocks
    assert decision.wanted is not None


def test_open_gates_let_the_plan_through() -> None:
    assert not isinstance(decide(wanting()).outcome, Hold)


@pytest.mark.parametrize(
    "inp",
    [
        resting(rest_until=NOW),
        resting(breaker_open_until=NOW, failures_in_row=2),
        resting(held_by_client_until=NOW),
        conditioned(pause=replace(PAUSE, until=NOW)),
        replace(wanting(), vetoes=(veto("maintenance", active=False),)),
        replace(wanting(), holds=(replace(hold_record(0), expires_at=NOW),)),
    ],
)
def test_gate_opens_when_its_time_comes(inp: DecisionInput) -> None:
    assert decide(inp).gates == ()


def test_all_closed_gates_are_recorded_and_the_first_is_the_reason() -> None:
    inp = replace(
        resting(rest_until=SOON),
        conditions=Conditions(pause=PAUSE, open_plan="1"),
        vetoes=(veto(),),
    )
    decision = decide(inp)
    assert [gate.reason for gate in decision.gates] == [
        GateReason.PAUSED,
        GateReason.VETO,
        GateReason.OPEN_PLAN,
        GateReason.RESTING,
    ]
    assert isinstance(decision.outcome, Hold)
    assert decision.outcome.reason is GateReason.PAUSED


def test_closed_gate_without_a_wanted_change_does_not_block() -> None:
    inp = replace(resting(rest_until=SOON), demand=(source_status("queue", {}),))
    decision = decide(inp)
    assert isinstance(decision.outcome, Hold)
    assert decision.outcome.reason is GateReason.SATISFIED
    assert [(gate.reason, gate.blocks) for gate in decision.gates] == [(GateReason.RESTING, False)]


def test_freeze_of_one_direction_lets_the_other_through() -> None:
    inp = replace(wanting(), windows=(window("mon", is_open=True),))
    inp = replace(inp, demand=(source_status("queue", {"1g": 2}),))
    merging, splitting = (
        replace(inp, policy=replace(inp.policy, freezes=(Freeze(window="mon", only=only),)))
        for only in (Direction.COARSER, Direction.FINER)
    )
    assert not isinstance(decide(merging).outcome, Hold)
    assert [(gate.reason, gate.blocks) for gate in decide(merging).gates] == [
        (GateReason.FROZEN, False)
    ]
    assert isinstance(decide(splitting).wanted, Plan)
    [gate] = decide(splitting).gates
    assert (gate.reason, gate.blocks) == (GateReason.FROZEN, True)
    assert gate.explanation == "finer layouts are frozen: mon"


def test_freeze_whose_window_is_unknown_stands() -> None:
    inp = wanting()
    frozen = replace(inp, policy=replace(inp.policy, freezes=(Freeze(window="mon"),)))
    assert [gate.reason for gate in decide(frozen).gates] == [GateReason.FROZEN]


def test_freeze_outside_its_window_is_open() -> None:
    inp = replace(wanting(), windows=(window("mon", is_open=False),))
    inp = replace(inp, policy=replace(inp.policy, freezes=(Freeze(window="mon"),)))
    assert decide(inp).gates == ()


def short_of_room(**changes: object) -> DecisionInput:
    """Return an input in which one GPU can't be planned and a rule lacks an instance."""
    state = snapshot(gpu_state(A100, "-", **changes))  # type: ignore[arg-type]  # test shorthand
    return replace(wanting(), snapshot=state)


@pytest.mark.parametrize(
    ("inp", "words"),
    [
        (short_of_room(mig=False), "GPU 0: MIG mode is off"),
        (short_of_room(mig=False, pending=True), "GPU 0: MIG mode is off (on is pending)"),
        (
            short_of_room(mig=True, pending=False),
            "GPU 0: MIG mode is about to be switched off (pending)",
        ),
    ],
)
def test_gpu_without_mig_is_the_reason_when_it_could_serve(inp: DecisionInput, words: str) -> None:
    assert decide(inp).outcome == Hold(reason=GateReason.MIG_DISABLED, explanation=words)


def test_gpu_that_does_not_answer_is_the_reason_when_it_could_serve() -> None:
    decision = decide(short_of_room(excluded="no answer for 10 s"))
    assert decision.outcome == Hold(
        reason=GateReason.DRIVER_FAULT, explanation="GPU 0: no answer for 10 s"
    )


def test_busy_instances_in_the_way_are_the_reason() -> None:
    busy = snapshot(gpu_state(A100, "7g@0", {"7g@0": PinReason.PROCESS}))
    assert decide(replace(wanting(), snapshot=busy)).outcome == Hold(
        reason=GateReason.NOT_IDLE,
        explanation="r lacks 1 x 1g; 1 pinned instance(s) in the way",
    )


def test_size_that_nobody_offers_is_infeasible() -> None:
    inp = replace(wanting(), policy=policy(rule("r", "5g", "queue")))
    inp = replace(inp, demand=(source_status("queue", {"5g": 1}),))
    assert decide(inp).outcome == Hold(
        reason=GateReason.INFEASIBLE,
        explanation="r lacks 1 x 5g, which no managed GPU offers to it",
    )


def test_protected_gpu_shows_both_mode_and_protection() -> None:
    inp = wanting()
    entry = gpu_entry(Mode.OBSERVE, reason="training lane", until=SOON)
    decision = decide(replace(inp, policy=replace(inp.policy, gpus=(entry,))))
    assert [(g.reason, g.opens_at) for g in decision.gates if g.gpu_uuid] == [
        (GateReason.MODE, SOON),
        (GateReason.PROTECTED, SOON),
    ]


def test_many_gpus_behind_the_same_gate_are_one_reason() -> None:
    states = snapshot(*(gpu_state(A100, "7g@0", index=n) for n in range(3)))
    inp = replace(wanting(), snapshot=states, demand=(source_status("queue", {"1g": 15}),))
    inp = replace(inp, policy=replace(inp.policy, gpus=(gpu_entry(Mode.RECOMMEND),)))
    assert decide(inp).sentence == "Hold: GPU 0 is in mode recommend and 2 more like it"


def test_gate_says_where_it_is_closed() -> None:
    gates: tuple[Gate, ...] = decide(resting(rest_until=SOON)).gates
    assert [(gate.gpu_uuid, gate.rule) for gate in gates] == [(uuid(0), None)]
