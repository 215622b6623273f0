"""How busy whole GPUs and the node are, from the activity of their instances."""

from collections.abc import Iterable

from migscaler.metrics.fits import Fit, FitBook
from migscaler.metrics.samples import Samples
from migscaler.model.gpu import Activity, ActivitySource, GpuState


def add_gpu_activity(gpu: GpuState, fit: Fit, labels: tuple[str, str], out: Samples) -> None:
    """Add the GPU's activity, where it comes from, and how many instances lack it."""
    reading = gpu.reading
    source = reading.activity_source
    out.add("gpu_activity_source_info", 1, *labels, "none" if source is None else source.value)
    if source is ActivitySource.DCGM:
        unseen = sum(one.activity is None for one in reading.instances or ())
        out.add("dcgm_unseen_instances", unseen, *labels)
    engine = _busy_slices(gpu, fit, sm=False)
    sm = _busy_slices(gpu, fit, sm=True)
    slices = fit.model.compute_slices
    out.add("gpu_activity_ratio", None if engine is None else engine / slices, *labels)
    out.add("gpu_sm_activity_ratio", None if sm is None else sm / slices, *labels)


def add_node_activity(gpus: Iterable[GpuState], fits: FitBook, out: Samples) -> None:
    """Add the activity of all GPUs for which it is known, and how much of the node these are."""
    busy, known, whole = 0.0, 0, 0
    for gpu in gpus:
        model = gpu.reading.model
        if not gpu.reading.mig_enabled or model is None:
            continue
        whole += model.compute_slices
        fit = fits.fit(gpu)
        engine = None if fit is None else _busy_slices(gpu, fit, sm=False)
        if engine is not None:
            busy += engine
            known += model.compute_slices
    if whole:
        out.add("activity_known_ratio", known / whole)
    out.add("activity_ratio", busy / known if known else None)


def _busy_slices(gpu: GpuState, fit: Fit, *, sm: bool) -> float | None:
    """Return busy compute slices, None unless known for every instance."""
    if gpu.reading.activity_source is None:
        return None
    busy = 0.0
    for reading in gpu.reading.instances or ():
        profile = fit.model.find(reading.instance.spec.profile)
        ratio = _ratio(reading.activity, sm=sm)
        if profile is None or ratio is None:
            return None
        busy += ratio * profile.compute_slices
    return busy


def _ratio(activity: Activity | None, *, sm: bool) -> float | None:
    """Return the one figure or the other."""
    if activity is None:
        return None
    return activity.sm_ratio if sm else activity.graphics_ratio
