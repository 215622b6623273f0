"""A GPU as its row of memory slices: the cells that the page draws and the API describes."""

from dataclasses import dataclass

from migscaler.model.gpu import IN_USE_REASONS, GpuState, InstanceState, PinReason
from migscaler.model.layout import GpuModel, Layout
from migscaler.model.profile import InstanceSpec

PIN_WORDS = {
    PinReason.PROCESS: "in use",
    PinReason.ALLOCATION: "allocated",
    PinReason.HELD: "held",
    PinReason.PROTECTED: "protected",
    PinReason.ACTIVITY: "active",
    PinReason.MEMORY: "memory",
    PinReason.SETTLING: "settling",
    PinReason.UNKNOWN: "unknown",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Cell:
    """Part of the strip, `start` and `size` in memory slices.

    `kind`: `used` (process or allocation), `kept` (other reasons to stay), `idle`, `planned`,
    `free`, `stranded`. The first four are instances and have a profile and its size class.
    """

    kind: str
    start: int
    size: int
    profile: str = ""
    size_class: str = ""
    compute_slices: int = 0
    words: str = ""


def cells_of(gpu: GpuState) -> tuple[Cell, ...]:
    """Return the cells of a GPU from left to right, covering each memory slice once.

    Empty if the layout or the model's placements are not known.
    """
    model, layout = gpu.reading.model, gpu.layout
    if model is None or layout is None or not gpu.reading.mig_enabled:
        return ()
    states = {one.spec: one for one in gpu.instances or ()}
    cells = [_instance_cell(model, spec, states.get(spec)) for spec in layout.specs]
    return _with_gaps(model, layout, cells)


def planned_cells(model: GpuModel, layout: Layout) -> tuple[Cell, ...]:
    """Return the cells of a layout that is only planned."""
    cells = [_cell(model, spec, "planned", "planned") for spec in layout.specs]
    return _with_gaps(model, layout, cells)


def stranded_slices(model: GpuModel, layout: Layout) -> frozenset[int]:
    """Return the free memory slices that no further instance could cover.

    Cost: one legality check per placement of the model.
    """
    free = {n for n in range(model.memory_slices) if not layout.mask >> n & 1}
    for profile in model.profiles:
        for placement in profile.placements():
            covered = set(range(placement.start, placement.end))
            if covered & free and not placement.mask & layout.mask:
                spec = InstanceSpec(placement, profile.name)
                if model.violation(layout.with_specs((spec,))) is None:
                    free -= covered
    return frozenset(free)


def in_words(cells: tuple[Cell, ...]) -> str:
    """Return the strip as text for those who don't see it."""
    if not cells:
        return "layout not known"
    return ", ".join(f"{_what(cell)} at {_where(cell)}" for cell in cells)


def _what(cell: Cell) -> str:
    return f"{cell.profile} {cell.words}" if cell.profile else cell.words


def _where(cell: Cell) -> str:
    if cell.size == 1:
        return f"slice {cell.start}"
    return f"slices {cell.start} to {cell.start + cell.size - 1}"


def _instance_cell(model: GpuModel, spec: InstanceSpec, state: InstanceState | None) -> Cell:
    """Return the cell of a live instance; without a verdict it counts as kept."""
    if state is None:
        return _cell(model, spec, "kept", PIN_WORDS[PinReason.UNKNOWN])
    if state.pin is None:
        return _cell(model, spec, "idle", "idle")
    kind = "used" if state.pin in IN_USE_REASONS else "kept"
    return _cell(model, spec, kind, PIN_WORDS[state.pin])


def _cell(model: GpuModel, spec: InstanceSpec, kind: str, words: str) -> Cell:
    profile = model.find(spec.profile)
    return Cell(
        kind=kind,
        start=spec.placement.start,
        size=spec.placement.size,
        profile=spec.profile,
        size_class=spec.profile if profile is None else profile.size_class,
        compute_slices=0 if profile is None else profile.compute_slices,
        words=words,
    )


def _with_gaps(model: GpuModel, layout: Layout, cells: list[Cell]) -> tuple[Cell, ...]:
    """Fill the uncovered slices: free ones and stranded ones, one cell each."""
    stranded = stranded_slices(model, layout)
    for number in range(model.memory_slices):
        if not layout.mask >> number & 1:
            kind = "stranded" if number in stranded else "free"
            cells.append(Cell(kind=kind, start=number, size=1, words=kind))
    return tuple(sorted(cells, key=lambda cell: cell.start))
