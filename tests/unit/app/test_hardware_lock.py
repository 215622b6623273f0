"""Two processes with different state directories must not both change the same GPUs."""

import os
import select
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from migscaler.app.daemon import Daemon, DaemonOptions
from migscaler.app.hardware_lock import HardwareLock, SettledReader
from migscaler.app.local import LocalOptions, open_local
from migscaler.app.runtime import Runtime
from migscaler.cli.simulated import boot_id_of, hardware_of, host_of, preparation, quiet_host
from migscaler.errors import CommandRefused, HardwareError
from migscaler.hardware.nvml_calls import install_library
from migscaler.model.gpu import PinReason
from migscaler.sim.hook import hook_environment
from migscaler.sim.node import build_node
from migscaler.sim.nvml_library import NvmlLibrary
from tests.simulation.acting import QuietHost
from tests.unit.app.nodes import ENFORCE, ROOT, node_at_work
from tests.unit.descriptors import no_more_descriptors
from tests.unit.hardware.rig import in_process
from tests.unit.schedulers.host_files import HostFiles
from tests.unit.store.fixed_clock import FixedClock

HOLDER = f"process {os.getpid()} of uid {os.getuid()} may change these GPUs already"


def hardware(what: str) -> str:
    """A name that no other run of these tests uses on this machine at the same time."""
    return f"{what} in {os.getpid()}"


def can_act(runtime: Runtime) -> bool:
    return runtime.loop.parts.enforcer is not None


def test_lock_is_had_by_one_at_a_time_and_names_its_holder() -> None:
    first, second = (HardwareLock(hardware("one at a time")) for _ in range(2))

    assert first.take() is None
    assert first.take() is None
    assert second.take() == HOLDER
    first.release()
    assert second.take() is None
    second.release()


LEAVES_ONE_BEHIND = """
import os, subprocess, sys
from migscaler.app.hardware_lock import HardwareLock
lock = HardwareLock(sys.argv[1])
assert lock.take() is None
child = subprocess.Popen(["sleep", "600"], pass_fds=lock.descriptors())
print(os.getpid(), child.pid, flush=True)
os._exit(0)
"""


def left_behind(name: str) -> tuple[int, int]:
    """Let a process take the lock, start one that inherits it, and end; return both pids."""
    words = [sys.executable, "-c", LEAVES_ONE_BEHIND, name]
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        holder, child = map(int, process.stdout.readline().split())
    return holder, child


def kill(pid: int) -> None:
    """End a process that is not our child, and wait until it has let go of everything."""
    watch = os.pidfd_open(pid)
    os.kill(pid, signal.SIGKILL)
    poller = select.poll()
    poller.register(watch, select.POLLIN)
    assert poller.poll(60_000)
    os.close(watch)


def test_lock_is_kept_by_what_a_dead_holder_left_behind_and_free_after_it() -> None:
    lock = HardwareLock(hardware("left behind"))
    holder, child = left_behind(hardware("left behind"))
    clock = FixedClock()
    began = clock.monotonic()

    rival = lock.take_at_start(clock)

    assert 1.5 <= clock.monotonic() - began < 1.6
    why = "has ended, but not its call into the driver, which may change a GPU"
    assert rival == f"process {holder} of uid {os.getuid()} {why}"
    assert lock.descriptors() == ()
    kill(child)
    assert lock.take() is None
    lock.release()


def test_start_waits_for_what_ends_in_a_moment_but_not_for_a_holder_that_lives() -> None:
    _holder, child = left_behind(hardware("ends soon"))

    class Ending(FixedClock):
        """The process ends while its end is waited for."""

        def sleep(self, seconds: float) -> None:
            super().sleep(seconds)
            if self.monotonic() > began + 1.0 and not ended:
                ended.append(child)
                kill(child)

    clock, ended = Ending(), list[int]()
    began = clock.monotonic()
    lock, living = HardwareLock(hardware("ends soon")), HardwareLock(hardware("lives"))
    assert lock.take_at_start(clock) is None
    assert ended == [child]
    lock.release()

    living.take()
    began = clock.monotonic()
    assert HardwareLock(hardware("lives")).take_at_start(clock) == HOLDER
    assert clock.monotonic() == began
    living.release()


def test_lock_that_can_not_be_asked_for_is_not_ours_and_nothing_is_waited_for() -> None:
    """A start, and the watch over a rival's end, broke off where no descriptor was left."""
    lock, clock = HardwareLock(hardware("no descriptors")), FixedClock()
    began = clock.monotonic()
    with no_more_descriptors():
        told = {lock.take_at_start(clock), lock.take()}
        held = lock.held_by()
        is_ours = lock.is_ours()
        with pytest.raises(HardwareError, match=r"can't be told .* come back: Too many open files"):
            lock.of_gpu("GPU-a").refuse_if_held()

    assert told == {"it can't be told whether others change these GPUs: Too many open files"}
    assert (held, is_ours, clock.monotonic()) == (None, False, began)
    assert lock.take_at_start(clock) is None
    lock.release()


