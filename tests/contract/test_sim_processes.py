"""One simulated node used by several processes through a directory."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from migscaler.errors import NotFound
from migscaler.sim.codes import Code
from migscaler.sim.faults import fails
from migscaler.sim.hook import hook_environment
from migscaler.sim.node import build_node, open_node

# What a program that knows nothing of migscaler does: the example of a monitoring script.
LISTS = """
import pynvml
pynvml.nvmlInit()
gpu = pynvml.nvmlDeviceGetHandleByIndex(0)
print(pynvml.nvmlDeviceGetUUID(gpu))
for index in range(pynvml.nvmlDeviceGetMaxMigDeviceCount(gpu)):
    try:
        device = pynvml.nvmlDeviceGetMigDeviceHandleByIndex(gpu, index)
    except pynvml.NVMLError_NotFound:
        continue
    pids = [process.pid for process in pynvml.nvmlDeviceGetComputeRunningProcesses(device)]
    print(pynvml.nvmlDeviceGetName(device), pids)
"""
CREATES = """
import sys, pynvml
pynvml.nvmlInit()
gpu = pynvml.nvmlDeviceGetHandleByIndex(0)
made = 0
for _ in range(40):
    try:
        gi = pynvml.nvmlDeviceCreateGpuInstance(gpu, 19)
    except pynvml.NVMLError_InsufficientResources:
        continue
    made += 1
    pynvml.nvmlGpuInstanceDestroy(gi)
print(made)
"""
ENDLESS = """
import sys
from pathlib import Path
from migscaler.sim.node import open_node
node = open_node(Path(sys.argv[1]))
print("ready", flush=True)
while True:
    node.end_job(node.start_job(0, 13))
"""


def run(directory: Path, code: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", code],
        env=hook_environment(directory, os.environ),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.stderr, done.returncode) == ("", 0)
    return done.stdout


def test_another_program_sees_the_node_and_its_jobs(tmp_path: Path) -> None:
    node = build_node("A100-SXM4-40GB", directory=tmp_path)
    made = node.foreign_create(0, "3g@4")
    node.start_job(0, made, pid=4321)
    lines = run(tmp_path, LISTS).splitlines()
    assert lines == [node.state.gpus[0].uuid, "NVIDIA A100-SXM4-40GB MIG 3g.20gb [4321]"]


def test_processes_do_not_lose_each_others_changes(tmp_path: Path) -> None:
    node = build_node("A100-SXM4-40GB", directory=tmp_path)
    environment = hook_environment(tmp_path, os.environ)
    callers = [
        subprocess.Popen(
            [sys.executable, "-c", CREATES], env=environment, stdout=subprocess.PIPE, text=True
        )
        for _ in range(3)
    ]
    mine = [node.foreign_create(0, "4g@0", compute=False)]
    outputs = [caller.communicate(timeout=60)[0] for caller in callers]
    assert [int(text) for text in outputs] == [40, 40, 40]
    assert list(node.state.gpus[0].instances) == mine
    creates = [r for r in node.call_log() if r.function == "nvmlDeviceCreateGpuInstance"]
    assert (len(creates), len({r.actor for r in creates})) == (120, 3)


def test_state_survives_a_killed_writer(tmp_path: Path) -> None:
    node = build_node("A100-SXM4-40GB", directory=tmp_path)
    node.foreign_create(0, "1g@6")
    for delay in (0.05, 0.1):
        writer = subprocess.Popen(
            [sys.executable, "-c", ENDLESS, str(tmp_path)], stdout=subprocess.PIPE
        )
        assert writer.stdout is not None
        assert writer.stdout.readline() == b"ready\n"
        with pytest.raises(subprocess.TimeoutExpired):
            writer.wait(delay)
        writer.send_signal(signal.SIGKILL)
        writer.wait()
        writer.stdout.close()
        again = open_node(tmp_path)
        assert [gi.id for gi in again.state.gpus[0].instances.values()] == [13]
        again.end_job(again.start_job(0, 13))


def test_fault_set_here_strikes_there(tmp_path: Path) -> None:
    node = build_node("A100-SXM4-40GB", directory=tmp_path)
    node.add_fault(fails("nvmlDeviceCreateGpuInstance", Code.INSUFFICIENT_RESOURCES, times=30))
    assert run(tmp_path, CREATES) == "10\n"


def test_reader_sees_each_change_at_once(tmp_path: Path) -> None:
    writer = build_node("A100-SXM4-40GB", directory=tmp_path)
    reader = open_node(tmp_path)
    made = writer.foreign_create(0, "1g@6")
    for round_number in range(50):
        # Two writes between reads: the second file may well get the inode of the one last read.
        writer.foreign_destroy(0, made)
        made = writer.foreign_create(0, f"1g@{round_number % 7}")
        assert [gi.start for gi in reader.state.gpus[0].instances.values()] == [round_number % 7]


def test_memory_and_directory_give_the_same_node(tmp_path: Path) -> None:
    in_memory = build_node("A100-SXM4-40GB,H100-80GB", variant=["normal", "mirrored"])
    stored = build_node(
        "A100-SXM4-40GB,H100-80GB", directory=tmp_path, variant=["normal", "mirrored"]
    )
    for node in (in_memory, stored):
        node.start_job(1, node.foreign_create(1, "2g@2"), pid=77, activity=0.4)
        node.hold_gpu(0)
        node.raise_xid(1, 43)
    reopened = open_node(tmp_path)
    for one, other in zip(in_memory.state.gpus, reopened.state.gpus, strict=True):
        assert (one.uuid, one.serial, one.holders) == (other.uuid, other.serial, other.holders)
        assert one.jobs == other.jobs
        assert one.instances.keys() == other.instances.keys()
    assert in_memory.state.events == reopened.state.events
    assert in_memory.boot_id == reopened.boot_id


def test_directory_without_a_node_is_not_found(tmp_path: Path) -> None:
    with pytest.raises(NotFound, match="no simulated node"):
        open_node(tmp_path)
