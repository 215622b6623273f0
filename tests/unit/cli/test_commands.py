"""Each command asks the node for the right thing and prints its answer; options have twins."""

import json
from pathlib import Path

import pytest

from migscaler.cli.main import cli
from migscaler.errors import CommandRefused, ConfigError, Finding, NotFound, ParseError
from migscaler.store.codec import encode
from tests.builders import A100, gpu_state, snapshot
from tests.unit.cli.conftest import Json, Terminal


def test_hold_asks_for_an_instance_with_expiry(terminal: Terminal) -> None:
    terminal.replies(hold={"hold_id": 7})

    result = terminal.run("hold", "3", "3g.20gb@4", "--reason", "measuring", "--ttl", "2h")

    assert terminal.node.asked == [
        ("hold", {"gpu": 3, "spec": "3g.20gb@4", "reason": "measuring", "ttl_seconds": 7200.0})
    ]
    assert result.stdout == "hold 7 is in force; end it with: migscaler release 7\n"


def test_release_names_the_hold(terminal: Terminal) -> None:
    terminal.replies(release={"released": 7})

    assert terminal.run("release", "7").stdout == "hold 7 ended\n"
    assert terminal.node.asked == [("release", {"hold_id": 7})]


def test_holds_lists_leases_too(terminal: Terminal) -> None:
    row = {"hold_id": 4, "kind": "lease", "gpu": None, "spec": "1g.5gb@0", "owner": "ada"}
    terminal.replies(holds={"holds": [row]})

    assert terminal.run("holds").stdout.splitlines()[1].split() == [
        "4", "lease", "-", "1g.5gb@0", "ada", "-", "-",
    ]  # fmt: skip


def test_pause_needs_a_reason(terminal: Terminal) -> None:
    assert terminal.run("pause").exit_code == 2


def test_pause_without_driver_release_works_without_a_daemon(terminal: Terminal) -> None:
    terminal.has_daemon = False
    terminal.replies(pause={"paused": True, "until": None})

    assert terminal.run("pause", "--why", "upgrade").exit_code == 0
    refused = terminal.run("pause", "--why", "upgrade", "--release-driver")

    assert refused.exit_code == 1
    assert refused.stderr == ("migscaler: no daemon answers here; start one with `migscaler run`\n")


def test_demand_push_sends_counts_by_size(terminal: Terminal) -> None:
    terminal.replies(demand_push={})

    result = terminal.run("demand", "push", "queue", "1g=3", "7g=0", "--counts", "waiting")

    assert terminal.node.asked == [
        (
            "demand_push",
            {
                "source": "queue",
                "wants": {"1g": 3, "7g": 0},
                "ttl_seconds": 120.0,
                "counts": "waiting",
            },
        )
    ]
    assert result.stdout == "queue: 3 x 1g, 0 x 7g\n"


def test_demand_push_refuses_a_size_that_is_named_twice(terminal: Terminal) -> None:
    """It told of both numbers, and sent the second."""
    result = terminal.run("demand", "push", "queue", "1g=1", "1g=2")

    assert (result.exit_code, terminal.node.asked) == (2, [])
    assert "named twice" in result.stderr


def test_demand_clear_wants_one_of_two(terminal: Terminal) -> None:
    assert terminal.run("demand", "clear").exit_code == 2
    assert terminal.run("demand", "clear", "--rule", "a", "--source", "b").exit_code == 2


def test_demand_clear_says_what_became_of_it(terminal: Terminal) -> None:
    terminal.replies(demand_clear={"cleared": True})
    assert terminal.run("demand", "clear", "--rule", "small").stdout == "rule small is free again\n"
    assert "forgot what was pushed" in terminal.run("demand", "clear", "--source", "q").stdout

    terminal.replies(demand_clear={"cleared": False})
    nothing = terminal.run("demand", "clear", "--rule", "small")
    assert (nothing.exit_code, nothing.stdout) == (0, "")
    assert nothing.stderr == "rule small has no override\n"


