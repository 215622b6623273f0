"""GPUs that lose all instances get them back: after a reboot, a reload, and from an empty hand."""

import re
from pathlib import Path

import pytest

from migscaler.metrics.exposition import Renderer
from migscaler.model.plan import OutcomeKind, OutcomeReason
from migscaler.sim.codes import Code
from migscaler.sim.faults import fails
from tests.unit.app.nodes import ENFORCE, NodeAtWork, node_at_work

HALVES = "3g.20gb@0 3g.20gb@4"
HOPPER_HALVES = "3g.40gb@0 3g.40gb@4"
ADOPTING = ENFORCE + "on_boot: {layout: adopt}\n"
REPORTING = ENFORCE + "on_boot: {layout: report}\n"
KEEPING_MODE = ENFORCE + "on_boot: {mig_mode: false}\n"
H100 = "H100-80GB"
MISSING = "migscaler_gpu_restore_missing_instances"


def wanting(here: NodeAtWork) -> None:
    """Begin, and let what is there be what was last wanted."""
    here.runtime.begin()
    want_what_is_there(here)


def want_what_is_there(here: NodeAtWork) -> None:
    snapshot = here.runtime.loop.sample()
    assert snapshot is not None
    for gpu in snapshot.gpus:
        assert gpu.layout is not None
        here.store.write_wanted(gpu.uuid, gpu.layout, here.node.boot_id)


def empty(here: NodeAtWork, index: int = 0) -> None:
    """Let a person take everything away at once."""
    for gi_id in list(here.node.state.gpus[index].instances):
        here.node.foreign_destroy(index, gi_id)


def live(here: NodeAtWork, seconds: int) -> None:
    """Sample every 5 seconds and decide every 15."""
    for second in range(5, seconds + 1, 5):
        here.clock.advance(5)
        here.runtime.sample()
        if second % 15 == 0:
            here.runtime.tick()


def wanted(here: NodeAtWork) -> list[str]:
    return [str(record.layout) for record in here.store.wanted()]


def missing(here: NodeAtWork, index: int = 0) -> float | None:
    """What a scrape says is missing since a restore was due."""
    renderer = Renderer()
    renderer.publish(here.runtime.loop.status())
    text = renderer.render("text").body.decode()
    found = re.search(rf'^{MISSING}{{gpu="{index}".*}} (\S+)$', text, re.MULTILINE)
    return None if found is None else float(found[1])


def released_and_reloaded(here: NodeAtWork) -> None:
    """Pause with the driver released, load it anew, resume."""
    here.ask("pause", why="driver", release_driver=True)
    here.node.restart_driver()
    here.clock.advance(120)
    here.ask("resume")


@pytest.mark.parametrize(("spec", "halves"), [("A100-SXM4-40GB", HALVES), (H100, HOPPER_HALVES)])
def test_layouts_come_back_at_once_after_a_released_driver_was_loaded_anew(
    tmp_path: Path, spec: str, halves: str
) -> None:
    """The emptied GPU counted as changed by somebody: what was wanted was forgotten. On Hopper the
    mode is lost too, and switched on first.
    """
    with node_at_work(tmp_path, "3g@0 3g@4", config=ENFORCE, spec=spec) as here:
        wanting(here)

        released_and_reloaded(here)
        live(here, 15)

        assert here.layout() == halves
        assert len(wanted(here)) == 1
        snapshot = here.runtime.loop.status().snapshot
        assert snapshot is not None
        assert snapshot.gpus[0].foreign_changes == 0
        assert missing(here) == 0


def mode_off(here: NodeAtWork) -> None:
    """Let a person switch MIG off on the first GPU; its instances go with it."""
    empty(here)
    with here.node.changing() as state:
        state.gpus[0].mig_current = state.gpus[0].mig_pending = 0


