"""Names the host's services that keep NVIDIA devices open and so delay a MIG mode change."""

from collections.abc import Callable
from pathlib import Path

from migscaler.model.gpu import GpuReading

# What blocks a mode change by mig-parted's README and the MIG User Guide; comm is cut at 15
# characters by the kernel.
_KNOWN = {
    "nv-hostengine": "DCGM (nvidia-dcgm.service)",
    "dcgm-exporter": "dcgm-exporter",
    "nvsm_core": "NVSM (nvsm.service)",
    "nvsm_api_gateway"[:15]: "NVSM (nvsm.service)",
    "Xorg": "the X server",
    "gnome-shell": "GNOME",
    "nvidia-persiste": "nvidia-persistenced",
}


def client_finder(proc_root: Path) -> Callable[[GpuReading], tuple[str, ...]]:
    """Return a function that names a GPU's processes and the known services of the host."""

    def find(gpu: GpuReading) -> tuple[str, ...]:
        running = [str(process) for process in gpu.processes or ()]
        for reading in gpu.instances or ():
            running += [str(process) for process in reading.processes or ()]
        return tuple(dict.fromkeys((*running, *known_services(proc_root))))

    return find


def known_services(proc_root: Path) -> tuple[str, ...]:
    """Return the running services that are known to hold NVIDIA devices, sorted."""
    found = set()
    for comm in proc_root.glob("[0-9]*/comm"):
        try:
            name = comm.read_text("utf-8", "replace").strip()
        except OSError:
            continue
        if name in _KNOWN:
            found.add(_KNOWN[name])
    return tuple(sorted(found))
