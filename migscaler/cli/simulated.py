"""Puts the simulated NVML library below the daemon; picklable, as NVML runs in a child process."""

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from migscaler.model.ports import HostProcesses

if TYPE_CHECKING:
    from migscaler.model.process import HostProcess
    from migscaler.schedulers.owners import HostRoots


# `sim.hook.DIRECTORY_VARIABLE`; importing the simulator would slow every command on real GPUs.
_HOOKED = "MIGSCALER_SIM_DIRECTORY"


def hardware_of(environ: Mapping[str, str]) -> str | None:
    """Return the name of the simulated node that a program runs on, None on real GPUs."""
    directory = environ.get(_HOOKED)
    return simulated_hardware(Path(directory)) if directory else None


def simulated_hardware(directory: Path) -> str:
    """Return the name of the node of a directory, for the lock of who may change it."""
    return f"simulated {directory.resolve()}"


def preparation(directory: Path) -> Callable[[], None]:
    """Return what the NVML worker runs first, so that it meets the node of a directory."""
    return partial(_install, directory)


def host_of(directory: Path) -> Callable[[], HostProcesses]:
    """Return what makes the simulated host's view of processes."""
    return partial(SimulatedHost, directory)


def boot_id_of(directory: Path) -> Callable[[], str]:
    """Return what tells the simulated node's boots apart."""
    return partial(_boot_id, directory)


def quiet_host(directory: Path) -> "HostRoots":
    """Return a host without any other owner of GPUs, whatever runs on this machine."""
    from migscaler.schedulers.owners import HostRoots

    host = directory / "host"
    roots = HostRoots(
        proc=host / "proc",
        run=host / "run",
        cgroup=host / "cgroup",
        units=host / "units",
        etc=host / "etc",
    )
    for root in (roots.proc, roots.run, roots.cgroup, roots.units, roots.etc):
        root.mkdir(parents=True, exist_ok=True)
    return roots


def _boot_id(directory: Path) -> str:
    from migscaler.sim.node import open_node

    return open_node(directory).boot_id


def _install(directory: Path) -> None:
    """Install the library in this process."""
    from migscaler.hardware.nvml_calls import install_library
    from migscaler.sim.hook import timed
    from migscaler.sim.node import open_node
    from migscaler.sim.nvml_library import NvmlLibrary

    install_library(timed(NvmlLibrary(open_node(directory))))


class SimulatedHost:
    """Knows the simulated node's processes, which are in no /proc."""

    def __init__(self, directory: Path) -> None:
        """Look at the node of a directory."""
        from migscaler.sim.node import open_node

        self._node = open_node(directory)

    def visible(self) -> bool:
        """Say that all processes are seen."""
        return True

    def exists(self, pid: int) -> bool:
        """Say whether such a process runs on a simulated GPU."""
        return self.process(pid).name is not None

    def process(self, pid: int) -> "HostProcess":
        """Return what a simulated process is, its container read as `ProcHost` reads it."""
        from migscaler.hardware.cgroups import container_of
        from migscaler.model.process import HostProcess

        for gpu in self._node.state.gpus:
            for job in gpu.jobs:
                if job.pid == pid:
                    where = container_of(f"0::{job.cgroup}")
                    return HostProcess(name=job.name, user=job.user, container=where)
        return HostProcess()
