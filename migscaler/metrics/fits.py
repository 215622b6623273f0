"""What fits beside a GPU's layout, kept until its layout or its idle instances change."""

from dataclasses import dataclass, replace

from migscaler.model.gpu import GpuState
from migscaler.model.ids import GpuUuid
from migscaler.model.layout import GpuModel, Layout
from migscaler.planner.layouts import (
    Stranded,
    creatable_if_dissolved,
    fits,
    fragmentation,
    stranded,
)
from migscaler.planner.space import Space, make_space
from migscaler.policy.supply import overlaps


@dataclass(frozen=True, slots=True, kw_only=True)
class Fit:
    """Figures of one layout: instances per profile, stranded slices, fragmentation's two sums."""

    model: GpuModel
    space: Space
    layout: Layout
    kept: Layout
    creatable: dict[str, int]
    reachable: dict[str, int]
    stranded: Stranded
    fragmentation: tuple[int, int]


def layout_of(gpu: GpuState) -> Layout | None:
    """Return a GPU's layout; None where it is not known or can't be true."""
    return None if overlaps(gpu) else gpu.layout


class FitBook:
    """The last figures per GPU, so that samples of an unchanged layout cost a comparison.

    Used by one thread at a time; holds one entry per GPU.
    """

    def __init__(self) -> None:
        self._last: dict[GpuUuid, Fit] = {}

    def fit(self, gpu: GpuState) -> Fit | None:
        """Return the figures, None where layout, verdicts or placements are not known."""
        model, layout = gpu.reading.model, layout_of(gpu)
        if model is None or layout is None or gpu.instances is None:
            return None
        kept = Layout(tuple(i.spec for i in gpu.instances if i.pin is not None))
        last = self._last.get(gpu.uuid)
        if last is None or last.model != model or last.layout != layout:
            is_known = last is not None and last.model == model
            made = _figures(model, layout, kept, last.space if last and is_known else None)
        elif last.kept != kept:
            reachable = creatable_if_dissolved(model, kept.specs, space=last.space)
            made = replace(last, kept=kept, reachable=reachable)
        else:
            return last
        self._last[gpu.uuid] = made
        return made


def _figures(model: GpuModel, layout: Layout, kept: Layout, space: Space | None) -> Fit:
    """Ask the planner's tables, built once per model and GPU for all questions."""
    space = space or make_space(model)
    return Fit(
        model=model,
        space=space,
        layout=layout,
        kept=kept,
        creatable=fits(model, layout, space=space),
        reachable=creatable_if_dissolved(model, kept.specs, space=space),
        stranded=stranded(model, layout, space=space),
        fragmentation=fragmentation(model, layout, space=space),
    )