@pytest.mark.parametrize("spec", ["2xH100-80GB", "2xA100-SXM4-40GB"])
def test_mode_switched_off_while_the_driver_was_released_stays_off(
    tmp_path: Path, spec: str
) -> None:
    """That is what one releases the driver for. A driver loaded anew would have spared no GPU, and
    on Ampere not the mode: neither is what is found here.
    """
    with node_at_work(tmp_path, "3g@0 3g@4", "3g@0 3g@4", config=ENFORCE, spec=spec) as here:
        wanting(here)
        here.ask("pause", why="MIG off on GPU 0", release_driver=True)
        mode_off(here)
        here.clock.advance(120)
        here.ask("resume")

        live(here, 300)

        assert here.our_calls() == []


def test_only_ampere_without_mode_after_a_released_driver_is_left_alone(tmp_path: Path) -> None:
    """A100s keep their mode when the driver is loaded anew."""
    with node_at_work(tmp_path, "3g@0 3g@4", config=ENFORCE) as here:
        wanting(here)
        here.ask("pause", why="MIG off", release_driver=True)
        mode_off(here)
        here.clock.advance(120)
        here.ask("resume")

        live(here, 300)

        assert here.our_calls() == []


def test_gpu_emptied_while_the_driver_was_released_rests_first(tmp_path: Path) -> None:
    layouts = ("3g@0 3g@4", "3g@0 3g@4")
    config = ENFORCE
    with node_at_work(tmp_path, *layouts, config=config, spec="2xA100-SXM4-40GB") as here:
        wanting(here)
        here.ask("pause", why="GPU 0 made anew", release_driver=True)
        empty(here)
        here.clock.advance(120)
        here.ask("resume")

        live(here, 90)
        resting = here.our_calls()
        live(here, 60)

        assert resting == []
        assert here.layout() == HALVES


def test_hold_on_the_gpu_keeps_what_its_holder_emptied_empty(tmp_path: Path) -> None:
    """He repartitions it, also over a restart of the daemon."""
    with node_at_work(tmp_path, "3g@0 3g@4", config=ENFORCE) as here:
        wanting(here)
        live(here, 15)
        here.ask("hold", gpu="0", reason="made by hand today")
        empty(here)
        live(here, 300)
        here.restart()
        here.runtime.begin()

        live(here, 300)

        assert here.our_calls() == []


def test_frozen_node_does_not_fill_what_somebody_emptied(tmp_path: Path) -> None:
    frozen = ENFORCE + 'freeze: [{when: "mon-sun 00:00-24:00"}]\n'
    with node_at_work(tmp_path, "3g@0 3g@4", config=frozen) as here:
        wanting(here)
        live(here, 15)
        empty(here)

        live(here, 300)

        assert here.our_calls() == []


def test_mode_that_goes_off_at_the_next_reset_gets_no_instances(tmp_path: Path) -> None:
    """Policy plans none there either: a reset would take them from their jobs."""
    with node_at_work(tmp_path, "3g@0 3g@4", config=ENFORCE) as here:
        wanting(here)
        live(here, 15)
        empty(here)
        with here.node.changing() as state:
            state.gpus[0].mig_pending = 0

        live(here, 300)

        assert here.our_calls() == []


def test_gpu_emptied_by_a_person_is_left_alone_while_it_rests(tmp_path: Path) -> None:
    """He may be about to make another layout; two minutes are the time that a GPU rests."""
    with node_at_work(tmp_path, "3g@0 3g@4", config=ENFORCE) as here:
        wanting(here)
        live(here, 15)
        empty(here)

        live(here, 105)
        resting = here.layout()
        snapshot = here.runtime.loop.status().snapshot
        live(here, 30)

        assert resting == ""
        assert snapshot is not None
        assert snapshot.gpus[0].foreign_changes == 1
        assert here.layout() == HALVES
        assert wanted(here) == [HALVES]


def test_layout_made_by_hand_on_a_gpu_emptied_by_hand_is_adopted(tmp_path: Path) -> None:
    with node_at_work(tmp_path, "3g@0 3g@4", config=ENFORCE) as here:
        wanting(here)
        live(here, 15)
        empty(here)
        live(here, 60)
        here.node.foreign_create(0, "7g@0")

        live(here, 300)

        assert here.layout() == "7g.40gb@0"
        assert wanted(here) == []


