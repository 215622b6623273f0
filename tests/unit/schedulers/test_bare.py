import os
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from migscaler.errors import StoreError
from migscaler.model.decision import HoldRecord
from migscaler.model.demand import Counts, Want
from migscaler.model.gpu import (
    ComputeInstance,
    GpuInstance,
    GpuReading,
    InstanceReading,
    NodeReading,
)
from migscaler.model.ids import CiId, GiId, GpuUuid, MigUuid
from migscaler.model.layout import Layout
from migscaler.model.process import Container, HostProcess
from migscaler.schedulers.bare import BareHost, BareScheduler
from migscaler.schedulers.evidence import read_mig_minors
from tests.builders import A100, model, spec
from tests.unit.schedulers.host_files import OWN_PID, HostFiles

NOW = datetime(2026, 3, 2, 12, 0, tzinfo=UTC)
GPU = GpuUuid("GPU-5c89852c-d268-c3f3-1b07-005d5ae1dc3f")
FIRST = MigUuid("MIG-11111111-1111-5111-8111-111111111111")
SECOND = MigUuid("MIG-22222222-2222-5222-8222-222222222222")

# As the driver lists it: all instances that could ever be, whether they exist or not.
MIG_MINORS = """\
config 1
monitor 2
gpu3/gi1/access 30
gpu3/gi1/ci0/access 31
gpu3/gi2/access 39
gpu3/gi2/ci0/access 40
gpu4/gi1/access 165
"""


class FixedClock:
    def now(self) -> datetime:
        return NOW

    def monotonic(self) -> float:
        return 0.0

    def sleep(self, seconds: float) -> None:
        raise AssertionError(seconds)


@dataclass
class SeenHost:
    """The host's processes are visible, or not; some are in containers."""

    sees_all: bool = True
    containers: dict[int, Container] = field(default_factory=dict)

    def visible(self) -> bool:
        return self.sees_all

    def exists(self, pid: int) -> bool:
        raise AssertionError(pid)

    def process(self, pid: int) -> HostProcess:
        return HostProcess(container=self.containers.get(pid))


@dataclass
class Wait:
    size: str


@dataclass
class Book:
    records: tuple[HoldRecord, ...] = ()
    waits: tuple[Wait, ...] = ()
    broken: bool = False

    def holds(self, now: datetime) -> tuple[HoldRecord, ...]:
        assert now == NOW
        if self.broken:
            raise StoreError("disk gone")
        return self.records

    def lease_waits(self, now: datetime) -> Sequence[Wait]:
        assert now == NOW
        if self.broken:
            raise StoreError("disk gone")
        return self.waits


def instance(gi_id: int, text: str, mig_uuid: MigUuid) -> InstanceReading:
    compute = ComputeInstance(ci_id=CiId(0), mig_uuid=mig_uuid, compute_slices=3, full_width=True)
    return InstanceReading(
        instance=GpuInstance(gi_id=GiId(gi_id), spec=spec(A100, text), compute_instances=(compute,))
    )


READING = NodeReading(
    taken_at=NOW,
    taken_monotonic=1.0,
    gpus=(
        GpuReading(
            index=0,
            uuid=GPU,
            name=model(A100).name,
            minor=3,  # not the index: the map speaks of minors
            model=model(A100),
            mig_enabled=True,
            instances=(instance(1, "3g@0", FIRST), instance(2, "3g@4", SECOND)),
        ),
    ),
)


@pytest.fixture
def host(tmp_path: Path) -> HostFiles:
    files = HostFiles(tmp_path)
    files.mig_minors(MIG_MINORS)
    return files


def scheduler(
    host: HostFiles,
    book: Book | None = None,
    sees_all: bool = True,
    containers: dict[int, Container] | None = None,
) -> BareScheduler:
    seen = SeenHost(sees_all, containers or {})
    return BareScheduler(
        book=book or Book(),
        clock=FixedClock(),
        host=BareHost(host=seen, roots=host.roots, own_pid=OWN_PID),
        wait_max_age=timedelta(minutes=1),
    )