def test_source_test_shows_rows_and_fails_on_a_problem(terminal: Terminal) -> None:
    rows = [{"labels": "profile=1g", "value": "NaN"}]
    terminal.replies(source_test={"problem": "profile=1g is NaN", "rows": rows, "reading": None})

    result = terminal.run("source", "test", "queue")

    assert result.exit_code == 1
    assert "profile=1g    NaN" in result.stdout
    assert "problem: profile=1g is NaN" in result.stdout


def test_source_test_shows_what_is_made_of_the_rows(terminal: Terminal) -> None:
    reading = {
        "counts": "waiting",
        "true_at": "2026-03-02T12:00:00+00:00",
        "expires_at": "2026-03-02T12:02:00+00:00",
        "absent_is_zero": False,
        "wants": {"1g": 3},
    }
    rows = [{"labels": "profile=1g", "value": "3"}]
    terminal.replies(source_test={"problem": None, "rows": rows, "reading": reading})

    result = terminal.run("source", "test", "queue")

    assert result.exit_code == 0
    assert result.stdout.splitlines()[-5:] == [
        "",
        "read as: 3 x 1g",
        "counts: waiting (wanted beyond those in use)",
        "a size that is not named counts as unknown",
        "true at 2026-03-02 12:00:00Z, unknown after 2026-03-02 12:02:00Z",
    ]


def test_status_sorts_by_how_long_nothing_has_run(terminal: Terminal) -> None:
    instances = [
        {"instance": "1g.5gb@0", "state": "in use"},
        {"instance": "1g.5gb@1", "state": "idle", "quiet_since": "2026-03-02T11:50:00Z"},
        {
            "instance": "2g.10gb@2",
            "state": "allocated",
            "held_unused_since": "2026-03-02T09:00:00Z",
        },
    ]
    gpu = {"index": 0, "name": "NVIDIA A100", "instances": instances}
    terminal.replies(status={"now": "2026-03-02T12:00:00Z", "gpus": [gpu]})

    by_quiet = terminal.run("status", "--sort", "quiet").stdout.splitlines()[-3:]
    by_place = terminal.run("status", "--instances").stdout.splitlines()[-3:]

    assert [line.split()[1] for line in by_quiet] == ["2g.10gb@2", "1g.5gb@1", "1g.5gb@0"]
    assert [line.split()[1] for line in by_place] == ["1g.5gb@0", "1g.5gb@1", "2g.10gb@2"]
    assert "3 h" in by_quiet[0]
    assert "10 min" in by_quiet[1]


def test_status_marks_instances_without_compute_instance(terminal: Terminal) -> None:
    instances = [
        {"instance": "3g.20gb@0", "orphan": True},
        {"instance": "3g.20gb@4", "orphan": False},
    ]
    gpu = {"index": 0, "name": "NVIDIA A100", "layout": "3g.20gb@0 3g.20gb@4"}
    terminal.replies(status={"gpus": [{**gpu, "instances": instances}]})
    said = terminal.run("status", environ={"COLUMNS": "120"}).stdout

    assert "3g.20gb@0 (orphan) 3g.20gb@4\n" in said
    assert said.endswith("\n  migscaler doctor --fix\n")

    terminal.replies(status={"gpus": [{**gpu, "instances": instances[1:]}]})
    assert "orphan" not in terminal.run("status").stdout


def test_verbose_status_lists_each_process_with_user_and_container(terminal: Terminal) -> None:
    inside = {
        "pid": 77,
        "name": "python3",
        "user": "ada",
        "memory_used_bytes": 2**30,
        "container_id": "4f797c539e6c" + 52 * "0",
        "container_runtime": "containerd",
        "pod_uid": "74ba62da-1a3d-11e7-bb11-080027cb0e22",
    }
    unknown = {"pid": 78, "container_id": 64 * "b"}
    used = {"instance": "1g.5gb@0", "state": "in use", "process_details": [inside, unknown]}
    gpu = {"index": 0, "name": "NVIDIA A100", "instances": [used]}
    terminal.replies(status={"gpus": [gpu]})

    *_, head, first, second = terminal.run("status", "-v").stdout.splitlines()

    assert head.split() == [
        "GPU",
        "instance",
        "pid",
        "process",
        "user",
        "memory",
        "container",
        "pod",
    ]
    assert first.split() == [
        "0",
        "1g.5gb@0",
        "77",
        "python3",
        "ada",
        "1024",
        "MiB",
        "containerd",
        "4f797c539e6c",
        "74ba62da-1a3d-11e7-bb11-080027cb0e22",
    ]
    assert second.split() == ["0", "1g.5gb@0", "78", "-", "-", "-", "bbbbbbbbbbbb", "-"]


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        ({}, "who runs here is told to root and the daemon's account only"),
        ({"process_details": []}, "no process on any instance"),
    ],
)
def test_verbose_status_says_why_it_lists_no_process(
    terminal: Terminal, answer: dict[str, object], said: str
) -> None:
    gpu = {"index": 0, "name": "NVIDIA A100", "instances": [{"instance": "1g.5gb@0", **answer}]}
    terminal.replies(status={"gpus": [gpu], "processes_visible": False})

    *_, blind, last = terminal.run("status", "-v").stdout.splitlines()

    assert blind.endswith("run in the host's PID namespace")
    assert last == said


