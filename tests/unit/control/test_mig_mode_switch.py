"""MIG mode by a person's word: pending or live, never busy, and nothing lost when it fails."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import timedelta

import pytest

from migscaler.control.loop import Loop
from migscaler.control.mig_mode import ModeResult, ModeSwitch
from migscaler.errors import CommandRefused, HardwareError, InUse
from migscaler.model.gpu import GpuState
from migscaler.model.ids import GpuUuid
from migscaler.model.policy import IdlePolicy
from migscaler.sim.codes import Code
from migscaler.sim.faults import fails
from tests.builders import policy
from tests.unit.control.room import A100, H100, Room, room

CLIENTS = ("DCGM (nvidia-dcgm.service)",)


class Switchboard:
    """A room with a loop and the switch over it."""

    def __init__(self, here: Room) -> None:
        self.here = here
        quick = IdlePolicy(after=timedelta(seconds=10))
        self.loop: Loop = here.loop(policy(idle=quick))
        self.wishes: list[tuple[int, bool]] = []
        self.switch = ModeSwitch(
            reader=here.reader,
            writer=here.writer,
            carry_out=self.loop.request,
            sample=self._again,
            record_wish=lambda gpu, on: self.wishes.append((gpu.reading.index, on)),
            find_clients=lambda gpu: CLIENTS,
            store=here.store,
            boot_id=here.node.boot_id,
        )
        for _ in range(4):
            here.clock.advance(5)
            self.loop.sample()

    def change(
        self, *, enabled: bool, layout: str | None = None, dry_run: bool = False
    ) -> ModeResult:
        gpu = self._again(self.here.uuid())
        return self.switch.change(gpu, layout, enabled=enabled, dry_run=dry_run)

    def mode(self) -> tuple[int, int]:
        """Current and pending mode, from the node's own books."""
        gpu = self.here.node.state.gpus[0]
        return gpu.mig_current, gpu.mig_pending

    def _again(self, uuid: GpuUuid) -> GpuState:
        self.here.clock.advance(5)
        snapshot = self.loop.sample()
        state = None if snapshot is None else snapshot.gpu(uuid)
        assert state is not None
        return state


@contextmanager
def switchboard(*layouts: str, spec: str = A100, mig: bool = True) -> Iterator[Switchboard]:
    with room(*layouts, spec=spec, mig=mig) as here:
        yield Switchboard(here)


def test_ampere_stays_pending_until_a_reset_and_says_so() -> None:
    with switchboard(mig=False) as made:
        result = made.change(enabled=True)

        assert result == ModeResult(
            gpu=0,
            active=False,
            pending_on="reset",
            clients=CLIENTS,
            message=(
                "MIG on is pending until the GPU is reset: stop DCGM (nvidia-dcgm.service), then "
                "`nvidia-smi --gpu-reset -i 0` or reboot"
            ),
        )
        assert made.mode() == (0, 1)
        assert made.wishes == [(0, True)]


def test_ampere_that_the_driver_resets_itself_is_live_with_a_layout() -> None:
    with switchboard(mig=False) as made:
        made.here.node.set_node(bare_metal_reset=True)

        result = made.change(enabled=True, layout="3g 3g")

        assert (result.active, result.message) == (True, "MIG is on with 3g.20gb@0 3g.20gb@4")
        assert made.here.layout() == "3g.20gb@0 3g.20gb@4"


def test_hopper_is_live_at_once_and_gets_the_whole_profile_by_itself() -> None:
    with switchboard(spec=H100, mig=False) as made:
        result = made.change(enabled=True)

        assert (result.active, result.pending_on, result.layout_made) == (True, None, True)
        assert result.message == "MIG is on with 7g.80gb@0"
        assert made.here.layout() == "7g.80gb@0"
        assert made.mode() == (1, 1)


def test_hopper_gets_the_layout_that_was_named() -> None:
    with switchboard(spec=H100, mig=False) as made:
        result = made.change(enabled=True, layout="3g 3g")

        assert result.message == "MIG is on with 3g.40gb@0 3g.40gb@4"
        assert made.here.layout() == "3g.40gb@0 3g.40gb@4"