def claimed(host: HostFiles, book: Book | None = None) -> list[tuple[MigUuid, str]]:
    found = scheduler(host, book).allocations(READING)
    assert found.known, found.why_unknown
    return [(claim.mig_uuid, claim.named) for claim in found.claims]


def lease(hold_id: int, text: str | None, kind: str = "lease") -> HoldRecord:
    return HoldRecord(
        hold_id=hold_id,
        gpu_uuid=GPU,
        spec=spec(A100, text) if text else None,
        owner="ada",
        reason="lease",
        kind=kind,
        created_at=NOW,
    )


def test_quiet_host_has_no_claims(host: HostFiles) -> None:
    host.process(50, "bash", files=("/dev/null", "pipe:[1]"), environment=("PATH=/bin",))

    assert claimed(host) == []


def test_lease_claims_its_instance(host: HostFiles) -> None:
    found = scheduler(host, Book(records=(lease(4, "3g@4"),))).allocations(READING)

    (claim,) = found.claims
    assert (claim.gpu_uuid, claim.mig_uuid) == (GPU, SECOND)
    assert (claim.owner, claim.user, claim.since) == ("lease 4", "ada", NOW)


def test_holds_of_people_are_no_allocations(host: HostFiles) -> None:
    assert claimed(host, Book(records=(lease(4, "3g@4", kind="hold"),))) == []


def test_lease_of_an_instance_that_is_gone_claims_nothing(host: HostFiles) -> None:
    assert claimed(host, Book(records=(lease(4, "1g@0"),))) == []


def test_lease_of_a_whole_gpu_claims_all_of_it(host: HostFiles) -> None:
    book = Book(records=(lease(4, None),))

    assert claimed(host, book) == [(FIRST, "lease 4"), (SECOND, "lease 4")]


def test_open_device_node_claims_by_device_minor(host: HostFiles) -> None:
    host.process(50, "python3", files=("/dev/null", "/dev/nvidia-caps/nvidia-cap39"))

    assert claimed(host) == [(SECOND, "process 50 (python3, nvidia-cap39 open)")]


def test_holder_on_a_gpu_that_did_not_tell_its_minor_number_is_nobodys_guess(
    host: HostFiles,
) -> None:
    """The index stood in for it: the node of one GPU counted as an instance of another."""
    (gpu,) = READING.gpus
    other = replace(gpu, index=3, uuid=GpuUuid("GPU-other"), minor=None)
    reading = replace(READING, gpus=(replace(gpu, minor=1), other))
    host.process(50, "python3", files=("/dev/nvidia-caps/nvidia-cap39",))

    found = scheduler(host).allocations(reading)

    assert not found.known
    assert found.claims == ()
    assert found.why_unknown == (
        "nvidia-cap39 (process 50) is open and may be of GPU 3, which did not tell its minor number"
    )


def test_gpu_without_minor_number_leaves_what_is_known_of_others(host: HostFiles) -> None:
    (gpu,) = READING.gpus
    reading = replace(READING, gpus=(gpu, replace(gpu, index=1, minor=None)))
    host.process(50, "python3", files=("/dev/nvidia-caps/nvidia-cap39",))

    found = scheduler(host).allocations(reading)

    assert found.known
    assert [claim.mig_uuid for claim in found.claims] == [SECOND]


def test_public_name_of_a_holder_tells_neither_command_nor_process_id(host: HostFiles) -> None:
    """It is a label of a metric: everyone who may scrape read what everyone else was running."""
    host.process(50, "secret-project", files=("/dev/nvidia-caps/nvidia-cap39",))

    (claim,) = scheduler(host).allocations(READING).claims

    assert (claim.owner, claim.user) == ("process", None)
    assert claim.named == "process 50 (secret-project, nvidia-cap39 open)"


def test_holder_in_a_container_is_named_with_it(host: HostFiles) -> None:
    host.process(50, "python3", files=("/dev/nvidia-caps/nvidia-cap39",))
    inside = Container(container_id="4f797c539e6c" + 52 * "0", runtime="docker")

    (claim,) = scheduler(host, containers={50: inside}).allocations(READING).claims

    assert claim.named == "process 50 (python3, docker 4f797c539e6c, nvidia-cap39 open)"
    assert claim.owner == "process"


