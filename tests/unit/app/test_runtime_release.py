"""A released driver is released between plans, and taken up again when the pause is over."""

import threading
from pathlib import Path

from tests.unit.app.nodes import ENFORCE, node_at_work


def test_driver_is_not_released_in_the_middle_of_a_plan(tmp_path: Path) -> None:
    """The executor found the GPU unreadable and left it half changed."""
    with node_at_work(tmp_path, "3g@0 3g@4", config=ENFORCE) as here:
        asker = threading.Thread(
            target=here.ask, args=("pause",), kwargs={"why": "x", "release_driver": True}
        )

        def plan_under_way() -> list[str]:
            asker.start()
            while here.store.pause() is None:
                pass
            asker.join(0.1)
            return list(here.told)

        assert here.runtime.loop.between_ticks(plan_under_way) == []
        asker.join(10.0)
        assert here.told == ["release"]


def test_driver_is_taken_up_again_when_the_pause_runs_out(tmp_path: Path) -> None:
    """Nobody did, not even `resume`: what it asked was a pause that was over."""
    with node_at_work(tmp_path, "3g@0 3g@4", config=ENFORCE) as here:
        here.ask("pause", why="driver update", for_seconds=600, release_driver=True)
        here.clock.advance(300)
        here.runtime.housekeeping()
        assert here.told == ["release"]
        here.clock.advance(301)
        here.runtime.housekeeping()
        here.runtime.housekeeping()
        assert here.told == ["release", "resume"]


def test_resume_takes_the_driver_up_after_a_second_pause_took_the_place_of_the_first(
    tmp_path: Path,
) -> None:
    with node_at_work(tmp_path, "3g@0 3g@4", config=ENFORCE) as here:
        here.ask("pause", why="driver update", release_driver=True)
        here.ask("pause", why="and now that")
        here.ask("resume")
        assert here.told == ["release", "resume"]


def test_resume_of_a_pause_that_released_nothing_leaves_the_driver_alone(tmp_path: Path) -> None:
    with node_at_work(tmp_path, "3g@0 3g@4", config=ENFORCE) as here:
        here.ask("pause", why="cabling")
        here.ask("resume")
        assert here.told == []
