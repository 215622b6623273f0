"""Who else hands out or reshapes instances on this node: seen by processes, units and sockets.

Names are those of the kernel (comm), cut after 15 characters.
"""

import os
import stat
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from migscaler.schedulers.proc import Process, processes

RUNTIMES = {
    "dockerd": "Docker",
    "containerd": "containerd",
    "containerd-shim": "containerd",
    "crio": "CRI-O",
    "conmon": "Podman",
    "podman": "Podman",
    "slurmd": "Slurm (slurmd)",
    "slurmstepd": "Slurm (slurmstepd)",
    "kubelet": "Kubernetes (kubelet)",
    "k3s": "Kubernetes (k3s)",
    "k3s-server": "Kubernetes (k3s)",
    "k3s-agent": "Kubernetes (k3s)",
    "rke2": "Kubernetes (rke2)",
    "nomad": "Nomad",
}
"""Processes of what gives instances to jobs and may do so at any moment."""

SOCKETS = (
    ("docker.sock", "Docker"),
    ("containerd/containerd.sock", "containerd"),
    ("crio/crio.sock", "CRI-O"),
    ("podman/podman.sock", "Podman"),
)
"""Sockets below /run: systemd starts the service behind them at the first request."""

REPARTITIONERS = {
    "nvidia-mig-mana": "nvidia-mig-manager",
    "nvidia-mig-part": "nvidia-mig-parted",
    "mig-parted": "nvidia-mig-parted",
    "gpu-kubelet-plu": "the NVIDIA DRA driver (gpu-kubelet-plugin)",
}
"""Processes that change MIG layouts themselves."""

MIG_MANAGER_UNIT = "nvidia-mig-manager.service"


@dataclass(frozen=True, slots=True, kw_only=True)
class HostRoots:
    """Where the host's files lie: /proc, /run, and systemd's control groups and unit links."""

    proc: Path = Path("/proc")
    run: Path = Path("/run")
    cgroup: Path = Path("/sys/fs/cgroup")
    units: Path = field(default=Path("/etc/systemd/system"))


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


def foreign_owner(roots: HostRoots, table: Iterable[Process] | None = None) -> str | None:
    """Return who else reshapes the GPUs of this node and how to end that, None if nobody is seen.

    `table` are the host's processes where the caller has just read them. Seen are running processes
    of mig-parted, mig-manager and the DRA driver, and mig-manager's systemd unit while it runs or
    is enabled: it applies its layout again at every boot.
    """
    for process in _present(roots) if table is None else table:
        known = REPARTITIONERS.get(process.name)
        if known is not None:
            return (
                f"{known} runs (process {process.pid}); stop it, two owners undo each other's work"
            )
    remedy = f"run: systemctl disable --now {MIG_MANAGER_UNIT}"
    for group in ("system.slice", "systemd/system.slice"):
        if (roots.cgroup / group / MIG_MANAGER_UNIT).is_dir():
            return f"{MIG_MANAGER_UNIT} is running; {remedy}"
    # A link of an enabled unit may lead to where only the host's root sees a file.
    if any(os.path.lexists(wants / MIG_MANAGER_UNIT) for wants in roots.units.glob("*.wants")):
        return f"{MIG_MANAGER_UNIT} is enabled and reshapes the GPUs at boot; {remedy}"
    return None


def _present(roots: HostRoots) -> tuple[Process, ...]:
    try:
        return processes(roots.proc)
    except OSError:
        return ()


def _is_socket(path: Path) -> bool:
    try:
        return stat.S_ISSOCK(path.stat().st_mode)
    except OSError:
        return False
