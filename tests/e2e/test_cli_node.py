"""The real commands against the real daemon on a simulated node.

The A100s are the rules' to change; the A30s are only recommended for, so that what a command does
to them stays.
"""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest

from migscaler.app.client import RemoteCommands
from migscaler.sim.node import SimNode, build_node
from migscaler.web.unix_path import short_path
from tests.e2e.processes import heed_endings, is_listening, wait_until

pytestmark = pytest.mark.xdist_group("cli-node")

Json = dict[str, object]
CONFIG = """
mode: enforce
sampling: {interval: 1s}
tick: 1s
gpus: [{model: "NVIDIA A100*"}, {model: "NVIDIA A30", mode: recommend}]
idle: {after: 10s}
sources: {queue: {type: push, counts: waiting, max_age: 1m}}
rules:
  - {name: notebooks, size: 1g, from: [queue, scheduler], raise_after: 0s}
  - {name: small, size: 2g, from: [scheduler], raise_after: 0s}
pace: {rest: 0s}
web: {listen: "127.0.0.1:0"}
"""


class Machine:
    """A simulated node with its daemon, and the command line to it."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.node: SimNode = build_node("2xA100-SXM4-40GB,2xA30", directory=root / "node")
        self.config = root / "migscaler.yaml"
        self.config.write_text(CONFIG)

    def command(self, *words: str) -> list[str]:
        options = ["--config", str(self.config), "--state-dir", str(self.root / "state")]
        return [sys.executable, "-m", "migscaler.cli.main", *options, *words]

    def run(self, *words: str, code: int = 0, stdin: str | None = None) -> str:
        done = subprocess.run(
            self.command(*words), capture_output=True, text=True, timeout=120, input=stdin
        )
        assert done.returncode == code, f"{words}: {done.returncode}\n{done.stdout}\n{done.stderr}"
        return done.stdout

    def succeeds(self, *words: str, code: int = 0) -> bool:
        return subprocess.run(self.command(*words), capture_output=True).returncode == code

    def ask(self, *words: str, code: int = 0) -> Json:
        answer = json.loads(self.run(*words, "--output", "json", code=code))
        assert isinstance(answer, dict)
        return answer

    def leases(self) -> Json:
        daemon = RemoteCommands(self.root / "state" / "migscaler.sock")
        try:
            return daemon.execute("leases", {})
        finally:
            daemon.close()

    def specs(self, gpu: int) -> list[str]:
        instances = self.node.state.gpus[gpu].instances.values()
        return sorted(f"{gi.profile}@{gi.start}" for gi in instances)


def until(condition: Callable[[], bool]) -> None:
    wait_until("it happens", condition)


@pytest.fixture(scope="module")
def machine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Machine]:
    found = Machine(tmp_path_factory.mktemp("cli"))
    log = found.root / "daemon.log"
    with log.open("wb") as out:
        daemon = subprocess.Popen(
            found.command("sim", "run", "--directory", str(found.root / "node")),
            stdout=out,
            stderr=out,
        )
    socket = found.root / "state" / "migscaler.sock"
    try:
        until(lambda: is_ready(socket) or daemon.poll() is not None)
        yield found
        daemon.send_signal(signal.SIGTERM)
        assert daemon.wait(120) == 0, log.read_text()
    finally:
        daemon.kill()
        daemon.wait()
    assert not socket.exists()


def is_ready(socket: Path) -> bool:
    """Say whether the daemon answers there, and has settled; its file is there before."""
    if not socket.exists() or not is_listening(socket):
        return False
    transport = httpx.HTTPTransport(uds=short_path(socket))
    with httpx.Client(transport=transport, base_url="http://node") as client:
        return client.get("/-/ready").is_success


def test_pushed_demand_becomes_instances_and_a_reproducible_decision(machine: Machine) -> None:
    machine.run("demand", "push", "queue", "1g=2", "--ttl", "10m")

    until(lambda: len(machine.specs(0) + machine.specs(1)) == 2)

    names = ["NVIDIA A100-SXM4-40GB"] * 2 + ["NVIDIA A30"] * 2
    until(lambda: names_of(machine.ask("status")["gpus"]) == names)
    decided = machine.ask("history", "--limit", "50")["decisions"]
    assert isinstance(decided, list)
    reshaped = next(row for row in decided if row["sentence"].startswith("Reshape"))
    recorded = machine.run("history", str(reshaped["id"]), "--output", "json")
    again = machine.run("plan", "--input", "-", "--output", "json", stdin=recorded, code=3)
    assert json.loads(again)["sentence"] == reshaped["sentence"]


def names_of(gpus: object) -> list[str]:
    assert isinstance(gpus, list)
    return [gpu["name"] for gpu in gpus]


def test_hold_keeps_a_gpu_until_released(machine: Machine) -> None:
    number = machine.ask("hold", "1", "--reason", "measuring")["hold_id"]

    assert "measuring" in machine.run("holds")
    machine.run("release", str(number))

    assert machine.ask("holds") == {"holds": []}
    machine.run("release", str(number), code=1)


def test_pause_is_shown_and_ends(machine: Machine) -> None:
    machine.run("pause", "--why", "upgrade", "--for", "1h")

    assert "upgrade" in machine.run("status")
    machine.run("resume")

    assert machine.ask("status")["pause"] is None


def test_lease_runs_the_command_on_a_real_instance(machine: Machine) -> None:
    script = "import os; print(os.environ['CUDA_VISIBLE_DEVICES']); raise SystemExit(7)"

    seen = machine.run("lease", "1g", "--wait", "--", sys.executable, "-c", script, code=7).strip()

    found = machine.node.find_mig(seen)
    assert found is not None
    assert found[1].profile == "1g.5gb"
    assert machine.ask("holds") == {"holds": []}


def test_waiting_for_a_lease_is_demand_and_ctrl_c_gives_back(machine: Machine) -> None:
    leased = subprocess.Popen(
        machine.command("lease", "2g", "--wait", "--", "sleep", "60"),
        stderr=subprocess.PIPE,
        preexec_fn=heed_endings,
    )
    try:
        until(lambda: "lease" in machine.run("holds"))
        assert any(s.startswith("2g.10gb") for s in machine.specs(0) + machine.specs(1))
        leased.send_signal(signal.SIGINT)
        assert leased.wait(60) == 130
    finally:
        leased.kill()
        leased.wait()
        assert leased.stderr is not None
        leased.stderr.close()
    assert machine.ask("holds") == {"holds": []}


@pytest.mark.parametrize(
    ("place", "words", "seconds"),
    [
        ("waiting", ("7g", "--wait", "--", "true"), 1.5),  # asks every second; no rule makes one
        ("leases", ("1g", "--wait", "--ttl", "20s", "--", "sleep", "60"), 5.5),  # renews at 5 s
    ],
)
def test_lease_that_was_stopped_goes_on_when_continued(
    machine: Machine, place: str, words: tuple[str, ...], seconds: float
) -> None:
    """As by Ctrl-Z and `fg`: its command got a SIGHUP that nobody had sent."""
    command = machine.command("lease", *words)
    leased = subprocess.Popen(command, stderr=subprocess.DEVNULL, preexec_fn=heed_endings)
    try:
        until(lambda: bool(machine.leases()[place]))
        leased.send_signal(signal.SIGSTOP)
        time.sleep(seconds)
        leased.send_signal(signal.SIGCONT)
        time.sleep(2.0)
        assert leased.poll() is None
        assert machine.leases()[place]
        leased.send_signal(signal.SIGINT)
        assert leased.wait(20) == 130
    finally:
        leased.kill()
        leased.wait()
    assert machine.leases() == {"leases": [], "waiting": []}


def test_apply_gives_a_gpu_a_layout_after_a_dry_run(machine: Machine) -> None:
    words = ("apply", "--gpu", "2", "--layout", "2g 2g")

    shown = machine.run(*words, "--nvidia-smi", code=3)
    assert shown.splitlines() == [
        "nvidia-smi mig -i 2 -cgi 5:0 -C",
        "nvidia-smi mig -i 2 -cgi 5:2 -C",
    ]
    machine.run(*words, "--dry-run", code=3)
    assert machine.specs(2) == []
    machine.run(*words)
    assert machine.specs(2) == ["2g.12gb@0", "2g.12gb@2"]


def test_explain_plan_demand_and_layouts_answer(machine: Machine) -> None:
    assert "Decision" in machine.run("explain")
    assert "notebooks" in machine.run("plan")
    assert "scheduler" in machine.run("demand", "show")
    machine.run("demand", "push", "queue", "1g=0", "--ttl", "10m")
    assert machine.ask("source", "test", "queue")["problem"] is None
    assert "A100-SXM4-40GB" in machine.run("layouts")


def test_doctor_finds_nothing_that_stops_this_node(machine: Machine) -> None:
    checks = machine.ask("doctor")["checks"]

    assert isinstance(checks, list)
    found = {check["subject"]: check["verdict"] for check in checks}
    assert found["driver"] == "fine"
    assert found["configuration"] == "fine"
    assert "problem" not in found.values()


def test_config_is_checked_against_this_node(machine: Machine, tmp_path: Path) -> None:
    picture = tmp_path / "snapshot.json"
    picture.write_text(machine.run("status", "--snapshot"))
    other = tmp_path / "other.yaml"
    other.write_text(CONFIG.replace("A100", "H100").replace("A30", "H200"))

    machine.run("config", "check", str(machine.config), "--against", str(picture))
    differs = machine.run("config", "check", str(other), "--against", str(picture), code=3)
    other.write_text("mode: off\n")
    wrong = machine.run("config", "check", str(other), code=1)

    assert "NVIDIA H100*" in differs
    assert f"{other}:1: error: mode" in wrong
    assert "tick: 1s" in machine.run("config", "show")
    assert json.loads(machine.run("config", "schema"))["title"] == "migscaler configuration"


def test_second_daemon_is_refused_in_one_line(machine: Machine) -> None:
    done = subprocess.run(
        machine.command("sim", "run", "--directory", str(machine.root / "node")),
        capture_output=True,
        text=True,
        timeout=120,
    )

    assert done.returncode == 1
    assert done.stderr.splitlines()[-1].startswith("migscaler: ")
    assert "Traceback" not in done.stderr


def test_jobs_of_the_simulation_are_seen_by_the_daemon(machine: Machine) -> None:
    machine.run("demand", "push", "queue", "1g=1", "--ttl", "10m")
    until(lambda: "1g.5gb" in str(machine.specs(0) + machine.specs(1)))
    gpu = next(g for g in (0, 1) if "1g.5gb" in str(machine.specs(g)))
    instance = next(s for s in machine.specs(gpu) if s.startswith("1g.5gb"))
    directory = ("--directory", str(machine.root / "node"))

    pid = machine.ask("sim", "job", "start", *directory, str(gpu), instance)["pid"]
    until(lambda: "in use" in machine.run("status", "--instances"))
    machine.run("sim", "job", "end", *directory, str(pid))

    assert "*" not in machine.run("sim", "show", *directory).splitlines()[gpu + 1]


def test_commands_without_daemon_read_the_hardware_themselves(tmp_path: Path) -> None:
    build_node("A30", directory=tmp_path / "node").foreign_create(0, "2g@0")
    environ = {**os.environ, "MIGSCALER_STATE_DIR": str(tmp_path / "state")}
    words = [sys.executable, "-m", "migscaler.cli.main", "sim", "exec"]
    words += ["--directory", str(tmp_path / "node"), "--"]
    words += [sys.executable, "-m", "migscaler.cli.main", "layouts", "--output", "json"]

    done = subprocess.run(words, capture_output=True, text=True, timeout=120, env=environ)

    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["gpus"][0]["layout"] == "2g.12gb@0"


@pytest.mark.parametrize(
    ("command", "code", "told"),
    [
        ("layouts A100 >&-", 0, ""),
        ("config check $FILE >&-", 0, ""),
        ("config check $FILE", 0, "\\u2603.yaml is fine"),
        ("--help >/dev/full", 1, "unexpected OSError: [Errno 28] No space left on device"),
        ("sim build --directory /proc/x", 1, "no node can be made in /proc/x: No such file"),
        ("sim build --directory $DIR ²xA30", 1, "no GPU model "),
        ("demo --directory /proc/x", 1, "/proc/x can't be used: No such file"),
    ],
)
def test_output_that_goes_nowhere_or_lacks_letters_fails_no_command(
    tmp_path: Path, command: str, code: int, told: str
) -> None:
    """An AttributeError without standard output, tracebacks, and a letter that latin-1 lacks."""
    file = tmp_path / "☃.yaml"
    file.write_text("mode: observe\n")
    environ = {**os.environ, "FILE": str(file), "DIR": str(tmp_path), "PYTHONIOENCODING": "latin-1"}
    words = ["sh", "-c", f"{sys.executable} -m migscaler.cli.main {command}"]

    done = subprocess.run(
        words, capture_output=True, text=True, encoding="latin-1", timeout=120, env=environ
    )

    assert (done.returncode, told in done.stdout + done.stderr) == (code, True), done.stderr
    assert "Traceback" not in done.stderr


def test_mig_mode_says_that_a_reset_is_pending(machine: Machine) -> None:
    machine.run("apply", "--gpu", "3", "--layout", "4g")
    words = ("mig-mode", "off", "--gpu", "3")
    until(lambda: machine.succeeds(*words, "--dry-run", code=3))
    assert machine.specs(3) == ["4g.24gb@0"]
    said = ""

    def is_told() -> bool:  # what came late may have made it seem in use again
        nonlocal said
        said = machine.run(*words, "--yes", code=1)
        return "MIG off is pending until the GPU is reset" in said

    until(is_told)

    assert "nvidia-smi --gpu-reset -i 3" in said
    assert machine.specs(3) == ["4g.24gb@0"]
    gpu = machine.node.state.gpus[3]
    assert (gpu.mig_current, gpu.mig_pending) == (1, 0)


def test_process_in_a_container_is_named_with_it_by_status_and_explain(machine: Machine) -> None:
    container = "f45298cd514d1930c4fe3afc4412e59547f7e3148fddd22ca33cefce046eb830"
    place = machine.specs(3)[:1] or ["1g.6gb@3"]  # whatever the tests before have left
    if not machine.specs(3):
        machine.node.foreign_create(3, *place, actor="test")
    where = ["--directory", str(machine.root / "node"), "3", *place]
    group = f"/system.slice/docker-{container}.scope"
    pid = machine.run("sim", "job", "start", *where, "--user", "ada", "--cgroup", group).strip()

    until(lambda: f"(pid {pid}, docker f45298cd514d)" in machine.run("explain"))

    rows: list[str] = []

    def is_shown() -> bool:
        rows.extend(x for x in machine.run("status", "-v").splitlines() if f" {pid} " in x)
        return rows != []

    until(is_shown)
    row = rows[0]
    assert row.split()[2:] == [pid, "python3", "ada", "1024", "MiB", "docker", container[:12], "-"]
    machine.run("sim", "job", "end", "--directory", str(machine.root / "node"), pid)


def test_tests_that_share_a_machine_run_on_one_worker(request: pytest.FixtureRequest) -> None:
    """pytest-xdist says so by a suffix; where it is missing, groups are silently torn apart."""
    if "PYTEST_XDIST_WORKER" in os.environ:
        assert request.node.nodeid.endswith("@cli-node")


def as_nobody(machine: Machine, *words: str) -> subprocess.CompletedProcess[str]:
    """Run a command for an account that is neither root's nor the daemon's, if we are root.

    The interpreter may lie where only root looks, so it keeps the right to read files.
    """
    ids = ["--reuid", "65534", "--regid", "65534", "--clear-groups"]
    rights = ("--inh-caps", "--ambient-caps", "--bounding-set")
    keep = [word for right in rights for word in (right, "-all,+dac_read_search")]
    become = ["setpriv", *ids, *keep] if os.geteuid() == 0 else []
    at = ["--socket", str(machine.root / "state" / "migscaler.sock")]
    command = [*become, sys.executable, "-m", "migscaler.cli.main", *at, *words]
    return subprocess.run(command, capture_output=True, text=True, timeout=120)


def test_any_account_sees_what_the_api_shows_to_everybody(machine: Machine) -> None:
    """Who may lease could not see what is free: every command was for root only."""
    looks = ("status", "layouts", "plan", "explain", "demand show")
    for done in (as_nobody(machine, *look.split()) for look in looks):
        assert done.returncode in (0, 3), done.stderr
        assert (done.stdout != "", done.stderr) == (True, "")
    until(lambda: "A100-SXM4-40GB" in as_nobody(machine, "status").stdout)

    is_stranger = os.geteuid() == 0
    for words in (["history"], ["plan", "--nvidia-smi"]):
        refused = as_nobody(machine, *words)
        assert ("only root and the daemon's account" in refused.stderr) is is_stranger
        assert (refused.returncode == 1) is is_stranger


def test_doctor_of_any_account_asks_to_be_run_as_root(machine: Machine) -> None:
    done = as_nobody(machine, "doctor", "--output", "json")

    assert ("not uid 65534" in done.stdout) is (os.geteuid() == 0)
    assert "install or load" not in done.stdout