def test_breaker_reset_takes_a_uuid(terminal: Terminal) -> None:
    terminal.replies(breaker_reset={})

    terminal.run("breaker", "reset", "GPU-5c89852c")

    assert terminal.node.asked == [("breaker_reset", {"gpu": "GPU-5c89852c"})]


PLAN: Json = {
    "sentence": "GPU 0: 7g.40gb@0 to 3g.20gb@0 3g.20gb@4",
    "gpu_plans": [{"gpu": 0}],
    "nvidia_smi": ["nvidia-smi mig -i 0 -dci -ci 0 -gi 0", "nvidia-smi mig -i 0 -dgi -gi 0"],
    "outcomes": [],
}


def test_apply_dry_run_prints_the_plan_and_exits_3(terminal: Terminal) -> None:
    terminal.replies(apply=PLAN)

    result = terminal.run("apply", "--gpu", "0", "--layout", "3g 3g", "--dry-run")

    assert terminal.node.asked == [("apply", {"dry_run": True, "gpu": 0, "layout": "3g 3g"})]
    assert result.exit_code == 3


def test_apply_nvidia_smi_never_acts(terminal: Terminal) -> None:
    terminal.replies(apply=PLAN)

    result = terminal.run("apply", "--nvidia-smi")

    assert terminal.node.asked == [("apply", {"dry_run": True})]
    assert result.stdout.splitlines() == PLAN["nvidia_smi"]


def test_apply_fails_if_a_gpu_failed(terminal: Terminal) -> None:
    outcome = {"gpu_uuid": "GPU-1", "outcome": "failed", "reason": "no_permission"}
    terminal.replies(apply={"outcomes": [outcome]})

    assert terminal.run("apply").exit_code == 1


@pytest.mark.parametrize("reason", ["held", "changed_underneath"])
def test_apply_fails_if_a_gpu_was_left_as_it_was(terminal: Terminal, reason: str) -> None:
    """A held GPU stayed as it was, with exit code 0."""
    outcome = {"gpu_uuid": "GPU-1", "outcome": "abandoned", "reason": reason}
    terminal.replies(apply={"outcomes": [{"gpu_uuid": "GPU-0", "outcome": "done"}, outcome]})

    assert terminal.run("apply").exit_code == 1


def test_apply_settle_is_fine_where_a_plan_was_put_back(terminal: Terminal) -> None:
    terminal.replies(settle={"outcomes": [{"gpu_uuid": "GPU-1", "outcome": "abandoned"}]})

    assert terminal.run("apply", "--settle").exit_code == 0


def test_apply_layout_needs_a_gpu(terminal: Terminal) -> None:
    assert terminal.run("apply", "--layout", "3g 3g").exit_code == 2


def test_apply_settle_dry_run_exits_3_if_something_is_open(terminal: Terminal) -> None:
    terminal.replies(settle={"outcomes": [{"gpu_uuid": "GPU-1", "outcome": "abandoned"}]})

    assert terminal.run("apply", "--settle", "--dry-run").exit_code == 3
    assert terminal.node.asked == [("settle", {"dry_run": True})]


