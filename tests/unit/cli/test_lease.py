"""`lease` runs a command on an instance and gives it back whatever happens."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from migscaler.errors import DaemonSilent
from tests.unit.cli.conftest import Json, Terminal

GRANTED: Json = {
    "granted": True,
    "lease_id": 5,
    "gpu_uuid": "GPU-1",
    "spec": "2g.10gb@0",
    "mig_uuid": "MIG-0000-01",
}
RELEASED = ("lease_release", {"lease_id": 5})


def signal_this_thread(number: signal.Signals) -> None:
    """To the thread that holds signals back; any other thread would let it end the tests."""
    signal.pthread_kill(threading.get_ident(), number)


@pytest.fixture
def leasing(terminal: Terminal) -> Terminal:
    terminal.replies(lease_take=GRANTED, lease_release={}, lease_renew={}, lease_cancel={})
    return terminal


def test_lease_shows_the_instance_to_the_command(leasing: Terminal, tmp_path: Path) -> None:
    target = tmp_path / "seen"
    script = f"open({str(target)!r}, 'w').write(__import__('os').environ['CUDA_VISIBLE_DEVICES'])"

    result = leasing.run("lease", "2g", "--ttl", "8h", "--", sys.executable, "-c", script)

    assert result.exit_code == 0
    assert target.read_text() == "MIG-0000-01"
    name, asked = leasing.node.asked[0]
    assert (name, asked["size"], asked["ttl_seconds"]) == ("lease_take", "2g", 28800.0)
    assert (asked["pid"], asked["wait"]) == (os.getpid(), False)
    assert leasing.node.asked[-1] == RELEASED
    assert result.stderr == "migscaler: lease 5: 2g.10gb@0 on MIG-0000-01\n"


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (("sh", "-c", "exit 7"), 7),
        (("sh", "-c", "kill -TERM $$"), 143),
        (("no-such-command-here",), 127),
    ],
)
def test_lease_returns_the_commands_exit_code(
    leasing: Terminal, words: tuple[str, ...], code: int
) -> None:
    assert leasing.run("lease", "2g", "--", *words).exit_code == code
    assert leasing.node.asked[-1] == RELEASED


def test_lease_forwards_a_signal_and_gives_back(leasing: Terminal) -> None:
    def take(_arguments: Json) -> Json:
        signal_this_thread(signal.SIGTERM)
        return GRANTED

    leasing.node.replies["lease_take"] = take

    result = leasing.run("lease", "2g", "--", "sleep", "60")

    assert result.exit_code == 143
    assert leasing.node.asked[-1] == RELEASED


def test_lease_renews_while_the_command_runs(leasing: Terminal, tmp_path: Path) -> None:
    renewals: list[Json] = []

    def renew(asked: Json) -> Json:
        renewals.append(asked)
        if len(renewals) == 3:
            (tmp_path / "end").touch()
        return {}

    leasing.node.replies["lease_renew"] = renew
    began = time.monotonic()

    leasing.run("lease", "2g", "--ttl", "0.2s", "--", *lasting(tmp_path))

    assert len(renewals) >= 3
    assert renewals[0] == {"lease_id": 5, "ttl_seconds": 0.2}
    assert len(renewals) <= (time.monotonic() - began) / 0.05


def test_lease_renews_also_while_its_command_is_sent_signals(
    leasing: Terminal, tmp_path: Path
) -> None:
    """Each signal began the wait anew: a job told every half minute to save lost its lease."""
    done, here = threading.Event(), threading.get_ident()
    end = time.monotonic() + 20

    def send() -> None:
        while not done.wait(0.01):
            if (tmp_path / "begun").exists():
                signal.pthread_kill(here, signal.SIGUSR1)
            if time.monotonic() > end:
                (tmp_path / "end").touch()

    def renew(_asked: Json) -> Json:
        (tmp_path / "end").touch()
        return {}

    def release(_asked: Json) -> Json:
        done.set()
        sending.join()
        signal.sigtimedwait({signal.SIGUSR1}, 0)  # else it would end the tests
        return {}

    leasing.node.replies.update(lease_renew=renew, lease_release=release)
    sending = threading.Thread(target=send)
    sending.start()

    result = leasing.run("lease", "2g", "--ttl", "1s", "--", *lasting(tmp_path))

    assert result.exit_code == 0
    assert "lease_renew" in [name for name, _ in leasing.node.asked]


# A process that has no room for another thread, as where its account may start no more of them.
CROWDED = """
import os, resource, signal, threading
from migscaler.cli.lease import _next_signal, _signals_blocked

threading.stack_size(1 << 28)
pages = int(open("/proc/self/statm").read().split()[0])
resource.setrlimit(resource.RLIMIT_AS, (pages * os.sysconf("SC_PAGESIZE") + (1 << 26),) * 2)
with _signals_blocked():
    nothing = _next_signal((signal.SIGTERM,), 0.05)
    os.kill(os.getpid(), signal.SIGTERM)
    print(nothing, _next_signal((signal.SIGTERM,), 0.05).si_signo)
