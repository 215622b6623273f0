"""The privileged worker service: who is served, what may be asked, what is refused whoever asks."""

import contextlib
import multiprocessing
import os
import resource
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from migscaler.app.daemon import Daemon, DaemonOptions
from migscaler.app.hardware_lock import HardwareLock
from migscaler.app.local import LocalOptions, open_local
from migscaler.app.nvml_worker import Bounds, Peer
from migscaler.app.runtime import Runtime
from migscaler.cli.simulated import (
    boot_id_of,
    host_of,
    preparation,
    quiet_host,
    simulated_hardware,
)
from migscaler.errors import HardwareError, HeldByProcess, NoPermission
from migscaler.hardware.nvml_calls import install_library
from migscaler.hardware.worker import NvmlWorker, WorkerLimits
from migscaler.hardware.worker_remote import RemoteWorker, check_listener
from migscaler.model.host import HostTable, Process, Trace
from migscaler.model.ids import CiId, GiId, GpuUuid
from migscaler.model.profile import InstanceSpec, Placement
from migscaler.sim import faults
from tests.contract.nvml_service import (
    MIGSCALER,
    Client,
    Service,
    evil_pickle,
    is_running,
    service,
    start,
    wait_for,
)
from tests.unit.app.nodes import ENFORCE, ROOT
from tests.unit.descriptors import no_more_descriptors
from tests.unit.hardware.rig import QUICK, RealClock, SteppedClock

pytestmark = pytest.mark.xdist_group("nvml-service")


