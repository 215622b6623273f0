"""Layouts that people change while no daemon runs, or while one starts, are theirs from then on."""

from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

import pytest

from migscaler.errors import StoreUnwritable
from migscaler.model.gpu import GpuState, NodeSnapshot
from migscaler.model.plan import GateReason
from migscaler.model.status import Status
from tests.unit.app.nodes import ENFORCE, NodeAtWork, node_at_work
from tests.unit.app.test_comeback_again import full_disk
from tests.unit.app.test_open_plans import DEMANDING

HALVES = "3g.20gb@0 3g.20gb@4"


def picture(here: NodeAtWork) -> NodeSnapshot:
    snapshot = here.runtime.loop.status().snapshot
    assert snapshot is not None
    return snapshot


def gpu_of(here: NodeAtWork, index: int = 0) -> GpuState:
    return picture(here).gpus[index]


def wants_what_is_there(here: NodeAtWork) -> None:
    here.runtime.begin()
    for gpu in picture(here).gpus:
        assert gpu.layout is not None
        here.store.write_wanted(gpu.uuid, gpu.layout, here.node.boot_id)


def remake(here: NodeAtWork, layout: str, index: int = 0) -> None:
    """Let a person give a GPU another layout."""
    for gi_id in list(here.node.state.gpus[index].instances):
        here.node.foreign_destroy(index, gi_id)
    for one in layout.split():
        here.node.foreign_create(index, one)


def test_layout_made_while_the_daemon_was_down_is_not_undone_by_the_next_reboot(
    tmp_path: Path,
) -> None:
    """The layout wanted before was kept, and the next reboot brought it back."""
    with node_at_work(tmp_path, "3g@0 3g@4", config=ENFORCE) as here:
        wants_what_is_there(here)
        remake(here, "7g@0")
        here.restart()

        here.runtime.loop.sample()

        assert gpu_of(here).foreign_change is True
        assert here.store.wanted() == ()
        assert [history.rest_until is None for history in here.store.gpu_histories()] == [False]
        here.runtime.begin()
        assert gpu_of(here).foreign_change is False


def test_gpu_found_empty_by_a_start_in_the_same_boot_is_restored_not_adopted(
    tmp_path: Path,
) -> None:
    with node_at_work(tmp_path, "3g@0 3g@4", config=ENFORCE) as here:
        wants_what_is_there(here)
        remake(here, "")
        here.restart()

        here.runtime.begin()

        assert here.layout() == HALVES
        assert len(here.store.wanted()) == 1


def test_layout_that_somebody_made_after_a_reboot_is_not_adopted_by_the_start(
    tmp_path: Path,
) -> None:
    """A boot service may have made a part: what is wanted is for the operator to say."""
    with node_at_work(tmp_path, "3g@0 3g@4", config=ENFORCE) as here:
        wants_what_is_there(here)
        here.node.reboot()
        here.node.foreign_create(0, "7g@0")
        here.restart()

        here.runtime.loop.sample()

        assert len(here.store.wanted()) == 1


def test_our_own_last_change_is_no_foreign_one_after_a_crash(tmp_path: Path) -> None:
    with node_at_work(tmp_path, "3g@0 3g@4", config=ENFORCE) as here:
        here.runtime.begin()
        remake(here, "7g@0")
        model = gpu_of(here).reading.model
        assert model is not None
        here.store.write_wanted(here.uuid(), model.layout("7g@0"), here.node.boot_id)
        here.restart()

        here.runtime.loop.sample()

        assert gpu_of(here).foreign_change is False
        assert len(here.store.wanted()) == 1


class Bystander(list[Status]):
    """Reads every status, and changes a GPU as soon as another one is being changed."""

    def __init__(self, act: Callable[[], None]) -> None:
        super().__init__()
        self._act = act
        self.acted = 0

    def append(self, status: Status, /) -> None:
        super().append(status)
        if status.withheld and not self.acted:
            self.acted += 1
            self._act()


