"""The last XID of a GPU stays known, whatever becomes of the process that saw it."""

from datetime import timedelta

import pytest

from migscaler.hardware.nvml import NvmlReader
from migscaler.hardware.roll_call import GpuAnswer, NodeFacts, RollCall
from migscaler.model.gpu import GpuGauges, GpuReading
from migscaler.model.ids import GpuUuid
from migscaler.sim import faults
from migscaler.sim.codes import Code
from tests.builders import NOW
from tests.unit.hardware.rig import in_process

GPU = GpuUuid("GPU-A")
FACTS = NodeFacts(
    taken_at=NOW, taken_monotonic=0.0, gpu_count=1, driver_version=None, nvml_version=None
)


def last_xid(roll: RollCall, gauges: GpuGauges) -> int | None:
    """Return what a reading shows after a process has told this."""
    reading = GpuReading(index=0, uuid=GPU, name="A100", pci_bus_id=None, gauges=gauges)
    (found,) = roll.read(FACTS, lambda index, uuid: GpuAnswer(reading=reading)).gpus
    return found.gauges.last_xid


def test_xid_is_shown_though_another_process_reads_now() -> None:
    """It was absent again once the worker was replaced, which is when one looks at it."""
    roll = RollCall()
    told = GpuGauges(last_xid=119, last_xid_at=NOW)
    newer = GpuGauges(last_xid=79, last_xid_at=NOW + timedelta(minutes=5))

    told_and_shown = [(told, 119), (GpuGauges(), 119), (newer, 79), (told, 79)]
    assert [last_xid(roll, one) for one, _ in told_and_shown] == [one for _, one in told_and_shown]


@pytest.mark.parametrize("function", ["nvmlEventSetCreate", "nvmlDeviceRegisterEvents"])
def test_xids_are_asked_for_again_after_a_failure(function: str) -> None:
    """One TIMEOUT, and no XID was ever noticed."""
    with in_process("A100-SXM4-40GB") as rig:
        rig.node.add_fault(faults.fails(function, Code.TIMEOUT))
        rig.gpu()
        rig.gpu()
        rig.node.raise_xid(0, 63)

        assert rig.gpu().gauges.last_xid == 63


def test_driver_without_events_is_asked_once() -> None:
    with in_process("A100-SXM4-40GB") as rig:
        rig.node.add_fault(faults.fails("nvmlDeviceRegisterEvents", Code.NOT_SUPPORTED, times=None))
        for _ in range(3):
            rig.gpu()
        assert isinstance(rig.reader, NvmlReader)
        calls = {one.function: one.calls for one in rig.reader.call_stats().functions}

    assert calls["nvmlDeviceRegisterEvents"] == 1