def test_gpu_emptied_one_by_one_is_adopted_as_it_becomes(tmp_path: Path) -> None:
    """What is left after the first look is a layout that somebody made."""
    with node_at_work(tmp_path, "3g@0 3g@4", config=ENFORCE) as here:
        wanting(here)
        live(here, 15)
        first, second = sorted(here.node.state.gpus[0].instances)
        here.node.foreign_destroy(0, first)
        live(here, 15)
        here.node.foreign_destroy(0, second)

        live(here, 300)

        assert (here.layout(), wanted(here)) == ("", [])


def test_mode_switched_off_by_hand_under_a_running_daemon_stays_off(tmp_path: Path) -> None:
    """On Hopper that needs no reset, and looks as a reload does to a node with one GPU."""
    with node_at_work(tmp_path, "3g@0 3g@4", config=ENFORCE, spec=H100) as here:
        wanting(here)
        live(here, 15)
        empty(here)
        with here.node.changing() as state:
            state.gpus[0].mig_current = state.gpus[0].mig_pending = 0

        live(here, 300)

        assert here.node.state.gpus[0].mig_current == 0
        assert here.our_calls() == []
        assert wanted(here) == [HOPPER_HALVES]


def test_gpu_whose_mode_was_switched_off_by_command_is_not_missing_anything(
    tmp_path: Path,
) -> None:
    with node_at_work(tmp_path, "3g@0 3g@4", config=ENFORCE, spec=H100) as here:
        wanting(here)
        here.watch(60)
        here.ask("mig_mode", gpus=["0"], enabled=False)
        calls = here.our_calls()

        live(here, 300)

        assert here.our_calls() == calls
        assert missing(here) is None


def test_pause_keeps_an_emptied_gpu_empty_until_it_ends(tmp_path: Path) -> None:
    with node_at_work(tmp_path, "3g@0 3g@4", config=ENFORCE) as here:
        wanting(here)
        here.ask("pause", why="cabling")
        empty(here)
        live(here, 600)
        paused = here.layout()

        here.ask("resume")
        live(here, 30)

        assert (paused, here.layout()) == ("", HALVES)


@pytest.mark.parametrize(
    ("config", "kept"), [(ADOPTING, []), (REPORTING, [HALVES])], ids=["adopt", "report"]
)
def test_other_wishes_for_a_reload_are_heeded(tmp_path: Path, config: str, kept: list[str]) -> None:
    with node_at_work(tmp_path, "3g@0 3g@4", config=config) as here:
        wanting(here)

        released_and_reloaded(here)
        live(here, 300)

        assert (here.layout(), wanted(here)) == ("", kept)
        (outcome,) = here.runtime.loop.status().outcomes
        assert (outcome.kind, outcome.reason) == (OutcomeKind.ABANDONED, OutcomeReason.PAUSED)
        assert missing(here) is None


@pytest.mark.parametrize("way", ["restore", "adopt", "report"])
@pytest.mark.parametrize(("spec", "halves"), [("A100-SXM4-40GB", HALVES), (H100, HOPPER_HALVES)])
def test_reboot_restores_adopts_or_reports(
    tmp_path: Path, spec: str, halves: str, way: str
) -> None:
    config = f"{ENFORCE}on_boot: {{layout: {way}}}\n"
    with node_at_work(tmp_path, "3g@0 3g@4", config=config, spec=spec) as here:
        wanting(here)
        here.node.reboot()
        mode = here.node.state.gpus[0].mig_current
        here.restart()

        here.runtime.begin()

        assert mode == (spec != H100)
        assert here.layout() == (halves if way == "restore" else "")
        assert here.node.state.gpus[0].mig_current == (mode or way == "restore")
        assert wanted(here) == ([] if way == "adopt" else [halves])
        assert missing(here) == (0 if way == "restore" else None)


def test_hopper_whose_mode_is_not_to_be_switched_lacks_its_layout(tmp_path: Path) -> None:
    with node_at_work(tmp_path, "3g@0 3g@4", config=KEEPING_MODE, spec=H100) as here:
        wanting(here)
        here.node.reboot()
        here.restart()

        here.runtime.begin()
        live(here, 300)

        assert here.our_calls() == []
        assert here.node.state.gpus[0].mig_current == 0
        assert missing(here) == 2


