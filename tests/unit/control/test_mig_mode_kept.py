"""The layout of a GPU that is switched to MIG is kept before the switch, and only if it happens."""

from dataclasses import replace

import pytest

from migscaler.control.emptied import restore
from migscaler.errors import CommandRefused, HardwareError
from migscaler.hardware.nvml import NvmlWriter
from migscaler.model.gpu import ModeChange
from migscaler.model.ids import GpuUuid
from migscaler.model.layout import Layout
from migscaler.model.plan import OutcomeKind
from migscaler.sim.codes import Code
from migscaler.sim.faults import fails, loses_answer
from tests.simulation.acting import Death, DyingWriter
from tests.unit.control.room import H100, Room
from tests.unit.control.test_mig_mode_switch import switchboard


def wanted(here: Room) -> list[str]:
    return [str(record.layout) for record in here.store.wanted()]


class Ended(Exception):
    """The process ends here."""


class LastCall(DyingWriter):
    """Switches the mode, and ends the process with it."""

    def set_mig_mode(self, uuid: GpuUuid, *, enabled: bool) -> ModeChange:
        super().set_mig_mode(uuid, enabled=enabled)
        raise Ended


@pytest.mark.parametrize(
    ("layout", "made_of"),
    [("3g 3g", "3g.40gb@0 3g.40gb@4"), (None, "7g.80gb@0")],
)
def test_gpu_gets_its_layout_at_the_next_start_if_the_process_ends_with_the_switch(
    layout: str | None, made_of: str
) -> None:
    """It was left with MIG on and no instance, and no start knew what it should have."""
    with switchboard(spec=H100, mig=False) as made:
        here = made.here
        made.switch = replace(made.switch, writer=LastCall(NvmlWriter(here.reader), Death()))
        with pytest.raises(Ended):
            made.change(enabled=True, layout=layout)
        assert (made.mode(), here.layout()) == ((1, 1), "")
        here.restart()

        (outcome,) = restore(
            here.site(),
            layout="restore",
            mig_mode=True,
            act_on=frozenset({here.uuid()}),
        )

        assert outcome.kind is OutcomeKind.DONE
        assert here.layout() == made_of


def test_layout_of_a_switch_that_waits_for_a_reset_is_wanted() -> None:
    with switchboard(mig=False) as made:
        made.change(enabled=True)

        assert (made.mode(), wanted(made.here)) == ((0, 1), ["7g.40gb@0"])


def test_switch_that_the_driver_refuses_leaves_no_layout_wanted() -> None:
    with switchboard(spec=H100, mig=False) as made:
        made.here.node.add_fault(fails("nvmlDeviceSetMigMode", Code.UNKNOWN))

        with pytest.raises(HardwareError):
            made.change(enabled=True)

        assert wanted(made.here) == []


def test_switch_that_the_driver_refuses_keeps_what_was_wanted_before() -> None:
    with switchboard(spec=H100, mig=False) as made:
        model = made.here.gpu().reading.model
        assert model is not None
        uuid: GpuUuid = made.here.uuid()
        made.here.store.write_wanted(uuid, model.layout("4g@0 3g@4"), "an earlier boot")
        before = made.here.store.wanted()
        made.here.node.add_fault(fails("nvmlDeviceSetMigMode", Code.UNKNOWN))

        with pytest.raises(HardwareError):
            made.change(enabled=True)

        assert made.here.store.wanted() == before


def test_switch_whose_answer_is_lost_leaves_its_layout_wanted() -> None:
    with switchboard(spec=H100, mig=False) as made:
        made.here.node.add_fault(loses_answer("nvmlDeviceSetMigMode", Code.UNKNOWN))

        with pytest.raises(HardwareError):
            made.change(enabled=True)

        assert made.mode() == (1, 1)
        assert wanted(made.here) == ["7g.80gb@0"]


def test_layout_that_does_not_fit_is_refused_before_anything_is_switched() -> None:
    with switchboard(spec=H100, mig=False) as made:
        with pytest.raises(CommandRefused, match="does not fit"):
            made.change(enabled=True, layout="7g 1g")

        assert (made.mode(), wanted(made.here)) == ((0, 0), [])


def test_layout_that_is_only_tried_is_not_wanted() -> None:
    with switchboard(spec=H100, mig=False) as made:
        made.change(enabled=True, dry_run=True)

        assert wanted(made.here) == []
        assert Layout() == made.here.gpu().layout
