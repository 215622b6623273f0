"""A status as plain JSON values; times in ISO 8601, sizes with their unit in the name.

Callers that are not trusted are not shown who holds or asked for anything, nor texts that may name
them.
"""

from datetime import datetime

from migscaler.model.decision import HoldRecord, RuleDecision
from migscaler.model.demand import SourceStatus
from migscaler.model.gpu import GpuProcess, GpuState, InstanceState, NodeSnapshot
from migscaler.model.ids import GpuUuid
from migscaler.model.layout import Layout
from migscaler.model.plan import Gate, Hold, Outcome, Plan
from migscaler.model.policy import Mode
from migscaler.model.status import Status
from migscaler.policy.discretion import names_somebody, problems_of, sentence_for, told
from migscaler.web.strip import PIN_WORDS, Cell, cells_of, planned_cells
from migscaler.web.words import evidence_words, unread_words, unseen_words

View = dict[str, object]


def status_view(status: Status, *, trusted: bool) -> View:
    """Return everything that the page shows."""
    snapshot = status.snapshot
    return {
        "version": status.version,
        "now": when(status.now),
        "started_at": when(status.started_at),
        "driver_version": None if snapshot is None else snapshot.driver_version,
        "snapshot_at": None if snapshot is None else when(snapshot.taken_at),
        "snapshot_stale": status.snapshot_stale,
        "snapshot_problem": told_of(unread_words(status), trusted),
        "processes_visible": None if snapshot is None else snapshot.processes_visible,
        "state_writable": status.state_writable,
        "config": {
            "path": status.config.path,
            "valid": status.config.valid,
            "problems": list(problems_of(status.config, names=trusted)),
            "warnings": list(status.config.warnings),
            "forced_observe": told_of(status.config.forced_observe, trusted),
        },
        "modes": modes_view(status),
        "pause": pause_view(status, trusted=trusted),
        "decision": decision_view(status, trusted=trusted),
        "gpus": layout_view(status, trusted=trusted)["gpus"],
        "rules": rules_view(status),
        "gates": gates_view(status, trusted=trusted),
        "outcomes": [outcome_view(one, snapshot, trusted=trusted) for one in status.outcomes],
        "sources": [source_view(source) for source in status.demand],
        "holds": [hold_view(hold, snapshot, trusted=trusted) for hold in status.holds],
        "changes_left_today": status.budget_left,
    }


def when(at: datetime | None) -> str | None:
    """Return a time as text, to the second."""
    return None if at is None else at.isoformat(timespec="seconds").replace("+00:00", "Z")


def told_of(text: str | None, trusted: bool) -> str | None:
    """Return a text as this caller may read it."""
    return None if text is None else told(text, names=trusted)


def problem_of(gpu: GpuState) -> str | None:
    """Return why a GPU does not answer or is left alone, None if it answers."""
    return gpu.excluded or next((g.why for g in gpu.reading.gaps if g.what == "gpu"), None)


def modes_view(status: Status) -> View:
    """Return how many GPUs are in each mode, and how many are not managed."""
    counts: dict[str, int] = {mode.value: 0 for mode in Mode}
    unmanaged = 0
    for gpu in () if status.snapshot is None else status.snapshot.gpus:
        mode = mode_of(status, gpu)
        if mode is None:
            unmanaged += 1
        else:
            counts[mode.value] += 1
    return {**counts, "not_managed": unmanaged}


def mode_of(status: Status, gpu: GpuState) -> Mode | None:
    """Return the mode in force for a GPU, None if it is not managed."""
    decided = () if status.decision is None else status.decision.gpus
    for one in decided:
        if one.gpu_uuid == gpu.uuid:
            return one.mode
    entry = status.policy.entry_for(gpu.reading, status.now)
    return None if entry is None else entry.mode


def pause_view(status: Status, *, trusted: bool) -> View | None:
    """Return the pause in force."""
    pause = status.pause
    if pause is None:
        return None
    who = {"who": pause.who} if trusted else {}
    return {"why": pause.why, "since": when(pause.since), "until": when(pause.until), **who}


def decision_view(status: Status, *, trusted: bool) -> View | None:
    """Return what the last decision came to, in one sentence."""
    decision = status.decision
    if decision is None:
        return None
    outcome = decision.outcome
    reason = outcome.reason.value if isinstance(outcome, Hold) else None
    return {
        "at": when(status.decision_at),
        "sentence": sentence_for(decision, names=trusted),
        "outcome": "plan" if reason is None else "hold",
        "reason": reason,
    }


def layout_view(status: Status, *, trusted: bool) -> View:
    """Return every GPU with its layout."""
    gpus = () if status.snapshot is None else status.snapshot.gpus
    return {"gpus": [gpu_view(status, gpu, trusted=trusted) for gpu in gpus]}


