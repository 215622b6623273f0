"""What the worker and its parent tell each other arrives as it was."""

from datetime import UTC, datetime
from multiprocessing.connection import Connection, Pipe
from pathlib import Path

import pytest

from migscaler.errors import InUse
from migscaler.hardware.worker_messages import Reply
from migscaler.hardware.worker_wire import receive, send
from migscaler.model.gpu import (
    Activity,
    ActivitySource,
    ComputeInstance,
    Gap,
    GpuGauges,
    GpuInstance,
    GpuProcess,
    GpuReading,
    InstanceReading,
)
from migscaler.model.ids import CiId, GiId, GpuUuid, MigUuid
from migscaler.model.layout import Layout
from migscaler.model.process import Container
from migscaler.model.profile import InstanceSpec, Placement
from migscaler.model.stats import CallCount, CallStats
from tests.builders import A100, model
from tests.unit.hardware.rig import through_worker

INSIDE = Container(container_id=64 * "a", runtime="docker", pod_uid="74ba62da")
READING = GpuReading(
    index=3,
    uuid=GpuUuid("GPU-3"),
    name="NVIDIA A100-SXM4-40GB",
    model=model(A100),
    mig_enabled=True,
    instances=(
        InstanceReading(
            instance=GpuInstance(
                gi_id=GiId(7),
                spec=InstanceSpec(Placement(0, 1), "1g.5gb"),
                compute_instances=(
                    ComputeInstance(
                        ci_id=CiId(0), mig_uuid=MigUuid("MIG-1"), compute_slices=1, full_width=True
                    ),
                ),
            ),
            memory_used_bytes=12,
            processes=(
                GpuProcess(
                    pid=9, used_memory_bytes=None, name="python3", user="ada", container=INSIDE
                ),
            ),
            activity=Activity(source=ActivitySource.GPM, window_seconds=5.0, graphics_ratio=0.25),
        ),
    ),
    gauges=GpuGauges(last_xid=79, last_xid_at=datetime(2026, 3, 2, 12, 0, tzinfo=UTC)),
    gaps=(Gap(what="memory", why="no answer"),),
)


def through_a_pipe(message: object) -> object:
    ends: tuple[Connection, Connection] = Pipe()
    with ends[0], ends[1]:
        send(ends[0], message)
        return receive(ends[1])


@pytest.mark.parametrize(
    "message",
    [
        READING,
        Reply(stats=CallStats(functions=(CallCount(function="f", calls=2, seconds=0.5),))),
        Layout(),
        None,
    ],
)
def test_message_arrives_equal(message: object) -> None:
    assert through_a_pipe(message) == message


def test_what_arrives_is_as_immutable_as_what_was_sent() -> None:
    arrived = through_a_pipe(Placement(0, 4))

    assert isinstance(arrived, Placement)
    with pytest.raises(AttributeError):
        arrived.start = 1  # type: ignore[misc] # that is what must fail


def test_error_arrives_with_its_fields() -> None:
    arrived = through_a_pipe(InUse("nvmlGpuInstanceDestroy", 19, "IN_USE"))

    assert isinstance(arrived, InUse)
    assert (arrived.function, arrived.code) == ("nvmlGpuInstanceDestroy", 19)


def test_closed_end_is_the_end_of_the_stream() -> None:
    ours, theirs = Pipe()
    theirs.close()
    with ours, pytest.raises(EOFError):
        receive(ours)


def test_model_is_there_in_every_sample_though_it_is_sent_once(tmp_path: Path) -> None:
    with through_worker("2xA100-SXM4-40GB", tmp_path) as rig:
        first, second = rig.reader.read_node(), rig.reader.read_node()
        rig.reader.read_gpu(rig.uuids[0])
        third = rig.reader.read_node()

    assert first.gpus[0].model is not None
    assert [gpu.model for gpu in second.gpus] == [gpu.model for gpu in first.gpus]
    assert second.gpus[0].model is first.gpus[0].model
    assert third.gpus[0].model is first.gpus[0].model
