"""Who else hands out or reshapes instances on this node: seen by processes, units and sockets.

Names are those of the kernel (comm), cut after 15 characters.
"""

import os
import re
import stat
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from migscaler.model.gpu import ForeignOwners
from migscaler.model.host import Process
from migscaler.schedulers.known_owners import (
    DRA_DRIVER,
    KNOWN_OWNERS,
    LSF,
    LSF_DAEMONS,
    LSF_SWITCH,
    LSF_UNREAD_REMEDY,
    MIG_MANAGER_UNIT,
    KnownOwner,
)
from migscaler.schedulers.proc import environment, processes

RUNTIMES = {
    "dockerd": "Docker",
    "containerd": "containerd",
    "containerd-shim": "containerd",
    "crio": "CRI-O",
    "conmon": "Podman",
    "podman": "Podman",
    "slurmd": "Slurm (slurmd)",
    "slurmstepd": "Slurm (slurmstepd)",
    "sbatchd": "LSF (sbatchd)",
    "pbs_mom": "PBS (pbs_mom)",
    "condor_startd": "HTCondor (condor_startd)",
    "kubelet": "Kubernetes (kubelet)",
    "k3s": "Kubernetes (k3s)",
    "k3s-server": "Kubernetes (k3s)",
    "k3s-agent": "Kubernetes (k3s)",
    "rke2": "Kubernetes (rke2)",
    "kubelite": "Kubernetes (MicroK8s)",  # canonical/microk8s: kubelet in one process with others
    "nomad": "Nomad",
    "sge_execd": "Grid Engine (sge_execd)",
    "flux-broker": "Flux (flux-broker)",
    "raylet": "Ray (raylet)",
    "lxd": "LXD",
    "incusd": "Incus",
}
"""Processes of what gives instances to jobs and may do so at any moment."""

SOCKETS = (
    ("docker.sock", "Docker"),
    ("containerd/containerd.sock", "containerd"),
    ("crio/crio.sock", "CRI-O"),
    ("podman/podman.sock", "Podman"),
)
"""Sockets below /run: systemd starts the service behind them at the first request."""

_BY_PROCESS = {process: owner for owner in KNOWN_OWNERS for process in owner.processes}
# Blanks and quotes are allowed around the value as in a shell; the last line wins.
_LSF_LINE = re.compile(rf"^\s*{LSF_SWITCH}\s*=\s*[\"']?(\w*)", re.MULTILINE)


@dataclass(frozen=True, slots=True, kw_only=True)
class HostRoots:
    """Where the host's files lie: /proc, /run, /etc, systemd's control groups and unit links."""

    proc: Path = Path("/proc")
    run: Path = Path("/run")
    cgroup: Path = Path("/sys/fs/cgroup")
    units: Path = field(default=Path("/etc/systemd/system"))
    etc: Path = field(default=Path("/etc"))


@dataclass(frozen=True, slots=True, kw_only=True)
class _Seen:
    """One owner as seen here: who, by what, and the way out."""

    words: str
    remedy: str