def gpu_view(status: Status, gpu: GpuState, *, trusted: bool) -> View:
    """Return one GPU; while it is being changed, its strip shows what is planned."""
    reading, mode = gpu.reading, mode_of(status, gpu)
    running = status.running
    changing = gpu.uuid in status.withheld
    cells = cells_of(gpu)
    if running is not None and running.gpu_uuid == gpu.uuid:
        changing = True
        cells = () if reading.model is None else planned_cells(reading.model, running.after)
    wanted = wanted_layout(status, gpu)
    planned = () if wanted is None or not reading.model else planned_cells(reading.model, wanted)
    gauges = reading.gauges
    return {
        "index": reading.index,
        "uuid": gpu.uuid,
        "name": reading.name,
        "mode": None if mode is None else mode.value,
        "mig_enabled": reading.mig_enabled,
        "mig_pending": reading.mig_pending,
        "problem": told_of(problem_of(gpu), trusted),
        "changing": changing,
        "memory_slices": None if reading.model is None else reading.model.memory_slices,
        "layout": None if gpu.layout is None else str(gpu.layout),
        "cells": [cell_view(cell) for cell in cells],
        "wanted_layout": None if wanted is None else str(wanted),
        "wanted_cells": [cell_view(cell) for cell in planned],
        "instances": [] if changing else _instances(status.snapshot, gpu, trusted=trusted),
        "generation": gpu.generation,
        "idleness_rests_on": evidence_words(reading) if reading.mig_enabled else None,
        "activity_problem": unseen_words(reading),
        "utilization_ratio": None if reading.mig_enabled else gauges.utilization_ratio,
        "power_watts": gauges.power_watts,
        "temperature_celsius": gauges.temperature_celsius,
    }


def cell_view(cell: Cell) -> View:
    """Return one part of a strip."""
    return {
        "kind": cell.kind,
        "start": cell.start,
        "size": cell.size,
        "profile": cell.profile,
        "size_class": cell.size_class,
        "compute_slices": cell.compute_slices,
        "words": cell.words,
    }


def _instances(snapshot: NodeSnapshot | None, gpu: GpuState, *, trusted: bool) -> list[View]:
    return [instance_view(one, snapshot, trusted=trusted) for one in gpu.instances or ()]


def instance_view(one: InstanceState, snapshot: NodeSnapshot | None, *, trusted: bool) -> View:
    """Return one instance; who is on it only to trusted callers.

    `quiet_since`: when the last signal of use ended; `held_unused_since`: since when nothing runs
    on what a process or an allocation keeps. Null while that is not so or not known.
    """
    reading, activity = one.reading, one.reading.activity
    wall_time = _never if snapshot is None else snapshot.wall_time
    view: View = {
        "instance": str(one.spec),
        "profile": one.spec.profile,
        "start": one.spec.placement.start,
        "size": one.spec.placement.size,
        "gi_id": one.gi_id,
        "mig_uuid": reading.instance.mig_uuid,
        "usable": reading.instance.usable,
        "orphan": not reading.instance.compute_instances,
        "state": "idle" if one.pin is None else PIN_WORDS[one.pin],
        "pin_reason": None if one.pin is None else one.pin.value,
        "memory_used_bytes": reading.memory_used_bytes,
        "memory_total_bytes": reading.memory_total_bytes,
        "activity_ratio": None if activity is None else activity.busiest,
        "processes": None if reading.processes is None else len(reading.processes),
        "quiet_since": when(wall_time(one.quiet_since_monotonic)),
        "held_unused_since": when(wall_time(one.held_unused_since_monotonic)),
    }
    if trusted:
        view["explanation"] = one.explanation
        view["holder"] = None if one.claim is None else one.claim.named
        view["holder_user"] = None if one.claim is None else one.claim.user
        view["process_details"] = [process_view(process) for process in reading.processes or ()]
    return view


def process_view(process: GpuProcess) -> View:
    """Return who runs on an instance, for trusted callers; the container's id is the whole one."""
    inside = process.container
    return {
        "pid": process.pid,
        "name": process.name,
        "user": process.user,
        "memory_used_bytes": process.used_memory_bytes,
        "container_id": None if inside is None else inside.container_id,
        "container_runtime": None if inside is None else inside.runtime,
        "pod_uid": None if inside is None else inside.pod_uid,
        "words": str(process),
    }


def _never(_monotonic: float | None) -> datetime | None:
    """Return that without a snapshot no moment has a wall time."""
    return None


def rules_view(status: Status) -> list[View]:
    """Return what each rule wants, has and lacks."""
    rules = () if status.decision is None else status.decision.rules
    return [rule_view(rule) for rule in rules]


