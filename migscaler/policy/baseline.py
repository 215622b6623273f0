"""What a GPU is given when it has no instance, nothing is recorded for it and nothing wanted."""

from migscaler.model.layout import Layout
from migscaler.planner.layouts import all_layouts, fragmentation
from migscaler.policy.supply import ManagedGpu


def needs_baseline(gpu: ManagedGpu) -> bool:
    """Say whether a GPU has nothing, and nothing that recovery would put back."""
    if gpu.problem is not None or not gpu.entry.baseline or gpu.instances:
        return False
    return gpu.history.wanted is None or not gpu.history.wanted.specs


def baseline_layout(gpu: ManagedGpu) -> Layout | None:
    """Return the legal layout of the baseline's profiles, None if there is none.

    Of several placements the one that leaves free slices most useful, then the first in canonical
    order.
    """
    model = gpu.model
    if model is None:
        return None
    profiles = [model.resolve(size) for size in gpu.entry.baseline]
    names = sorted(profile.name for profile in profiles if profile is not None)
    if len(names) < len(profiles):
        return None
    fitting = [
        layout
        for layout in all_layouts(model, frozenset(names))
        if sorted(spec.profile for spec in layout.specs) == names
    ]
    return min(fitting, key=lambda one: (fragmentation(model, one)[0], one.specs), default=None)
