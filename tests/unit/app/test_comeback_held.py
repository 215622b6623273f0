"""A hold of a GPU whose restore made only a part keeps the rest away, for as long as it lasts."""

import json
from pathlib import Path

import pytest

from migscaler.model.ids import GiId, GpuUuid
from migscaler.model.plan import Gate, GateReason, OutcomeReason
from migscaler.model.profile import InstanceSpec
from migscaler.sim.codes import Code
from migscaler.sim.faults import fails
from migscaler.web.views import status_view
from tests.unit.app.nodes import ENFORCE, NodeAtWork, node_at_work
from tests.unit.app.test_comeback import empty, live, wanted
from tests.unit.app.test_comeback_again import CREATE, keep_house, rebooted
from tests.unit.app.test_holders_hidden import shown_to_strangers
from tests.unit.app.test_open_plans import DEMANDING, TWO

THIRDS = "3g@0 2g@4 1g@6"
WHOLE = "3g.20gb@0 2g.10gb@4 1g.5gb@6"
PART = "3g.20gb@0"


def restored_in_part(here: NodeAtWork) -> None:
    """Lose everything, make the first instance again, and then have a driver that is well."""
    rebooted(here)
    here.node.add_fault(fails(CREATE, Code.UNKNOWN, nth=2, times=None))
    here.runtime.begin()
    here.node.clear_faults()
    assert here.layout() == PART
    assert len(here.store.open_plans()) == 1


def hold(here: NodeAtWork) -> None:
    here.ask("hold", gpu="0", reason="mending it")


def release(here: NodeAtWork) -> None:
    (held,) = here.store.holds(here.clock.now())
    here.ask("release", hold_id=held.hold_id)


def open_plan_gates(here: NodeAtWork) -> list[Gate]:
    decision = here.runtime.loop.status().decision
    assert decision is not None
    return [gate for gate in decision.gates if gate.reason is GateReason.OPEN_PLAN]


def test_rest_of_a_restore_waits_for_the_end_of_a_hold(tmp_path: Path) -> None:
    """It was made within half a minute, under the hands of whoever had taken the GPU to mend it."""
    with node_at_work(tmp_path, THIRDS, config=ENFORCE) as here:
        restored_in_part(here)
        hold(here)
        made = here.our_calls()
        keep_house(here, 1200)
        held = (here.layout(), here.our_calls(), len(here.store.open_plans()))
        (gate,) = open_plan_gates(here)

        release(here)
        keep_house(here, 45)

        assert held == (PART, made, 1)
        assert gate.gpu_uuid == here.uuid()
        assert gate.explanation == (
            "a restore of GPU 0 waits, with the rest of its layout: "
            "held by root: mending it; migscaler release 1 ends it"
        )
        assert (here.layout(), here.store.open_plans()) == (WHOLE, ())
        assert open_plan_gates(here) == []
        assert [record.boot_id for record in here.store.wanted()] == [here.node.boot_id]


def test_whose_hold_a_restore_waits_for_is_told_to_trusted_callers_alone(tmp_path: Path) -> None:
    with node_at_work(tmp_path, THIRDS, config=ENFORCE) as here:
        restored_in_part(here)
        hold(here)
        here.restart()
        here.runtime.begin()
        live(here, 15)

        status = here.runtime.loop.status()

        assert len(open_plan_gates(here)) == 1
        assert "mending it" not in shown_to_strangers(status)
        assert "mending it" in json.dumps(status_view(status, trusted=True))


def test_instances_of_a_gpu_whose_restore_waits_become_idle(tmp_path: Path) -> None:
    """Settling that comes to nothing, twice a minute, would begin their timers anew each time."""
    with node_at_work(tmp_path, THIRDS, config=ENFORCE) as here:
        restored_in_part(here)
        hold(here)

        keep_house(here, 300)

        snapshot = here.runtime.loop.status().snapshot
        assert snapshot is not None
        (state,) = snapshot.gpus[0].instances or ()
        assert [pin.value for pin in state.pins] == ["held"]