def test_change_by_a_person_while_another_gpu_is_restored_is_seen(tmp_path: Path) -> None:
    """Every GPU in enforce was taken for changed by us while one of them was restored."""
    with node_at_work(
        tmp_path, "3g@0 3g@4", "7g@0", config=ENFORCE, spec="2xA100-SXM4-40GB"
    ) as here:
        wants_what_is_there(here)
        remake(here, "")
        here.shown = person = Bystander(lambda: remake(here, "3g@0 3g@4", index=1))
        here.restart()

        here.runtime.begin()

        assert person.acted == 1
        assert (here.layout(0), here.layout(1)) == (HALVES, HALVES)
        assert (gpu_of(here, 0).foreign_change, gpu_of(here, 1).foreign_change) == (False, True)
        assert [record.gpu_uuid for record in here.store.wanted()] == [here.uuid(0)]


def rests(here: NodeAtWork) -> list[bool]:
    return [history.rest_until is not None for history in here.store.gpu_histories()]


@pytest.mark.parametrize("then", ["sample", "tick", "restart"])
def test_change_seen_on_a_full_disk_is_adopted_once_there_is_space(
    tmp_path: Path, then: str
) -> None:
    """It never was: the GPU did not rest, and the next reboot brought back what had been wanted."""
    with node_at_work(tmp_path, "3g@0 3g@4", config=ENFORCE) as here:
        wants_what_is_there(here)
        here.watch(30)
        with full_disk(here):
            remake(here, "7g@0")
            here.watch(10)
            unrecorded = (len(here.store.wanted()), rests(here))

        if then == "tick":
            here.runtime.tick()
        else:
            if then == "restart":
                here.restart()
            here.runtime.loop.sample()

        assert unrecorded == (1, [False])
        assert (here.store.wanted(), rests(here)) == ((), [True])


def test_gpu_emptied_on_a_full_disk_after_a_layout_of_somebodys_is_not_restored(
    tmp_path: Path,
) -> None:
    """What was made there first has taken the wanted layout's place, recorded or not."""
    with node_at_work(tmp_path, "3g@0 3g@4", config=ENFORCE) as here:
        wants_what_is_there(here)
        with full_disk(here):
            remake(here, "7g@0")
            here.watch(5)
            remake(here, "")
            here.watch(5)

        here.watch(5)

        assert here.store.wanted() == ()


def test_gpu_emptied_on_a_full_disk_keeps_what_was_wanted(tmp_path: Path) -> None:
    with node_at_work(tmp_path, "3g@0 3g@4", config=ENFORCE) as here:
        wants_what_is_there(here)
        with full_disk(here):
            remake(here, "")
            here.watch(5)

        here.watch(5)

        assert [str(record.layout) for record in here.store.wanted()] == [HALVES]
        assert rests(here) == [True]


def test_nothing_is_decided_while_a_change_of_somebody_else_is_not_recorded(
    tmp_path: Path,
) -> None:
    """A disk with room for one write and not for the next is full."""
    with node_at_work(tmp_path, "3g@0", config=DEMANDING) as here:
        here.runtime.begin()
        with full_disk(here):
            remake(here, "3g@4")
            here.watch(60)
        real = here.store.update_gpu_history

        def fail(*_arguments: object) -> NoReturn:
            raise StoreUnwritable("database or disk is full")

        here.store.update_gpu_history = fail  # type: ignore[method-assign,assignment]
        decision = here.runtime.loop.tick()
        here.store.update_gpu_history = real  # type: ignore[method-assign]

        assert decision is not None
        assert GateReason.JOURNAL_UNWRITABLE in {gate.reason for gate in decision.gates}
        assert here.our_calls() == []


def test_layout_asked_for_right_after_the_disk_was_full_stays_wanted(tmp_path: Path) -> None:
    """The change before it, recorded after it, would have taken its place."""
    with node_at_work(tmp_path, "3g@0 3g@4", config=ENFORCE) as here:
        wants_what_is_there(here)
        with full_disk(here):
            remake(here, "3g@0")
            here.watch(60)

        here.ask("apply", gpu=0, layout="3g@0 2g@4")
        here.watch(15)

        assert [str(record.layout) for record in here.store.wanted()] == ["3g.20gb@0 2g.10gb@4"]
