"""Statuses for tests of what is shown: a node of eight GPUs in the middle of its day."""

from dataclasses import replace
from datetime import timedelta

from migscaler.model.decision import (
    Decision,
    GpuDecision,
    GpuHistory,
    PauseRecord,
    RuleDecision,
)
from migscaler.model.gpu import (
    Activity,
    ActivitySource,
    ComputeInstance,
    GpuGauges,
    GpuState,
    InstanceState,
    PinReason,
)
from migscaler.model.ids import CiId, PlanId, RuleName
from migscaler.model.plan import (
    Direction,
    Gate,
    GateReason,
    GpuPlan,
    Hold,
    Outcome,
    OutcomeKind,
    OutcomeReason,
    Plan,
    Unmet,
    UnmetCause,
)
from migscaler.model.policy import Mode
from migscaler.model.stats import CallCount, CallStats, Histogram, JobStats, SchedulerStats
from migscaler.model.status import CollectorStatus, ConfigStatus, Counters, Regret, Status
from tests.builders import (
    A100,
    H100,
    MONOTONIC,
    NOW,
    claim,
    decision_input,
    gpu_entry,
    gpu_state,
    hold_record,
    layout,
    policy,
    rule,
    snapshot,
    source_status,
    spec,
    uuid,
    veto,
)

P, A, S, U = PinReason.PROCESS, PinReason.ALLOCATION, PinReason.SETTLING, PinReason.UNKNOWN
SEVEN = "1g@0 1g@1 1g@2 1g@3 1g@4 1g@5 1g@6"
GIB = 1024**3
GAUGES = GpuGauges(
    memory_total_bytes=40 * GIB,
    memory_used_bytes=12 * GIB,
    power_watts=212.5,
    power_limit_watts=400.0,
    temperature_celsius=47.0,
    energy_joules=812_345.5,
    sm_clock_hertz=1.41e9,
    memory_clock_hertz=1.215e9,
    ecc_corrected=3,
    ecc_uncorrected=0,
    last_xid=63,
    last_xid_at=NOW - timedelta(days=2),
)


def node_of_eight() -> tuple[GpuState, ...]:
    """Return six A100s and two H100s: busy, idle, stranded, empty and without MIG."""
    empty = gpu_state(A100, "-", index=4)
    plain = gpu_state(A100, "-", index=5, mig=False)
    plain = replace(
        plain,
        instances=None,
        reading=replace(
            plain.reading,
            instances=None,
            processes=(),
            gauges=replace(GAUGES, utilization_ratio=0.31, memory_utilization_ratio=0.12),
        ),
    )
    gpus = (
        gpu_state(A100, "3g@0 2g@4 1g@6", {"3g@0": P, "1g@6": A}, index=0, generation=7),
        gpu_state(A100, SEVEN, {f"1g@{n}": P for n in range(5)} | {"1g@5": S}, index=1),
        gpu_state(A100, "3g@0 3g@4", {"3g@0": P}, index=2, changed_at=NOW),
        gpu_state(A100, "7g@0", {"7g@0": P}, index=3),
        empty,
        plain,
        gpu_state(H100, "4g@0 1gx@4 1g@6", {"4g@0": P, "1g@6": U}, index=6, gpm=True),
        gpu_state(H100, "1g@0 1g+me@2 2g@4", {"1g@0": PinReason.HELD}, index=7, gpm=True),
    )
    first, *others = (dressed(gpu) for gpu in gpus)
    return (measured_by_dcgm(first), *others)


def measured_by_dcgm(gpu: GpuState) -> GpuState:
    """Give the instances of a GPU figures of DCGM, one of them above 1; it does not see the last.

    The compute engine is 0.25 busy, SMs 1.29.
    """
    figures = Activity(
        source=ActivitySource.DCGM,
        window_seconds=12.0,
        graphics_ratio=0.25,
        sm_ratio=1.0,
        raw=(("graphics", 0.25), ("sm", 1.29)),
    )
    instances = list(gpu.instances or ())
    seen = [replace(one, reading=replace(one.reading, activity=figures)) for one in instances[:-1]]
    instances[:-1] = seen
    reading = replace(gpu.reading, dcgm=True, instances=tuple(one.reading for one in instances))
    return replace(gpu, reading=reading, instances=tuple(instances))


def dressed(gpu: GpuState) -> GpuState:
    """Add the figures that a real GPU has beside its layout."""
    reading = gpu.reading
    if reading.mig_enabled:
        reading = replace(reading, gauges=GAUGES)
    reading = replace(reading, pci_bus_id=f"00000000:{reading.index:02X}:00.0", minor=reading.index)
    if gpu.instances is None:
        return replace(gpu, reading=reading)
    instances = tuple(_dressed_instance(reading.index, one) for one in gpu.instances)
    reading = replace(reading, instances=tuple(one.reading for one in instances))
    return replace(gpu, reading=reading, instances=instances)


