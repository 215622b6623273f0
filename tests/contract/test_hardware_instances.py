"""What every adapter does with instances: in process, through the worker, and on a real GPU."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from migscaler.errors import InsufficientResources, InUse, NvmlError, ParseError
from migscaler.model.ids import CiId, GiId
from migscaler.model.layout import Layout
from migscaler.model.profile import InstanceSpec, Placement
from tests.unit.hardware.rig import Rig, in_process, real_gpu, through_worker

KINDS = [
    "in process",
    "through worker",
    "mirrored board",
    pytest.param("real", marks=pytest.mark.hardware),
]


@pytest.fixture(params=KINDS)
def rig(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Rig]:
    match request.param:
        case "in process":
            with in_process("A100-SXM4-40GB") as made:
                yield made
        case "through worker":
            with through_worker("H100-SXM5-80GB", tmp_path) as made:
                yield made
        case "mirrored board":
            with in_process("A100-PCIE-40GB", variant="mirrored") as made:
                yield made
        case _:
            with real_gpu() as real:
                yield real


def test_empty_gpu_reads_as_empty_layout_without_gaps(rig: Rig) -> None:
    gpu = rig.gpu()
    assert gpu.layout == Layout(())
    assert gpu.mig_enabled is True
    assert gpu.gaps == ()


def test_created_instance_lies_where_it_was_asked_for(rig: Rig) -> None:
    for spec in ("1g@1", "3g@4", "2g@2"):
        rig.create(spec)
    layout = rig.gpu().layout
    assert layout is not None
    assert layout == rig.model().layout("1g@1 2g@2 3g@4")


def test_created_instance_is_usable_and_has_memory_and_no_process(rig: Rig) -> None:
    gi_id = rig.create("2g@2")
    reading = rig.instance(gi_id)
    assert reading.instance.usable
    assert (reading.instance.mig_uuid or "").startswith("MIG-")
    assert reading.processes == ()
    assert reading.memory_total_bytes is not None
    assert reading.memory_used_bytes is not None
    assert 0 < reading.memory_used_bytes < reading.memory_total_bytes / 20


def test_fresh_read_of_one_gpu_shows_the_same_instances_as_the_node(rig: Rig) -> None:
    rig.create("1g@0")
    rig.create_orphan("2g@2")
    alone = rig.reader.read_gpu(rig.uuids[0])
    assert [r.instance for r in alone.instances or ()] == [
        r.instance for r in rig.gpu().instances or ()
    ]
    assert alone.layout == rig.model().layout("1g@0 2g@2")


def test_orphan_is_seen_and_not_usable(rig: Rig) -> None:
    gi_id = rig.create_orphan("3g@4")
    reading = rig.instance(gi_id)
    assert reading.instance.compute_instances == ()
    assert not reading.instance.usable
    assert reading.activity is None


def test_occupied_placement_is_refused_for_lack_of_resources(rig: Rig) -> None:
    rig.create("2g@0")
    with pytest.raises(InsufficientResources):
        rig.create_orphan("1g@1")
    assert rig.gpu().layout == rig.model().layout("2g@0")


def test_gpu_instance_with_compute_instance_is_in_use(rig: Rig) -> None:
    gi_id = rig.create("1g@0")
    with pytest.raises(InUse):
        rig.writer.destroy_gpu_instance(rig.uuids[0], gi_id)
    assert rig.instance(gi_id).instance.usable


def test_second_full_width_compute_instance_is_refused(rig: Rig) -> None:
    gi_id = rig.create("3g@0")
    with pytest.raises(InsufficientResources):
        rig.writer.create_compute_instance(rig.uuids[0], gi_id)


def test_destroyed_instance_is_gone_from_the_next_reading(rig: Rig) -> None:
    rig.create("1g@0")
    rig.destroy(rig.create("1g@1"))
    assert rig.gpu().layout == rig.model().layout("1g@0")


def test_what_is_not_there_can_not_be_destroyed(rig: Rig) -> None:
    gi_id = rig.create_orphan("1g@0")
    with pytest.raises(NvmlError):
        rig.writer.destroy_compute_instance(rig.uuids[0], gi_id, CiId(0))
    rig.writer.destroy_gpu_instance(rig.uuids[0], gi_id)
    with pytest.raises(NvmlError):
        rig.writer.destroy_gpu_instance(rig.uuids[0], GiId(gi_id))


def test_illegal_placement_is_refused_by_the_driver(rig: Rig) -> None:
    profile = rig.model().resolve("3g")
    assert profile is not None
    with pytest.raises(ParseError):
        rig.model().spec("3g@2")
    with pytest.raises(NvmlError):
        rig.writer.create_gpu_instance(rig.uuids[0], InstanceSpec(Placement(2, 4), profile.name))
    assert rig.gpu().layout == Layout(())


def test_order_that_fails_without_placements_is_simply_served(rig: Rig) -> None:
    for spec in ("1g@0", "1g@1", "2g@2", "3g@4"):
        rig.create(spec)
    assert rig.gpu().layout == rig.model().layout("1g@0 1g@1 2g@2 3g@4")
