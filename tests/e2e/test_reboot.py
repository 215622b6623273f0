"""Real processes: nodes that are started anew, drivers that are loaded anew under a pause."""

import contextlib
import os
from pathlib import Path

import pytest

from migscaler.sim.faults import slow
from tests.e2e.lives import RESTING, Life, Site
from tests.e2e.processes import children, free_port, has_ended, running, wait_until

pytestmark = pytest.mark.xdist_group("reboot")

BOTH = "1xA100-SXM4-40GB,1xH100-80GB"
WANTED = ("3g.20gb@0 3g.20gb@4", "3g.40gb@0 3g.40gb@4")


def open_below(pid: int, directory: Path) -> list[str]:
    """Return what a process has open or mapped below a directory."""
    found = []
    for number in os.listdir(f"/proc/{pid}/fd"):
        with contextlib.suppress(FileNotFoundError):  # closed since it was listed
            target = os.readlink(f"/proc/{pid}/fd/{number}")
            found += [target] if target.startswith(str(directory)) else []
    return found + [x for x in Path(f"/proc/{pid}/maps").read_text().split() if str(directory) in x]


def shaped(site: Site) -> None:
    """Let the daemon give both GPUs a layout, so that it is what was last wanted."""
    for gpu in "01":
        done = site.cli("apply", "--gpu", gpu, "--layout", "3g 3g")
        assert done.returncode == 0, done.stdout + done.stderr


def layouts(site: Site) -> tuple[str, ...]:
    return tuple(site.layout(gpu) for gpu in range(2))


def missing(life: Life) -> list[float]:
    """Return what each GPU lacks since a restore was due; nothing while the last sample is old."""
    lines = life.get("/metrics").text.splitlines()
    return [float(x.split()[-1]) for x in lines if x.startswith("migscaler_gpu_restore_missing_")]


def first_told(life: Life) -> list[float]:
    """Return what is first told as missing."""
    told: list[list[float]] = []

    def tells() -> bool:
        told.append(missing(life))
        return told[-1] != []

    wait_until("it tells", tells)
    return told[-1]


def test_released_driver_is_let_go_and_layouts_come_back_after_it_was_loaded_anew(
    tmp_path: Path,
) -> None:
    """The emptied GPUs counted as changed by somebody; the layouts came back at the next start."""
    site = Site(tmp_path, BOTH, RESTING)
    with site.life() as life:
        shaped(site)
        workers = children(life.process.pid)
        paused = site.cli("pause", "--why", "driver", "--release-driver")
        wait_until("the worker is gone", lambda: children(life.process.pid) == [])
        # The daemon looks at the node's processes now and then, and keeps nothing of it open.
        wait_until("nothing is open", lambda: open_below(life.process.pid, tmp_path / "node") == [])
        site.node.restart_driver("580.95.05")
        emptied = layouts(site)
        resumed = site.cli("resume")
        wait_until("both have their layout again", lambda: layouts(site) == WANTED, 60)
        wait_until("nothing is missing", lambda: missing(life) == [0.0, 0.0])
        driver = 'driver_version="580.95.05"'
        wait_until("the new driver is told", lambda: driver in life.get("/metrics").text)

    assert (paused.returncode, resumed.returncode) == (0, 0)
    assert len(workers) == 1
    assert emptied == ("", "")
    assert "foreign_change" not in site.log.read_text()


def test_reboot_brings_back_both_layouts_and_the_mode_before_it_is_ready(tmp_path: Path) -> None:
    site = Site(tmp_path, BOTH, RESTING)
    with site.life():
        shaped(site)
    site.node.reboot()
    modes = [gpu.mig_current for gpu in site.node.state.gpus]
    with site.life() as life:
        ready = layouts(site)
        told = first_told(life)

    assert modes == [1, 0]
    assert ready == WANTED
    assert told == [0.0, 0.0]


def test_restore_that_kill_9_cut_short_is_finished_before_the_next_start_is_ready(
    tmp_path: Path,
) -> None:
    """The start undid it and left the GPU alone: empty for good, with nothing told as missing."""
    site = Site(tmp_path, BOTH, RESTING)
    with site.life():
        shaped(site)
    site.node.reboot()
    site.node.add_fault(slow("nvmlDeviceCreateGpuInstanceWithPlacement", 600.0, nth=2))
    command = site.command(*site.run_words(free_port()))
    with running(command, site.log) as process:
        wait_until("one is made", lambda: "@" in site.layout() and "!" not in site.layout())
        workers = children(process.pid)
        process.kill()
        process.wait()
    # A start does not wait long for what a dead daemon left in a call: a second, with luck.
    wait_until("its worker has ended", lambda: all(map(has_ended, workers)))
    site.node.clear_faults()
    cut = layouts(site)
    with site.life() as life:
        ready = layouts(site)
        told = first_told(life)

    assert cut[1] == ""
    assert ready == WANTED
    assert told == [0.0, 0.0]


def test_restore_under_way_when_the_daemon_is_told_to_end_is_carried_to_its_end(
    tmp_path: Path,
) -> None:
    """A stop cut it short: the GPUs stayed without their layouts until the next start."""
    site = Site(tmp_path, BOTH, RESTING)
    create = "nvmlDeviceCreateGpuInstanceWithPlacement"
    with site.life() as life:
        shaped(site)
        site.cli("pause", "--why", "driver", "--release-driver")
        wait_until("the worker is gone", lambda: children(life.process.pid) == [])
        site.node.restart_driver()
        site.node.add_fault(slow(create, 1.0))
        made = len([call for call in site.node.call_log() if call.function == create])
        site.cli("resume")
        wait_until(
            "a restore has begun",
            lambda: len([c for c in site.node.call_log() if c.function == create]) > made,
            60,
        )
        life.process.terminate()
        code = life.process.wait(60)

    assert code == 0
    assert layouts(site) == WANTED
