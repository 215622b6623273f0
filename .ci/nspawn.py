"""Boot a Debian with systemd in systemd-nspawn and try the shipped units on a simulated node there.

Needs root, a Debian mirror (debootstrap) and the package index for the locked wheels. The machine's
files are made once in .nspawn/ and used again; the project in them is built anew each time.
Prints what was tried and how long it took; ends with 1 if something is not as it should be.
"""

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

ROOT = Path(__file__).parents[1]
HOME = ROOT / ".nspawn"
ROOTFS = HOME / "rootfs"
PYTHON = str(ROOT / ".venv" / "bin" / "python")
PAGE = "http://127.0.0.1:9836"
NODE = "/srv/node"
CONFIG = """
mode: enforce
gpus: [{model: "*"}]
idle: {after: 10s, evidence: [process, allocation]}
sampling: {interval: 1s}
tick: 1s
pace: {raise_after: 1s, rest: 1s}
sources: {pushed: {type: push, counts: total}}
rules: [{name: halves, size: 3g, from: [pushed], max: 2}]
"""
# Only where the simulated node is put below, and a shorter watchdog to wait for.
ONE = f"""[Service]
ExecStart=
ExecStart=/usr/bin/migscaler --config /etc/migscaler/migscaler.yaml sim run --directory {NODE}
ReadWritePaths={NODE}
UMask=0022
WatchdogSec=10
"""
SPLIT = ONE.replace(
    f"--directory {NODE}\n",
    f"--directory {NODE} --nvml-socket /run/migscaler-nvml/worker.sock\n",
).replace(f"ReadWritePaths={NODE}\nUMask=0022\n", "")
WORKER = f"""[Service]
ExecStart=
ExecStart=/usr/bin/migscaler sim nvml-worker --directory {NODE} --user migscaler
ReadWritePaths={NODE}
UMask=0022
WatchdogSec=10
"""


def say(*words: object) -> None:
    """Print at once."""
    print(*words, flush=True)


def run(*command: str, **more: object) -> subprocess.CompletedProcess[str]:
    """Run a command here; end the whole if it fails."""
    done = subprocess.run(command, capture_output=True, text=True, check=False, **more)  # type: ignore[call-overload] # passed on
    if done.returncode:
        raise SystemExit(f"{' '.join(command)}: exit code {done.returncode}\n{done.stderr}")
    return done  # type: ignore[no-any-return] # of run


def prepare() -> None:
    """Make the machine's files, with the project as a wheel installed in them."""
    HOME.mkdir(exist_ok=True)
    if not (ROOTFS / "usr/bin/python3").exists():
        shutil.rmtree(ROOTFS, ignore_errors=True)
        began = time.monotonic()
        packages = "systemd,systemd-sysv,dbus,python3,python3-venv"
        partly = HOME / "rootfs.partly"
        shutil.rmtree(partly, ignore_errors=True)
        run("debootstrap", "--variant=minbase", f"--include={packages}", "bookworm", str(partly))
        partly.rename(ROOTFS)
        say(f"debootstrap: {time.monotonic() - began:.0f} s")
    wheels = ROOTFS / "srv/wheels"
    wheels.mkdir(exist_ok=True)
    for old in wheels.glob("migscaler-*"):
        old.unlink()
    # What is committed: half an edit is no reason to look for a fault in the units.
    source = HOME / "source"
    shutil.rmtree(source, ignore_errors=True)
    source.mkdir()
    run("sh", "-ec", f"git archive HEAD | tar -x -C {source}", cwd=ROOT)
    run(PYTHON, "-m", "hatchling", "build", "-t", "wheel", "-d", str(wheels), cwd=source)
    lock = str(ROOT / "requirements.lock")
    pip = (PYTHON, "-m", "pip", "--disable-pip-version-check", "--no-input", "-q")
    run(*pip, "download", "--require-hashes", "-r", lock, "-d", str(wheels))
    shutil.copy(lock, wheels / "requirements.lock")
    install = (
        "rm -rf /opt/migscaler && python3 -m venv /opt/migscaler && cd /srv/wheels"
        " && export PIP_NO_INDEX=1 PIP_FIND_LINKS=/srv/wheels PIP_DISABLE_PIP_VERSION_CHECK=1"
        " && /opt/migscaler/bin/pip install -q --require-hashes -r requirements.lock"
        " && /opt/migscaler/bin/pip install -q --no-deps migscaler-*.whl"
        " && ln -sf /opt/migscaler/bin/migscaler /usr/bin/migscaler"
    )
    run("chroot", str(ROOTFS), "sh", "-ec", install)
    (ROOTFS / "etc/migscaler").mkdir(exist_ok=True)
    (ROOTFS / "etc/migscaler/migscaler.yaml").write_text(CONFIG)


