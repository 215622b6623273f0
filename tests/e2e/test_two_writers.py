"""Two programs that may change the same GPUs, as real processes: one does, the other waits."""

import os
import signal
import subprocess
from contextlib import ExitStack, suppress
from pathlib import Path

import pytest

from migscaler.sim.faults import slow
from tests.e2e.lives import MIGSCALER, RESHAPING, RESTING, Life, Site, kill
from tests.e2e.processes import children, free_port, running, wait_until

pytestmark = pytest.mark.xdist_group("lives")
CREATE = "nvmlDeviceCreateGpuInstanceWithPlacement"


def actors(site: Site) -> set[str]:
    """Return who made changing calls that worked, the preparing test apart."""
    return {call.actor for call in site.calls()}


def beside(site: Site, state: Path) -> list[str]:
    """Return the options of a program with another state directory."""
    return [MIGSCALER, "--config", str(site.config), "--state-dir", str(state)]


def second(site: Site, state: Path, stack: ExitStack) -> Life:
    """Start another daemon on the same node."""
    port = free_port()
    command = [*beside(site, state), *site.run_words(port)]
    process = stack.enter_context(running(command, site.directory / "second.log"))
    life = Life(process=process, port=port)
    wait_until("the second is ready", lambda: life.get("/-/ready").is_success)
    return life


def test_of_two_daemons_with_other_state_directories_one_acts_until_it_dies(tmp_path: Path) -> None:
    site = Site(tmp_path, "A100-SXM4-40GB", RESHAPING, "3g@0 3g@4")
    log = site.directory / "second.log"
    with ExitStack() as stack:
        first = stack.enter_context(site.life())
        other = second(site, tmp_path / "another", stack)
        wait_until("the layout is changed", lambda: site.layout().count("1g.5gb") >= 3)

        assert len(actors(site)) == 1
        assert f'observing_only why="process {first.process.pid} of uid' in log.read_text()
        wait_until("the second shows the GPU", lambda: other.shown("migscaler_gpus") == 1.0)
        wait_until("it is well", lambda: other.get("/-/healthy").is_success)

        kill(first)
        wait_until("the second acts", lambda: "event=acting_alone" in log.read_text())
        small = [gi for gi in site.node.state.gpus[0].instances.values() if "1g" in gi.profile]
        site.node.foreign_destroy(0, small[0].id)
        wait_until("it changes something", lambda: len(actors(site)) == 2)


def test_call_that_outlives_its_daemon_is_waited_for_before_anything_is_settled(
    tmp_path: Path,
) -> None:
    """A stopped process stands for one that the driver does not let go of, not even killed.

    The next daemon settled, and the call came through after that: an instance of nobody's plan.
    """
    site = Site(tmp_path, "A100-SXM4-40GB", RESTING, "3g@0")
    site.add_fault(slow(CREATE, 600.0, times=1))
    with ExitStack() as stack:
        first = stack.enter_context(site.life())
        words = site.command("apply", "--gpu", "0", "--layout", "3g@0 1g@4")
        apply = stack.enter_context(subprocess.Popen(words, stderr=subprocess.DEVNULL))
        wait_until("it is in the call", lambda: site.node.state.faults[0].times == 0)
        (worker,) = children(first.process.pid)
        with site.node.changing():  # not while it keeps the node's books from everybody
            os.kill(worker, signal.SIGSTOP)
        stack.callback(kill_if_there, worker)
        kill(first)
        apply.wait(120)

        second = stack.enter_context(site.life())
        wait_until("it serves", lambda: "migscaler_gpu_up{" in second.get("/metrics").text)
        assert f"process {first.process.pid} of uid" in site.log.read_text()
        assert "has ended, but not its call into the driver" in site.log.read_text()
        assert "event=acting_alone" not in site.log.read_text()
        assert site.calls() == []
        site.node.clear_faults()  # the call comes through once its process may run again
        os.kill(worker, signal.SIGCONT)
        wait_until("the second acts", lambda: "event=acting_alone" in site.log.read_text())
        wait_until("what was begun is put back", lambda: site.layout() == "3g.20gb@0")
        made, removed = site.calls()
        assert (made.actor, made.function) == (f"nvml/{worker}", CREATE)
        assert (removed.actor != made.actor, removed.function) == (True, "nvmlGpuInstanceDestroy")


def kill_if_there(pid: int) -> None:
    """Kill a process that may have ended."""
    with suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)


def test_second_daemon_with_the_same_state_directory_does_not_start(tmp_path: Path) -> None:
    site = Site(tmp_path, "A100-SXM4-40GB", RESTING, "3g@0 3g@4")
    with site.life() as life:
        refused = site.cli(*site.run_words(free_port()))

        assert refused.returncode == 1
        assert f"process {life.process.pid} holds this node" in refused.stderr
        wait_until("the first is well", lambda: life.get("/-/healthy").is_success)


@pytest.mark.parametrize("same_state", [True, False])
def test_apply_beside_a_daemon_is_its_request_or_refused(tmp_path: Path, same_state: bool) -> None:
    """Only creation is asked for: nothing but the lock could refuse it."""
    site = Site(tmp_path, "A100-SXM4-40GB", RESTING, "3g@0")
    state = site.state if same_state else tmp_path / "another"
    with site.life() as life:
        node = ["sim", "exec", "--directory", str(tmp_path / "node"), "--"]
        apply = [*beside(site, state), "apply", "--gpu", "0", "--layout", "3g@0 1g@4 1g@5"]
        done = subprocess.run([MIGSCALER, *node, *apply], capture_output=True, text=True)

        if same_state:
            assert (done.returncode, site.layout()) == (0, "3g.20gb@0 1g.5gb@4 1g.5gb@5")
            assert len(actors(site)) == 1
        else:
            assert done.returncode == 1
            assert f"process {life.process.pid} of uid" in done.stdout + done.stderr
            assert site.layout() == "3g.20gb@0"