def test_refusal_is_one_line_with_exit_code_1(terminal: Terminal) -> None:
    terminal.replies(release=NotFound("no hold 9; `migscaler holds` lists them"))

    result = terminal.run("release", "9")

    assert result.exit_code == 1
    assert result.stderr == "migscaler: no hold 9; `migscaler holds` lists them\n"
    assert result.stdout == ""


def test_unreadable_argument_is_wrong_usage(terminal: Terminal) -> None:
    terminal.replies(hold=ParseError("'x' is not an instance"))

    assert terminal.run("hold", "0", "x", "--reason", "y").exit_code == 2


def test_bad_configuration_is_told_finding_by_finding(terminal: Terminal) -> None:
    found = Finding(where="rules[0].size", problem="'9q' is no size", remedy="write 1g", line=4)
    terminal.replies(resume=ConfigError("a.yaml", (found,)))

    assert terminal.run("resume").stderr == (
        "migscaler: a.yaml can't be used:\n  line 4: rules[0].size: '9q' is no size; write 1g\n"
    )


def test_debug_lets_the_error_through(terminal: Terminal) -> None:
    terminal.replies(resume=CommandRefused("no"))

    assert isinstance(terminal.run("--debug", "resume").exception, CommandRefused)


@pytest.mark.parametrize(
    "words",
    [
        ("status",), ("plan",), ("explain",), ("history",), ("holds",), ("resume",),
        ("release", "1"), ("demand", "show"), ("breaker", "reset", "0"), ("apply", "--settle"),
    ],
)  # fmt: skip
def test_output_json_is_the_answer_itself(terminal: Terminal, words: tuple[str, ...]) -> None:
    command = {"demand": "demand", "breaker": "breaker_reset", "apply": "settle"}
    answer: Json = {"lines": [], "wanted": []}
    terminal.replies(**{command.get(words[0], words[0]): answer})

    result = terminal.run(*words, "--output", "json")

    assert json.loads(result.stdout) == answer


def test_every_option_has_an_environment_twin(terminal: Terminal) -> None:
    terminal.replies(hold={"hold_id": 1}, holds={"holds": []})

    terminal.run("hold", "0", environ={"MIGSCALER_HOLD_REASON": "why", "MIGSCALER_HOLD_TTL": "1m"})
    as_json = terminal.run("holds", environ={"MIGSCALER_OUTPUT": "json"})

    assert terminal.node.asked[0] == ("hold", {"gpu": 0, "reason": "why", "ttl_seconds": 60.0})
    assert json.loads(as_json.stdout) == {"holds": []}


def test_every_command_of_the_help_exists(terminal: Terminal) -> None:
    names = cli.list_commands(None)  # type: ignore[arg-type]  # it needs no context

    for name in names:
        assert terminal.run(name, "--help").exit_code == 0, name
    assert len(names) == 24


def test_unknown_command_is_wrong_usage(terminal: Terminal) -> None:
    assert terminal.run("frobnicate").exit_code == 2


UNREAD = "the GPUs can't be read: nvmlInit answered LIBRARY_NOT_FOUND (12)"
RELEASED = "the GPUs were last read 20 s ago: the driver is released until `migscaler resume`"


def test_status_without_any_reading_says_why(terminal: Terminal) -> None:
    """It drew an empty table below `nothing was decided yet`."""
    terminal.replies(status={"gpus": [], "snapshot_problem": UNREAD})

    assert terminal.run("status").stdout.splitlines() == [
        "nothing was decided yet",
        f"{UNREAD}; see `migscaler doctor`",
    ]


def test_layouts_without_any_reading_fail_with_why(terminal: Terminal) -> None:
    terminal.replies(status={"gpus": [], "snapshot_problem": UNREAD})

    result = terminal.run("layouts")

    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr == f"migscaler: {UNREAD}; see `migscaler doctor`\n"


@pytest.mark.parametrize("command", ["layouts", "plan", "explain", "export"])
def test_commands_that_show_an_old_picture_say_so(terminal: Terminal, command: str) -> None:
    """With the driver released they showed the old picture without a word."""
    old = {"snapshot_problem": RELEASED}
    terminal.replies(
        status={"gpus": [{"index": 0}], **old},
        plan={"sentence": "Hold: paused", **old},
        explain={"lines": ["Hold: paused"], **old},
        snapshot={"snapshot": encode(snapshot(gpu_state(A100, "7g@0"))), **old},
    )

    result = terminal.run(command)

    assert result.stderr == f"migscaler: an old picture: {RELEASED}\n"
    assert result.stdout