def lay_out(split: bool) -> None:
    """Put the units of an arrangement in place, and a fresh node without state."""
    units = ROOTFS / "etc/systemd/system"
    for old in (*units.glob("migscaler*"),):
        shutil.rmtree(old) if old.is_dir() else old.unlink()
    for old in ("var/lib/migscaler", "srv/node", "var/log/journal"):
        shutil.rmtree(ROOTFS / old, ignore_errors=True)
    source = HOME / "source/deploy/systemd"
    drop_ins = {"migscaler.service": SPLIT if split else ONE}
    if split:
        drop_ins["migscaler-nvml.service"] = WORKER
        target = ROOTFS / "usr/lib/sysusers.d/migscaler.conf"
        shutil.copy(source / "split/migscaler.sysusers.conf", target)
    for name, text in drop_ins.items():
        shutil.copy(source / ("split" if split else "") / name, units / name)
        (units / f"{name}.d").mkdir()
        (units / f"{name}.d/simulated.conf").write_text(text)
    build = ("/usr/bin/migscaler", "sim", "build", "--directory", NODE, "1xA100-SXM4-40GB")
    run("chroot", str(ROOTFS), *build)
    script = (
        "from migscaler.sim.node import open_node; from pathlib import Path;"
        f"node = open_node(Path('{NODE}'));"
        "[node.foreign_create(0, f'1g@{n}', actor='setup') for n in range(4)]"
    )
    run("chroot", str(ROOTFS), "/opt/migscaler/bin/python", "-c", script)


class Machine:
    """A booted machine."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        self.process = process
        self.leader = 0

    def sh(self, *command: str, check: bool = True) -> str:
        """Run a command inside and return what it prints."""
        done = self._run(command)
        if check and done.returncode:
            raise Wrong(f"{' '.join(command)}: {done.returncode}: {done.stdout}{done.stderr}")
        return done.stdout

    def code(self, *command: str) -> int:
        """Run a command inside and return its exit code."""
        return self._run(command).returncode

    def _run(self, command: tuple[str, ...]) -> subprocess.CompletedProcess[str]:
        enter = ("nsenter", "-t", str(self.leader), "-m", "-p", "-u", "-i", "-n", "--")
        return subprocess.run(
            [*enter, "env", "-i", "PATH=/usr/sbin:/usr/bin:/sbin:/bin", *command],
            capture_output=True,
            text=True,
            check=False,
            timeout=300,
        )

    def python(self, script: str) -> str:
        """Run Python with the project inside."""
        return self.sh("/opt/migscaler/bin/python", "-c", script)

    def show(self, unit: str, key: str) -> str:
        """Return a property of a unit."""
        return self.sh("systemctl", "show", "-P", key, unit).strip()

    def get(self, path: str) -> str:
        """Return what the daemon answers inside."""
        url = f"{PAGE}{path}"
        return self.python(f"import httpx; print(httpx.get('{url}').raise_for_status().text)")

    def layout(self) -> list[str]:
        """Return what the GPU has, from the simulation's own books."""
        shown = json.loads(
            self.sh("migscaler", "sim", "show", "--directory", NODE, "--output", "json")
        )
        return [one["spec"] for one in shown["gpus"][0]["instances"]]

    def journal(self, unit: str) -> str:
        """Return the journal's lines about a unit, systemd's own too."""
        return self.sh("journalctl", "-q", "-o", "cat", "-u", unit)


class Wrong(Exception):
    """Something is not as it should be."""


def until(what: str, holds: Callable[[], object], seconds: float = 60) -> float:
    """Wait until something holds; return how long it took."""
    began = time.monotonic()
    while time.monotonic() - began < seconds:
        with contextlib.suppress(Wrong, OSError, ValueError):
            if holds():
                return time.monotonic() - began
        time.sleep(0.2)
    raise Wrong(f"not within {seconds:.0f} s: {what}")


def demand(is_true: bool, what: str) -> None:
    """Complain if something is not so."""
    if not is_true:
        raise Wrong(what)


