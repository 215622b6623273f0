"""A plan in whose middle the daemon died counts: its GPU rests, and a second one in a row is one
too many.
"""

from datetime import timedelta
from pathlib import Path

import pytest

from migscaler.model.decision import GpuHistory
from migscaler.model.ids import GiId, GpuUuid
from migscaler.model.plan import Direction, GateReason
from migscaler.model.profile import InstanceSpec
from migscaler.sim.codes import Code
from migscaler.sim.faults import fails
from tests.unit.app.nodes import ENFORCE, NodeAtWork, node_at_work
from tests.unit.app.test_comeback import HALVES, live, wanting
from tests.unit.app.test_comeback_again import CREATE, full_disk
from tests.unit.app.test_open_plans import DEMANDING, work
from tests.unit.app.test_runtime_start import leave_open

MINUTE = timedelta(minutes=1)


class Died(Exception):
    """The process ends here."""


def die_at_creates(here: NodeAtWork, nth: int = 1) -> None:
    """Let the process end at the n-th instance that it is about to make."""
    writer = here.assembly.ground.writer
    assert writer is not None
    create, left = writer.create_gpu_instance, iter(range(nth - 1))

    def die(uuid: GpuUuid, spec: InstanceSpec) -> GiId:
        if next(left, None) is None:
            raise Died
        return create(uuid, spec)

    writer.create_gpu_instance = die  # type: ignore[method-assign]


def history(here: NodeAtWork) -> GpuHistory:
    (found,) = here.store.gpu_histories()
    return found


def test_gpu_rests_after_a_plan_that_its_daemon_died_in(tmp_path: Path) -> None:
    """The plan was begun again as soon as the next daemon had put it back."""
    with node_at_work(tmp_path, "3g@0 3g@4", config=ENFORCE) as here:
        leave_open(here)
        here.clock.advance(60)
        here.restart()

        here.runtime.begin()

        kept, now = history(here), here.clock.now()
        assert (kept.failures_in_row, kept.rest_until) == (1, now + 10 * MINUTE)
        assert kept.breaker_open_until is None


def test_second_plan_in_a_row_that_the_daemon_died_in_opens_the_breaker(tmp_path: Path) -> None:
    with node_at_work(tmp_path, "3g@0 3g@4", config=ENFORCE) as here:
        for _ in range(2):
            leave_open(here)
            here.restart()
            here.runtime.begin()

        live(here, 15)

        kept = history(here)
        assert (kept.failures_in_row, kept.breaker_trips) == (2, 1)
        decision = here.runtime.loop.status().decision
        assert decision is not None
        assert GateReason.BREAKER_OPEN in {gate.reason for gate in decision.gates}


def test_plan_that_ends_the_daemon_each_time_is_begun_twice(tmp_path: Path) -> None:
    with node_at_work(tmp_path, "3g@0", config=DEMANDING) as here:
        begun = 0
        for _ in range(25):
            here.runtime.begin()
            die_at_creates(here)
            try:
                work(here, 1)
            except Died:
                begun += 1
                here.restart()

        assert begun == 2
        assert here.layout() == "3g.20gb@0"


def test_plan_that_a_reboot_cut_short_counts_too(tmp_path: Path) -> None:
    """It may be the plan that ends the node."""
    with node_at_work(tmp_path, "3g@0 3g@4", config=ENFORCE) as here:
        leave_open(here)
        here.node.reboot()
        here.restart()

        here.runtime.begin()

        assert history(here).failures_in_row == 1
        assert here.store.open_plans() == ()