def _dressed_instance(index: int, one: InstanceState) -> InstanceState:
    """Add owners, activity on every card and compute slices."""
    live = one.reading.instance
    compute = tuple(
        ComputeInstance(ci_id=CiId(0), mig_uuid=ci.mig_uuid, compute_slices=1, full_width=True)
        for ci in live.compute_instances
    )
    activity = one.reading.activity
    if activity is not None:
        activity = Activity(
            source=ActivitySource.GPM,
            window_seconds=5.0,
            graphics_ratio=0.75 if one.pin is P else 0.0,
            sm_ratio=0.5 if one.pin is P else 0.0,
            tensor_ratio=0.25 if one.pin is P else 0.0,
            dram_ratio=0.125 if one.pin is P else 0.0,
        )
    reading = replace(
        one.reading, activity=activity, instance=replace(live, compute_instances=compute)
    )
    return replace(
        one,
        reading=reading,
        claim=claim(index, int(one.gi_id), "lease 4") if one.pin is A else None,
        last_activity_at=NOW - timedelta(minutes=3),
        held_unused_since_monotonic=MONOTONIC - 3 * 3600 if one.pin is A else None,
        explanation="process 1001 (python3)" if one.pin is P else "",
    )


def decision(*, holding: bool = False) -> Decision:
    """Return a decision that makes GPU 2 finer, or waits with the same plan."""
    before = layout(A100, "3g@0 3g@4")
    after = layout(A100, "3g@0 2g@4 1g@6")
    plan = Plan(
        gpu_plans=(GpuPlan(gpu_uuid=uuid(2), before=before, after=after, steps=()),),
        unmet=(Unmet(rule=RuleName("training"), count=1, cause=UnmetCause.CAPACITY),),
    )
    gates = (
        Gate(
            reason=GateReason.RESTING,
            explanation="GPU 2 rests after its last change",
            gpu_uuid=uuid(2),
            opens_at=NOW + timedelta(seconds=75),
            blocks=True,
        ),
        Gate(
            reason=GateReason.SOURCE_UNKNOWN,
            explanation="source batch does not answer: connection refused",
            rule=RuleName("training"),
        ),
    )
    return Decision(
        outcome=Hold(reason=GateReason.RESTING, explanation=gates[0].explanation)
        if holding
        else plan,
        wanted=plan,
        gates=gates,
        rules=(_notebooks(), _training()),
        gpus=tuple(
            GpuDecision(
                gpu_uuid=uuid(index),
                mode=Mode.OBSERVE if index == 3 else Mode.ENFORCE,
                wanted=after if index == 2 else None,
                explanation="",
            )
            for index in range(8)
        ),
        rule_histories=(),
        sentence=(
            "Waiting to make GPU 2 finer (3g.20gb@4 into 2g.10gb@4 and 1g.5gb@6):"
            " it rests until 12:01:15 after its last change."
        ),
        fragmentation_ratio=0.2,
        unmet=(Unmet(rule=RuleName("notebooks"), count=2, cause=UnmetCause.GATE),),
    )


def _notebooks() -> RuleDecision:
    return RuleDecision(
        rule=RuleName("notebooks"),
        size="1g",
        floor=2,
        in_use=7,
        supply=2,
        wanted=11,
        target=12,
        raised=12,
        kept=9,
        unmet=2,
        unmet_since=NOW - timedelta(minutes=4),
        source_counts=(("queue", 4),),
        explanation="7 in use and 4 waiting, 1 spare",
    )


def _training() -> RuleDecision:
    return RuleDecision(
        rule=RuleName("training"),
        size="7g",
        floor=0,
        in_use=1,
        supply=0,
        wanted=1,
        target=1,
        raised=1,
        kept=1,
        unmet=0,
        source_unknown=("batch",),
        explanation="source batch does not answer; what is there is kept",
    )


def outcomes() -> tuple[Outcome, ...]:
    """Return two ended plans, the newest first."""
    done = Outcome(
        plan_id=PlanId("20260302T115000-1"),
        gpu_uuid=uuid(0),
        kind=OutcomeKind.DONE,
        reason=OutcomeReason.COMPLETED,
        explanation="3g.20gb@4 became 2g.10gb@4 and 1g.5gb@6",
        layout=layout(A100, "3g@0 2g@4 1g@6"),
        started_at=NOW - timedelta(minutes=10),
        duration=timedelta(seconds=3.2),
        direction=Direction.FINER,
        before=layout(A100, "3g@0 3g@4"),
    )
    return (
        done,
        replace(
            done,
            before=done.layout,
            gpu_uuid=uuid(1),
            kind=OutcomeKind.ABANDONED,
            reason=OutcomeReason.NO_LONGER_IDLE,
            explanation="1g.5gb@4 got a process before its step began",
            started_at=NOW - timedelta(minutes=25),
        ),
    )