def test_open_node_of_a_compute_instance_claims_its_instance(host: HostFiles) -> None:
    host.process(50, "python3", files=("/dev/nvidia-caps/nvidia-cap31",))

    assert claimed(host) == [(FIRST, "process 50 (python3, nvidia-cap31 open)")]


def test_config_and_monitor_nodes_claim_nothing(host: HostFiles) -> None:
    host.process(
        50,
        "nv-hostengine",
        files=("/dev/nvidia-caps/nvidia-cap1", "/dev/nvidia-caps/nvidia-cap2"),
    )

    assert claimed(host) == []


def test_node_of_an_instance_that_does_not_exist_claims_nothing(host: HostFiles) -> None:
    host.process(50, "python3", files=("/dev/nvidia-caps/nvidia-cap165",))

    assert claimed(host) == []


def test_environment_that_names_an_instance_claims_it(host: HostFiles) -> None:
    host.process(50, "bash", environment=("A=1", f"CUDA_VISIBLE_DEVICES={FIRST},{SECOND}"))

    assert sorted(claimed(host)) == [
        (FIRST, "process 50 (bash, in its environment)"),
        (SECOND, "process 50 (bash, in its environment)"),
    ]


def test_old_form_of_a_mig_uuid_is_recognized(host: HostFiles) -> None:
    old = MigUuid(f"MIG-{GPU}/1/0")
    (gpu,) = READING.gpus
    reading = replace(READING, gpus=(replace(gpu, instances=(instance(1, "3g@0", old),)),))
    host.process(50, "bash", environment=(f"NVIDIA_VISIBLE_DEVICES={old}",))

    found = scheduler(host).allocations(reading)

    assert [claim.mig_uuid for claim in found.claims] == [old]


def test_lease_wins_over_the_process_that_runs_in_it(host: HostFiles) -> None:
    host.process(50, "python3", environment=(f"CUDA_VISIBLE_DEVICES={SECOND}",))

    assert claimed(host, Book(records=(lease(4, "3g@4"),))) == [(SECOND, "lease 4")]


def test_daemon_and_its_children_are_no_holders(host: HostFiles) -> None:
    node = ("/dev/nvidia-caps/nvidia-cap30",)
    host.process(4001, "migscaler-worker", parent=OWN_PID, files=node)
    host.process(4002, "hook", parent=4001, files=node)

    assert claimed(host) == []


@pytest.mark.parametrize(("second", "claims"), [("kthreadd", 0), ("sh", 1)])
def test_children_of_process_2_are_passed_over_only_if_it_is_the_kernels(
    host: HostFiles, second: str, claims: int
) -> None:
    host.process(2, second, parent=0)
    host.process(50, "python3", parent=2, files=("/dev/nvidia-caps/nvidia-cap30",))

    assert len(claimed(host)) == claims


def test_node_that_is_not_in_the_map_makes_allocations_unknown(host: HostFiles) -> None:
    host.process(50, "python3", files=("/dev/nvidia-caps/nvidia-cap999",))

    found = scheduler(host).allocations(READING)

    assert found.known is False
    assert "nvidia-cap999 (process 50) is open" in found.why_unknown


def test_open_node_without_any_map_makes_allocations_unknown(tmp_path: Path) -> None:
    host = HostFiles(tmp_path)
    host.process(50, "python3", files=("/dev/nvidia-caps/nvidia-cap30",))

    assert scheduler(host).allocations(READING).known is False


def test_host_that_cannot_be_seen_whole_is_unknown_with_its_leases(host: HostFiles) -> None:
    book = Book(records=(lease(4, "3g@4"),))

    found = scheduler(host, book, sees_all=False).allocations(READING)

    assert found.known is False
    assert found.why_unknown == (
        "not all processes of the host are visible; run in the host's PID namespace"
    )
    assert [claim.owner for claim in found.claims] == ["lease 4"]


def test_runtime_on_the_node_makes_allocations_unknown_with_the_way_out(host: HostFiles) -> None:
    host.process(50, "dockerd")
    host.process(51, "python3", environment=(f"CUDA_VISIBLE_DEVICES={FIRST}",))

    found = scheduler(host).allocations(READING)

    assert found.known is False
    assert found.why_unknown == (
        "Docker runs here (process 50, dockerd) and may hand out instances unseen; "
        "stop it, or stay in recommend: there is no adapter for it yet"
    )
    assert [claim.mig_uuid for claim in found.claims] == [FIRST]


