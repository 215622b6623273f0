"""Commands that change GPUs: only where it is allowed, only when it is possible, dry on request."""

import json
from datetime import timedelta
from pathlib import Path
from typing import cast

import pytest

from migscaler.app.commands import table
from migscaler.app.node import Node
from migscaler.errors import CommandRefused, NotFound, ParseError
from migscaler.model.decision import GpuHistory
from tests.unit.app.nodes import ENFORCE, RECOMMEND, ROOT, node_at_work

OPENAPI = Path(__file__).parents[3] / "docs" / "openapi.json"
OBSERVED = """
mode: recommend
gpus:
  - {index: 0, mode: observe, reason: "training lane"}
  - {index: 1}
"""
PLAIN_OBSERVED = """
mode: recommend
gpus: [{index: 0, mode: observe}, {index: 1}]
"""
FIRST_UNNAMED = """
mode: recommend
gpus: [{index: 1}]
"""
ALL_OBSERVED = "mode: observe\ngpus: [{model: '*'}]\n"
DEMANDING = RECOMMEND + "rules: [{name: notebooks, size: 1g, min: 3}]\n"
TWO = "2xA100-SXM4-40GB"
ALLOW = "name it in gpus: with mode recommend or enforce to allow it"


def test_named_layout_is_carried_out_where_the_mode_is_recommend(tmp_path: Path) -> None:
    with node_at_work(tmp_path, "3g@0") as here:
        here.watch()

        answer = here.ask("apply", gpu=0, layout="3g 3g")

        assert answer["sentence"] == "GPU 0: 3g.20gb@0 to 3g.20gb@0 3g.20gb@4"
        assert answer["nvidia_smi"] == ["nvidia-smi mig -i 0 -cgi 9:4 -C"]
        assert answer["dry_run"] is False
        assert isinstance(answer["outcomes"], list)
        assert [outcome["outcome"] for outcome in answer["outcomes"]] == ["done"]
        assert here.layout() == "3g.20gb@0 3g.20gb@4"


def test_dry_run_shows_the_same_and_calls_nothing(tmp_path: Path) -> None:
    with node_at_work(tmp_path, "3g@0") as here:
        here.watch()

        answer = here.ask("apply", gpu=0, layout="3g 3g", dry_run=True)

        assert answer["sentence"] == "GPU 0: 3g.20gb@0 to 3g.20gb@0 3g.20gb@4"
        assert (answer["outcomes"], answer["dry_run"]) == ([], True)
        assert here.our_calls() == []


def test_layout_that_is_there_already_is_fine(tmp_path: Path) -> None:
    with node_at_work(tmp_path, "3g@0 3g@4") as here:
        here.watch()

        answer = here.ask("apply", gpu=0, layout="3g 3g")

        assert answer["sentence"] == "GPU 0 has that layout already"
        assert (answer["gpu_plans"], answer["outcomes"], answer["nvidia_smi"]) == ([], [], [])


@pytest.mark.parametrize(
    ("config", "why"),
    [
        (OBSERVED, "training lane"),
        (PLAIN_OBSERVED, "its mode is observe"),
        (FIRST_UNNAMED, "its mode is observe"),
    ],
)
@pytest.mark.parametrize("dry_run", [True, False])
def test_gpu_in_observe_or_unnamed_is_left_alone(
    tmp_path: Path, config: str, why: str, dry_run: bool
) -> None:
    with node_at_work(tmp_path, "7g@0", "7g@0", config=config, spec=TWO) as here:
        here.watch()

        with pytest.raises(CommandRefused) as refusal:
            here.ask("apply", gpu=0, layout="3g 3g", dry_run=dry_run)

        assert str(refusal.value) == f"GPU 0 is left alone ({why}); {ALLOW}"
        assert here.our_calls() == []


@pytest.mark.parametrize("dry_run", [True, False])
def test_hold_asked_for_since_the_last_reading_binds_also_the_dry_run(
    tmp_path: Path, dry_run: bool
) -> None:
    with node_at_work(tmp_path, "3g@0") as here:
        here.watch()
        here.ask("hold", gpu=0, reason="measuring")

        with pytest.raises(CommandRefused, match="GPU 0 must stay as it is: held by root: measur"):
            here.ask("apply", gpu=0, layout="3g 3g", dry_run=dry_run)

        assert here.our_calls() == []


