"""Gives any Python process the simulated NVML library; found through PYTHONPATH by `sim.hook`.

Python imports a module of this name at start. Without the hook's environment it does nothing.
"""

import os
import sys


def _install() -> None:
    """Install the library if the process can import pynvml at all."""
    directory = os.environ.get("MIGSCALER_SIM_DIRECTORY")
    root = os.environ.get("MIGSCALER_SIM_ROOT")
    if directory is None or root is None:
        return
    # The package's parent is only lent: it may be a site-packages of another environment, whose
    # modules must not hide this one's.
    sys.path.append(root)
    try:
        from migscaler.sim.hook import install

        install(directory)
    finally:
        sys.path.remove(root)


_install()