def histogram(*labels: tuple[str, str]) -> Histogram:
    """Return a small cumulative histogram."""
    return Histogram(
        labels=labels, buckets=((0.5, 1), (10.0, 4), (60.0, 5)), total_seconds=21.25, count=6
    )


def counters() -> Counters:
    """Return counts of a day."""
    return Counters(
        due=frozenset({uuid(1)}),
        ticks=5_760,
        holds=(("satisfied", 5_700), ("resting", 12)),
        plans=(("finer", 3),),
        gpu_plans=(("finer", 4), ("coarser", 2)),
        gpu_plan_failures=(("held_by_client", 1),),
        steps=(("create_gi", 9),),
        step_failures=(("destroy_gi", "held_by_client", 1),),
        rollbacks=1,
        histograms=(
            ("plan", histogram()),
            ("gpu_plan", histogram()),
            ("step", histogram(("kind", "create_gi"))),
            ("settle", histogram()),
            ("restore", histogram()),
        ),
    )


def full_status(*, holding: bool = True, paused: bool = False) -> Status:
    """Return a status in which every family has something to say, apart from a pause."""
    protected = gpu_entry(
        Mode.OBSERVE, index=3, reason="training lane", until=NOW + timedelta(days=30)
    )
    hold = replace(
        hold_record(7, spec(H100, "1g@0")), expires_at=NOW + timedelta(hours=2), reason="profiling"
    )
    rules = policy(
        rule("notebooks", "1g", "queue"),
        rule("training", "7g", "batch"),
        gpus=(protected, gpu_entry()),
    )
    sources = (
        source_status("queue", {"1g": 4, "3g": 0}),
        source_status("batch", {"7g": 1}, known=False),
    )
    node = snapshot(*node_of_eight())
    return Status(
        version="0.1.0",
        started_at=NOW - timedelta(days=1),
        now=NOW,
        snapshot=node,
        decision=decision(holding=holding),
        decision_at=NOW - timedelta(seconds=4),
        decision_input=decision_input(node, rules, *sources),
        policy=rules,
        demand=sources,
        vetoes=(veto(active=False), veto("backup", active=None)),
        holds=(hold, hold_record(0, kind="lease", hold_id=2)),
        pause=_pause() if paused else None,
        gpu_histories=(
            GpuHistory(
                gpu_uuid=uuid(2),
                last_change_at=NOW - timedelta(seconds=45),
                rest_until=NOW + timedelta(seconds=75),
                reversals=1,
                flapping=True,
            ),
            GpuHistory(
                gpu_uuid=uuid(1),
                failures_in_row=2,
                breaker_open_until=NOW + timedelta(minutes=50),
                breaker_trips=1,
            ),
        ),
        budget_left=42,
        fenced=((uuid(1), NOW - timedelta(minutes=1)),),
        usable_lost=((uuid(1), "1g.5gb", 1),),
        outcomes=outcomes(),
        counters=counters(),
        regret=Regret(
            verdicts=(("kept", 40), ("destroy", 12)),
            regrets=(("destroy", 300, 1), ("destroy", 1800, 2)),
        ),
        calls=CallStats(
            functions=(
                CallCount(
                    function="nvmlDeviceGetMigMode",
                    calls=120,
                    seconds=0.25,
                    errors=(("NOT_SUPPORTED", 2),),
                ),
            ),
            worker_restarts=1,
        ),
        driver_mismatch=False,
        scheduler=SchedulerStats(
            restarts=1,
            jobs=(
                JobStats(
                    job="sample",
                    runs=17_280,
                    failures=1,
                    missed=2,
                    lateness_seconds=0.004,
                    last_success_at=NOW,
                ),
            ),
        ),
        collectors=(
            CollectorStatus(name="nvml", success=True, duration_seconds=0.041, last_success_at=NOW),
        ),
        config=ConfigStatus(
            path="/etc/migscaler/migscaler.yaml",
            sha256="ab" * 32,
            last_reload_success_at=NOW - timedelta(days=1),
            warnings=("rule training: no GPU has profile 7g.80gb",),
        ),
    )


def _pause() -> PauseRecord:
    return PauseRecord(
        who="root",
        why="driver upgrade",
        since=NOW - timedelta(minutes=30),
        until=NOW + timedelta(hours=1),
    )