@pytest.mark.parametrize("dry_run", [True, False])
def test_gpu_without_mig_is_named_with_what_to_do_first(tmp_path: Path, dry_run: bool) -> None:
    with node_at_work(tmp_path, mig=False) as here:
        here.watch()

        with pytest.raises(CommandRefused, match="is off; first: migscaler mig-mode on --gpu 0"):
            here.ask("apply", gpu=0, layout="3g 3g", dry_run=dry_run)


def test_present_plan_is_carried_out_although_the_mode_only_recommends(tmp_path: Path) -> None:
    with node_at_work(tmp_path, "3g@0 3g@4", config=DEMANDING) as here:
        here.watch(120)

        planned = here.ask("plan")
        dry = here.ask("apply", dry_run=True)
        calls = here.our_calls()
        answer = here.ask("apply")

        assert (planned["outcome"], planned["reason"]) == ("hold", "mode")
        assert (dry["outcome"], dry["outcomes"], calls) == ("plan", [], [])
        assert isinstance(answer["outcomes"], list)
        assert [outcome["outcome"] for outcome in answer["outcomes"]] == ["done"]
        assert here.layout().count("1g.5gb") == 3


def test_apply_without_anything_to_do_is_a_hold(tmp_path: Path) -> None:
    with node_at_work(tmp_path, "3g@0 3g@4") as here:
        here.watch()

        answer = here.ask("apply")

        assert (answer["outcome"], answer["reason"], answer["outcomes"]) == (
            "hold",
            "satisfied",
            [],
        )


def test_pause_stands_above_apply(tmp_path: Path) -> None:
    with node_at_work(tmp_path, "3g@0") as here:
        here.watch()
        here.ask("pause", why="driver upgrade")

        with pytest.raises(CommandRefused) as refusal:
            here.ask("apply", gpu=0, layout="3g 3g")

        assert str(refusal.value) == ("paused by root: driver upgrade; `migscaler resume` first")
        assert here.our_calls() == []


def test_node_that_is_only_observed_says_what_to_set(tmp_path: Path) -> None:
    words = "every GPU is only observed; set mode: recommend or enforce for those that may change"
    with node_at_work(tmp_path, "3g@0", config=ALL_OBSERVED) as here:
        here.watch()

        for name, arguments in (
            ("settle", {}),
            ("mig_mode", {"gpus": [0], "enabled": True}),
        ):
            with pytest.raises(CommandRefused) as refusal:
                here.runtime.commands.execute(name, dict(arguments), ROOT)
            assert str(refusal.value) == words


def test_settle_without_open_plans_has_nothing_to_tell(tmp_path: Path) -> None:
    with node_at_work(tmp_path, "3g@0", config=ALL_OBSERVED) as here:
        here.watch()

        assert here.ask("settle", dry_run=True) == {"outcomes": [], "dry_run": True}


def test_mig_mode_goes_one_gpu_after_the_other(tmp_path: Path) -> None:
    with node_at_work(tmp_path, spec="2xH100-80GB", mig=False) as here:
        here.watch()

        answer = here.ask("mig_mode", gpus=[0, 1], enabled=True, layout="3g 3g")

        assert isinstance(answer["results"], list)
        assert [(one["gpu"], one["active"], one["message"]) for one in answer["results"]] == [
            (0, True, "MIG is on with 3g.40gb@0 3g.40gb@4"),
            (1, True, "MIG is on with 3g.40gb@0 3g.40gb@4"),
        ]
        record = here.store.generation(here.uuid(1))
        assert record is not None
        assert record.mig_mode_wanted is True


def test_mig_mode_names_every_gpu_before_it_switches_one(tmp_path: Path) -> None:
    with node_at_work(tmp_path, spec="2xH100-80GB", mig=False) as here:
        here.watch()

        with pytest.raises(NotFound):
            here.ask("mig_mode", gpus=[0, 7], enabled=True)

        assert [gpu.mig_current for gpu in here.node.state.gpus] == [0, 0]


