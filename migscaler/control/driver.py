"""Whether the NVML library and the kernel driver below it are of one version.

They part when a driver is upgraded under a running process, or when a container brings its own
library.
"""

from migscaler.errors import MigscalerError, NvmlError
from migscaler.model.gpu import NodeSnapshot


def has_mismatch(snapshot: NodeSnapshot) -> bool | None:
    """Compare the versions that NVML tells; None where it does not tell both.

    The library's begins with its CUDA major version: `12.550.54.14` (nvmlSystemGetNVMLVersion).
    """
    driver, library = snapshot.driver_version, snapshot.nvml_version
    if driver is None or library is None:
        return None
    return library.partition(".")[2] != driver


def is_mismatch(error: MigscalerError) -> bool | None:
    """Say whether NVML refused for that reason; other errors say nothing about versions."""
    refused = isinstance(error, NvmlError) and error.code_name == "LIB_RM_VERSION_MISMATCH"
    return True if refused else None