def test_mode_comes_before_the_first_instance(tmp_path: Path) -> None:
    with node_at_work(tmp_path, "3g@0 3g@4", config=ENFORCE, spec=H100) as here:
        wanting(here)
        here.node.reboot()
        here.restart()

        here.runtime.begin()

        calls = here.our_calls()
        assert calls[0] == "nvmlDeviceSetMigMode"
        assert calls.count("nvmlDeviceCreateGpuInstanceWithPlacement") == 2


def test_another_card_in_the_slot_is_left_alone(tmp_path: Path) -> None:
    with node_at_work(tmp_path, "3g@0 3g@4", config=ENFORCE) as here:
        wanting(here)
        here.node.reboot()
        with here.node.changing() as state:
            state.gpus[0].uuid = "GPU-00000000-1111-2222-3333-444444444444"
        here.restart()

        here.runtime.begin()
        live(here, 300)

        assert (here.layout(), here.our_calls()) == ("", [])
        assert wanted(here) == [HALVES]
        assert missing(here) is None


def test_what_is_there_already_after_a_reboot_is_left_alone(tmp_path: Path) -> None:
    """A boot service made a part: adding to it could stand in the way of the rest."""
    with node_at_work(tmp_path, "3g@0 3g@4", config=ENFORCE) as here:
        wanting(here)
        here.node.reboot()
        here.node.foreign_create(0, "1g@0")
        here.restart()

        here.runtime.begin()
        live(here, 300)

        assert (here.layout(), here.our_calls()) == ("1g.5gb@0", [])


def test_part_that_fits_is_made_and_the_rest_is_counted_as_missing(tmp_path: Path) -> None:
    """The catalog became smaller: a profile that was wanted is no longer offered."""
    with node_at_work(tmp_path, "3g@0 1g@4 1g@5", config=ENFORCE) as here:
        wanting(here)
        record = here.store.wanted()[0]
        snapshot = here.runtime.loop.status().snapshot
        assert snapshot is not None
        h100_only = "1g.5gb+me"
        layout = record.layout
        odd = type(layout.specs[0])(layout.specs[-1].placement, h100_only + ".gone")
        here.store.write_wanted(
            record.gpu_uuid, layout.without(layout.specs[-1:]).with_specs((odd,)), record.boot_id
        )
        here.node.reboot()
        here.restart()

        here.runtime.begin()

        assert here.layout() == "3g.20gb@0 1g.5gb@4"
        assert missing(here) == 1
        (outcome,) = here.runtime.loop.status().outcomes
        assert outcome.kind is OutcomeKind.FAILED
        assert "does not fit" in outcome.explanation


def test_instance_that_stays_half_made_is_missing(tmp_path: Path) -> None:
    with node_at_work(tmp_path, "3g@0 3g@4", config=ENFORCE) as here:
        wanting(here)
        here.node.reboot()
        here.restart()
        create = fails("nvmlGpuInstanceCreateComputeInstance", Code.UNKNOWN, times=None)
        create.skip = 1
        here.node.add_fault(create)
        here.node.add_fault(fails("nvmlGpuInstanceDestroy", Code.NO_PERMISSION, times=None))

        here.runtime.begin()

        assert here.layout() == "3g.20gb@0 3g.20gb@4"
        assert missing(here) == 1


def test_layout_changed_later_ends_what_was_missing(tmp_path: Path) -> None:
    with node_at_work(tmp_path, "3g@0 3g@4", config=KEEPING_MODE, spec=H100) as here:
        wanting(here)
        here.node.reboot()
        here.restart()
        here.runtime.begin()
        with here.node.changing() as state:
            state.gpus[0].mig_current = state.gpus[0].mig_pending = 1
        here.node.foreign_create(0, "7g@0")

        live(here, 15)

        assert missing(here) == 0


def test_node_without_state_gets_the_baseline(tmp_path: Path) -> None:
    config = ENFORCE.replace('model: "*"', 'model: "*", baseline: [3g, 3g]')
    with node_at_work(tmp_path, "", config=config) as here:
        here.runtime.begin()

        live(here, 60)

        assert here.layout() == HALVES
        assert missing(here) is None
