"""Turns one status into series, so that every series of a scrape comes from the same moment."""

import logging
from collections.abc import Callable, Iterable, Iterator

from prometheus_client import Metric
from prometheus_client.utils import floatToGoString

from migscaler.metrics import daemon_part, hardware_part, instance_part, policy_part
from migscaler.metrics.families import FAMILIES
from migscaler.metrics.family import Family, Kind, Many
from migscaler.metrics.fits import FitBook
from migscaler.metrics.samples import Samples
from migscaler.model.gpu import GpuState
from migscaler.model.stats import Histogram
from migscaler.model.status import Status

logger = logging.getLogger(__name__)

# prometheus_client names an info "info" and a counter without its suffix.
_TYPES = {
    Kind.GAUGE: "gauge",
    Kind.COUNTER: "counter",
    Kind.INFO: "info",
    Kind.HISTOGRAM: "histogram",
}


class Collector:
    """Builds series afresh from each status; keeps only what fits beside each layout.

    Used by one thread at a time. A part that raises loses its own series, never those of others;
    it is reported as `collector_success{collector="exposition_<part>"}` 0 and logged once until it
    works.
    """

    def __init__(self) -> None:
        self._fits = FitBook()
        self._failing: set[str] = set()

    def samples(self, status: Status) -> Samples:
        """Return every series of the status."""
        out = Samples()
        failed: set[str] = set()
        for name, part in self._parts(status, out):
            try:
                part()
            except Exception:
                failed.add(name)
                if name not in self._failing:
                    logger.exception("exposition_part_failed part_name=%s", name)
        self._failing = failed
        for name in PARTS:
            out.add("collector_success", float(name not in failed), f"exposition_{name}")
        self._add_supported(status, out)
        return out

    def collect(self, status: Status) -> list[Metric]:
        """Return the series as prometheus_client's metric objects, in the order of the table."""
        return metrics_of(self.samples(status))

    def _parts(self, status: Status, out: Samples) -> Iterator[tuple[str, Callable[[], None]]]:
        """Yield the parts; those of a GPU come once per GPU, so that one can't hide the next."""
        yield "daemon", lambda: daemon_part.add_daemon(status, out)
        yield "collectors", lambda: daemon_part.add_collectors(status, out)
        yield "work", lambda: daemon_part.add_work(status, out)
        yield "snapshot", lambda: hardware_part.add_snapshot(status, out)
        yield "node", lambda: hardware_part.add_node(status, self._fits, out)
        yield "demand", lambda: policy_part.add_demand(status, out)
        yield "rules", lambda: policy_part.add_rules(status, out)
        yield "decision", lambda: policy_part.add_decision(status, out)
        yield "acting", lambda: daemon_part.add_acting(status, out)
        yield "histograms", lambda: daemon_part.add_histograms(status.counters, out)
        known = () if status.snapshot is None else status.snapshot.gpus
        for gpu in known:
            yield from self._gpu_parts(status, gpu, out)

    def _gpu_parts(
        self, status: Status, gpu: GpuState, out: Samples
    ) -> Iterator[tuple[str, Callable[[], None]]]:
        """Yield the parts of one GPU; a stale snapshot still says which GPUs there are."""
        snapshot = hardware_part.shown_snapshot(status)
        if snapshot is not None:
            yield "gpu", lambda: hardware_part.add_gpu(status, gpu, self._fits, out)
            if gpu.uuid not in hardware_part.withheld_gpus(status):
                yield "instance", lambda: instance_part.add_instances(snapshot, gpu, out)
        yield "gpu_decision", lambda: policy_part.add_gpu_decision(status, gpu, out)
        yield "gpu_past", lambda: policy_part.add_gpu_past(status, gpu, out)

    def _add_supported(self, status: Status, out: Samples) -> None:
        """Say which of the families that not every GPU has are there."""
        snapshot = hardware_part.shown_snapshot(status)
        if snapshot is None:
            return
        present = out.present()
        # Where there is no instance, nothing is known of what instances report.
        has_instances = any(gpu.instances for gpu in snapshot.gpus)
        for family in FAMILIES:
            if family.optional and (has_instances or family.many is not Many.INSTANCE):
                out.add("family_supported", float(family.short in present), family.name)


PARTS = (
    "daemon",
    "collectors",
    "work",
    "snapshot",
    "node",
    "demand",
    "rules",
    "decision",
    "acting",
    "histograms",
    "gpu",
    "instance",
    "gpu_decision",
    "gpu_past",
)
"""Parts of the exposition, each behind its own guard."""


def collect(status: Status) -> list[Metric]:
    """Return the status as prometheus_client's metric objects, in the order of the table."""
    return Collector().collect(status)


def metrics_of(samples: Samples) -> list[Metric]:
    """Return gathered series as metric objects; families without series are left out."""
    return [_metric(family, samples) for family in FAMILIES if family.short in samples.present()]


def number_text(value: float) -> str:
    """Return a number as both text formats write it; most are 0 or 1."""
    if value == 0:
        return "0.0"
    if value == 1:
        return "1.0"
    text: str = floatToGoString(value)  # type: ignore[no-untyped-call] # the library has no types there
    return text


def histogram_rows(histogram: Histogram) -> Iterable[tuple[str, str | None, float]]:
    """Yield (suffix, upper bound, value) of a histogram in the order of exposition."""
    for bound, count in histogram.buckets:
        yield "_bucket", number_text(bound), float(count)
    if not histogram.buckets or histogram.buckets[-1][0] != float("inf"):
        yield "_bucket", "+Inf", float(histogram.count)
    yield "_sum", None, histogram.total_seconds
    yield "_count", None, float(histogram.count)


def _metric(family: Family, samples: Samples) -> Metric:
    """Return one family as a metric object."""
    metric = Metric(family.stem, family.help, _TYPES[family.kind], family.declared_unit)
    for values, value in samples.series.get(family.short, {}).items():
        metric.add_sample(family.name, dict(zip(family.labels, values, strict=True)), value)
    for values, histogram in samples.histograms.get(family.short, {}).items():
        labels = dict(zip(family.labels, values, strict=True))
        for suffix, bound, value in histogram_rows(histogram):
            extra = {} if bound is None else {"le": bound}
            metric.add_sample(family.name + suffix, {**labels, **extra}, value)
    return metric
