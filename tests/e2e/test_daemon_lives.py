"""The real daemon in the middle of a plan: ended, killed, started again."""

import signal
from pathlib import Path

import pytest

from migscaler.sim.faults import slow
from tests.e2e.lives import RESHAPING, RESTING, Site, kill
from tests.e2e.processes import wait_until

pytestmark = pytest.mark.xdist_group("daemon-lives")

CREATE = "nvmlDeviceCreateGpuInstanceWithPlacement"


def small_ones(site: Site) -> list[str]:
    """Return the profiles on the GPU, half made ones marked."""
    return [text.partition("@")[0] + "!" * text.endswith("!") for text in site.layout().split()]


def test_sigterm_in_the_middle_of_a_plan_lets_it_end(tmp_path: Path) -> None:
    site = Site(tmp_path, "1xA100-SXM4-40GB", RESHAPING)
    site.add_fault(slow(CREATE, 600.0, nth=2))
    with site.life() as life:
        site.wait_for_call(CREATE)
        life.process.send_signal(signal.SIGTERM)
        wait_until("it is told", lambda: "event=stopping" in site.log.read_text())
        half = small_ones(site)
        site.node.clear_faults()
        code = life.process.wait(120)

    assert code == 0
    assert half != ["1g.5gb", "1g.5gb", "1g.5gb"]
    assert small_ones(site) == ["1g.5gb", "1g.5gb", "1g.5gb"]


def test_killed_in_the_middle_of_a_plan_the_next_start_puts_back_what_was_there(
    tmp_path: Path,
) -> None:
    site = Site(tmp_path, "1xA100-SXM4-40GB", RESHAPING, "7g@0")
    site.add_fault(slow(CREATE, 600.0, nth=2))
    with site.life() as life:
        site.wait_for_call(CREATE)
        kill(life)
    half = site.layout()
    site.node.clear_faults()
    site.config.write_text(RESTING)
    with site.life():
        wait_until("it is settled", lambda: site.layout() == "7g.40gb@0")

    assert half != "7g.40gb@0"


def test_killed_while_a_call_is_under_way_the_next_start_ends_whole(tmp_path: Path) -> None:
    """The driver may still carry out a call whose caller is dead; a job runs beside it."""
    site = Site(tmp_path, "1xA100-SXM4-40GB", RESHAPING, "3g@4")
    (busy,) = site.node.state.gpus[0].instances.values()
    site.node.start_job(0, busy.id)
    site.add_fault(slow(CREATE, 600.0))
    with site.life() as life:
        site.wait_for_plan()
        kill(life)
    site.node.clear_faults()
    with site.life():
        wait_until("the three are there", lambda: small_ones(site) == ["1g.5gb"] * 3 + ["3g.20gb"])

    found = {gi.start: gi for gi in site.node.state.gpus[0].instances.values()}
    assert (found[4].id, found[4].born) == (busy.id, busy.born)
    assert len(site.node.state.gpus[0].jobs) == 1
    assert not any(call.in_use for call in site.calls())
