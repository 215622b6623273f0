"""A real `migscaler sim nvml-worker` for tests, and a client that sends what it likes."""

import contextlib
import os
import pickle
import select
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path

from migscaler import __version__
from migscaler.app.hardware_lock import HardwareLock
from migscaler.cli.simulated import simulated_hardware
from migscaler.hardware.worker import NvmlWorker, WorkerLimits
from migscaler.hardware.worker_commands import encode_request
from migscaler.hardware.worker_messages import Reply, Request
from migscaler.hardware.worker_wire import receive
from migscaler.model.ids import GiId, GpuUuid
from migscaler.model.ports import Clock
from migscaler.sim.node import SimNode, build_node
from tests.unit.hardware.rig import RealClock

MIGSCALER = str(Path(sys.executable).with_name("migscaler"))


def wait_for(what: str, holds: Callable[[], object], seconds: float = 30.0) -> None:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if holds():
            return
        time.sleep(0.02)
    raise AssertionError(f"not within {seconds:g} s: {what}")


def state_of(pid: int) -> str:
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]


def is_running(pid: int) -> bool:
    """Whether any of its threads is left: the first may be gone before the others let go."""
    try:
        pidfd = os.pidfd_open(pid)
    except ProcessLookupError:
        return False
    try:
        poller = select.poll()
        poller.register(pidfd, select.POLLIN)
        return not poller.poll(0)
    finally:
        os.close(pidfd)


class Client:
    """One connection, from which anything may be sent."""

    def __init__(self, path: Path) -> None:
        link = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        link.settimeout(20)
        link.connect(str(path))
        link.settimeout(None)
        self.connection = Connection(link.detach())
        self.pid = 0

    def greeting(self) -> int:
        """The process id of our worker; EOFError if we are not taken."""
        reply = self.answer()
        assert isinstance(reply.value, tuple)
        self.pid, version = reply.value
        assert version == __version__
        return self.pid

    def send(self, name: str, *arguments: object) -> None:
        self.connection.send_bytes(encode_request(Request(name=name, arguments=arguments)))

    def ask(self, name: str, *arguments: object) -> Reply:
        self.send(name, *arguments)
        return self.answer()

    def answer(self, seconds: float = 60.0) -> Reply:
        assert self.connection.poll(seconds), "no answer"
        reply = receive(self.connection)
        assert isinstance(reply, Reply)
        return reply

    def is_hung_up(self) -> bool:
        """Whether the other end hangs up instead of answering."""
        assert self.connection.poll(60)
        try:
            self.connection.recv_bytes()
        except (EOFError, ConnectionResetError):
            return True
        return False

    def is_hung_up_at_once(self) -> bool:
        """Whether we are refused instead of greeted."""
        try:
            self.greeting()
        except (EOFError, ConnectionResetError):
            return True
        return False

    def close(self) -> None:
        self.connection.close()


@dataclass(kw_only=True)
class Service:
    """A running worker service on a simulated node, and the lock of its hardware."""

    process: subprocess.Popen[bytes]
    node: SimNode
    directory: Path
    socket: Path
    log: Path
    lock: HardwareLock

    @property
    def uuids(self) -> tuple[GpuUuid, ...]:
        return tuple(GpuUuid(gpu.uuid) for gpu in self.node.state.gpus)

    def workers(self) -> list[int]:
        """Process ids of the service's children that live."""
        path = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children")
        return [pid for pid in map(int, path.read_text().split()) if is_running(pid)]

    @contextlib.contextmanager
    def client(self) -> Iterator[Client]:
        """A connection that was taken."""
        client = Client(self.socket)
        try:
            client.greeting()
            yield client
        finally:
            client.close()

    @contextlib.contextmanager
    def stopped(self) -> Iterator[None]:
        """Let the service itself do nothing for one block: not kill who was hung up on, say."""
        pid = self.process.pid
        os.kill(pid, signal.SIGSTOP)
        try:
            wait_for("it has stopped", lambda: state_of(pid) == "T")
            yield
        finally:
            os.kill(pid, signal.SIGCONT)

    @contextlib.contextmanager
    def worker(
        self, limits: WorkerLimits | None = None, clock: Clock | None = None
    ) -> Iterator[NvmlWorker]:
        """What a daemon uses."""
        limits = limits or WorkerLimits(stop_seconds=30.0)
        worker = NvmlWorker(clock or RealClock(), limits=limits, address=self.socket)
        try:
            yield worker
        finally:
            worker.close()

    def changes(self) -> list[str]:
        """NVML functions of the changing calls that reached the library."""
        return [call.function for call in self.node.call_log() if call.actor != "setup"]

    def instance(self, spec: str, gpu: int = 0) -> tuple[GpuUuid, GiId]:
        """Have another tool make an instance."""
        return self.uuids[gpu], GiId(self.node.foreign_create(gpu, spec, actor="setup"))

    def mig_uuid(self, gpu: int = 0) -> str:
        """The MIG UUID of a GPU's first instance, as the service reads it."""
        with self.worker() as worker:
            (first, *_rest) = worker.read_gpu(self.uuids[gpu]).instances or ()
        return str(first.instance.mig_uuid)

    def host_process(
        self, pid: int, name: str, *, words: bytes = b"", cap: int | None = None
    ) -> None:
        """Add a process to the host that the service sees."""
        place = self.directory / "host" / "proc" / str(pid)
        (place / "fd").mkdir(parents=True)
        (place / "stat").write_text(f"{pid} ({name}) S 1 {pid} {pid} 0 -1 4194560 0\n")
        (place / "environ").write_bytes(words)
        if cap is not None:
            (place / "fd" / "3").symlink_to(f"/dev/nvidia-caps/nvidia-cap{cap}")


@contextlib.contextmanager
def service(
    directory: Path, gpus: str = "2xA100-SXM4-40GB", *, user: str | None = None
) -> Iterator[Service]:
    """Run the service for this account (or `user`) until the block ends; we hold the lock."""
    node = build_node(gpus, directory=directory / "node")
    path, log = directory / "worker.sock", directory / "worker.log"
    lock = HardwareLock(simulated_hardware(directory / "node"))
    assert lock.take() is None
    process = start(directory, user or str(os.getuid()))
    made = Service(
        process=process,
        node=node,
        directory=directory / "node",
        socket=path,
        log=log,
        lock=lock,
    )
    try:
        wait_for("the service listens", lambda: "nvml_worker_listening" in log.read_text())
        yield made
    finally:
        node.clear_faults()
        lock.release()
        if made.process.poll() is None:
            made.process.terminate()
            try:
                made.process.wait(30)
            except subprocess.TimeoutExpired:
                made.process.kill()
                made.process.wait()


def start(directory: Path, user: str) -> subprocess.Popen[bytes]:
    """Start the service on the node of a directory."""
    words = ["sim", "nvml-worker", "--directory", str(directory / "node")]
    words += ["--listen", str(directory / "worker.sock"), "--user", user]
    with (directory / "worker.log").open("ab") as output:
        return subprocess.Popen(
            [MIGSCALER, *words], stdin=subprocess.DEVNULL, stdout=output, stderr=output
        )


class Evil:
    """Touches a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return (os.system, (f"touch {self.path}",))


def evil_pickle(path: Path) -> bytes:
    return pickle.dumps(Evil(path))
