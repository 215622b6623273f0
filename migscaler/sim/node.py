"""A simulated node: build one from a text, or open the one in a directory."""

import time
import uuid
from collections.abc import Callable, Sequence
from pathlib import Path

from migscaler.errors import NotFound, ParseError
from migscaler.model.catalog import Board, Catalog, load_catalog
from migscaler.sim.core import driver_tuple
from migscaler.sim.incidents import Incidents, boot_id_of
from migscaler.sim.state import GpuState, NodeState
from migscaler.sim.store import DirectoryStore, MemoryStore
from migscaler.sim.telemetry import power_limit_mw

DEFAULT_DRIVER = "550.54.14"
_NAMESPACE = uuid.UUID("1c0ffee0-5a11-5b0a-8d00-5e7e11a7ed00")
_VARIANTS = ("normal", "mirrored")


class SimNode(Incidents):
    """A node with GPUs; see `core`, `jobs` and `incidents` for what it can do."""


def boottime() -> float:
    """Return seconds since boot, the same in every process and also counted while suspended."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


def build_node(
    spec_text: str,
    driver: str = DEFAULT_DRIVER,
    directory: Path | None = None,
    *,
    variant: str | Sequence[str] = "normal",
    mig: bool | Sequence[bool] = True,
    seed: int = 0,
    clock: Callable[[], float] = boottime,
) -> SimNode:
    """Make a node, e.g. of `6xA100-SXM4-40GB,2xH100-80GB`; in memory without a directory.

    `variant` is `normal`, `mirrored` or one of them per GPU; `mig` the mode of all or of each;
    `seed` makes other UUIDs. A directory's earlier node is replaced.

    Raises:
        ParseError: unreadable, or a driver older than the board's first.
        NotFound: a board that the catalog does not have.
    """
    catalog = load_catalog()
    boards = [board for part in spec_text.split(",") for board in _boards(catalog, part)]
    variants = [variant] * len(boards) if isinstance(variant, str) else list(variant)
    modes = [mig] * len(boards) if isinstance(mig, bool) else list(mig)
    if len(variants) != len(boards) or len(modes) != len(boards):
        raise ParseError(f"{len(boards)} GPUs need as many variants and modes")
    state = NodeState(driver=driver, boot_id="")
    now = clock()
    for index, board in enumerate(boards):
        _check(board, driver, variants[index])
        state.gpus.append(_gpu(index, board, variants[index], modes[index], seed, now))
    state.boot_id = boot_id_of(state)
    store = MemoryStore(state) if directory is None else DirectoryStore(directory, state)
    return SimNode(store, clock)


def open_node(directory: Path, clock: Callable[[], float] = boottime) -> SimNode:
    """Open the node that `build_node` made in a directory.

    Raises:
        NotFound: there is none.
    """
    try:
        return SimNode(DirectoryStore(directory), clock)
    except FileNotFoundError as error:
        raise NotFound(f"no simulated node in {directory}") from error


def find_board(catalog: Catalog, text: str) -> Board:
    """Return the board of a key, a product name, or the first whose name has all words of the text.

    Raises:
        NotFound: there is none.
    """
    words = text.lower().replace("-", " ").split()
    try:
        return catalog.board(text)
    except NotFound:
        for board in catalog.boards:
            for name in (board.key, *board.product_names):
                parts = name.lower().replace("-", " ").split()
                if all(word in parts for word in words):
                    return board
        raise


def _boards(catalog: Catalog, part: str) -> list[Board]:
    """Read `6xA100-SXM4-40GB`; the count may be left out."""
    count, cross, name = part.strip().partition("x")
    if not cross or not count.isdecimal():
        count, name = "1", part
    return [find_board(catalog, name.strip())] * int(count)


def _check(board: Board, driver: str, variant: str) -> None:
    """Refuse a node that can't exist."""
    if variant not in _VARIANTS:
        raise ParseError(f"variant {variant!r}; there are {', '.join(_VARIANTS)}")
    if driver_tuple(driver) < driver_tuple(board.min_driver or "0"):
        raise ParseError(f"{board.key} has MIG from driver {board.min_driver}, not on {driver}")


def _gpu(index: int, board: Board, variant: str, mig: bool, seed: int, now: float) -> GpuState:
    """Return a GPU with identifiers that depend only on seed, index and board."""
    identity = uuid.uuid5(_NAMESPACE, f"{seed}/{index}/{board.key}")
    mode = int(mig)
    return GpuState(
        index=index,
        board=board.key,
        name=board.product_names[0],
        variant=variant if board.memory_slices == 8 else "normal",
        uuid=f"GPU-{identity}",
        serial=str(1320000000000 + identity.int % 10_000_000_000),
        bus_id=f"{index // 31:08X}:{0x07 + 8 * (index % 31):02X}:00.0",
        minor=index,
        memory_slices=board.memory_slices,
        power_limit_mw=power_limit_mw(board),
        mig_current=mode,
        mig_pending=mode,
        counted_at=now,
    )
