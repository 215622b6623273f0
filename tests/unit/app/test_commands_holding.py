"""Holds, pause and demand that people give."""

from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest

from migscaler.errors import CommandRefused, NotFound, ParseError
from migscaler.model.gpu import PinReason
from migscaler.web.ports import Actor
from tests.unit.app.nodes import RECOMMEND, ROOT, NodeAtWork, node_at_work

DEMANDING = (
    RECOMMEND
    + """
sources: {told: {type: push, counts: total}}
rules: [{name: notebooks, size: 1g, from: [told], max: 7}]
"""
)


def wants(here: NodeAtWork) -> dict[str, object]:
    """What each source says now, as the command shows it."""
    answer = here.ask("demand")["sources"]
    assert isinstance(answer, list)
    return {one["source"]: (one["known"], one["counts"], one["wants"]) for one in answer}


def test_hold_of_an_instance_pins_it_for_its_time(tmp_path: Path) -> None:
    with node_at_work(tmp_path, "3g@0 3g@4") as here:
        here.watch()

        answer = here.ask("hold", gpu=0, spec="3g@4", reason="measuring", ttl_seconds=120)

        assert answer == {
            "hold_id": 1,
            "kind": "hold",
            "gpu_uuid": here.uuid(),
            "spec": "3g.20gb@4",
            "owner": "root",
            "reason": "measuring",
            "expires_at": "2026-03-02T12:03:00+00:00",
        }
        here.watch(5)
        held = [state.pin for state in here.shown[-1].snapshot.gpus[0].instances or ()]  # type: ignore[union-attr]  # it was sampled
        here.watch(120)
        over = [state.pin for state in here.shown[-1].snapshot.gpus[0].instances or ()]  # type: ignore[union-attr]  # it was sampled
        assert (held, over) == ([None, PinReason.HELD], [None, None])


def test_hold_of_a_whole_gpu_lasts_until_released(tmp_path: Path) -> None:
    with node_at_work(tmp_path, "3g@0") as here:
        here.watch()

        held = here.ask("hold", gpu=0, reason="benchmark")
        listed = here.ask("holds")
        released = here.ask("release", hold_id=1)

        assert (held["spec"], held["expires_at"]) == (None, None)
        assert isinstance(listed["holds"], list)
        assert [one["hold_id"] for one in listed["holds"]] == [1]
        assert released == {"released": 1}
        assert here.ask("holds") == {"holds": []}


def test_hold_that_is_not_there_can_not_be_released(tmp_path: Path) -> None:
    with node_at_work(tmp_path, "3g@0") as here:
        with pytest.raises(NotFound) as problem:
            here.ask("release", hold_id=9)

        assert str(problem.value) == "no hold 9; `migscaler holds` lists them"


def test_hold_of_what_no_gpu_of_the_model_has_is_a_mistake_of_the_caller(tmp_path: Path) -> None:
    with node_at_work(tmp_path, "3g@0") as here:
        here.watch(5)

        with pytest.raises(ParseError):
            here.ask("hold", gpu=0, spec="9g@0", reason="x")


def test_pause_is_kept_with_who_why_and_until(tmp_path: Path) -> None:
    unknown = Actor(name="uid 4000000000", trusted=True, uid=4_000_000_000)
    with node_at_work(tmp_path, "3g@0") as here:
        answer = here.ask_as(unknown, "pause", why="upgrade", for_seconds=600)

        pause = here.store.pause()
        assert answer == {
            "paused": True,
            "until": "2026-03-02T12:10:00+00:00",
            "driver_released": False,
        }
        assert pause is not None
        assert (pause.who, pause.why, pause.until) == (
            "uid 4000000000",
            "upgrade",
            here.clock.now() + timedelta(minutes=10),
        )
        assert here.shown[-1].pause == pause


@pytest.mark.parametrize(
    ("actor", "who"), [(ROOT, "root"), (Actor(name="user ada", trusted=True), "user ada")]
)
def test_pause_tells_an_account_by_its_name(actor: Actor, who: str, tmp_path: Path) -> None:
    with node_at_work(tmp_path, "3g@0") as here:
        here.ask_as(actor, "pause", why="upgrade")

        pause = here.store.pause()
        assert pause is not None
        assert pause.who == who


def test_resume_says_whether_there_was_a_pause(tmp_path: Path) -> None:
    with node_at_work(tmp_path, "3g@0") as here:
        here.ask("pause", why="upgrade")

        assert here.ask("resume") == {"paused": False, "was_paused": True}
        assert here.ask("resume") == {"paused": False, "was_paused": False}
        assert here.store.pause() is None


