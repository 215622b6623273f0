"""Recorded decisions: exact round trips, a schema that fits, bounded retention."""

import json
from dataclasses import replace
from datetime import timedelta

import jsonschema
import pytest

from migscaler.errors import NotFound, ParseError
from migscaler.model.decision import (
    Conditions,
    Decision,
    DecisionInput,
    GpuHistory,
    History,
    PauseRecord,
)
from migscaler.model.gpu import PinReason
from migscaler.model.plan import GateReason, GpuPlan, Hold, Plan, Step, StepAction
from migscaler.store.codec import (
    decode_input,
    encode,
    encode_decision,
    encode_input,
    input_schema,
)
from migscaler.store.store import Store
from tests.builders import (
    A30,
    A100,
    H100,
    MONOTONIC,
    NOW,
    gpu_state,
    hold_record,
    layout,
    policy,
    rule,
    snapshot,
    source_status,
    spec,
    uuid,
)
from tests.unit.store.fixed_clock import FixedClock


def an_input(gpus: int = 3) -> DecisionInput:
    boards = (A100, A30, H100)
    texts = ("3g@0 1g@4 1g@5", "1g@0 2g@2", "7g@0")
    return DecisionInput(
        now=NOW + timedelta(microseconds=17),
        now_monotonic=MONOTONIC + 0.1,
        snapshot=snapshot(
            *(
                gpu_state(
                    boards[i % 3],
                    texts[i % 3],
                    {"1g@4": PinReason.PROCESS} if i % 3 == 0 else {},
                    index=i,
                    gpm=i % 3 == 2,
                )
                for i in range(gpus)
            )
        ),
        policy=policy(
            rule("notebooks", "1g", "queue", minimum=2, at_least=[(14, "mon-fri 08:30-19:00")]),
            rule("training", "7g", raise_after=timedelta(seconds=1, microseconds=5)),
        ),
        demand=(source_status("queue", {"1g": 4}),),
        holds=(hold_record(0, spec(A100, "3g@0")),),
        conditions=Conditions(pause=PauseRecord(who="ada", why='ä "q"', since=NOW)),
    )


def a_decision(outcome: Plan | Hold | None = None) -> Decision:
    plan = Plan(
        gpu_plans=(
            GpuPlan(
                gpu_uuid=uuid(),
                before=layout(A100, "3g@0"),
                after=layout(A100, "3g@0 3g@4"),
                steps=(Step(action=StepAction.CREATE, spec=spec(A100, "3g@4")),),
            ),
        )
    )
    return Decision(
        outcome=outcome or plan,
        wanted=plan,
        gates=(),
        rules=(),
        gpus=(),
        rule_histories=(),
        sentence="making 1 x 3g.20gb",
    )


def test_input_round_trips_exactly() -> None:
    inp = an_input()
    text = encode_input(inp)
    assert decode_input(text) == inp
    assert encode_input(decode_input(text)) == text


def test_sets_are_written_in_one_order() -> None:
    written = encode(policy().idle)
    assert isinstance(written, dict)
    assert written["evidence"] == ["activity", "allocation", "memory", "process"]


def test_durations_are_iso_8601() -> None:
    assert encode(timedelta(days=1, seconds=5, microseconds=250_000)) == "P1DT5.250000S"
    assert encode(timedelta(seconds=30)) == "P0DT30S"


def test_what_is_no_model_value_is_refused() -> None:
    with pytest.raises(TypeError, match="object is no value"):
        encode(object())


def test_schema_accepts_what_is_recorded_and_refuses_what_is_misspelled() -> None:
    schema = input_schema()
    jsonschema.Draft202012Validator.check_schema(schema)
    recorded = json.loads(encode_input(an_input()))
    jsonschema.validate(recorded, schema)
    recorded["snapshot"]["gpus"][0]["reading"]["modle"] = None
    with pytest.raises(jsonschema.ValidationError, match="modle"):
        jsonschema.validate(recorded, schema)


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        (("now_monotonic",), "soon", "now_monotonic: Input should be a valid number"),
        (("snapshot", "gpus"), 3, "snapshot.gpus: Input should be a valid array"),
        (("snapshot", "boot"), "x", "snapshot.boot: unknown field"),
        (("policy", "rules", 0, "minimun"), 1, "policy.rules.0.minimun: unknown field"),
        (("snapshot", "gpus", 0, "reading", "mig_enabled"), "yes", "should be a valid boolean"),
    ],
)
def test_reading_an_input_names_the_place_that_is_wrong(
    path: tuple[str | int, ...], value: object, message: str
) -> None:
    raw = json.loads(encode_input(an_input()))
    place = raw
    for key in path[:-1]:
        place = place[key]
    place[path[-1]] = value
    with pytest.raises(ParseError, match=message):
        decode_input(json.dumps(raw))


def test_reading_something_else_than_json_is_refused() -> None:
    with pytest.raises(ParseError, match="Invalid JSON"):
        decode_input("mode: observe")


def test_reading_an_illegal_layout_is_refused() -> None:
    past = GpuHistory(gpu_uuid=uuid(), wanted=layout(A100, "3g@0 3g@4"))
    inp = replace(an_input(), history=History(gpus=(past,)))
    text = encode_input(inp).replace('"start":4', '"start":2')
    with pytest.raises(ParseError, match="overlaps"):
        decode_input(text)


def test_recorded_decision_gives_its_input_back() -> None:
    store = Store.open(None, FixedClock())
    inp = an_input()
    held = store.record_decision(inp, a_decision(Hold(reason=GateReason.MODE, explanation="-")))
    acted = store.record_decision(inp, a_decision())
    assert decode_input(store.decision_input_text(held)) == inp
    assert store.decision_text(acted) == encode_decision(a_decision())
    assert [(d.seq, d.kind, d.reason, d.at) for d in store.decisions(9)] == [
        (2, "plan", "", inp.now),
        (1, "hold", "mode", inp.now),
    ]
    assert store.decisions(1)[0].sentence == "making 1 x 3g.20gb"
    with pytest.raises(NotFound, match="no decision 7"):
        store.decision_input_text(7)


def test_retention_drops_the_oldest_by_number_and_by_size() -> None:
    store = Store.open(None, FixedClock())
    for _ in range(6):
        store.record_decision(an_input(1), a_decision())
    one = store._db.rows("SELECT length(input) + length(decision) FROM decisions")[0][0]
    assert store.prune_decisions(keep=4) == 2
    assert store.prune_decisions(keep=4, keep_bytes=3 * one) == 1
    assert [d.seq for d in store.decisions(9)] == [6, 5, 4]


def test_recorded_input_of_eight_gpus_stays_small() -> None:
    store = Store.open(None, FixedClock())
    store.record_decision(an_input(8), a_decision())
    assert store._db.rows("SELECT length(input) FROM decisions")[0][0] < 8_192