def test_layout_that_can_not_be_made_is_told_and_mig_stays_on() -> None:
    with switchboard(spec=H100, mig=False) as made:
        create = "nvmlDeviceCreateGpuInstanceWithPlacement"
        made.here.node.add_fault(fails(create, Code.UNKNOWN, times=None))

        result = made.change(enabled=True)

        assert (result.active, result.layout_made) == (True, False)
        assert result.message.startswith("MIG is on, but its layout could not be made: ")
        assert made.mode() == (1, 1)


def test_gpu_that_does_not_answer_after_the_switch_is_told_as_switched() -> None:
    """The refusal that came instead said nothing of the mode, which was on by then."""
    with switchboard(spec=H100, mig=False) as made:
        gpu = made._again(made.here.uuid())
        silent = replace(made.switch, sample=_does_not_answer)

        result = silent.change(gpu, "3g 3g", enabled=True, dry_run=False)

        assert (result.active, result.layout_made) == (True, False)
        assert result.message == "MIG is on, but its layout could not be made: it is lost"
        assert made.mode() == (1, 1)


def _does_not_answer(_uuid: GpuUuid) -> GpuState:
    raise CommandRefused("it is lost")


@pytest.mark.parametrize(
    ("has", "layout", "words"),
    [
        ("", None, 'without any instance; next: migscaler apply --gpu 0 --layout "7g.80gb"'),
        ("", "3g 3g", 'without any instance; next: migscaler apply --gpu 0 --layout "3g 3g"'),
        ("3g@0", "3g 3g", 'with 3g.40gb@0; next: migscaler apply --gpu 0 --layout "3g 3g"'),
    ],
)
@pytest.mark.parametrize("dry_run", [True, False])
def test_mode_that_is_on_without_the_layout_is_told(
    has: str, layout: str | None, words: str, dry_run: bool
) -> None:
    """Asked once more after a layout that could not be made, it said that all was fine."""
    with switchboard(has, spec=H100) as made:
        result = made.change(enabled=True, layout=layout, dry_run=dry_run)

        assert (result.active, result.layout_made) == (True, False)
        assert result.message == f"MIG is on already, {words}"
        assert made.here.our_calls() == []


@pytest.mark.parametrize(
    ("blind", "layout", "is_made"),
    [
        ({"instances": None}, None, False),
        ({"instances": None}, "3g 3g", False),
        ({"model": None}, "3g 3g", False),
        ({"model": None}, None, True),
    ],
    ids=str,
)
def test_layout_that_can_not_be_told_does_not_pass_for_made(
    blind: dict[str, None], layout: str | None, is_made: bool
) -> None:
    """It said that all was fine, with exit code 0."""
    with switchboard("3g@0", spec=H100) as made:
        gpu = made._again(made.here.uuid())
        unseen = replace(gpu, reading=replace(gpu.reading, **blind))  # type: ignore[arg-type]

        result = made.switch.change(unseen, layout, enabled=True, dry_run=False)

        assert (result.active, result.layout_made) == (True, is_made)
        assert ("can't be told" in result.message) is not is_made


def test_gpu_whose_owner_is_seen_only_now_is_not_switched() -> None:
    """The answer that tells it may have been denied whenever the node was read before."""
    with switchboard(spec=H100, mig=False) as made:
        gpu = made._again(made.here.uuid())
        made.here.node.set_node(confidential=True)
        made.here.reader.close()

        with pytest.raises(CommandRefused, match="GPU 0 is left alone: "):
            made.switch.change(gpu, None, enabled=True, dry_run=False)

        assert "nvmlDeviceSetMigMode" not in [c.function for c in made.here.node.call_log()]


def test_switching_off_removes_idle_instances_through_the_journal_first() -> None:
    with switchboard("3g@0 3g@4", spec=H100) as made:
        result = made.change(enabled=False)

        assert (result.active, result.message) == (True, "MIG is off")
        assert made.mode() == (0, 0)
        (past,) = made.here.store.past_plans(10)
        assert (str(past.before), past.after.specs) == ("3g.40gb@0 3g.40gb@4", ())
        assert made.wishes == [(0, False)]


def test_mode_that_is_there_already_is_left_alone() -> None:
    with switchboard("3g@0", spec=H100) as made:
        result = made.change(enabled=True)

        assert (result.active, result.message) == (True, "MIG is on already")
        assert (made.wishes, made.here.our_calls()) == ([], [])