@pytest.fixture(scope="module")
def attacked(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """One service for everything that is sent to it by a client gone bad."""
    with service(tmp_path_factory.mktemp("attacked")) as made:
        made.instance("3g@0")
        yield made


@pytest.mark.parametrize(
    "message",
    [
        b"\0\xff\xfe",
        b'{"name": "install_library", "arguments": ["os"]}',
        b'{"name": "make_device_nodes", "arguments": ["/bin/sh"]}',
        b'{"name": "destroy_gpu_instance", "arguments": ["GPU-0", 1]}',
        b'{"name": "begin", "arguments": []}' + b" " * 2000,
    ],
)
def test_what_is_no_request_ends_that_connection_and_nothing_else(
    attacked: Service, message: bytes
) -> None:
    with attacked.client() as client:
        client.connection.send_bytes(message)
        assert client.is_hung_up()

    with attacked.client() as other:
        assert other.ask("begin").error is None
    assert attacked.changes() == []


def test_pickle_is_not_read(attacked: Service, tmp_path: Path) -> None:
    touched = tmp_path / "touched"

    with attacked.client() as client:
        client.connection.send_bytes(evil_pickle(touched))
        assert client.is_hung_up()

    assert not touched.exists()


def test_flood_of_requests_is_answered_with_a_refusal(attacked: Service) -> None:
    errors: list[str] = []
    with attacked.client() as client:
        # 2,000 at once and 200 a second: how many that is depends on how fast they come.
        while not errors or (errors[-1] == "None" and len(errors) < 30_000):
            errors.append(str(client.ask("read_host", False).error))

    assert errors[0] == "None"
    assert errors[-1] == "too many requests to the NVML worker"


def test_more_connections_than_workers_are_not_taken(attacked: Service) -> None:
    wait_for("earlier workers have ended", lambda: not attacked.workers())
    # The rate of connections is bounded too, and the tests before have used some.
    taken: list[Client] = []
    try:
        for _ in range(9):
            client = Client(attacked.socket)
            taken.append(client)
            if client.is_hung_up_at_once():
                break
        assert 1 < len(taken) <= 9
        assert len(attacked.workers()) < 9
    finally:
        for client in taken:
            client.close()
    assert "connection_refused" in attacked.log.read_text()


def test_another_account_is_not_served(tmp_path: Path) -> None:
    """Not even root, if it is not the account that the service is for."""
    somebody = "65534" if os.getuid() != 65534 else "0"
    with service(tmp_path, user=somebody) as made:
        assert Client(made.socket).is_hung_up()
        with made.worker() as worker, pytest.raises(HardwareError, match="its log says why"):
            worker.read_node()
        assert f"uid={os.getuid()}" in made.log.read_text()
        assert made.workers() == []


def test_unknown_account_and_taken_socket_are_told_at_the_start(tmp_path: Path) -> None:
    with service(tmp_path) as made:
        second = start(tmp_path, str(os.getuid()))
        assert second.wait(30) == 1
        assert "somebody listens at" in made.log.read_text()
        nobody = start(tmp_path, "no-such-account")
        assert nobody.wait(30) == 1
        assert "there is no account 'no-such-account'" in made.log.read_text()


def test_changes_are_only_for_who_holds_the_machine_s_lock(tmp_path: Path) -> None:
    with service(tmp_path) as made:
        gpu, gi = made.instance("3g@0")
        made.lock.release()
        with made.worker() as worker, pytest.raises(HardwareError, match="nobody holds the right"):
            worker.destroy_compute_instance(gpu, gi, CiId(0))
        with HolderElsewhere(made) as pid, made.worker() as worker:
            with pytest.raises(HardwareError, match=f"process {pid} of uid {os.getuid()} holds"):
                worker.destroy_compute_instance(gpu, gi, CiId(0))
            assert worker.read_gpu(gpu).gaps == ()
        assert made.changes() == []
        assert made.lock.take() is None
        with made.worker() as worker:
            worker.destroy_compute_instance(gpu, gi, CiId(0))
        assert made.changes() == ["nvmlComputeInstanceDestroy"]


class HolderElsewhere:
    """Another process that holds the lock for one block."""

    CODE = (
        "import sys; from migscaler.app.hardware_lock import HardwareLock\n"
        "lock = HardwareLock(sys.argv[1]); assert lock.take() is None\n"
        "print('held', flush=True); sys.stdin.read()"
    )

    def __init__(self, made: Service) -> None:
        self._hardware = simulated_hardware(made.directory)

    def __enter__(self) -> int:
        self._process = subprocess.Popen(
            [sys.executable, "-c", self.CODE, self._hardware],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        assert self._process.stdout is not None
        assert self._process.stdout.readline() == b"held\n"
        return self._process.pid

    def __exit__(self, *_error: object) -> None:
        self._process.communicate(b"")


def test_instance_with_a_process_is_not_even_tried(tmp_path: Path) -> None:
    """The daemon would not ask; one that was taken over might."""
    with service(tmp_path) as made:
        gpu, gi = made.instance("3g@0")
        pid = made.node.start_job(0, gi, name="train")
        with made.worker() as worker:
            said = rf"process {pid} \(train\) is on 3g.20gb@0"
            with pytest.raises(HeldByProcess, match=said):
                worker.destroy_compute_instance(gpu, gi, CiId(0))
            with pytest.raises(HeldByProcess, match=said):
                worker.destroy_gpu_instance(gpu, gi)
            with pytest.raises(HeldByProcess, match=said):
                worker.set_mig_mode(gpu, enabled=False)
            assert made.changes() == []
            made.node.end_job(pid)
            worker.destroy_compute_instance(gpu, gi, CiId(0))
            worker.destroy_gpu_instance(gpu, gi)
        assert made.changes() == ["nvmlComputeInstanceDestroy", "nvmlGpuInstanceDestroy"]


@pytest.mark.parametrize("trace", ["environment", "device node", "unreadable"])
def test_instance_that_a_process_may_have_is_not_even_tried(tmp_path: Path, trace: str) -> None:
    with service(tmp_path) as made:
        gpu, gi = made.instance("3g@0")
        made.instance("3g@4")
        said = "3g.20gb@0 is held by process 77 \\(bash, "
        if trace == "environment":
            made.host_process(77, "bash", words=f"A=b\0X={made.mig_uuid()}\0".encode())
        elif trace == "device node":
            made.host_process(77, "bash", cap=30)
            minors = made.directory / "host/proc/driver/nvidia-caps/mig-minors"
            minors.parent.mkdir(parents=True)
            minors.write_text(f"config 1\ngpu0/gi{gi}/access 30\n")
        else:
            made.host_process(77, "bash")
            (made.directory / "host/proc/77/environ").unlink()
            (made.directory / "host/proc/77/environ").mkdir()
            said = "open files of 1 process\\(es\\) can't be read"

        with made.worker() as worker, pytest.raises(HardwareError, match=said):
            worker.destroy_compute_instance(gpu, gi, CiId(0))
        assert made.changes() == []


def test_every_change_leaves_a_line_in_the_log(tmp_path: Path) -> None:
    with service(tmp_path) as made:
        gpu = made.uuids[0]
        spec = InstanceSpec(Placement(0, 4), "3g.20gb")
        with made.worker() as worker:
            gi = worker.create_gpu_instance(gpu, spec)
            worker.create_compute_instance(gpu, gi)
            with pytest.raises(HardwareError):
                worker.create_gpu_instance(gpu, spec)
            worker.read_node()
        lines = [line for line in made.log.read_text().splitlines() if "nvml_change" in line]

    me = f"pid={os.getpid()} uid={os.getuid()}"
    assert [line.partition("event=")[2].rpartition(" seconds=")[0] for line in lines] == [
        f'nvml_change command=create_gpu_instance arguments="{gpu} 3g.20gb@0" {me} outcome=done',
        f'nvml_change command=create_compute_instance arguments="{gpu} {gi}" {me} outcome=done',
        f'nvml_change command=create_gpu_instance arguments="{gpu} 3g.20gb@0" {me} outcome='
        '"nvmlDeviceCreateGpuInstanceWithPlacement answered INSUFFICIENT_RESOURCES (23)"',
    ]


def test_driver_s_refusal_arrives_as_it_is(tmp_path: Path) -> None:
    with service(tmp_path) as made:
        made.node.set_node(privileged=False)
        with made.worker() as worker, pytest.raises(NoPermission):
            worker.create_compute_instance(made.uuids[0], GiId(1))


def test_host_is_seen_by_the_service_and_never_whole_environments(tmp_path: Path) -> None:
    with service(tmp_path) as made:
        mig = "MIG-11111111-1111-5111-8111-111111111111"
        made.host_process(50, "bash", words=f"PASSWORD=hunter2\0V={mig},{mig}\0".encode())
        made.host_process(60, "python3", cap=31)
        made.host_process(70, "sshd", words=b"TOKEN=hunter3\0")
        with made.client() as client:
            client.send("read_host", True)
            raw = client.connection.recv_bytes()
            assert b"hunter" not in raw
            assert client.ask("read_host", False).value == HostTable(
                processes=tuple(
                    Process(pid=pid, name=name, parent=1)
                    for pid, name in ((50, "bash"), (60, "python3"), (70, "sshd"))
                )
            )
            found = client.ask("read_host", True).value
        assert isinstance(found, HostTable)
        assert found.traces == (
            Trace(pid=50, mig_uuids=(mig,)),  # type: ignore[arg-type] # a NewType of str
            Trace(pid=60, caps=(31,)),
        )


@contextlib.contextmanager
def _hanging(made: Service, gpu: GpuUuid, gi: GiId) -> Iterator[Client]:
    """A connection whose change of the first GPU hangs."""
    made.node.add_fault(faults.hangs("nvmlComputeInstanceDestroy", gpu=0))
    with made.client() as hung:
        hung.send("destroy_compute_instance", gpu, gi, 0)
        wait_for("it hangs", lambda: made.node.state.faults[0].times == 0)
        yield hung


def test_hung_change_is_given_up_and_keeps_others_off_that_gpu_until_it_is_gone(
    tmp_path: Path,
) -> None:
    with service(tmp_path) as made:
        first, second = made.instance("3g@0"), made.instance("3g@0", gpu=1)
        with _hanging(made, *first) as hung, made.client() as other:
            refused = other.ask("destroy_compute_instance", *first, 0).error
            assert f"an earlier change of this GPU has not come back: process {hung.pid} of" in str(
                refused
            )
            unjudged = other.ask("read_gpu", first[0]).error
            holder = f"process {hung.pid} of uid {os.getuid()}"
            assert f"has not come back ({holder}): it may still come through" in str(unjudged)
            assert other.ask("read_gpu", second[0]).error is None
            assert other.ask("destroy_compute_instance", *second, 0).error is None
            stuck = hung.pid
            hung.close()
            wait_for("its process is gone", lambda: not is_running(stuck))
            assert other.ask("read_gpu", first[0]).error is None
            assert other.ask("destroy_compute_instance", *first, 0).error is None


def test_hung_change_outlives_its_service_and_still_keeps_others_off_that_gpu(
    tmp_path: Path,
) -> None:
    with service(tmp_path) as made:
        first, second = made.instance("3g@0"), made.instance("3g@0", gpu=1)
        with _hanging(made, *first) as hung:
            made.process.kill()
            made.process.wait()
            made.log.write_text("")
            made.process = start(tmp_path, str(os.getuid()))
            wait_for("a new one listens", lambda: "worker_listening" in made.log.read_text())
            with made.client() as other:
                assert is_running(hung.pid)
                # More often than callers are kept of one that answers none.
                for _ in range(200):
                    unjudged = other.ask("read_gpu", first[0]).error
                    assert "it may still come through" in str(unjudged)
                refused = other.ask("destroy_compute_instance", *first, 0).error
                assert "an earlier change of this GPU has not come back" in str(refused)
                assert other.ask("read_gpu", second[0]).error is None
                hung.close()
                wait_for("its process is gone", lambda: not is_running(hung.pid))
                assert other.ask("read_gpu", first[0]).error is None
                assert other.ask("destroy_compute_instance", *first, 0).error is None


@pytest.mark.parametrize("arrangement", ["command", "daemon"])
def test_change_of_a_daemon_that_is_gone_is_believed_by_no_other_arrangement(
    tmp_path: Path, arrangement: str
) -> None:
    """A command and a daemon with a child of its own took such a GPU for settled."""
    with service(tmp_path) as made:
        first, _second = made.instance("3g@0"), made.instance("3g@0", gpu=1)
        with _hanging(made, *first) as hung:
            made.lock.release()  # the daemon has ended, and what it asked for has not
            with {"command": _command, "daemon": _daemon}[arrangement](made) as runtime:
                ours = runtime.commands.execute("apply", {"gpu": 1, "layout": "3g 3g"}, ROOT)
                refused = runtime.commands.execute("apply", {"gpu": 0, "layout": "3g 3g"}, ROOT)
            outcomes = [*_outcomes(ours), *_outcomes(refused)]
            assert [one["outcome"] for one in outcomes] == ["done", "failed"]
            assert "an earlier change of this GPU has not come back" in str(outcomes[1])
            assert f"(process {hung.pid} of uid {os.getuid()})" in str(outcomes[1])
            assert [len(gpu.instances) for gpu in made.node.state.gpus] == [1, 2]


@contextlib.contextmanager
def _command(made: Service) -> Iterator[Runtime]:
    """The node of a service as a command opens it that needs no service."""
    try:
        with open_local(LocalOptions(**_simulated(made))) as runtime:
            yield runtime
    finally:
        install_library(None)


@contextlib.contextmanager
def _daemon(made: Service) -> Iterator[Runtime]:
    """The node of a service as a daemon has it with a child of its own."""
    ready = threading.Event()
    daemon = Daemon(
        DaemonOptions(**_simulated(made), listen="127.0.0.1:0", on_ready=lambda _page: ready.set())
    )
    thread = threading.Thread(target=daemon.run)
    thread.start()
    try:
        assert ready.wait(60)
        yield daemon.runtime
    finally:
        daemon.stop()
        thread.join(60)


def _simulated(made: Service) -> dict[str, Any]:
    """What either is told of the node."""
    config = made.directory.parent / "migscaler.yaml"
    config.write_text(ENFORCE)
    return {
        "config": config,
        "state_dir": made.directory.parent / "state",
        "prepare": preparation(made.directory),
        "make_host": host_of(made.directory),
        "boot_id": boot_id_of(made.directory),
        "roots": quiet_host(made.directory),
        "hardware": simulated_hardware(made.directory),
    }


def _outcomes(answer: dict[str, object]) -> list[dict[str, object]]:
    outcomes = answer["outcomes"]
    assert isinstance(outcomes, list)
    return outcomes


def test_change_that_nobody_waits_for_any_more_is_not_begun(tmp_path: Path) -> None:
    """A worker that was slow to begin would act after what became of the GPU was looked at."""
    with service(tmp_path) as made, made.client() as other:
        target = made.instance("3g@0")
        slow = Client(made.socket)
        pid = slow.greeting()
        refused = 'outcome="whoever asked for this change has hung up"'
        with made.stopped():  # it would kill that process after 2 s
            os.kill(pid, signal.SIGSTOP)
            slow.send("destroy_compute_instance", *target, 0)
            slow.close()
            assert other.ask("read_gpu", target[0]).error is None
            os.kill(pid, signal.SIGCONT)
            wait_for("its process is gone", lambda: not is_running(pid))
        assert refused in made.log.read_text()
        assert made.changes() == []


def test_right_to_change_is_asked_for_once_others_are_kept_off_the_gpu(tmp_path: Path) -> None:
    """Asked before, a daemon started in between would have its look, and then the call came."""
    hardware = f"asked last {tmp_path}"
    lock, ours = HardwareLock(hardware), HardwareLock(hardware)
    assert lock.take() is None
    kept_off: list[bool] = []
    here, there = multiprocessing.Pipe()

    class Asked(HardwareLock):
        def held_by(self) -> tuple[int, int] | None:
            kept_off.append(ours.of_gpu("GPU-a").held_by() is not None)
            return super().held_by()

    peer = Peer(pid=os.getpid(), uid=os.getuid())
    bounds = Bounds(RealClock(), Asked(hardware), peer, there)
    change = bounds.around("set_mig_mode", lambda *_arguments: "changed")

    assert change("GPU-A", True) == "changed"
    assert kept_off == [True]
    assert ours.of_gpu("GPU-a").held_by() is None
    here.close()
    with pytest.raises(HardwareError, match="hung up"):
        change("GPU-A", True)
    lock.release()


def test_change_that_ends_in_a_fault_of_ours_is_not_told_as_done(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    lock = HardwareLock(f"fault {tmp_path}")
    assert lock.take() is None
    here, there = multiprocessing.Pipe()
    peer = Peer(pid=os.getpid(), uid=os.getuid())
    with here, there:
        bounds = Bounds(RealClock(), lock, peer, there)
        change = bounds.around("set_mig_mode", lambda *_arguments: int("no number"))
        with pytest.raises(ValueError, match="no number"):
            change("GPU-A", True)
    lock.release()

    assert "outcome=not known" in caplog.text
    assert "outcome=done" not in caplog.text


def test_hung_change_has_others_read_over_a_second_connection_that_ends_with_it(
    tmp_path: Path,
) -> None:
    limits = WorkerLimits(patience_seconds=0.5, stop_seconds=30.0)
    with service(tmp_path) as made, made.worker(limits) as worker:
        target = made.instance("3g@0")
        worker.read_node()
        made.node.add_fault(faults.hangs("nvmlComputeInstanceDestroy", gpu=0))
        change = threading.Thread(target=_destroyed, args=(worker, *target))
        change.start()
        wait_for("it hangs", lambda: made.node.state.faults[0].times == 0)
        sick, well = worker.read_node().gpus
        assert sick.gaps[0].why.startswith("a change of this GPU has been under way for ")
        assert well.gaps == ()
        assert worker.read_host(True).processes == ()
        assert len(made.workers()) == 2
        assert change.is_alive()
        made.node.clear_faults()
        change.join(30)
        assert [gpu.gaps for gpu in worker.read_node().gpus] == [(), ()]
        assert len(made.workers()) == 1
        assert worker.call_stats().worker_restarts == 0


def _destroyed(worker: NvmlWorker, gpu: GpuUuid, gi: GiId) -> None:
    with contextlib.suppress(HardwareError):
        worker.destroy_compute_instance(gpu, gi, CiId(0))


def test_request_past_its_deadline_is_given_up_and_the_next_is_answered(tmp_path: Path) -> None:
    with service(tmp_path) as made, made.worker(QUICK, SteppedClock()) as worker:
        worker.read_node()
        first = worker.child_pid
        made.node.add_fault(faults.hangs("nvmlDeviceGetMigMode", gpu=1))
        hung = worker.read_node()
        assert [bool(gpu.gaps) for gpu in hung.gpus] == [False, True]
        assert worker.read_gpu(made.uuids[0]).gaps == ()
        assert worker.child_pid != first
        assert first is not None
        wait_for("the process given up is gone", lambda: not is_running(first))
        with pytest.raises(HardwareError, match="left alone for "):
            worker.read_gpu(made.uuids[1])
        assert worker.call_stats().worker_restarts == 1


def test_process_hung_up_on_is_gone_once_it_has_ended_and_not_before(tmp_path: Path) -> None:
    """It was called gone at once, and asked for again while its call hung, until none was taken."""
    with service(tmp_path) as made:
        worker = RemoteWorker(made.socket, 30.0)
        with made.stopped():
            os.kill(worker.pid, signal.SIGSTOP)  # as in a call: it does not see that we hang up
            worker.abandon()
            assert not worker.is_gone(0.0)
        assert worker.is_gone(30.0)  # the service has killed it
        assert not is_running(worker.pid)
        assert worker.is_gone(0.0)


def test_end_of_a_process_may_be_asked_for_by_several_threads_at_once(tmp_path: Path) -> None:
    """The one who asked it and the books looked at the same time: its pidfd was closed twice.

    The number may have been another's by then, the journal's for example.
    """
    wrongs: list[BaseException] = []

    def look(worker: RemoteWorker, together: threading.Barrier) -> None:
        together.wait(30)
        try:
            assert worker.is_gone(1.0)
        except BaseException as error:  # noqa: BLE001 - to be shown by the test, not the thread
            wrongs.append(error)

    with service(tmp_path) as made:
        for _ in range(8):
            worker, together = RemoteWorker(made.socket, 30.0), threading.Barrier(2)
            worker.abandon()
            wait_for("it has ended", partial(has_ended, worker.pid))
            threads = [threading.Thread(target=look, args=(worker, together)) for _ in range(2)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join(30)
    assert wrongs == []


def has_ended(pid: int) -> bool:
    return not is_running(pid)


def test_process_that_can_not_be_watched_is_not_asked(tmp_path: Path) -> None:
    """Its end can't be told then, and it was taken for gone while its call might come through."""
    with service(tmp_path) as made:
        with (
            no_more_descriptors(but=1),
            pytest.raises(HardwareError, match="can't be watched: Too many open files"),
        ):
            RemoteWorker(made.socket, 30.0)
        wait_for("its process ends", lambda: not made.workers())


def test_released_driver_has_no_process_until_resumed(tmp_path: Path) -> None:
    with service(tmp_path) as made, made.worker() as worker:
        worker.read_node()
        assert len(made.workers()) == 1
        worker.release_driver()
        assert made.workers() == []  # at once: the driver is to be unloaded next
        with pytest.raises(HardwareError, match="released"):
            worker.read_node()
        worker.resume()
        assert worker.read_node().gaps == ()


def test_service_started_anew_costs_no_reading(tmp_path: Path) -> None:
    with service(tmp_path) as made, made.worker() as worker:
        worker.read_node()
        made.process.terminate()
        assert made.process.wait(30) == 0
        assert not made.socket.exists()
        with pytest.raises(HardwareError, match="no NVML worker answers at "):
            worker.read_node()
        again = start(tmp_path, str(os.getuid()))
        try:
            listening = "nvml_worker_listening"  # the socket is there a moment before it is heard
            wait_for("it listens again", lambda: made.log.read_text().count(listening) == 2)
            assert worker.read_node().gpus[0].gaps == ()  # nobody is blamed, nothing waited for
        finally:
            again.terminate()
            assert again.wait(30) == 0


def test_stopped_service_lets_a_change_under_way_come_back(tmp_path: Path) -> None:
    with service(tmp_path) as made:
        target = made.instance("3g@0")
        made.node.add_fault(faults.slow("nvmlComputeInstanceDestroy", 600.0, times=1))
        with made.client() as client:
            client.send("destroy_compute_instance", *target, 0)
            wait_for("it is in the call", lambda: made.node.state.faults[0].times == 0)
            made.process.send_signal(signal.SIGTERM)
            wait_for("nobody is let in any more", lambda: not made.socket.exists())
            made.node.clear_faults()
            assert client.answer().error is None
            assert made.process.wait(30) == 0
        assert made.changes() == ["nvmlComputeInstanceDestroy"]


def test_killed_client_s_worker_ends_even_in_a_hung_call(tmp_path: Path) -> None:
    with service(tmp_path) as made:
        made.node.add_fault(faults.hangs("nvmlDeviceGetMigMode"))
        with made.client() as client:
            client.send("read_gpu", made.uuids[0])
            (pid,) = made.workers()
        wait_for("the worker is gone", lambda: not is_running(pid))


def test_answers_of_somebody_else_are_not_read(tmp_path: Path) -> None:
    """They are unpickled, so whoever listens there must be root or ourselves."""
    ours, theirs = socket.socketpair()
    with ours, theirs, pytest.raises(HardwareError, match="neither root nor this account"):
        check_listener(ours, tmp_path, trusted=(os.geteuid() + 1,))


def test_listener_that_says_nothing_is_given_up(tmp_path: Path) -> None:
    path = tmp_path / "silent.sock"
    with socket.socket(socket.AF_UNIX) as silent:
        silent.bind(str(path))
        silent.listen()
        with pytest.raises(HardwareError, match="did not take us"):
            RemoteWorker(path, 0.2)


def test_service_out_of_descriptors_rests_serves_on_and_takes_the_next_once_there_is_one(
    tmp_path: Path,
) -> None:
    """The connection that could not be accepted was asked for again at once, with a whole core."""
    with service(tmp_path) as made, made.worker() as worker:
        worker.read_node()
        # By then it has all descriptors that the connection needs.
        wait_for("it is served", lambda: "event=connected " in made.log.read_text())
        hard = resource.prlimit(made.process.pid, resource.RLIMIT_NOFILE)[1]
        most = open_descriptors(made.process.pid)
        resource.prlimit(made.process.pid, resource.RLIMIT_NOFILE, (most, hard))
        began = time.monotonic()
        waiting = Client(made.socket)
        wait_for("it says so", lambda: "accept_failed" in made.log.read_text())
        before = cpu_seconds(made.process.pid)
        for _ in range(10):
            assert len(worker.read_node().gpus) == 2
            threading.Event().wait(0.2)
        spent = cpu_seconds(made.process.pid) - before
        resource.prlimit(made.process.pid, resource.RLIMIT_NOFILE, (hard, hard))
        lasted = time.monotonic() - began

        assert is_running(waiting.greeting())
        waiting.close()
        told = made.log.read_text().count("accept_failed")
    assert spent < 0.2
    assert told <= 2 + 2 * lasted


def open_descriptors(pid: int) -> int:
    return len(list(Path(f"/proc/{pid}/fd").iterdir()))


def cpu_seconds(pid: int) -> float:
    """Processor time of one process, its children not counted."""
    words = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(words[11]) + int(words[12])) / os.sysconf("SC_CLK_TCK")


def test_service_carries_none_of_the_heavy_packages(tmp_path: Path) -> None:
    with service(tmp_path) as made, made.client():
        (pid,) = made.workers()
        maps = Path(f"/proc/{pid}/maps").read_text()
    assert [n for n in ("pydantic", "highspy", "uvicorn", "numpy") if n in maps] == []


def test_real_service_says_what_is_missing_without_a_driver(tmp_path: Path) -> None:
    path = tmp_path / "w.sock"
    command = [MIGSCALER, "nvml-worker", "--listen", str(path), "--user", str(os.getuid())]
    process = subprocess.Popen(command, stderr=subprocess.PIPE)
    try:
        assert process.stderr is not None
        assert b"nvml_worker_listening" in process.stderr.readline()
        client = Client(path)
        client.greeting()
        error = client.ask("begin").error
        client.close()
        process.terminate()
        assert process.wait(30) == 0
    finally:
        process.kill()
        process.communicate()
    assert isinstance(error, HardwareError)
    assert "install the NVIDIA driver" in str(error)
