"""NVML's GPU performance monitoring (Hopper and newer) and event sets."""

import time

from migscaler.sim.arguments import (
    Argument,
    Filled,
    address,
    field_address,
    give_field,
    give_handle,
    number,
    target,
)
from migscaler.sim.codes import Answered, Code
from migscaler.sim.handles import Kind, pack
from migscaler.sim.incidents import MIG_EVENT, XID_EVENT
from migscaler.sim.session import EventSet, Sample, Session
from migscaler.sim.state import Event
from migscaler.sim.symbols import Symbol
from migscaler.sim.telemetry import gpu_seconds, instance_seconds

# Two samples must lie this far apart (nvml.h, nvmlGpmSampleGet).
_SHORTEST_SECONDS = 0.1
# Share of the job's activity that each metric shows: graphics engine, SM, occupancy, integer,
# tensor (any, DFMA, HMMA, DMMA, IMMA), DRAM, FP64, FP32, FP16. Invented; only that they follow
# activity is meant.
_SHARE = {1: 1.0, 2: 0.9, 3: 0.4, 4: 0.2, 5: 0.5, 6: 0.0, 7: 0.5, 8: 0.0, 9: 0.0,
          10: 0.6, 11: 0.0, 12: 0.3, 13: 0.1}  # fmt: skip
_NAN = float("nan")
_POLL_SECONDS = 0.01


def support(session: Session, device: Argument, out: Argument) -> int:
    """Answer nvmlGpmQueryDeviceSupport."""
    info = target(out)
    if info.version != 1:
        return Code.ARGUMENT_VERSION_MISMATCH
    gpu = session.device(device)
    info.isSupportedDevice = int(session.node.rules(gpu).board.gpm_supported)
    return Code.SUCCESS


def sample_alloc(session: Session, out: Argument) -> int:
    """Answer nvmlGpmSampleAlloc."""
    value = Kind.GPM_SAMPLE << 48 | session.new_number()
    session.samples[value] = Sample()
    give_handle(out, value)
    return Code.SUCCESS


def sample_free(session: Session, sample: Argument) -> int:
    """Answer nvmlGpmSampleFree."""
    if session.samples.pop(address(sample), None) is None:
        return Code.INVALID_ARGUMENT
    return Code.SUCCESS


def sample_get(session: Session, device: Argument, sample: Argument) -> int:
    """Answer nvmlGpmSampleGet: of the whole GPU."""
    gpu = session.device(device)
    if not session.node.rules(gpu).board.gpm_supported:
        return Code.NOT_SUPPORTED
    now = session.node.clock()
    held = _sample(session, address(sample))
    held.at, held.busy_seconds = now, gpu_seconds(gpu, now)
    held.has_compute, held.born = True, -1 - gpu.epoch
    return Code.SUCCESS


def mig_sample_get(session: Session, device: Argument, gi_id: Argument, sample: Argument) -> int:
    """Answer nvmlGpmMigSampleGet: of one GPU instance; its compute instances share the figures."""
    gpu = session.device(device)
    if not session.node.rules(gpu).board.gpm_supported:
        return Code.NOT_SUPPORTED
    held = _sample(session, address(sample))
    gi = gpu.instances.get(number(gi_id))
    if gi is None:
        return Code.NOT_FOUND if gpu.mig_current else Code.NOT_SUPPORTED
    now = session.node.clock()
    held.at, held.busy_seconds = now, instance_seconds(gpu, gi, now)
    held.has_compute, held.born = bool(gi.compute), gi.born
    return Code.SUCCESS


def metrics_get(session: Session, out: Argument) -> int:
    """Answer nvmlGpmMetricsGet: each metric with its own answer, in percent."""
    info = target(out)
    if info.version != 1:
        return Code.ARGUMENT_VERSION_MISMATCH
    older = _sample(session, field_address(info, "sample1"))
    newer = _sample(session, field_address(info, "sample2"))
    if older.at is None or newer.at is None or not 0 < info.numMetrics <= len(info.metrics):
        return Code.INVALID_ARGUMENT
    busy = _busy_percent(older, newer)
    for slot in range(info.numMetrics):
        _fill(info.metrics[slot], busy)
    return Code.SUCCESS


def _busy_percent(older: Sample, newer: Sample) -> float | None:
    """Return the activity between two samples; None without data, garbage across a re-creation."""
    elapsed = (newer.at or 0.0) - (older.at or 0.0)
    if elapsed < _SHORTEST_SECONDS or not (older.has_compute and newer.has_compute):
        return None
    used = newer.busy_seconds - older.busy_seconds
    if older.born != newer.born:
        # Counters of two instances subtracted as unsigned numbers: drivers give nonsense here too.
        return float(2**32) - abs(used)
    return 100 * used / elapsed


