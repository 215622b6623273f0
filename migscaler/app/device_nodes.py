"""Has the driver's tool make the device nodes of new instances.

An instance is usable only through its `/dev/nvidia-caps` nodes; creating it through NVML does not
make them, any run of nvidia-smi does (the GPU operator's MIG manager runs it for that).
"""

import shutil
import subprocess

from migscaler.model.ids import GpuUuid
from migscaler.model.layout import Layout

_SECONDS = 30.0


def make_nodes_after(_uuid: GpuUuid, _layout: Layout) -> str | None:
    """Make the nodes after a change of a GPU, as `make_device_nodes`."""
    return make_device_nodes()


def make_device_nodes() -> str | None:
    """Run `nvidia-smi -L`; return what went wrong, None if nothing."""
    program = shutil.which("nvidia-smi")
    if program is None:
        return "nvidia-smi is not on the PATH: device nodes of new instances may be missing"
    try:
        done = subprocess.run(
            [program, "-L"],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=_SECONDS,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return f"nvidia-smi -L: {error}"
    return f"nvidia-smi -L: exit code {done.returncode}" if done.returncode else None
