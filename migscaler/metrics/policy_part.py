"""Series about demand and the last decision."""

from collections import Counter

from migscaler.metrics.family import GATE_REASONS, MODES
from migscaler.metrics.fits import layout_of
from migscaler.metrics.hardware_part import gpu_labels, withheld_gpus
from migscaler.metrics.samples import Samples
from migscaler.model.decision import Decision, GpuDecision, GpuHistory, RuleDecision
from migscaler.model.gpu import GpuState
from migscaler.model.plan import GateReason, Plan, UnmetCause
from migscaler.model.policy import Mode
from migscaler.model.status import Status
from migscaler.policy.demand import means_same

# Where a gate can usually be closed; elsewhere its series appears when it is.
NODE_GATES = tuple(r for r in GATE_REASONS if r != GateReason.SATISFIED.value)
RULE_GATES = (GateReason.SOURCE_UNKNOWN.value, GateReason.SETTLING_TARGET.value)
GPU_GATES = tuple(
    reason.value
    for reason in (
        GateReason.MODE,
        GateReason.MIG_DISABLED,
        GateReason.DRIVER_FAULT,
        GateReason.BREAKER_OPEN,
        GateReason.FROZEN,
        GateReason.PROTECTED,
        GateReason.NOT_IDLE,
        GateReason.HELD_BY_CLIENT,
        GateReason.RESTING,
        GateReason.FLAPPING,
    )
)
_CAUSES = tuple(cause.value for cause in UnmetCause)


def add_demand(status: Status, out: Samples) -> None:
    """Add what sources and vetoes say; a size that no rule asks for would be an open label set."""
    gpus = () if status.snapshot is None else status.snapshot.gpus
    by_name = {g.reading.model.name: g.reading.model for g in gpus if g.reading.model is not None}
    models = tuple(by_name.values())
    sizes = {rule.size for rule in status.policy.rules}
    for source in status.demand:
        out.add("source_known", float(source.known), source.name)
        out.add_time("source_unknown_since_timestamp_seconds", source.unknown_since, source.name)
        if source.reading is None:
            continue
        out.add_time("source_reading_timestamp_seconds", source.reading.true_at, source.name)
        for want in source.reading.wants if source.known else ():
            if any(means_same(want.size, size, models) for size in sizes):
                out.add("source_reading_instances", want.count, source.name, want.size)
    for veto in status.vetoes:
        out.add("veto_stands", float(veto.active is not False), veto.name)
        out.add("veto_known", float(veto.active is not None), veto.name)


def add_rules(status: Status, out: Samples) -> None:
    """Add every rule's count of wanted, there and missing."""
    decision = status.decision
    for rule in status.policy.rules:
        out.add("rule_info", 1, rule.name, rule.size)
    if decision is None:
        return
    silent = {g.rule for g in decision.gates if g.reason is GateReason.SOURCE_UNKNOWN}
    for one in decision.rules:
        out.add("rule_in_use_instances", one.in_use, one.rule)
        out.add("rule_floor_instances", one.floor, one.rule)
        out.add("rule_supply_instances", one.supply, one.rule)
        # With a source silent the rest is not known, but that at least so many are missing.
        if one.rule not in silent:
            out.add("rule_wanted_instances", one.wanted, one.rule)
            out.add("rule_target_instances", one.target, one.rule)
        if one.rule not in silent or one.unmet:
            _add_unmet(decision, one, out)


def _add_unmet(decision: Decision, one: RuleDecision, out: Samples) -> None:
    """Add what one rule lacks."""
    out.add("rule_unmet_instances", one.unmet, one.rule)
    out.add_time("rule_unmet_since_timestamp_seconds", one.unmet_since, one.rule)
    causes = {u.cause.value: float(u.count) for u in decision.unmet if u.rule == one.rule}
    out.add_closed("rule_unmet_by_cause_instances", _CAUSES, causes, one.rule)


def add_decision(status: Status, out: Samples) -> None:
    """Add the outcome of the last decision, its gates, and the node's switches."""
    out.add("paused", float(status.pause is not None))
    if status.pause is not None:
        out.add_time("pause_until_timestamp_seconds", status.pause.until)
    out.add("change_budget_left", status.budget_left)
    decision = status.decision
    out.add_time("decision_timestamp_seconds", status.decision_at)
    if decision is None:
        return
    outcome = "plan" if isinstance(decision.outcome, Plan) else decision.outcome.reason.value
    out.add_closed("decision_outcome", ("plan", *GATE_REASONS), {outcome: 1.0})
    if decision.wanted is not None:
        out.add("wanted_gpu_plans", len(decision.wanted.gpu_plans))
    node = {g.reason.value: 1.0 for g in decision.gates if g.gpu_uuid is None and g.rule is None}
    out.add_closed("gate_closed", NODE_GATES, node)
    for rule in decision.rules:
        closed = {g.reason.value: 1.0 for g in decision.gates if g.rule == rule.rule}
        out.add_closed("rule_gate_closed", RULE_GATES, closed, rule.rule)