def test_breaker_reset_says_whether_it_was_open(tmp_path: Path) -> None:
    with node_at_work(tmp_path, "7g@0") as here:
        here.watch()
        open_until = here.clock.now() + timedelta(hours=1)
        past = GpuHistory(
            gpu_uuid=here.uuid(), failures_in_row=2, breaker_trips=1, breaker_open_until=open_until
        )
        here.store.update_gpu_history(here.uuid(), lambda _before: past)

        first = here.ask("breaker_reset", gpu=0)
        second = here.ask("breaker_reset", gpu=0)

        assert (first, second) == (
            {"gpu": 0, "was_open": True},
            {"gpu": 0, "was_open": False},
        )
        assert here.shown[-1].gpu_histories == (GpuHistory(gpu_uuid=here.uuid()),)


def test_unknown_command_lists_what_there_is(tmp_path: Path) -> None:
    with node_at_work(tmp_path, "7g@0") as here:
        with pytest.raises(NotFound) as problem:
            here.ask("frobnicate")

        assert str(problem.value).startswith("no command 'frobnicate'; there are apply, ")
        assert len(here.runtime.commands.names()) == 29


@pytest.mark.parametrize(
    ("name", "arguments", "sentence"),
    [
        ("apply", {"layout": "3g 3g"}, "apply: gpu must be a GPU's index or UUID, got nothing"),
        ("apply", {"dry_run": 1}, "apply: dry_run must be true or false, got 1"),
        ("apply", {"gpu": 0}, "apply: gpu goes with layout; without one the plan is for all GPUs"),
        ("apply", {"dryrun": True}, "apply takes no argument 'dryrun'; did you mean dry_run?"),
        ("mig_mode", {"gpus": [0]}, "mig_mode: enabled must be true or false, got nothing"),
        (
            "mig_mode",
            {"enabled": True},
            "mig_mode: gpus must be a list of GPU indices or UUIDs, got nothing",
        ),
        ("resume", {"gpu": 0}, "resume takes no argument 'gpu'; it takes none"),
        (
            "demand_clear",
            {"rule": "notebooks", "source": "desk"},
            "demand_clear: source can't be cleared together with rule; give one of them",
        ),
        (
            "breaker_reset",
            {},
            "breaker_reset: gpu must be a GPU's index or UUID, got nothing",
        ),
        ("hold", {"gpu": 0}, "hold: reason must be a text, got nothing"),
        ("release", {}, "release: hold_id must be a whole number, got nothing"),
        ("pause", {}, "pause: why must be a text, got nothing"),
        ("demand_push", {}, "demand_push: source must be a text, got nothing"),
        ("demand_override", {}, "demand_override: rule must be a text, got nothing"),
        ("demand_clear", {}, "demand_clear: source must be a text, got nothing"),
        ("lease_take", {}, "lease_take: size must be a text, got nothing"),
        ("lease_poll", {}, "lease_poll: wait_id must be a whole number, got nothing"),
        ("decision", {}, "decision: id must be a whole number, got nothing"),
        ("source_test", {}, "source_test: source must be a text, got nothing"),
        ("history", {"limit": "x"}, "history: limit must be a whole number, got 'x'"),
        ("history", {"limit": 10**30}, f"history: limit must be a whole number, got {10**30}"),
        ("history", {"limit": -1}, "history: limit must be 1 to 10000, got -1"),
        ("history", {"limit": 0}, "history: limit must be 1 to 10000, got 0"),
    ],
)
def test_missing_or_unknown_argument_is_told_in_one_sentence(
    tmp_path: Path, name: str, arguments: dict[str, object], sentence: str
) -> None:
    with node_at_work(tmp_path, "7g@0", config=ENFORCE) as here:
        here.watch(5)

        with pytest.raises(ParseError) as problem:
            here.runtime.commands.execute(name, arguments, ROOT)

        assert str(problem.value) == sentence
        assert here.our_calls() == []


def test_what_a_command_takes_is_what_it_reads() -> None:
    """openapi.json is read off the code that carries commands out (test_web_fuzz compares)."""
    commands = table(cast("Node", None))
    taken = {name: sorted(one.takes) for name, one in commands.items()}

    paths = json.loads(OPENAPI.read_text())["paths"]
    bodies = {path.rpartition("/")[2]: one["post"] for path, one in paths.items() if "post" in one}
    read = {
        name: sorted(body["requestBody"]["content"]["application/json"]["schema"]["properties"])
        for name, body in bodies.items()
    }
    assert taken == read
