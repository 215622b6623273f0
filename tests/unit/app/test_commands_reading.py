"""Commands that only look."""

import json
from pathlib import Path

import pytest

from migscaler.errors import NotFound
from tests.unit.app.nodes import ENFORCE, RECOMMEND, node_at_work

DEMANDING = (
    RECOMMEND
    + """
sources: {told: {type: push, counts: waiting}}
rules: [{name: notebooks, size: 1g, from: [told], min: 3}]
"""
)


def test_plan_says_what_is_wanted_and_why_it_is_not_done(tmp_path: Path) -> None:
    with node_at_work(tmp_path, "3g@0 3g@4", config=DEMANDING) as here:
        here.watch(120)

        answer = here.ask("plan")

        assert (answer["outcome"], answer["reason"], answer["gpu_plans"]) == ("hold", "mode", [])
        assert isinstance(answer["wanted"], list)
        assert [one["gpu"] for one in answer["wanted"]] == [0]
        assert here.our_calls() == []
        assert here.store.decisions(10) == ()


def test_sources_that_were_never_asked_are_asked_for_a_plan(tmp_path: Path) -> None:
    """A command without a daemon once found every source unknown, and so planned nothing."""
    with node_at_work(tmp_path, "3g@0", config=DEMANDING) as here:
        here.runtime.loop.sample()
        here.ask("demand_push", source="told", wants={"1g": 1}, ttl_seconds=60)

        answer = here.ask("plan")

        assert answer["reason"] == "mode"
        assert isinstance(answer["rules"], list)
        assert [(one["rule"], one["source_unknown"]) for one in answer["rules"]] == [
            ("notebooks", [])
        ]


def test_explanation_is_lines_under_titles(tmp_path: Path) -> None:
    with node_at_work(tmp_path, "3g@0", config=DEMANDING) as here:
        here.watch(5)

        answer = here.ask("explain")

        paragraphs, lines = answer["paragraphs"], answer["lines"]
        assert isinstance(paragraphs, list)
        assert isinstance(lines, list)
        assert lines[0] == paragraphs[0]["title"]
        assert lines[1] == f"  {paragraphs[0]['lines'][0]}"
        assert any("notebooks" in line for line in lines)


def test_history_lists_decisions_and_gpu_plans_newest_first(tmp_path: Path) -> None:
    config = ENFORCE + "rules: [{name: notebooks, size: 1g, min: 3, raise_after: 0s}]\n"
    with node_at_work(tmp_path, "3g@0 3g@4", config=config) as here:
        for _ in range(2):
            here.watch(30)
            here.runtime.loop.tick()

        answer = here.ask("history", limit=50)

        decisions, plans = answer["decisions"], answer["gpu_plans"]
        assert isinstance(decisions, list)
        assert isinstance(plans, list)
        assert [one["kind"] for one in decisions] == ["hold", "plan"]
        assert [(one["before"], one["outcome"], one["reason"]) for one in plans] == [
            ("3g.20gb@0 3g.20gb@4", "done", "completed")
        ]
        assert len(here.ask("history", limit=1)["decisions"]) == 1  # type: ignore[arg-type]  # a list


def test_recorded_decision_comes_with_its_whole_input(tmp_path: Path) -> None:
    with node_at_work(tmp_path, "3g@0", config=DEMANDING) as here:
        here.watch()
        here.runtime.loop.tick()

        answer = here.ask("decision", id=1)

        assert answer["id"] == 1
        assert isinstance(answer["input"], dict)
        assert answer["input"]["snapshot"] is not None


def test_decision_that_was_not_recorded_is_not_found(tmp_path: Path) -> None:
    with node_at_work(tmp_path, "3g@0") as here:
        with pytest.raises(NotFound) as problem:
            here.ask("decision", id=99)

        assert "99" in str(problem.value)


def test_source_is_asked_now_and_its_answer_shown(tmp_path: Path) -> None:
    with node_at_work(tmp_path, "3g@0", config=DEMANDING) as here:
        silent = here.ask("source_test", source="told")
        here.ask("demand_push", source="told", wants={"1g": 3}, ttl_seconds=60)

        answer = here.ask("source_test", source="told")

        assert silent == {
            "source": "told",
            "problem": "nothing was pushed yet",
            "rows": [],
            "reading": None,
        }
        assert answer == {
            "source": "told",
            "problem": None,
            "rows": [{"labels": "1g", "value": "3"}],
            "reading": {
                "counts": "waiting",
                "true_at": "2026-03-02T12:00:00+00:00",
                "expires_at": "2026-03-02T12:01:00+00:00",
                "absent_is_zero": True,
                "wants": {"1g": 3},
            },
        }


def test_source_that_is_not_configured_lists_what_is(tmp_path: Path) -> None:
    with node_at_work(tmp_path, "3g@0", config=DEMANDING) as here:
        with pytest.raises(NotFound) as problem:
            here.ask("source_test", source="queue")

        assert str(problem.value).startswith("no source 'queue'; configured: told")


@pytest.mark.parametrize(
    "name", ["status", "snapshot", "plan", "explain", "history", "demand", "holds", "leases"]
)
def test_every_answer_is_plain_json(tmp_path: Path, name: str) -> None:
    with node_at_work(tmp_path, "3g@0 3g@4", config=DEMANDING) as here:
        here.node.start_job(0, next(iter(here.node.state.gpus[0].instances)))
        here.watch()
        here.runtime.loop.tick()

        answer = here.ask(name)

        assert json.loads(json.dumps(answer)) == answer