def add_gpu_decision(status: Status, gpu: GpuState, out: Samples) -> None:
    """Add what was decided for one GPU, and what keeps it from changing."""
    labels = gpu_labels(gpu)
    entry = status.policy.entry_for(gpu.reading, status.now)
    mode = None if entry is None else entry.mode.value
    decided = _decided(status.decision, gpu)
    if decided is not None:
        mode = None if decided.mode is None else decided.mode.value
    out.add_closed("gpu_mode", MODES, {} if mode is None else {mode: 1.0}, *labels)
    protected = entry is not None and entry.mode is Mode.OBSERVE and entry.reason is not None
    out.add("gpu_protected", float(protected), *labels)
    if entry is not None and protected:
        out.add_time("gpu_protected_until_timestamp_seconds", entry.until, *labels)
    if status.decision is not None:
        gates = [g for g in status.decision.gates if g.gpu_uuid == gpu.uuid]
        out.add_closed("gpu_gate_closed", GPU_GATES, {g.reason.value: 1.0 for g in gates}, *labels)
    if decided is not None and decided.wanted is not None:
        out.add("gpu_wanted_layout_info", 1, *labels, str(decided.wanted))
        is_known = not status.snapshot_stale and gpu.uuid not in withheld_gpus(status)
        layout = layout_of(gpu)
        if is_known and layout is not None:
            out.add("gpu_layout_as_wanted", float(layout == decided.wanted), *labels)


def add_gpu_past(status: Status, gpu: GpuState, out: Samples) -> None:
    """Add holds, fence, rest and breaker of one GPU."""
    labels = gpu_labels(gpu)
    holds = [h for h in status.holds if h.gpu_uuid == gpu.uuid and h.kind == "hold"]
    out.add("gpu_holds", len(holds), *labels)
    ends = [h.expires_at for h in holds if h.expires_at is not None]
    if ends and len(ends) == len(holds):
        out.add_time("gpu_hold_until_timestamp_seconds", max(ends), *labels)
    fences = [since for uuid, since in status.fenced if uuid == gpu.uuid]
    running = status.running
    if running is not None and running.gpu_uuid == gpu.uuid and running.fenced_since:
        fences.append(running.fenced_since)
    out.add_time("gpu_fenced_since_timestamp_seconds", min(fences, default=None), *labels)
    lost = sum(count for uuid, _, count in status.usable_lost if uuid == gpu.uuid)
    out.add("gpu_usable_instances_lost", lost, *labels)
    past = next((h for h in status.gpu_histories if h.gpu_uuid == gpu.uuid), None)
    past = past or GpuHistory(gpu_uuid=gpu.uuid)
    if gpu.uuid in status.counters.due and gpu.instances is not None:
        wanted = Counter() if past.wanted is None else past.wanted.profiles()
        usable = (one for one in gpu.instances if one.reading.instance.usable)
        missing = wanted - Counter(one.spec.profile for one in usable)
        out.add("gpu_restore_missing_instances", missing.total(), *labels)
    _add_history(status, past, labels, out)


def _add_history(status: Status, past: GpuHistory, labels: tuple[str, str], out: Samples) -> None:
    """Add rest and breaker; times that have passed are left out."""
    breaker = past.breaker_open_until
    is_open = breaker is not None and breaker > status.now
    out.add("gpu_breaker_open", float(is_open), *labels)
    if is_open:
        out.add_time("gpu_breaker_open_until_timestamp_seconds", breaker, *labels)
    if past.rest_until is not None and past.rest_until > status.now:
        out.add_time("gpu_rest_until_timestamp_seconds", past.rest_until, *labels)
    out.add("gpu_flapping", float(past.flapping), *labels)
    out.add("gpu_reversals", past.reversals, *labels)
    out.add("gpu_consecutive_failures", past.failures_in_row, *labels)


def _decided(decision: Decision | None, gpu: GpuState) -> GpuDecision | None:
    """Return what the decision says of the GPU."""
    decided = () if decision is None else decision.gpus
    return next((one for one in decided if one.gpu_uuid == gpu.uuid), None)
