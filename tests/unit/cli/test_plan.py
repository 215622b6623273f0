"""`plan --input` decides from a file alone: a record, or a node written by hand."""

import json

import jsonschema
import pytest

from migscaler.cli.records import read_input, read_snapshot, schema_of_input
from migscaler.errors import ParseError
from migscaler.model.gpu import PinReason
from migscaler.store.codec import encode, encode_input
from tests.builders import A100, decision_input, gpu_state, policy, rule, snapshot, source_status
from tests.unit.cli.conftest import Terminal

SKETCH = """{
  "gpus": [
    {"model": "A100-SXM4-40GB", "layout": "3g@0 3g@4", "busy": "3g@0"},
    {"model": "A100-SXM4-40GB"}
  ],
  "wants": {"7g": 1, "1g": 3}
}"""


def test_plan_of_a_sketch_says_what_would_be_changed(terminal: Terminal) -> None:
    result = terminal.run("plan", "--input", "-", "--output", "json", stdin=SKETCH)

    answer = json.loads(result.stdout)
    assert result.exit_code == 3
    assert [(row["gpu"], row["before"], row["after"]) for row in answer["wanted"]] == [
        (0, "3g.20gb@0 3g.20gb@4", "3g.20gb@0 1g.5gb@4 1g.5gb@5 1g.5gb@6"),
        (1, "-", "7g.40gb@0"),
    ]
    assert terminal.node.asked == []


def test_plan_nvidia_smi_names_profile_ids_and_starts(terminal: Terminal) -> None:
    sketch = '{"gpus": [{"model": "A100-SXM4-40GB", "layout": "7g@0"}], "wants": {"3g": 2}}'

    result = terminal.run("plan", "--input", "-", "--nvidia-smi", stdin=sketch)

    assert result.stdout.splitlines() == [
        "nvidia-smi mig -i 0 -dci -ci 0 -gi 1",
        "nvidia-smi mig -i 0 -dgi -gi 1",
        "nvidia-smi mig -i 0 -cgi 9:0 -C",
        "nvidia-smi mig -i 0 -cgi 9:4 -C",
    ]


def test_plan_that_changes_nothing_exits_0(terminal: Terminal) -> None:
    sketch = '{"gpus": [{"model": "A30", "layout": "4g@0"}], "wants": {"4g": 1}}'

    assert terminal.run("plan", "--input", "-", stdin=sketch).exit_code == 0


def test_explain_of_a_sketch_names_who_is_in_the_way(terminal: Terminal) -> None:
    sketch = '{"gpus": [{"model": "A30", "layout": "1g@0", "busy": "1g@0"}], "wants": {"4g": 1}}'

    result = terminal.run("explain", "--input", "-", stdin=sketch)

    assert "in the way: GPU 0 1g.6gb@0 pinned (process)" in result.stdout


def test_recorded_input_decides_the_same_again(terminal: Terminal) -> None:
    node = snapshot(gpu_state(A100, "7g@0"), gpu_state(A100, "7g@0", index=1))
    recorded = decision_input(
        node, policy(rule("a", "1g", "queue")), source_status("queue", {"1g": 9})
    )

    first = terminal.run("plan", "--input", "-", "--output", "json", stdin=encode_input(recorded))
    again = terminal.run("plan", "--input", "-", "--output", "json", stdin=encode_input(recorded))

    assert first.exit_code == 3
    assert first.stdout == again.stdout


def test_schema_accepts_sketch_and_record_and_nothing_else() -> None:
    schema = schema_of_input()
    record = decision_input(snapshot(gpu_state(A100, "7g@0")), policy(rule()))
    check = jsonschema.Draft202012Validator(schema)

    check.validate(json.loads(SKETCH))
    check.validate(json.loads(encode_input(record)))
    assert not check.is_valid({"gpus": []})
    assert not check.is_valid({"gpus": [{"model": "A30", "layuot": "4g@0"}]})
    assert not check.is_valid({"snapshot": {}})


def test_plan_schema_is_printed(terminal: Terminal) -> None:
    assert json.loads(terminal.run("plan", "--schema").stdout) == schema_of_input()


def test_sketch_pins_what_is_busy_and_nothing_else() -> None:
    gpus = read_input(SKETCH).snapshot.gpus

    pins = [one.pin for gpu in gpus for one in gpu.instances or ()]
    assert pins == [PinReason.PROCESS, None]
    assert [str(gpu.layout) for gpu in gpus] == ["3g.20gb@0 3g.20gb@4", "-"]


@pytest.mark.parametrize(
    ("written", "problem"),
    [
        ("{", "line 1: not JSON"),
        ('{"gpus": []}', "at least one GPU"),
        ('{"gpus": [{"model": "A30", "size": 1}]}', "gpus[0]: unknown size"),
        ('{"gpus": [{"model": "A30"}], "want": {}}', "the sketch: unknown want"),
        ('{"gpus": [{"model": "A30", "count": 0}]}', "gpus[0].count must be a whole number"),
        ('{"gpus": [{"model": 30}]}', "gpus[0].model must be a text"),
        ('{"gpus": [{"model": "A30", "busy": "4g@0"}]}', "4g.24gb@0 is not in the layout"),
        ('{"gpus": [{"model": "A30", "layout": "3g@0"}]}', "no profile '3g'"),
        ('{"gpus": [{"model": "A30"}], "wants": {"1q": 1}}', "'1q' is neither a size class"),
        ('{"gpus": [{"model": "A30"}], "wants": {"1g": -1}}', "wants.1g must be a whole number"),
        ('{"snapshot": 1, "policy": {}}', "snapshot"),
    ],
)
def test_unusable_input_is_told_in_one_message(
    terminal: Terminal, written: str, problem: str
) -> None:
    result = terminal.run("plan", "--input", "-", stdin=written)

    assert result.exit_code == 2
    assert problem in result.stderr


def test_snapshot_is_read_from_any_of_the_three_files() -> None:
    node = snapshot(gpu_state(A100, "7g@0"))
    record = encode_input(decision_input(node, policy(rule())))

    assert read_snapshot(json.dumps({"snapshot": encode(node)})) == node
    assert read_snapshot(record) == node
    assert len(read_snapshot(SKETCH).gpus) == 2
    with pytest.raises(ParseError):
        read_snapshot("[]")


@pytest.mark.parametrize(
    ("written", "said"),
    [
        ('{"gpus": [{"model": "A30", "layout": "3g"}]}', "gpus[0].layout: '3g' is not an instance"),
        ('{"gpus": [{"model": "A30", "busy": "3g@0"}]}', "gpus[0].busy: NVIDIA A30 has no"),
        ('{"gpus": [{"model": "A30"}], "wants": {"9q": 1}}', "wants: '9q' is neither"),
        ("[]", "neither a recorded input (migscaler history ID --output json) nor a node"),
        ('{"policy": {}}', "neither a recorded input"),
    ],
)  # fmt: skip
def test_error_in_a_sketch_says_where(terminal: Terminal, written: str, said: str) -> None:
    result = terminal.run("plan", "--input", "-", stdin=written)

    assert result.exit_code == 2
    assert result.stderr.startswith(f"migscaler: {said}")