def _fill(metric: Filled, busy: float | None) -> None:
    share = _SHARE.get(metric.metricId)
    if share is None:
        metric.nvmlReturn, metric.value = int(Code.NOT_SUPPORTED), _NAN
    elif busy is None:
        metric.nvmlReturn, metric.value = int(Code.NO_DATA), _NAN
    else:
        metric.nvmlReturn, metric.value = int(Code.SUCCESS), busy * share


def _sample(session: Session, value: int) -> Sample:
    found = session.samples.get(value)
    if found is None:
        raise Answered(Code.INVALID_ARGUMENT)
    return found


def streaming(session: Session, device: Argument, state: Argument) -> int:
    """Answer nvmlGpmSetStreamingEnabled."""
    gpu = session.device(device)
    number(state)
    supported = session.node.rules(gpu).board.gpm_supported
    return Code.SUCCESS if supported else Code.NOT_SUPPORTED


def event_set_create(session: Session, out: Argument) -> int:
    """Answer nvmlEventSetCreate."""
    value = Kind.EVENT_SET << 48 | session.new_number()
    session.event_sets[value] = EventSet(seen=session.node.state.next_event - 1)
    give_handle(out, value)
    return Code.SUCCESS


def event_set_free(session: Session, event_set: Argument) -> int:
    """Answer nvmlEventSetFree."""
    session.event_sets.pop(address(event_set), None)
    return Code.SUCCESS


def event_types(session: Session, device: Argument, out: Argument) -> int:
    """Answer nvmlDeviceGetSupportedEventTypes."""
    session.device(device)
    target(out).value = XID_EVENT | MIG_EVENT
    return Code.SUCCESS


def register(session: Session, device: Argument, kinds: Argument, event_set: Argument) -> int:
    """Answer nvmlDeviceRegisterEvents."""
    gpu = session.device(device)
    wanted = number(kinds)
    if wanted & ~(XID_EVENT | MIG_EVENT):
        return Code.NOT_SUPPORTED
    held = _event_set(session, event_set)
    held.wanted[gpu.index] = held.wanted.get(gpu.index, 0) | wanted
    return Code.SUCCESS


def wait(session: Session, event_set: Argument, out: Argument, timeout_ms: Argument) -> int:
    """Answer nvmlEventSetWait_v2: waits in real time, whatever the node's clock is."""
    held = _event_set(session, event_set)
    end = time.monotonic() + number(timeout_ms) / 1000
    while True:
        event = _next(session, held)
        if event is not None:
            break
        if time.monotonic() >= end:
            return Code.TIMEOUT
        time.sleep(_POLL_SECONDS)
    info = target(out)
    gpu = session.node.state.gpus[event.gpu]
    give_field(info, "device", pack(Kind.DEVICE, gpu))
    info.eventType, info.eventData = event.kind, event.data
    info.gpuInstanceId, info.computeInstanceId = event.gi_id, event.ci_id
    return Code.SUCCESS


def _next(session: Session, held: EventSet) -> Event | None:
    for event in session.node.state.events:
        if event.seq > held.seen and held.wanted.get(event.gpu, 0) & event.kind:
            held.seen = event.seq
            return event
    return None


def _event_set(session: Session, handle: Argument) -> EventSet:
    found = session.event_sets.get(address(handle))
    if found is None:
        raise Answered(Code.INVALID_ARGUMENT)
    return found


def symbols() -> dict[str, Symbol]:
    """Return the functions of this module by C name."""
    return {
        "nvmlGpmQueryDeviceSupport": Symbol(support, since=525),
        "nvmlGpmSampleAlloc": Symbol(sample_alloc, since=525),
        "nvmlGpmSampleFree": Symbol(sample_free, since=525),
        "nvmlGpmSampleGet": Symbol(sample_get, since=525),
        "nvmlGpmMigSampleGet": Symbol(mig_sample_get, since=525),
        "nvmlGpmMetricsGet": Symbol(metrics_get, since=525),
        "nvmlGpmSetStreamingEnabled": Symbol(streaming, since=535),
        "nvmlEventSetCreate": Symbol(event_set_create),
        "nvmlEventSetFree": Symbol(event_set_free),
        "nvmlDeviceGetSupportedEventTypes": Symbol(event_types),
        "nvmlDeviceRegisterEvents": Symbol(register),
        "nvmlEventSetWait_v2": Symbol(wait),
    }