def test_plan_that_failed_and_was_left_open_is_counted_once(tmp_path: Path) -> None:
    with node_at_work(tmp_path, "2g@0 2g@2 3g@4", config=ENFORCE) as here:
        here.runtime.begin()
        here.watch(60)
        here.node.add_fault(fails(CREATE, Code.UNKNOWN, times=None))
        here.ask("apply", gpu=0, layout="3g@0 2g@4 1g@6")
        here.node.clear_faults()
        failed, left_open = history(here), [plan.left_open for plan in here.store.open_plans()]
        here.clock.advance(60)
        here.restart()

        here.runtime.begin()

        assert (failed.failures_in_row, left_open) == (1, [True])
        kept = history(here)
        assert (kept.failures_in_row, here.store.open_plans()) == (1, ())
        assert kept.rest_until == here.clock.now() + 10 * MINUTE


def test_plan_whose_result_was_verified_counts_as_done(tmp_path: Path) -> None:
    """Only its row was not closed: the direction of that change is what the flap guard knows."""
    with node_at_work(tmp_path, "3g@0 3g@4", config=ENFORCE) as here:
        wanting(here)
        leave_open(here)
        here.node.foreign_create(0, "2g@4", actor="migscaler")
        (record,) = here.store.open_plans()
        here.store.verify_plan(record.seq)
        here.restart()

        here.runtime.begin()

        kept, now = history(here), here.clock.now()
        assert (kept.failures_in_row, kept.rest_until) == (0, now + 2 * MINUTE)
        assert (kept.last_change_at, kept.last_direction) == (now, Direction.COARSER)
        assert str(kept.wanted) == "3g.20gb@0 2g.10gb@4"


def test_verified_plan_of_a_gpu_that_can_not_be_read_keeps_its_layout_wanted(
    tmp_path: Path,
) -> None:
    with node_at_work(tmp_path, "3g@0 3g@4", config=ENFORCE) as here:
        wanting(here)
        leave_open(here)
        (record,) = here.store.open_plans()
        here.store.verify_plan(record.seq)
        here.restart()
        here.runtime.sample()
        here.node.add_fault(fails("nvmlDeviceGetGpuInstances", Code.UNKNOWN, times=None))

        here.ask("settle")

        assert here.store.open_plans() == ()
        assert str(history(here).wanted) == "3g.20gb@0 2g.10gb@4"


def test_plan_that_a_full_disk_cut_short_is_no_failure(tmp_path: Path) -> None:
    """The process lived; the GPU had no part in it."""
    with node_at_work(tmp_path, "3g@0 3g@4", config=ENFORCE) as here:
        here.runtime.begin()
        here.watch(60)
        writer = here.assembly.ground.writer
        assert writer is not None
        create, disk = writer.create_gpu_instance, full_disk(here)

        def fill_and_create(uuid: GpuUuid, spec: InstanceSpec) -> GiId:
            disk.__enter__()
            return create(uuid, spec)

        writer.create_gpu_instance = fill_and_create  # type: ignore[method-assign]
        here.ask("apply", gpu=0, layout="3g@0 2g@4")
        writer.create_gpu_instance = create  # type: ignore[method-assign]
        disk.__exit__(None, None, None)
        still_open = len(here.store.open_plans())
        here.clock.advance(60)

        here.runtime.housekeeping()

        assert still_open == 1
        assert (here.layout(), here.store.open_plans()) == (HALVES, ())
        kept = history(here)
        assert (kept.failures_in_row, kept.rest_until is not None) == (0, True)


@pytest.mark.parametrize("held", [True, False])
def test_restore_that_was_cut_short_is_finished_and_counts_as_nothing(
    tmp_path: Path, held: bool
) -> None:
    """A hold from before the reboot keeps nothing from coming back."""
    with node_at_work(tmp_path, "3g@0 3g@4", config=ENFORCE) as here:
        wanting(here)
        if held:
            here.ask("hold", gpu=0, reason="mine")
        here.node.reboot()
        here.restart()
        die_at_creates(here, 2)
        with pytest.raises(Died):
            here.runtime.begin()
        cut = here.layout()
        here.restart()

        here.runtime.begin()

        assert (cut, here.layout()) == ("3g.20gb@0", HALVES)
        kept = history(here)
        assert (kept.failures_in_row, kept.rest_until) == (0, None)
