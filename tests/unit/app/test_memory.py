"""Memory that is no longer needed goes back, threads share heaps, loading is not held up."""

import os
import subprocess
import sys
from pathlib import Path

from migscaler.sim.node import DEFAULT_DRIVER, build_node

# Each in a process of its own: heaps are the whole process's and are never given up.
_HEAPS = """
import ctypes, threading
from migscaler.app.memory import bound_heaps
{first}
library = ctypes.CDLL(None)
library.malloc.restype = ctypes.c_void_p
together = threading.Barrier(12)
def use():
    together.wait()
    library.malloc(10_000)
    together.wait()
threads = [threading.Thread(target=use) for _ in range(12)]
[thread.start() for thread in threads]
[thread.join() for thread in threads]
library.fdopen.restype = ctypes.c_void_p
out = ctypes.c_void_p(library.fdopen(1, b"w"))
library.malloc_info(0, out)
library.fflush(out)
"""
_TRIM = """
import ctypes
from migscaler.app.memory import give_back
library = ctypes.CDLL(None)
library.malloc.restype = ctypes.c_void_p
library.free.argtypes = [ctypes.c_void_p]
def resident():
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * 4 // 1024
blocks = [library.malloc(50_000) for _ in range(2_000)]
for block in blocks:
    ctypes.memset(block, 1, 50_000)
for block in blocks[:-1]:
    library.free(block)
before = resident()
given = give_back()
print(given, before - resident())
"""
# The daemon itself, and who looks at the collector: as modules are loaded, as the socket is made,
# and from a thread beside it once somebody is served and after the start.
_START = """
import gc, os, signal, socket, sys, threading, time
from migscaler.cli.main import cli
end = time.monotonic() + 60
loading, frozen = [], []
def hear(event, told):
    if event == "import" and told[0] == "migscaler.app.daemon":
        loading.append(gc.isenabled())
    elif event == "socket.bind" and told[1] == sys.argv[1]:
        frozen.append(gc.get_freeze_count())
sys.addaudithook(hear)
def until(happened):
    while time.monotonic() < end and not happened():
        time.sleep(0.001)
def is_served():
    with socket.socket(socket.AF_UNIX) as client:
        return client.connect_ex(sys.argv[1]) == 0
def look():
    until(is_served)
    serving = gc.isenabled()
    until(lambda: gc.get_freeze_count() not in (0, *frozen))
    more = gc.get_freeze_count() not in (0, *frozen)
    print(*loading, serving, min(frozen) > 0, gc.isenabled(), more)
    os.kill(os.getpid(), signal.SIGTERM)
threading.Thread(target=look, daemon=True).start()
cli(sys.argv[2:])
"""


def _run(program: str, *arguments: str) -> str:
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("MALLOC_", "GLIBC_"))}
    done = subprocess.run(
        [sys.executable, "-c", program, *arguments],
        capture_output=True,
        text=True,
        env=environment,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_threads_share_two_heaps() -> None:
    unbound = _run(_HEAPS.format(first="")).count("<heap nr=")
    bound = _run(_HEAPS.format(first="assert bound_heaps()")).count("<heap nr=")

    assert unbound > 2
    assert bound == 2


def test_memory_that_is_free_goes_back_to_the_kernel() -> None:
    given, mebibytes = _run(_TRIM).split()

    assert given == "True"
    assert int(mebibytes) >= 80


def test_start_is_not_held_up_by_the_collector_and_who_is_served_has_it_again(
    tmp_path: Path,
) -> None:
    """Settling may take minutes, and a flood of connections would fill the memory meanwhile."""
    build_node("1xA100", DEFAULT_DRIVER, tmp_path / "node", mig=True)
    state = ("--state-dir", str(tmp_path / "state"))
    run = ("sim", "run", "--directory", str(tmp_path / "node"), "--listen", "127.0.0.1:0")

    told = _run(_START, str(tmp_path / "state" / "migscaler.sock"), *state, *run)

    assert told.strip() == "False True True True True"