def test_restore_that_waits_keeps_no_other_gpu_from_changing(tmp_path: Path) -> None:
    """An open plan else keeps the whole node, and a hold may last for days."""
    with node_at_work(tmp_path, THIRDS, "3g@0", config=DEMANDING, spec=TWO) as here:
        restored_in_part(here)
        hold(here)

        for _ in range(5):
            here.watch(60)
            keep_house(here, 15)

        assert here.layout(0) == PART
        assert "1g.5gb" in here.layout(1)


@pytest.mark.parametrize("held_before", [True, False])
def test_next_start_heeds_the_hold_too(tmp_path: Path, held_before: bool) -> None:
    """A hold from before the reboot keeps nothing from coming back, until that has failed."""
    with node_at_work(tmp_path, THIRDS, config=ENFORCE) as here:
        if held_before:
            here.runtime.loop.sample()
            hold(here)
        restored_in_part(here)
        if not held_before:
            hold(here)
        made = here.our_calls()

        here.restart()
        here.runtime.begin()
        (outcome,) = here.runtime.loop.status().outcomes
        keep_house(here, 60)

        assert (here.layout(), here.our_calls()) == (PART, made)
        assert outcome.reason is OutcomeReason.HELD
        assert outcome.explanation == (
            f"restored {PART}; the rest waits for the end of hold 1 of root on the GPU: mending it"
        )
        release(here)
        keep_house(here, 45)
        assert here.layout() == WHOLE


@pytest.mark.parametrize("held_before", [True, False])
def test_next_start_heeds_the_hold_of_a_gpu_of_which_nothing_could_be_made(
    tmp_path: Path, held_before: bool
) -> None:
    """Only the process that had failed knew of it; the next one filled the GPU at once."""
    with node_at_work(tmp_path, THIRDS, config=ENFORCE) as here:
        if held_before:
            here.runtime.loop.sample()
            hold(here)
        rebooted(here)
        here.node.add_fault(fails(CREATE, Code.UNKNOWN, times=None))
        here.runtime.begin()
        here.node.clear_faults()
        if not held_before:
            hold(here)

        here.restart()
        here.runtime.begin()
        (outcome,) = here.runtime.loop.status().outcomes
        keep_house(here, 300)

        assert (here.layout(), here.our_calls()) == ("", [])
        assert outcome.explanation == f"{WHOLE} is gone; it is held, not restored"
        release(here)
        keep_house(here, 45)
        assert here.layout() == WHOLE


def test_next_start_heeds_the_hold_of_a_gpu_that_stopped_answering_in_the_middle(
    tmp_path: Path,
) -> None:
    """Its restore was left open, found empty, and then begun anew as if it had never failed."""
    with node_at_work(tmp_path, THIRDS, config=ENFORCE) as here:
        rebooted(here)
        writer = here.assembly.ground.writer
        create = writer.create_gpu_instance

        def go_blind(uuid: GpuUuid, spec: InstanceSpec) -> GiId:
            for function in (CREATE, "nvmlDeviceGetGpuInstances"):
                here.node.add_fault(fails(function, Code.UNKNOWN, times=None))
            return create(uuid, spec)

        writer.create_gpu_instance = go_blind  # type: ignore[method-assign]
        here.runtime.begin()
        here.node.clear_faults()
        left_open = [plan.left_open for plan in here.store.open_plans()]
        hold(here)

        here.restart()
        here.runtime.begin()
        keep_house(here, 300)

        assert (left_open, here.layout(), here.our_calls()) == ([True], "", [])
        release(here)
        keep_house(here, 45)
        assert here.layout() == WHOLE


def test_settling_by_hand_heeds_the_hold(tmp_path: Path) -> None:
    with node_at_work(tmp_path, THIRDS, config=ENFORCE) as here:
        restored_in_part(here)
        hold(here)
        made = here.our_calls()

        answer = here.ask("settle")

        assert isinstance(answer["outcomes"], list)
        (outcome,) = answer["outcomes"]
        assert (outcome["outcome"], outcome["reason"]) == ("abandoned", "held")
        assert here.our_calls() == made