CHANGE: Json = {
    "plan_id": "20261123T162231-0-1",
    "gpu": 1,
    "gpu_uuid": "GPU-eab37217-0000",
    "before": "1g.5gb@0",
    "after": "1g.5gb@0 1g.5gb@1",
    "begun_at": "2026-11-23T16:22:31+00:00",
    "outcome": "done",
}


def test_history_shows_changes_also_where_nothing_was_decided(terminal: Terminal) -> None:
    """What was applied without a daemon was in the JSON only."""
    terminal.replies(history={"decisions": [], "gpu_plans": [CHANGE]})

    result = terminal.run("history")

    assert result.stderr == "nothing was decided yet\n"
    assert [line.split("  ") for line in result.stdout.splitlines()][1][:2] == [
        "2026-11-23 16:22:31Z",
        "1",
    ]
    assert "20261123T162231-0-1" in result.stdout


def test_gpu_that_is_gone_is_named_by_its_uuid(terminal: Terminal) -> None:
    terminal.replies(history={"gpu_plans": [{**CHANGE, "gpu": None}]})

    assert "  GPU-eab37217  " in terminal.run("history").stdout


@pytest.mark.parametrize(
    ("enabled", "pending", "layout", "said"),
    [
        (True, False, "7g.40gb@0", "7g.40gb@0 (MIG goes off at the next reset)"),
        (False, True, None, "- (MIG goes on at the next reset)"),
        (True, True, "7g.40gb@0", "7g.40gb@0"),
        (None, None, None, "-"),
    ],
)
def test_switch_of_mig_that_waits_for_a_reset_is_shown(
    terminal: Terminal, enabled: bool | None, pending: bool | None, layout: str | None, said: str
) -> None:
    gpu = {"index": 0, "mig_enabled": enabled, "mig_pending": pending, "layout": layout}
    terminal.replies(status={"gpus": [gpu]})

    assert terminal.run("status").stdout.splitlines()[-1].endswith(f"  {said}")
    assert terminal.run("layouts").stdout.splitlines()[-1].endswith(f"  {said}")


def test_status_says_how_old_the_decision_is(terminal: Terminal) -> None:
    """For up to a tick it lacked two instances that the strips below showed."""
    terminal.replies(
        status={
            "now": "2026-03-02T12:00:12Z",
            "decision": {"at": "2026-03-02T12:00:00Z", "sentence": "Hold: small lacks 2 x 2g"},
        }
    )

    assert terminal.run("status").stdout == "Hold: small lacks 2 x 2g (12 s ago)\n"


def test_demand_shows_until_when_a_number_holds(terminal: Terminal) -> None:
    row = {"source": "override:small", "known": True, "expires_at": "2026-03-02T12:30:00+00:00"}
    terminal.replies(demand={"sources": [row]})

    header, line = terminal.run("demand", "show").stdout.splitlines()
    assert header.endswith("until")
    assert line.endswith("2026-03-02 12:30:00Z")


@pytest.mark.parametrize("layout", ["", "  "])
def test_apply_of_no_instance_is_wrong_usage(terminal: Terminal, layout: str) -> None:
    result = terminal.run("apply", "--gpu", "0", "--layout", layout)

    assert result.exit_code == 2
    assert result.stderr.splitlines()[-1].endswith(
        '--layout names at least one instance, e.g. "3g 3g" or 7g'
    )


def test_simulated_node_takes_driver_versions_only(terminal: Terminal, tmp_path: Path) -> None:
    """It was an unexpected ValueError."""
    words = ("sim", "build", "--directory", str(tmp_path / "node"), "H100")

    refused = terminal.run(*words, "--driver", "foo")
    built = terminal.run(*words)

    assert (refused.exit_code, built.exit_code) == (2, 0)
    assert "'foo' is not a driver version, e.g. 550.54.14" in refused.stderr
    assert built.stdout.startswith("1 GPU, driver 550.54.14")