def test_driver_is_released_and_taken_up_again_only_if_it_was_asked_for(tmp_path: Path) -> None:
    with node_at_work(tmp_path, "3g@0") as here:
        here.ask("pause", why="looking")
        here.ask("resume")
        plain = list(here.told)
        here.ask("pause", why="upgrade", release_driver=True)
        here.ask("resume")

        assert plain == []
        assert here.told == ["release", "resume"]


def test_pushed_demand_holds_for_its_time(tmp_path: Path) -> None:
    with node_at_work(tmp_path, "3g@0", config=DEMANDING) as here:
        answer = here.ask("demand_push", source="told", wants={"1g": 3}, ttl_seconds=60)
        now = wants(here)["told"]
        here.clock.advance(60)

        assert answer == {"source": "told", "expires_at": "2026-03-02T12:01:00+00:00"}
        assert now == (True, "total", {"1g": 3})
        assert wants(here)["told"] == (False, "total", {"1g": 3})


def test_push_says_itself_what_its_numbers_count(tmp_path: Path) -> None:
    with node_at_work(tmp_path, "3g@0", config=DEMANDING) as here:
        here.ask("demand_push", source="told", wants={"1g": 3}, ttl_seconds=60, counts="waiting")

        assert wants(here)["told"] == (True, "waiting", {"1g": 3})
        with pytest.raises(CommandRefused, match=r"^counts is waiting or total, not 'all'$"):
            here.ask("demand_push", source="told", wants={"1g": 3}, ttl_seconds=60, counts="all")


def test_push_to_a_source_that_is_not_one_lists_what_there_is(tmp_path: Path) -> None:
    with node_at_work(tmp_path, "3g@0", config=DEMANDING) as here:
        with pytest.raises(NotFound) as problem:
            here.ask("demand_push", source="queue", wants={"1g": 3}, ttl_seconds=60)

        assert str(problem.value) == "no source 'queue' of type push; configured: told"


def test_push_of_what_is_no_size_is_a_mistake_of_the_caller(tmp_path: Path) -> None:
    """It was taken, and stood in `demand show` as a want that nothing could ever serve."""
    with node_at_work(tmp_path, "3g@0", config=DEMANDING) as here:
        with pytest.raises(ParseError, match=r"^'9q' is neither a size class"):
            here.ask("demand_push", source="told", wants={"1g": 3, "9q": 1}, ttl_seconds=60)

        assert wants(here)["told"] == (False, None, {})


def test_clear_of_a_source_that_is_not_one_lists_what_there_is(tmp_path: Path) -> None:
    with node_at_work(tmp_path, "3g@0", config=DEMANDING) as here:
        with pytest.raises(NotFound) as problem:
            here.ask("demand_clear", source="tolled")

        assert str(problem.value) == "no source 'tolled' of type push; configured: told"
        assert here.ask("demand_clear", source="told") == {"cleared": False}


def test_override_stands_beside_the_sources_until_cleared(tmp_path: Path) -> None:
    with node_at_work(tmp_path, "3g@0", config=DEMANDING) as here:
        answer = here.ask("demand_override", rule="notebooks", count=5, ttl_seconds=3600)
        standing = wants(here)
        cleared = here.ask("demand_clear", rule="notebooks")

        assert answer == {
            "rule": "notebooks",
            "count": 5,
            "expires_at": "2026-03-02T13:00:00+00:00",
        }
        assert standing["override:notebooks"] == (True, "total", {"1g": 5})
        assert cleared == {"cleared": True}
        assert "override:notebooks" not in wants(here)
        assert here.ask("demand_clear", rule="notebooks") == {"cleared": False}


def test_override_of_no_rule_or_below_zero_is_refused(tmp_path: Path) -> None:
    with node_at_work(tmp_path, "3g@0", config=DEMANDING) as here:
        with pytest.raises(NotFound, match=r"^no rule 'nights'; configured: notebooks$"):
            here.ask("demand_override", rule="nights", count=5, ttl_seconds=60)
        for count in (-1, 10_001, 10**30):
            with pytest.raises(ParseError, match=r"^demand_override: count must be a "):
                here.ask("demand_override", rule="notebooks", count=count, ttl_seconds=60)


def test_brake_that_ends_with_the_daemon_says_so(tmp_path: Path) -> None:
    """Kept in memory only, it was said to last until it is taken away."""
    with node_at_work(tmp_path, "7g@0") as here:
        here.watch(5)
        assert "not_kept" not in here.ask("pause", why="kernel")
        loop = here.runtime.loop
        loop.reconfigure(
            replace(loop.parts, config=replace(loop.parts.config, state_problem="disk gone"))
        )

        assert here.ask("pause", why="kernel")["not_kept"] == "disk gone"
        assert here.ask("hold", gpu=0, reason="kernel")["not_kept"] == "disk gone"
        assert "not_kept" not in here.ask("holds")
