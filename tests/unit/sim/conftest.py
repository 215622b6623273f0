from collections.abc import Callable, Iterator
from dataclasses import dataclass

import pynvml
import pytest

from migscaler.sim.node import SimNode, build_node
from migscaler.sim.nvml_library import NvmlLibrary


@dataclass
class Ticks:
    """A clock that tests move by hand."""

    now: float = 1000.0

    def __call__(self) -> float:
        return self.now


Build = Callable[..., SimNode]


@pytest.fixture
def ticks() -> Ticks:
    return Ticks()


@pytest.fixture
def build(ticks: Ticks) -> Iterator[Build]:
    """Build a node and open an NVML session on it through the real nvidia-ml-py."""

    def make(spec: str, driver: str = "550.54.14", **options: object) -> SimNode:
        node = build_node(spec, driver, clock=ticks, **options)  # type: ignore[arg-type]
        load(NvmlLibrary(node, "test"))
        pynvml.nvmlInit()
        return node

    yield make
    load(None)


def load(library: NvmlLibrary | None) -> None:
    """Put a library in the place of the driver's."""
    pynvml.nvmlLib = library
    pynvml._nvmlGetFunctionPointer_cache.clear()