def test_hold_that_comes_in_the_middle_stops_the_next_instance(tmp_path: Path) -> None:
    """The one that was begun gets its compute instance: half made it would be of no use."""
    with node_at_work(tmp_path, THIRDS, config=ENFORCE) as here:
        restored_in_part(here)
        writer = here.assembly.ground.writer
        assert writer is not None
        create = writer.create_gpu_instance

        def hold_and_create(uuid: GpuUuid, spec: InstanceSpec) -> GiId:
            hold(here)
            return create(uuid, spec)

        writer.create_gpu_instance = hold_and_create  # type: ignore[method-assign]
        keep_house(here, 60)
        writer.create_gpu_instance = create  # type: ignore[method-assign]

        snapshot = here.runtime.loop.status().snapshot
        assert snapshot is not None
        found = snapshot.gpus[0].reading.instances or ()
        assert here.layout() == "3g.20gb@0 2g.10gb@4"
        assert all(one.instance.usable for one in found)
        release(here)
        keep_house(here, 45)
        assert here.layout() == WHOLE


def test_hold_of_an_instance_keeps_the_rest_from_nothing(tmp_path: Path) -> None:
    """Whoever holds it wants it to be there."""
    with node_at_work(tmp_path, THIRDS, config=ENFORCE) as here:
        here.runtime.begin()
        here.ask("hold", gpu="0", spec="2g@4", reason="mine")
        restored_in_part(here)

        keep_house(here, 45)

        assert here.layout() == WHOLE


def test_held_gpu_that_its_holder_emptied_stays_empty(tmp_path: Path) -> None:
    with node_at_work(tmp_path, THIRDS, config=ENFORCE) as here:
        restored_in_part(here)
        hold(here)
        empty(here)
        keep_house(here, 600)
        held = here.layout()

        release(here)
        keep_house(here, 300)

        assert (held, here.layout(), wanted(here)) == ("", WHOLE, [WHOLE])


@pytest.mark.parametrize("watched", [True, False])
def test_layout_that_the_holder_made_himself_stays_as_it_is(tmp_path: Path, watched: bool) -> None:
    """What was missing of the old layout was made beside it as soon as he let go."""
    with node_at_work(tmp_path, THIRDS, config=ENFORCE) as here:
        restored_in_part(here)
        hold(here)
        keep_house(here, 60)
        empty(here)
        here.node.foreign_create(0, "4g@0", actor="holder")
        if not watched:
            here.restart()
            here.runtime.begin()
        keep_house(here, 60)

        release(here)
        keep_house(here, 300)

        assert (here.layout(), here.store.open_plans(), wanted(here)) == ("4g.20gb@0", (), [])
        assert here.runtime.loop.status().outcomes[0].explanation == (
            "found open; 4g.20gb@0 stays, which somebody else made meanwhile"
        )


def test_restore_that_waited_is_tried_as_often_as_one_that_did_not(tmp_path: Path) -> None:
    """Ten minutes after its begin one more failure closed it, and the GPU kept a part for good."""
    with node_at_work(tmp_path, THIRDS, config=ENFORCE) as here:
        restored_in_part(here)
        hold(here)
        keep_house(here, 1200)
        here.node.add_fault(fails(CREATE, Code.UNKNOWN, times=None))
        release(here)
        keep_house(here, 300)
        failing = (here.layout(), len(here.store.open_plans()))

        here.node.clear_faults()
        keep_house(here, 45)

        assert failing == (PART, 1)
        assert (here.layout(), here.store.open_plans()) == (WHOLE, ())


def test_restore_that_waited_is_not_tried_for_ever(tmp_path: Path) -> None:
    with node_at_work(tmp_path, THIRDS, config=ENFORCE) as here:
        restored_in_part(here)
        hold(here)
        keep_house(here, 60)
        here.node.add_fault(fails(CREATE, Code.UNKNOWN, times=None))
        release(here)

        keep_house(here, 900)

        assert (here.layout(), here.store.open_plans()) == (PART, ())