@contextlib.contextmanager
def booted() -> Iterator[Machine]:
    """Boot, give the machine, power it off."""
    command = ["systemd-nspawn", "-q", "--register=no", "--keep-unit", "--private-network"]
    command += ["-D", str(ROOTFS), "-b", "systemd.unit=multi-user.target"]
    with (HOME / "console.log").open("wb") as log:
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
        )
        machine = Machine(process)
        try:
            children = Path(f"/proc/{process.pid}/task/{process.pid}/children")
            until("there is a first process", lambda: children.read_text().split())
            machine.leader = int(children.read_text().split()[0])
            seconds = until(
                "systemd runs",
                lambda: (
                    machine.sh("systemctl", "is-system-running", check=False).strip()
                    in ("running", "degraded")
                ),
            )
            state = machine.sh("systemctl", "is-system-running", check=False).strip()
            version = machine.sh("systemctl", "--version").split("\n")[0]
            say(f"  booted: {state} after {seconds:.1f} s, {version}")
            machine.sh("ip", "link", "set", "lo", "up", check=False)
            yield machine
        finally:
            if machine.leader:
                with contextlib.suppress(Exception):
                    machine.sh("systemctl", "poweroff", check=False)
            try:
                process.wait(60)
            except subprocess.TimeoutExpired:
                os.kill(process.pid, signal.SIGKILL)
                process.wait()


def start(machine: Machine, split: bool) -> None:
    """Start the services; they serve, and the daemon has the rights it should have."""
    units = ("migscaler-nvml", "migscaler") if split else ("migscaler",)
    began = time.monotonic()
    machine.sh("systemctl", "start", *units)
    say(f"  start to READY=1: {time.monotonic() - began:.1f} s")
    for unit in units:
        demand(machine.show(unit, "ActiveState") == "active", f"{unit} is not active")
        say(f"  {unit}: {machine.show(unit, 'StatusText')}")
    machine.get("/-/ready")
    until("it exports", lambda: "migscaler_instance_info{" in machine.get("/metrics"))
    pid = machine.show("migscaler", "MainPID")
    status = machine.sh("cat", f"/proc/{pid}/status")
    facts = [line.split() for line in status.splitlines()]
    told = {words[0]: words[1] for words in facts if words[0] in ("Uid:", "CapEff:", "Seccomp:")}
    say(f"  daemon: uid {told['Uid:']}, CapEff {told['CapEff:']}, Seccomp {told['Seccomp:']}")
    if split:
        demand(told["Uid:"] != "0" and int(told["CapEff:"], 16) == 0, "the daemon has privileges")


def act(machine: Machine) -> None:
    """Let demand change the layout."""
    machine.sh("migscaler", "demand", "push", "pushed", "3g=1", "--ttl", "20m")
    seconds = until("a 3g was made", lambda: "3g.20gb@4" in machine.layout())
    say(f"  demand pushed, instance made after {seconds:.1f} s: {' '.join(machine.layout())}")


def reload(machine: Machine) -> None:
    """Take a changed configuration."""
    pid = machine.show("migscaler", "MainPID")
    machine.sh("sed", "-i", "s/max: 2/max: 1/", "/etc/migscaler/migscaler.yaml")
    machine.sh("systemctl", "reload", "migscaler")
    until("it has read the file", lambda: "event=config_loaded" in machine.journal("migscaler"))
    demand(machine.show("migscaler", "MainPID") == pid, "reload started another process")
    say("  reload: the same process took the new file")


def watchdog(machine: Machine, unit: str) -> None:
    """Stop a process as a hang would."""
    before = int(machine.show(unit, "NRestarts"))
    pid = machine.show(unit, "MainPID")
    began = time.monotonic()
    machine.sh("sh", "-c", f"kill -STOP {pid}")
    until("it was restarted", lambda: int(machine.show(unit, "NRestarts")) > before, 150)
    until("it is active", lambda: machine.show(unit, "ActiveState") == "active", 60)
    seconds = time.monotonic() - began
    demand(machine.show(unit, "MainPID") != pid, "still the same process")
    demand("Watchdog timeout" in machine.journal(unit), "systemd does not speak of its watchdog")
    say(f"  {unit} held by SIGSTOP: watchdog (10 s here) and back in {seconds:.1f} s")
    until("it exports", lambda: "migscaler_instance_info{" in machine.get("/metrics"))