def rule_view(rule: RuleDecision) -> View:
    """Return one rule's numbers; `supply` is what is free."""
    return {
        "rule": rule.rule,
        "size": rule.size,
        "wanted": rule.wanted,
        "in_use": rule.in_use,
        "supply": rule.supply,
        "floor": rule.floor,
        "target": rule.target,
        "unmet": rule.unmet,
        "unmet_since": when(rule.unmet_since),
        "source_unknown": list(rule.source_unknown),
        "explanation": rule.explanation,
    }


def gates_view(status: Status, *, trusted: bool) -> list[View]:
    """Return the closed gates, those that block the wanted plan first."""
    gates = () if status.decision is None else status.decision.gates
    ordered = sorted(gates, key=lambda gate: not gate.blocks)
    return [gate_view(gate, status.snapshot, trusted=trusted) for gate in ordered]


def gate_view(gate: Gate, snapshot: NodeSnapshot | None, *, trusted: bool) -> View:
    """Return one closed gate; without trust, no text that may name a holder."""
    shown = trusted or not names_somebody(gate)
    return {
        "reason": gate.reason.value,
        "explanation": told_of(gate.explanation, trusted) if shown else None,
        "gpu": index_of(snapshot, gate.gpu_uuid),
        "gpu_uuid": gate.gpu_uuid,
        "rule": gate.rule,
        "opens_at": when(gate.opens_at),
        "blocks": gate.blocks,
    }


def outcome_view(outcome: Outcome, snapshot: NodeSnapshot | None, *, trusted: bool) -> View:
    """Return how a GPU plan ended."""
    is_plain = outcome.reason.value == "completed"
    return {
        "plan_id": outcome.plan_id,
        "gpu": index_of(snapshot, outcome.gpu_uuid),
        "gpu_uuid": outcome.gpu_uuid,
        "kind": outcome.kind.value,
        "reason": outcome.reason.value,
        "explanation": outcome.explanation if trusted or is_plain else None,
        "before": None if outcome.before is None else str(outcome.before),
        "layout": None if outcome.layout is None else str(outcome.layout),
        "direction": None if outcome.direction is None else outcome.direction.value,
        "started_at": when(outcome.started_at),
        "seconds": round(outcome.duration.total_seconds(), 3),
        "rolled_back": outcome.rolled_back,
    }


def source_view(source: SourceStatus) -> View:
    """Return a demand source and its last good answer."""
    reading = source.reading
    return {
        "source": source.name,
        "known": source.known,
        "problem": source.problem,
        "unknown_since": when(source.unknown_since),
        "counts": None if reading is None else reading.counts.value,
        "true_at": None if reading is None else when(reading.true_at),
        "expires_at": None if reading is None else when(reading.expires_at),
        "wants": {} if reading is None else {want.size: want.count for want in reading.wants},
    }


def hold_view(hold: HoldRecord, snapshot: NodeSnapshot | None, *, trusted: bool) -> View:
    """Return a hold or lease; whose and why only to trusted callers."""
    who = {"owner": hold.owner, "reason": hold.reason} if trusted else {}
    return {
        "id": hold.hold_id,
        "kind": hold.kind,
        "gpu": index_of(snapshot, hold.gpu_uuid),
        "instance": None if hold.spec is None else str(hold.spec),
        "expires_at": when(hold.expires_at),
        **who,
    }


def plan_view(status: Status, *, trusted: bool) -> View:
    """Return the plan that would be carried out with every gate open."""
    decision = status.decision
    wanted = None if decision is None else decision.wanted
    return {
        "decision": decision_view(status, trusted=trusted),
        "acting": decision is not None and isinstance(decision.outcome, Plan),
        "gpu_plans": [
            {
                "gpu": index_of(status.snapshot, plan.gpu_uuid),
                "gpu_uuid": plan.gpu_uuid,
                "before": str(plan.before),
                "after": str(plan.after),
                "direction": plan.direction.value,
                "steps": [str(step) for step in plan.steps],
            }
            for plan in (() if wanted is None else wanted.gpu_plans)
        ],
        "unmet": [
            {"rule": unmet.rule, "count": unmet.count, "cause": unmet.cause.value}
            for unmet in (() if wanted is None else wanted.unmet)
        ],
    }


def index_of(snapshot: NodeSnapshot | None, uuid: GpuUuid | None) -> int | None:
    """Return the index of a GPU, None if there is no such GPU now."""
    if snapshot is None or uuid is None:
        return None
    gpu = snapshot.gpu(uuid)
    return None if gpu is None else gpu.reading.index


def wanted_layout(status: Status, gpu: GpuState) -> Layout | None:
    """Return the layout wanted for a GPU if it is another one than it has."""
    wanted = None if status.decision is None else status.decision.wanted
    for plan in () if wanted is None else wanted.gpu_plans:
        if plan.gpu_uuid == gpu.uuid and plan.after != gpu.layout:
            return plan.after
    return None
