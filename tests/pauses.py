"""Runs a command while its processes are stopped for a moment, over and over.

    python -m tests.pauses SEED COMMAND...

is what a busy machine does to them, only more often: each is stopped wherever it happens to be, for
20 ms to 0.5 s. Ends with the command's exit code.

One that a test has stopped itself is left alone; a test that stops one while it is stopped here
finds it going on too soon.
"""

import os
import random
import signal
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

_PAUSES = (0.02, 0.05, 0.1, 0.2, 0.3, 0.5)
_BETWEEN = (0.02, 0.25)
_GOING = "RSD"  # proc(5), stat: running, sleeping, waiting for a disk


def below(root: int) -> Iterator[int]:
    """Give the processes that descend from one and are not stopped."""
    children: dict[int, list[tuple[int, str]]] = defaultdict(list)
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                state, parent = (entry / "stat").read_text().rpartition(")")[2].split()[:2]
            except OSError:  # it has ended
                continue
            children[int(parent)].append((int(entry.name), state))
    rest = [root]
    while rest:
        for pid, state in children[rest.pop()]:
            rest.append(pid)
            if state in _GOING:
                yield pid


def pause(pid: int, seconds: float) -> bool:
    """Stop a process for so long; say whether it was there."""
    try:
        os.kill(pid, signal.SIGSTOP)
        time.sleep(seconds)
        os.kill(pid, signal.SIGCONT)
    except ProcessLookupError:
        return False
    return True


def main() -> int:
    """Run the command; return its exit code."""
    draw = random.Random(int(sys.argv[1]))
    with subprocess.Popen(sys.argv[2:]) as command:
        paused = 0
        while command.poll() is None:
            found = sorted(below(command.pid))
            if found:
                paused += pause(draw.choice(found), draw.choice(_PAUSES))
            time.sleep(draw.uniform(*_BETWEEN))
    print(f"processes were stopped {paused} times")
    return command.returncode


if __name__ == "__main__":
    sys.exit(main())