def killed(machine: Machine) -> None:
    """End the daemon without warning."""
    pid = machine.show("migscaler", "MainPID")
    began = time.monotonic()
    machine.sh("sh", "-c", f"kill -KILL {pid}")
    until(
        "another is active",
        lambda: (
            machine.show("migscaler", "MainPID") not in (pid, "0")
            and machine.show("migscaler", "ActiveState") == "active"
        ),
    )
    say(f"  kill -9: another is ready {time.monotonic() - began:.1f} s later (RestartSec=5s)")


def stop_in_plan(machine: Machine) -> None:
    """Stop while each call takes a second: the GPU plan ends, and nothing is left open."""
    machine.python(
        "from migscaler.sim.node import open_node; from migscaler.sim import faults;"
        f"from pathlib import Path; node = open_node(Path('{NODE}'));"
        "[node.add_fault(faults.slow(f'nvml{w}', 1.0)) for w in"
        " ('ComputeInstanceDestroy', 'GpuInstanceDestroy', 'DeviceCreateGpuInstanceWithPlacement')]"
    )
    apply = ("migscaler", "apply", "--gpu", "0", "--layout", "7g")
    until("nothing is in the way", lambda: machine.code(*apply, "--dry-run") == 3)
    calls = f"{NODE}/calls.jsonl"
    before = machine.sh("wc", "-l", calls)
    machine.sh("sh", "-c", f"{' '.join(apply)} >/tmp/apply.log 2>&1 &")
    until("the plan has begun", lambda: machine.sh("wc", "-l", calls) != before)
    began = time.monotonic()
    machine.sh("systemctl", "stop", "migscaler")
    seconds = time.monotonic() - began
    demand(machine.show("migscaler", "Result") == "success", machine.show("migscaler", "Result"))
    after = machine.layout()
    calls_made = int(machine.sh("wc", "-l", calls).split()[0]) - int(before.split()[0])
    left = machine.python(
        "from pathlib import Path; from migscaler.app.clock import RealClock;"
        "from migscaler.store.store import Store;"
        "store = Store.open(Path('/var/lib/migscaler/state.sqlite'), RealClock());"
        "print(len(store.open_plans()), len(store.wanted())); store.close()"
    )
    demand(left.split() == ["0", "1"], f"plans left open, layouts recorded: {left}")
    demand(after == ["7g.40gb@0"], f"the plan under way did not end: {after}")
    machine.sh("systemctl", "start", "migscaler")
    until("it is ready", lambda: machine.get("/-/ready"))
    until("it exports", lambda: "migscaler_instance_info{" in machine.get("/metrics"))
    made = int(machine.sh("wc", "-l", calls).split()[0]) - int(before.split()[0])
    demand(made == calls_made, "the next start changed something")
    say(f"  stop in mid-plan: {seconds:.1f} s for {calls_made} calls, no plan open, started again")


def worker_restarted(machine: Machine) -> None:
    """Restart the privileged half under the daemon."""
    began = time.monotonic()
    machine.sh("systemctl", "restart", "migscaler-nvml")
    until("it exports", lambda: "migscaler_instance_info{" in machine.get("/metrics"))
    success = 'migscaler_collector_success{collector="nvml"} 1'
    until("it reads", lambda: success in machine.get("/metrics"))
    say(f"  worker restarted: read again {time.monotonic() - began:.1f} s later")


def try_arrangement(split: bool) -> None:
    """Try one arrangement on a fresh machine."""
    say("two services" if split else "one service")
    lay_out(split)
    with booted() as machine:
        try:
            start(machine, split)
            act(machine)
            reload(machine)
            watchdog(machine, "migscaler")
            if split:
                watchdog(machine, "migscaler-nvml")
                worker_restarted(machine)
            killed(machine)
            stop_in_plan(machine)
        except Wrong:
            for unit in ("migscaler", "migscaler-nvml"):
                say(machine.sh("journalctl", "-q", "-n", "60", "-u", unit, check=False))
            raise
        lines = machine.journal("migscaler")
        demand("Traceback" not in lines, "a traceback in the journal")


def main() -> int:
    """Try both arrangements; return the exit code."""
    if os.geteuid() != 0:
        say("nspawn: needs root")
        return 2
    prepare()
    for split in (False, True):
        try:
            try_arrangement(split)
        except Wrong as wrong:
            say(f"WRONG: {wrong}")
            return 1
    say("all as it should be")
    return 0


if __name__ == "__main__":
    sys.exit(main())