@pytest.mark.parametrize(("spec", "how"), [(A100, "a GPU reset will be needed"), (H100, "at once")])
def test_dry_run_says_how_and_changes_nothing(spec: str, how: str) -> None:
    with switchboard(spec=spec, mig=False) as made:
        result = made.change(enabled=True, dry_run=True)

        assert result == ModeResult(
            gpu=0,
            active=False,
            pending_on=None,
            clients=CLIENTS,
            message=f"would switch MIG on ({how})",
        )
        assert (made.mode(), made.here.our_calls()) == ((0, 0), [])


def test_gpu_with_an_instance_in_use_is_refused_with_its_reason() -> None:
    with switchboard("3g@0 3g@4", spec=H100) as made:
        pid = made.here.node.start_job(0, made.here.gi_of("3g.40gb@4"))

        with pytest.raises(CommandRefused) as refusal:
            made.change(enabled=False)

        assert str(refusal.value) == (
            f"GPU 0 is not free: 3g.40gb@4 must stay (used by a process (pid {pid}); 80% active)"
        )
        assert made.here.layout() == "3g.40gb@0 3g.40gb@4"
        assert made.here.our_calls() == []


def test_gpu_without_mig_that_runs_a_process_is_refused_by_name() -> None:
    with switchboard(spec=H100, mig=False) as made:
        pid = made.here.node.start_job(0, name="train.py")

        with pytest.raises(CommandRefused) as refusal:
            made.change(enabled=True)

        assert str(refusal.value) == f"GPU 0 is in use by a process (pid {pid}); stop it first"
        assert made.mode() == (0, 0)


def test_switch_that_fails_puts_the_instances_back() -> None:
    with switchboard("3g@0 2g@4", spec=H100) as made:
        made.here.node.add_fault(fails("nvmlDeviceSetMigMode", Code.IN_USE))

        with pytest.raises(InUse):
            made.change(enabled=False)

        assert made.here.layout() == "3g.40gb@0 2g.20gb@4"
        assert (made.mode(), made.wishes) == ((1, 1), [])


def test_ampere_that_stays_pending_off_keeps_its_instances() -> None:
    """They were once not put back: a plan was dropped wherever MIG was to go off."""
    with switchboard("3g@0 2g@4") as made:
        result = made.change(enabled=False)

        assert (result.active, result.pending_on) == (False, "reset")
        assert made.here.layout() == "3g.20gb@0 2g.10gb@4"
        assert made.mode() == (1, 0)


def test_instances_that_can_not_be_removed_refuse_the_switch() -> None:
    with switchboard("3g@0 3g@4", spec=H100) as made:
        made.here.node.hold_instance(0, made.here.gi_of("3g.40gb@4"))

        with pytest.raises(CommandRefused, match=r"^GPU 0: "):
            made.change(enabled=False)

        assert made.here.layout() == "3g.40gb@0 3g.40gb@4"
        assert made.mode() == (1, 1)


def test_gpu_without_mig_mode_is_refused() -> None:
    with switchboard(mig=False) as made:
        gpu = made.here.gpu()
        plain = replace(gpu, reading=replace(gpu.reading, mig_enabled=None, mig_pending=None))

        with pytest.raises(CommandRefused) as refusal:
            made.switch.change(plain, None, enabled=True, dry_run=False)

        assert str(refusal.value) == "GPU 0 (NVIDIA A100-SXM4-40GB) has no MIG mode"


def test_driver_that_refuses_for_lack_of_rights_is_passed_on() -> None:
    with switchboard(mig=False) as made:
        made.here.node.set_node(privileged=False)

        with pytest.raises(HardwareError):
            made.change(enabled=True)

        assert made.wishes == []


def test_switch_off_that_is_taken_back_keeps_the_layout() -> None:
    """The idle instances were replaced by one whole one, which nobody had asked for."""
    with switchboard("1g@0 1g@1 2g@2 3g@4") as made:
        assert made.change(enabled=False).pending_on == "reset"
        before = str(made._again(made.here.uuid()).layout)

        result = made.change(enabled=True)

        assert (result.active, result.message) == (True, "MIG is on")
        assert str(made._again(made.here.uuid()).layout) == before
        assert made.mode() == (1, 1)
