"""What a loop tells of windows, driver and collectors, for those who watch it."""

import threading
from dataclasses import replace
from datetime import timedelta

from migscaler.control.gather import Gatherer
from migscaler.model.demand import VetoStatus
from migscaler.model.stats import SchedulerStats
from migscaler.model.status import ConfigStatus
from migscaler.sim.codes import Code
from migscaler.sim.faults import fails
from tests.unit.control.room import room


class Silent:
    """A veto whose server does not answer."""

    def fetch_veto(self) -> VetoStatus:
        return VetoStatus(name="maintenance", active=None, explanation="connection refused")


def test_window_edge_is_the_next_change_of_any_window() -> None:
    with room("7g@0") as made:
        now = made.clock.now()
        soon, later = now + timedelta(minutes=5), now + timedelta(minutes=9)
        windows = tuple(f"mon-sun {at:%H:%M}-23:59" for at in (later, soon))
        loop = made.loop(windows=windows)
        loop.sample()
        before = loop.window_edge()
        loop.tick()
        edge = loop.window_edge()

    assert before is None
    assert edge is not None
    assert edge == soon.replace(second=0, microsecond=0)


def test_library_and_driver_of_two_versions_are_told_and_counted() -> None:
    with room("7g@0") as made:
        loop = made.loop()
        loop.sample()
        alike = loop.status().driver_mismatch
        made.node.add_fault(fails("nvmlDeviceGetCount_v2", Code.LIB_RM_VERSION_MISMATCH))
        assert loop.sample() is None
        status = loop.status()

    assert alike is False
    assert status.driver_mismatch is True
    errors = [(one.function, one.errors) for one in status.calls.functions if one.errors]
    assert errors == [("nvmlDeviceGetCount", (("LIB_RM_VERSION_MISMATCH", 1),))]


def test_veto_that_is_no_longer_configured_does_not_fail_for_ever() -> None:
    with room("7g@0") as made:
        loop = made.loop(vetoes={"maintenance": Silent()})
        with_veto = loop.parts
        loop.sample()
        loop.gather_veto("maintenance")
        without = Gatherer(sources={}, vetoes={}, clock=made.clock)

        loop.reconfigure(replace(with_veto, gatherer=without))

        assert [one.name for one in loop.status().collectors] == ["nvml"]


def test_silent_veto_is_a_collector_that_failed() -> None:
    with room("7g@0") as made:
        loop = made.loop(vetoes={"maintenance": Silent()})
        loop.gather_veto("maintenance")
        (found,) = loop.status().collectors

    assert (found.name, found.success) == ("veto:maintenance", False)
    assert found.problem == "connection refused"
    assert found.last_success_at is None


def test_older_state_is_never_published_over_a_newer_one() -> None:
    """A sample that was slow to publish used to show again what a plan had already withheld."""
    gathering, go_on = threading.Event(), threading.Event()

    def slow_once() -> SchedulerStats:
        if not gathering.is_set():
            gathering.set()
            assert go_on.wait(10)
        return SchedulerStats()

    with room("7g@0") as made:
        loop = made.loop()
        loop.reconfigure(replace(loop.parts, config=ConfigStatus(sha256="old")))
        slow = replace(loop.parts, job_stats=slow_once)
        newer = replace(loop.parts, config=ConfigStatus(sha256="new"))
        first = threading.Thread(target=lambda: loop.reconfigure(slow))
        second = threading.Thread(target=lambda: loop.reconfigure(newer))
        first.start()
        assert gathering.wait(10)
        second.start()
        second.join(0.2)
        go_on.set()
        first.join(10)
        second.join(10)

    assert [status.config.sha256 for status in made.shown[-2:]] == ["old", "new"]