def test_process_that_may_not_be_read_makes_allocations_unknown(host: HostFiles) -> None:
    directory = host.process(50, "secret")
    # Root may read anything: the scan is made by a child that is nobody.
    (directory / "fd").chmod(0)
    for path in (host.root, *host.root.parents):
        if path.stat().st_mode & 0o005 != 0o005:
            path.chmod(path.stat().st_mode | 0o055)

    known, why = as_nobody(host)

    assert known == "False"
    assert why == (
        "open files of 1 process(es) can't be read (first: 50 secret); "
        "run as root, or with CAP_SYS_PTRACE and CAP_DAC_READ_SEARCH"
    )


def as_nobody(host: HostFiles) -> tuple[str, str]:
    """Return known and why of the allocations as an unprivileged child sees them."""
    reader, writer = os.pipe()
    with warnings.catch_warnings():
        # Newer Pythons warn of forking beside threads; this child only reads and leaves.
        warnings.simplefilter("ignore", DeprecationWarning)
        child = os.fork()
    if child == 0:
        try:
            if os.getuid() == 0:
                os.setgroups([])
                os.setgid(65534)
                os.setuid(65534)
            found = scheduler(host).allocations(READING)
            os.write(writer, f"{found.known}\n{found.why_unknown}".encode())
        finally:
            os._exit(0)
    os.close(writer)
    os.waitpid(child, 0)
    with os.fdopen(reader, "rb") as pipe:
        known, _, why = pipe.read().decode().partition("\n")
    return known, why


def test_process_that_ends_meanwhile_is_passed_over(host: HostFiles) -> None:
    directory = host.process(50, "short")
    (directory / "fd").rmdir()
    (directory / "environ").unlink()

    assert claimed(host) == []


def test_unreadable_leases_make_allocations_and_waiting_unknown(host: HostFiles) -> None:
    bare = scheduler(host, Book(broken=True))

    assert bare.allocations(READING).why_unknown == "leases can't be read: disk gone"
    assert bare.waiting().problem == "waiting leases can't be read: disk gone"


def test_waiting_leases_are_demand_by_size(host: HostFiles) -> None:
    fetched = scheduler(host, Book(waits=(Wait("2g"), Wait("1g"), Wait("2g")))).waiting()

    assert fetched.reading is not None
    assert fetched.reading.counts is Counts.WAITING
    assert fetched.reading.wants == (Want(size="1g", count=1), Want(size="2g", count=2))
    assert fetched.reading.absent_is_zero is True
    assert fetched.reading.expires_at == NOW + timedelta(minutes=1)


def test_nobody_waiting_is_known(host: HostFiles) -> None:
    fetched = scheduler(host).waiting()

    assert fetched.reading is not None
    assert (fetched.reading.wants, fetched.reading.absent_is_zero) == ((), True)


def test_fence_holds_until_it_is_lifted(host: HostFiles) -> None:
    bare = scheduler(host)

    assert bare.fence(GPU, (spec(A100, "3g@0"),)) is None
    fenced = bare.fenced()
    assert bare.unfence(GPU) is None

    assert (fenced, bare.fenced()) == (frozenset({GPU}), frozenset())


def test_new_layout_needs_no_announcement(host: HostFiles) -> None:
    assert scheduler(host).refresh(GPU, Layout()) is None
    assert scheduler(host).period_seconds() < 1


def test_node_without_instances_reads_no_process(host: HostFiles) -> None:
    host.process(50, "python3", files=("/dev/nvidia-caps/nvidia-cap999",))
    reading = replace(READING, gpus=(replace(READING.gpus[0], instances=()),))

    assert scheduler(host).allocations(reading).known is True


def test_map_of_capability_nodes_is_read() -> None:
    assert read_mig_minors(MIG_MINORS) == {
        1: None,
        2: None,
        30: (3, 1),
        31: (3, 1),
        39: (3, 2),
        40: (3, 2),
        165: (4, 1),
    }
