"""Lets other Python programs run on a simulated node: every pynvml in them meets the library."""

import importlib
import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NoReturn

from migscaler.sim.node import open_node
from migscaler.sim.nvml_library import NvmlLibrary
from migscaler.sim.timing import TIMES_VARIABLE, TimedLibrary

DIRECTORY_VARIABLE = "MIGSCALER_SIM_DIRECTORY"
ROOT_VARIABLE = "MIGSCALER_SIM_ROOT"


def hook_environment(directory: Path, environ: Mapping[str, str]) -> dict[str, str]:
    """Return an environment in which Python programs see the node of a directory.

    The hook is a `sitecustomize` put first on PYTHONPATH; one that the program's Python already has
    is not run. Programs started with -I, -E or -S do not see the hook.
    """
    site = str(Path(__file__).with_name("hook_site"))
    path = [site, *filter(None, [environ.get("PYTHONPATH")])]
    return {
        **environ,
        "PYTHONPATH": os.pathsep.join(path),
        DIRECTORY_VARIABLE: str(directory.resolve()),
        ROOT_VARIABLE: str(Path(__file__).parents[2]),
    }


def run_with_hook(directory: Path, argv: Sequence[str]) -> NoReturn:
    """Replace this process by a command that sees the node of a directory.

    Raises:
        NotFound: no node in the directory.
        OSError: the command can't be run.
    """
    open_node(directory)
    os.execvpe(argv[0], list(argv), hook_environment(directory, os.environ))  # noqa: S606 - a list


def install(directory: str) -> bool:
    """Give this process's pynvml the library of a directory's node; False without pynvml.

    For programs that are not migscaler; migscaler itself uses `hardware.nvml_calls`.
    """
    try:
        pynvml = importlib.import_module("pynvml")
    except ImportError:
        return False
    name = Path(sys.argv[0]).name if getattr(sys, "argv", None) else "python"
    library = NvmlLibrary(open_node(Path(directory)), f"{name}/{os.getpid()}")
    vars(pynvml)["nvmlLib"] = timed(library)
    pynvml._nvmlGetFunctionPointer_cache.clear()
    return True


def timed(library: NvmlLibrary) -> object:
    """Return the library, measured if the environment asks for it (benchmarks)."""
    directory = os.environ.get(TIMES_VARIABLE)
    return TimedLibrary(library, Path(directory) / str(os.getpid())) if directory else library
