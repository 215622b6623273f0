"""Which GPU an index means, when indices move while one of them does not answer."""

import pytest

from migscaler.errors import HardwareError
from migscaler.hardware.roll_call import Ask, GpuAnswer, NodeFacts, RollCall
from migscaler.model.gpu import GpuReading
from migscaler.model.ids import GpuUuid
from tests.builders import NOW

A, B = GpuUuid("GPU-A"), GpuUuid("GPU-B")
FACTS = NodeFacts(
    taken_at=NOW, taken_monotonic=0.0, gpu_count=2, driver_version=None, nvml_version=None
)


def asking(
    order: tuple[GpuUuid, GpuUuid], *, hangs: GpuUuid | None = None
) -> tuple[Ask, list[GpuUuid | None]]:
    """Return what asks GPUs in an order of indices, and whom it was told to ask."""
    asked: list[GpuUuid | None] = []

    def ask(index: int, uuid: GpuUuid | None) -> GpuAnswer:
        asked.append(uuid)
        if order[index] == hangs:
            raise HardwareError("no answer")
        reading = GpuReading(index=index, uuid=order[index], name="A100", pci_bus_id=None)
        return GpuAnswer(reading=reading)

    return ask, asked


def listed(roll: RollCall, ask: Ask) -> dict[str, list[str]]:
    node = roll.read(FACTS, ask)
    found = {str(gpu.uuid): [gap.why for gap in gpu.gaps] for gpu in node.gpus}
    assert len(found) == len(node.gpus)
    return {**found, "node": [gap.why for gap in node.gaps]}


def test_gpu_that_does_not_answer_is_listed_by_what_it_was() -> None:
    roll = RollCall()
    listed(roll, asking((A, B))[0])
    ask, asked = asking((A, B), hangs=B)

    assert listed(roll, ask) == {A: [], B: ["no answer"], "node": []}
    assert asked == [A, B]


@pytest.mark.parametrize("hangs", [A, B])
def test_gpu_is_not_blamed_for_another_that_has_its_index(hangs: GpuUuid) -> None:
    """It was listed twice, well and not answering, and left alone for the other's failure."""
    roll = RollCall()
    listed(roll, asking((A, B))[0])
    ask, asked = asking((B, A), hangs=hangs)
    well = B if hangs == A else A

    gone = "not seen; it may be one of those that did not say who they are"
    index = (B, A).index(hangs)
    assert listed(roll, ask) == {
        well: [],
        hangs: [gone],
        "node": [f"GPU {index}: no answer"],
    }
    if hangs == A:
        assert asked == [A, None]  # by then it was known that index 1 is not B any more