class OwnerSearch:
    """Looks for other owners of the layouts. Used from one thread at a time."""

    def __init__(self, roots: HostRoots) -> None:
        """Take where to look."""
        self._roots = roots
        # What lsf.conf said when an LSF daemon was first seen, by its pid: a change of the switch
        # takes effect when the daemons are restarted (lsf.conf reference). The file is often on a
        # shared file system, which must not be asked at every sample.
        self._lsf: dict[int, bool] = {}

    def look(self, table: Iterable[Process] | None = None) -> ForeignOwners:
        """Return who else reshapes the GPUs of this node, how it was seen, and the way out.

        `table` are the host's processes where the caller has just read them. mig-manager's systemd
        unit counts while it runs or is enabled: it applies its layout again at every boot.
        """
        try:
            known = tuple(processes(self._roots.proc) if table is None else table)
        except OSError as error:
            why = f"processes can't be listed: {error.strerror}"
            return ForeignOwners(unknown=why, remedy="give migscaler the host's /proc")
        seen = [*self._running(known), *self._unit()]
        lsf, unknown = self._lsf_owner(known)
        if lsf is not None:
            seen.append(lsf)
        return ForeignOwners(
            found="; ".join(dict.fromkeys(one.words for one in seen)) or None,
            remedy="; ".join(dict.fromkeys(one.remedy for one in seen))
            or (LSF_UNREAD_REMEDY if unknown else ""),
            unknown=unknown,
        )

    def _running(self, table: tuple[Process, ...]) -> Iterator[_Seen]:
        """Yield owners by their processes, each once."""
        told: set[str] = set()
        for process in table:
            owner = _BY_PROCESS.get(process.name)
            if owner is not None and owner.name not in told:
                told.add(owner.name)
                detail = self._gates(process) if owner is DRA_DRIVER else ""
                yield _seen(owner, process, detail)

    def _gates(self, process: Process) -> str:
        """Say whether the DRA driver may make instances itself, as far as its environment says."""
        words = environment(self._roots.proc, process.pid)
        if not words:
            return ", its feature gates can't be read"
        gates = _variable(words, "FEATURE_GATES") or ""
        on = "DynamicMIG=true" in gates.replace(" ", "").split(",")
        return ", with DynamicMIG" if on else ", DynamicMIG not named in its FEATURE_GATES"

    def _unit(self) -> Iterator[_Seen]:
        """Yield mig-parted's systemd unit while it runs or is enabled."""
        remedy = f"systemctl disable --now {MIG_MANAGER_UNIT}"
        for group in ("system.slice", "systemd/system.slice"):
            if (self._roots.cgroup / group / MIG_MANAGER_UNIT).is_dir():
                yield _Seen(words=f"mig-parted ({MIG_MANAGER_UNIT} is running)", remedy=remedy)
                return
        if _is_masked(self._roots.units / MIG_MANAGER_UNIT):
            return
        # A link of an enabled unit may lead to where only the host's root sees a file.
        places = (*self._roots.units.glob("*.wants"), *self._roots.units.glob("*.requires"))
        if any(os.path.lexists(place / MIG_MANAGER_UNIT) for place in places):
            words = f"mig-parted ({MIG_MANAGER_UNIT} is enabled and reshapes the GPUs at boot)"
            yield _Seen(words=words, remedy=remedy)

    def _lsf_owner(self, table: tuple[Process, ...]) -> tuple[_Seen | None, str | None]:
        """Return LSF where it manages MIG, or why that is not known."""
        daemons = [process for process in table if process.name in LSF_DAEMONS]
        self._lsf = {p.pid: self._lsf[p.pid] for p in daemons if p.pid in self._lsf}
        # Daemons of one host read the same file; job daemons are their children.
        for process in daemons[:1]:
            if process.pid not in self._lsf:
                problem = self._read_lsf(process)
                if problem is not None:
                    return None, problem
            if self._lsf[process.pid]:
                return _seen(LSF, process), None
        return None, None

    def _read_lsf(self, process: Process) -> str | None:
        """Read the switch as this daemon finds it; return why that fails."""
        words = environment(self._roots.proc, process.pid)
        named = _variable(words or b"", "LSF_ENVDIR")
        # LSF looks in LSF_ENVDIR, else in /etc (lsf.conf reference, LSF_ENVDIR).
        places = ([Path(named) / "lsf.conf"] if named else []) + [self._roots.etc / "lsf.conf"]
        for place in places:
            try:
                text = place.read_text("utf-8", "replace")
            except OSError:
                continue
            values = _LSF_LINE.findall(text)
            manages = bool(values) and values[-1].lower() == "y"
            if words is None and not manages:
                break  # its environment may name another file, which can't be known
            self._lsf[process.pid] = manages
            return None
        return (
            f"LSF runs here (process {process.pid}, {process.name}), and whether it manages MIG"
            f" can't be read in {' or '.join(map(str, places))}"
        )


def job_runtime(table: Iterable[Process], run: Path) -> str | None:
    """Return what else gives instances to jobs here and how it was seen, None if nothing does."""
    for process in table:
        known = RUNTIMES.get(process.name)
        if known is not None:
            return f"{known} runs here (process {process.pid}, {process.name})"
    for name, known in SOCKETS:
        if _is_socket(run / name):
            return f"{known} can be started here ({run / name})"
    return None


def _seen(owner: KnownOwner, process: Process, detail: str = "") -> _Seen:
    words = f"{owner.name} (process {process.pid}, {process.name}{detail})"
    return _Seen(words=words, remedy=owner.remedy)


def _is_masked(unit: Path) -> bool:
    """Say whether systemd is kept from starting a unit: a link to /dev/null (systemctl mask)."""
    try:
        return os.readlink(unit) == os.devnull
    except OSError:
        return False


def _variable(words: bytes, name: str) -> str | None:
    """Return a variable of an environment, None where it is not set."""
    prefix = f"{name}=".encode()
    values = (word.removeprefix(prefix) for word in words.split(b"\0") if word.startswith(prefix))
    return next((value.decode("utf-8", "replace") for value in values), None)


def _is_socket(path: Path) -> bool:
    try:
        return stat.S_ISSOCK(path.stat().st_mode)
    except OSError:
        return False