"""


def test_lease_waits_also_without_room_for_a_thread() -> None:
    """A command that had used up what its account may start lost its lease."""
    ended = subprocess.run(
        [sys.executable, "-c", CROWDED], capture_output=True, text=True, check=False
    )

    assert (ended.stdout, ended.stderr) == (f"None {signal.SIGTERM.value}\n", "")


def lasting(directory: Path) -> tuple[str, ...]:
    """Return a command that ends once there is a file `end`, whatever it is told before."""
    script = 'trap "" USR1; touch "$0/begun"; while ! [ -e "$0/end" ]; do sleep 0.01; done'
    return "sh", "-c", script, str(directory)


def test_lease_without_wait_says_how_to_wait(leasing: Terminal) -> None:
    leasing.node.replies["lease_take"] = {"granted": False, "message": "no 2g is free"}

    result = leasing.run("lease", "2g", "--", "true")

    assert result.exit_code == 1
    assert result.stderr == (
        "migscaler: no 2g is free; with --wait you queue for one, and the daemon may make it\n"
    )
    assert [name for name, _ in leasing.node.asked] == ["lease_take"]


def test_waiting_ends_with_a_signal_and_leaves_the_queue(leasing: Terminal) -> None:
    def take(_arguments: Json) -> Json:
        signal_this_thread(signal.SIGINT)
        return {"granted": False, "wait_id": 9, "message": "waiting for a 2g"}

    leasing.node.replies["lease_take"] = take

    result = leasing.run("lease", "2g", "--wait", "--", "true")

    assert result.exit_code == 130
    assert leasing.node.asked[-1] == ("lease_cancel", {"wait_id": 9})


def test_waiting_polls_until_granted(leasing: Terminal) -> None:
    leasing.node.replies["lease_take"] = {"granted": False, "wait_id": 9, "message": "waiting"}
    leasing.node.replies["lease_poll"] = GRANTED

    result = leasing.run("lease", "2g", "--wait", "--output", "json", "--", "true")

    assert result.exit_code == 0
    assert ("lease_poll", {"wait_id": 9, "ttl_seconds": 28800.0}) in leasing.node.asked
    assert json.loads(result.stderr.splitlines()[-1]) == GRANTED


def silent(_asked: Json) -> Json:
    raise DaemonSilent("no daemon answers at /run/migscaler/socket: gone")


def test_waiting_outlives_a_daemon_that_is_started_anew(leasing: Terminal) -> None:
    """Its place in the queue is kept in the state; an upgrade sent everybody who waited away."""
    leasing.node.replies["lease_take"] = {"granted": False, "wait_id": 9, "message": "waiting"}
    asked_before: list[Json] = []

    def poll(asked: Json) -> Json:
        asked_before.append(asked)
        return GRANTED if len(asked_before) == 2 else silent(asked)

    leasing.node.replies["lease_poll"] = poll

    result = leasing.run("lease", "2g", "--wait", "--", "true")

    assert (result.exit_code, len(asked_before)) == (0, 2)
    assert "no daemon answers" in result.stderr


def test_waiting_that_a_signal_ends_says_so_also_without_a_daemon(leasing: Terminal) -> None:
    def take(_arguments: Json) -> Json:
        signal_this_thread(signal.SIGINT)
        return {"granted": False, "wait_id": 9, "message": "waiting for a 2g"}

    leasing.node.replies.update(lease_take=take, lease_cancel=silent)

    result = leasing.run("lease", "2g", "--wait", "--", "true")

    assert result.exit_code == 130
    assert result.stderr.splitlines()[-1] == "migscaler: stopped waiting"


def test_lease_without_command_is_wrong_usage(leasing: Terminal) -> None:
    assert leasing.run("lease", "2g").exit_code == 2


def test_lease_leaves_the_signal_mask_as_it_was(leasing: Terminal) -> None:
    before = signal.pthread_sigmask(signal.SIG_BLOCK, ())

    leasing.run("lease", "2g", "--", "true")

    assert signal.pthread_sigmask(signal.SIG_BLOCK, ()) == before


def test_waiting_ends_when_patience_does_and_leaves_the_queue(leasing: Terminal) -> None:
    leasing.node.replies["lease_take"] = {"granted": False, "wait_id": 9, "message": "waiting"}
    leasing.node.replies["lease_poll"] = {"granted": False, "wait_id": 9, "message": "waiting"}

    result = leasing.run("lease", "2g", "--wait-for", "0.02s", "--", "true")

    assert result.exit_code == 1
    assert result.stderr.splitlines()[-1] == "migscaler: no 2g came free in time (--wait-for)"
    assert leasing.node.asked[0][1]["wait"] is True
    assert leasing.node.asked[-1] == ("lease_cancel", {"wait_id": 9})