def test_locks_of_different_hardware_do_not_meet() -> None:
    first, second = HardwareLock(hardware("this node")), HardwareLock(hardware("that node"))

    assert (first.take(), second.take()) == (None, None)
    first.release()
    second.release()


def test_asking_often_who_has_the_lock_does_not_block() -> None:
    """A listening socket takes only so many callers that nobody accepts."""
    first, second = (HardwareLock(hardware("asked often")) for _ in range(2))
    first.take()

    answers = {second.take() for _ in range(20)}

    first.release()
    assert answers == {HOLDER}


def test_right_to_change_is_told_as_often_as_a_long_plan_asks() -> None:
    """The NVML service asks at each change; where nobody hung up on it the 129th was refused.

    The supervisor does once a second, but not while a reload waits for that plan, nor at a start.
    """
    with in_process("A100-SXM4-40GB") as rig:
        ours, asked = (HardwareLock(hardware("a long plan")) for _ in range(2))
        assert ours.take() is None
        reader = SettledReader(rig.reader, ours)

        told = set()
        for _ in range(300):
            reader.read_gpu(rig.uuids[0])  # before each change of a plan
            told.add(asked.held_by())

        ours.release()
    assert told == {(os.getpid(), os.getuid())}


def test_command_with_another_state_directory_reads_but_may_not_change(tmp_path: Path) -> None:
    node = build_node("A100-SXM4-40GB", "580.65.06")
    node.foreign_create(0, "7g@0")
    (tmp_path / "host").mkdir()
    (tmp_path / "migscaler.yaml").write_text(ENFORCE)
    daemon = HardwareLock(str(tmp_path))
    daemon.take()
    options = LocalOptions(
        config=tmp_path / "migscaler.yaml",
        state_dir=tmp_path / "another",
        prepare=lambda: install_library(NvmlLibrary(node, "migscaler")),
        make_host=QuietHost,
        boot_id=lambda: node.boot_id,
        roots=HostFiles(tmp_path / "host").roots,
        hardware=str(tmp_path),
    )
    try:
        with open_local(options) as runtime:
            assert len(runtime.commands.execute("status", {}, ROOT)["gpus"]) == 1  # type: ignore[arg-type]
            refused = ""
            try:
                arguments: dict[str, object] = {"gpus": ["0"], "enabled": False}
                runtime.commands.execute("mig_mode", arguments, ROOT)
            except CommandRefused as refusal:
                refused = str(refusal)
        assert refused == f"{HOLDER}; observing only"
        daemon.release()
        with open_local(options) as runtime:
            assert can_act(runtime) is True
    finally:
        install_library(None)


def test_daemon_that_waited_for_another_settles_and_acts_once_it_has_ended(tmp_path: Path) -> None:
    with node_at_work(tmp_path, "3g@0 3g@4", config=ENFORCE) as here:
        here.begin_beside("process 7 of uid 0 may change these GPUs already")
        here.runtime.begin()
        here.runtime.reload()
        status = here.runtime.loop.status()
        assert status.config.forced_observe == (
            "process 7 of uid 0 may change these GPUs already; observing only"
        )
        assert can_act(here.runtime) is False

        here.runtime.act_alone()

        assert can_act(here.runtime) is True
        assert here.runtime.loop.status().config.forced_observe is None
        here.watch(60)
        snapshot = here.runtime.loop.status().snapshot
        assert snapshot is not None
        pins = [one.pin for one in snapshot.gpus[0].instances or ()]
        assert PinReason.UNKNOWN not in pins


def test_programs_on_a_simulated_node_lock_that_node_and_not_the_machine(tmp_path: Path) -> None:
    build_node("A100-SXM4-40GB", "580.65.06", tmp_path)

    assert hardware_of(hook_environment(tmp_path, {})) == f"simulated {tmp_path.resolve()}"
    assert hardware_of({}) is None


def test_daemon_observes_beside_another_writer_and_acts_when_that_one_ends(tmp_path: Path) -> None:
    node = tmp_path / "node"
    build_node("A100-SXM4-40GB", "580.65.06", node)
    (tmp_path / "migscaler.yaml").write_text(ENFORCE)
    other = HardwareLock(hardware("shared by two"))
    other.take()
    daemon = Daemon(
        DaemonOptions(
            config=tmp_path / "migscaler.yaml",
            state_dir=tmp_path / "state",
            listen="127.0.0.1:0",
            prepare=preparation(node),
            make_host=host_of(node),
            boot_id=boot_id_of(node),
            roots=quiet_host(node),
            hardware=hardware("shared by two"),
        )
    )
    before = daemon.runtime.in_force.status.forced_observe
    serving = threading.Thread(target=daemon.run)
    serving.start()
    try:
        assert can_act(daemon.runtime) is False
        other.release()
        end = time.monotonic() + 60
        while not can_act(daemon.runtime) and time.monotonic() < end:
            time.sleep(0.1)
        assert can_act(daemon.runtime) is True
        assert other.take() == HOLDER
    finally:
        daemon.stop()
        serving.join()
    assert before == f"{HOLDER}; observing only"
    assert other.take() is None
    other.release()
