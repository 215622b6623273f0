"""Values for tests, built from short texts: `layout("A100-SXM4-40GB", "3g.20gb@0 1g.5gb@6")`.

Models come from the package's catalog, times from two fixed moments. Everything that a test does
not name has a quiet default: MIG on, instances usable and long idle, nothing held, all gates open.
"""

from collections.abc import Iterable, Mapping
from datetime import UTC, datetime, timedelta
from functools import cache

from migscaler.model.catalog import Catalog, load_catalog
from migscaler.model.decision import (
    Conditions,
    DecisionInput,
    GpuHistory,
    History,
    HoldRecord,
    RuleHistory,
    TargetSample,
    WindowState,
)
from migscaler.model.demand import Counts, Reading, SourceStatus, VetoStatus, Want
from migscaler.model.gpu import (
    Activity,
    ActivitySource,
    Allocations,
    Claim,
    ComputeInstance,
    Gap,
    GpuInstance,
    GpuProcess,
    GpuReading,
    GpuState,
    InstanceReading,
    InstanceState,
    NodeReading,
    NodeSnapshot,
    PinReason,
)
from migscaler.model.ids import CiId, GiId, GpuUuid, MigUuid, RuleName, SourceName
from migscaler.model.layout import GpuModel, Layout
from migscaler.model.policy import (
    AtLeast,
    Freeze,
    GpuEntry,
    IdlePolicy,
    Mode,
    Pace,
    Policy,
    Rule,
    SourcePolicy,
)
from migscaler.model.profile import InstanceSpec

A100 = "A100-SXM4-40GB"
"""The board that tests use unless they say otherwise."""
H100 = "h100-sxm5-80gb"
A30 = "a30-24gb"

NOW = datetime(2026, 3, 2, 12, 0, tzinfo=UTC)
"""A Monday at noon."""
MONOTONIC = 100_000.0
"""Seconds since boot at NOW."""
LONG_AGO = MONOTONIC - 36_000.0
MIB = 1024 * 1024
EMPTY_BYTES = 14 * MIB
"""What an instance without any process shows as used."""


@cache
def catalog() -> Catalog:
    """Return the package's GPU data, read once."""
    return load_catalog()


@cache
def model(name: str = A100, driver_branch: int = 580) -> GpuModel:
    """Return what a board allows; the same object for the same question."""
    return catalog().board(name).model(driver_branch)


def layout(name: str, text: str) -> Layout:
    """Return the legal layout of a text; size classes may stand for names."""
    return model(name).layout(text)


def spec(name: str, text: str) -> InstanceSpec:
    """Return one instance of a board, `3g.20gb@4` or `3g@4`."""
    return model(name).spec(text)


def uuid(index: int = 0) -> GpuUuid:
    """Return the UUID that GPUs of this index get."""
    return GpuUuid(f"GPU-00000000-0000-0000-0000-{index:012d}")


def mig_uuid(index: int, gi_id: int) -> MigUuid:
    """Return the UUID that the MIG device of a GPU instance gets."""
    return MigUuid(f"MIG-00000000-0000-0000-{index:04d}-{gi_id:012d}")


def process(pid: int = 4242, memory: int | None = 900 * MIB) -> GpuProcess:
    """Return a process as NVML lists it."""
    return GpuProcess(pid=pid, used_memory_bytes=memory, name="python3", user="ada")


def activity(ratio: float | None = 0.0, source: ActivitySource = ActivitySource.GPM) -> Activity:
    """Return activity of one instance, the same for graphics and SMs."""
    return Activity(source=source, window_seconds=5.0, graphics_ratio=ratio, sm_ratio=ratio)


def instance_reading(
    of: InstanceSpec,
    *,
    gi_id: int = 1,
    index: int = 0,
    used: int | None = EMPTY_BYTES,
    total: int | None = 4_864 * MIB,
    processes: tuple[GpuProcess, ...] | None = (),
    activity: Activity | None = None,
    usable: bool = True,
) -> InstanceReading:
    """Return one instance as read; without a compute instance if not `usable`."""
    compute = ComputeInstance(
        ci_id=CiId(0), mig_uuid=mig_uuid(index, gi_id), compute_slices=None, full_width=True
    )
    return InstanceReading(
        instance=GpuInstance(
            gi_id=GiId(gi_id), spec=of, compute_instances=(compute,) if usable else ()
        ),
        memory_used_bytes=used,
        memory_total_bytes=total,
        processes=processes,
        activity=activity,
    )


def gpu_reading(
    name: str = A100,
    text: str = "-",
    *,
    index: int = 0,
    mig: bool | None = True,
    pending: bool | None = None,
    gpm: bool = False,
    busy: Iterable[str] = (),
    readings: Iterable[InstanceReading] | None = None,
    gaps: tuple[Gap, ...] = (),
    driver_branch: int = 580,
) -> GpuReading:
    """Return one GPU as read; `busy` are the instances (texts) that run a process.

    `readings` replaces the instances that `text` would give. GPU instance ids count from 1.
    """
    of = model(name, driver_branch)
    running = {of.spec(word) for word in busy}
    if readings is None:
        readings = tuple(
            instance_reading(
                one,
                gi_id=number,
                index=index,
                processes=(process(1000 + number),) if one in running else (),
                used=900 * MIB if one in running else EMPTY_BYTES,
                activity=activity(0.8 if one in running else 0.0) if gpm else None,
            )
            for number, one in enumerate(of.layout(text).specs, start=1)
        )
    return GpuReading(
        index=index,
        uuid=uuid(index),
        name=of.name,
        model=of,
        mig_enabled=mig,
        mig_pending=mig if pending is None else pending,
        gpm=gpm,
        instances=tuple(readings),
        gaps=gaps,
    )


def node_reading(
    *gpus: GpuReading, at: datetime = NOW, monotonic: float = MONOTONIC
) -> NodeReading:
    """Return the node as read in one pass."""
    return NodeReading(
        taken_at=at, taken_monotonic=monotonic, driver_version="580.65.06", gpus=gpus
    )


def instance_state(
    reading: InstanceReading, pin: PinReason | None = None, *, born: int = 1
) -> InstanceState:
    """Return an instance with its verdict: idle, or pinned for that reason."""
    quiet = pin is None or pin in (PinReason.SETTLING, PinReason.HELD, PinReason.PROTECTED)
    return InstanceState(
        reading=reading,
        born=born,
        pin=pin,
        pins=() if pin is None else (pin,),
        quiet_since_monotonic=LONG_AGO if quiet else None,
        idle_at_monotonic=LONG_AGO + 300.0 if quiet else None,
        evidence=("process", "allocation", "memory"),
    )


def gpu_state(
    name: str = A100,
    text: str = "-",
    pins: Mapping[str, PinReason] | None = None,
    *,
    index: int = 0,
    generation: int = 1,
    excluded: str | None = None,
    mig: bool | None = True,
    pending: bool | None = None,
    gpm: bool = False,
    changed_at: datetime | None = None,
) -> GpuState:
    """Return one GPU of a snapshot; `pins` maps instance texts to reasons, all others are idle."""
    of = model(name)
    why = {of.spec(word): reason for word, reason in (pins or {}).items()}
    busy = [str(one) for one, reason in why.items() if reason is PinReason.PROCESS]
    reading = gpu_reading(name, text, index=index, mig=mig, pending=pending, gpm=gpm, busy=busy)
    missing = [str(one) for one in why if one not in of.layout(text)]
    assert not missing, f"pinned but not in the layout: {missing}"
    return GpuState(
        reading=reading,
        generation=generation,
        changed_at=changed_at,
        instances=tuple(
            instance_state(one, why.get(one.instance.spec), born=generation)
            for one in reading.instances or ()
        ),
        excluded=excluded,
    )


def snapshot(
    *gpus: GpuState,
    at: datetime = NOW,
    monotonic: float = MONOTONIC,
    allocations_known: bool = True,
    processes_visible: bool = True,
    foreign_owner: str | None = None,
) -> NodeSnapshot:
    """Return a picture of the node."""
    return NodeSnapshot(
        taken_at=at,
        taken_monotonic=monotonic,
        boot_id="11111111-1111-1111-1111-111111111111",
        driver_version="580.65.06",
        gpus=gpus,
        allocations_known=allocations_known,
        allocations_why="" if allocations_known else "a container runtime runs without adapter",
        processes_visible=processes_visible,
        foreign_owner=foreign_owner,
    )


def claim(index: int, gi_id: int, owner: str = "lease 1") -> Claim:
    """Return a scheduler's claim of one instance."""
    return Claim(gpu_uuid=uuid(index), mig_uuid=mig_uuid(index, gi_id), owner=owner)


def allocations(*claims: Claim, known: bool = True) -> Allocations:
    """Return what the scheduler says of all instances."""
    return Allocations(
        known=known, why_unknown="" if known else "the scheduler is silent", claims=claims
    )


def hold_record(
    index: int = 0, of: InstanceSpec | None = None, *, kind: str = "hold", hold_id: int = 1
) -> HoldRecord:
    """Return a hold on a GPU, or on one instance of it."""
    return HoldRecord(
        hold_id=hold_id, gpu_uuid=uuid(index), spec=of, owner="ada", reason="measuring", kind=kind
    )


def gpu_entry(
    mode: Mode = Mode.ENFORCE,
    *,
    index: int | None = None,
    baseline: tuple[str, ...] = (),
    reason: str | None = None,
    until: datetime | None = None,
) -> GpuEntry:
    """Return a line of `gpus:`: one GPU by index, or every GPU."""
    return GpuEntry(
        mode=mode,
        index=index,
        model="*" if index is None else None,
        baseline=baseline,
        reason=reason,
        until=until,
    )


def rule(
    name: str = "notebooks",
    size: str = "1g",
    *sources: str,
    minimum: int = 0,
    maximum: int | None = None,
    spare: int = 0,
    at_least: Iterable[tuple[int, str]] = (),
    sum_waiting: bool = False,
    weight: int = 1,
    raise_after: timedelta | None = timedelta(0),
    lower_after: timedelta | None = timedelta(0),
) -> Rule:
    """Return a rule; by default its target moves at once, so that tests of pace say so."""
    return Rule(
        name=RuleName(name),
        size=size,
        sources=tuple(SourceName(source) for source in sources),
        minimum=minimum,
        maximum=maximum,
        spare=spare,
        at_least=tuple(AtLeast(count=count, window=window) for count, window in at_least),
        sum_waiting=sum_waiting,
        weight=weight,
        raise_after=raise_after,
        lower_after=lower_after,
    )


def source_policy(
    name: str = "queue",
    *,
    counts: Counts = Counts.WAITING,
    unknown_for: timedelta = timedelta(hours=4),
    shared: bool = False,
    share: float | None = None,
) -> SourcePolicy:
    """Return what the policy knows of a source."""
    return SourcePolicy(
        name=SourceName(name),
        counts=counts,
        max_age=timedelta(minutes=2),
        unknown_for=unknown_for,
        shared=shared,
        share=share,
    )


def policy(
    *rules: Rule,
    gpus: tuple[GpuEntry, ...] | None = None,
    sources: tuple[SourcePolicy, ...] = (),
    pace: Pace | None = None,
    freezes: tuple[Freeze, ...] = (),
    vetoes: tuple[str, ...] = (),
    idle: IdlePolicy | None = None,
) -> Policy:
    """Return a policy that enforces on every GPU; sources that only rules name are added."""
    given = {source.name for source in sources}
    named = sorted({name for one in rules for name in one.sources} - given)
    return Policy(
        gpus=(gpu_entry(),) if gpus is None else gpus,
        rules=rules,
        sources=(*sources, *(source_policy(name) for name in named)),
        pace=pace or Pace(gpus_at_once=8),
        freezes=freezes,
        vetoes=vetoes,
        idle=idle or IdlePolicy(),
    )


def reading(
    wants: Mapping[str, int],
    *,
    counts: Counts = Counts.WAITING,
    absent_is_zero: bool = True,
    overrides: bool = False,
    at: datetime = NOW,
) -> Reading:
    """Return an answer of a source, true at `at` and good for two minutes."""
    return Reading(
        counts=counts,
        true_at=at,
        expires_at=at + timedelta(minutes=2),
        wants=tuple(Want(size=size, count=count) for size, count in wants.items()),
        absent_is_zero=absent_is_zero,
        overrides=overrides,
    )


def source_status(
    name: str = "queue",
    wants: Mapping[str, int] | None = None,
    *,
    counts: Counts = Counts.WAITING,
    absent_is_zero: bool = True,
    overrides: bool = False,
    known: bool = True,
    unknown_since: datetime | None = None,
    in_use_at_reading: Mapping[str, int] | None = None,
) -> SourceStatus:
    """Return a source and its last good answer (`wants` None: it never answered)."""
    answer = (
        None
        if wants is None
        else reading(wants, counts=counts, absent_is_zero=absent_is_zero, overrides=overrides)
    )
    return SourceStatus(
        name=SourceName(name),
        known=known and answer is not None,
        reading=answer,
        problem=None if known else "no answer",
        asked_at=NOW,
        unknown_since=unknown_since if known else unknown_since or NOW,
        in_use_at_reading=tuple((in_use_at_reading or {}).items()),
    )


def window(text: str, *, is_open: bool, next_change: datetime | None = None) -> WindowState:
    """Return a calendar window at NOW."""
    return WindowState(window=text, open=is_open, next_change=next_change)


def veto(name: str = "maintenance", *, active: bool | None = True) -> VetoStatus:
    """Return a veto condition; active None means that it does not answer."""
    return VetoStatus(name=name, active=active, explanation="max(maintenance) > 0")


def rule_history(
    name: str, *samples: tuple[float, int], last_known_target: int | None = None
) -> RuleHistory:
    """Return the past of a rule; samples are (seconds before MONOTONIC, target), oldest first."""
    return RuleHistory(
        rule=RuleName(name),
        samples=tuple(
            TargetSample(since_monotonic=MONOTONIC - ago, target=target) for ago, target in samples
        ),
        last_known_target=last_known_target,
    )


def decision_input(
    of: NodeSnapshot,
    rules: Policy,
    *demand: SourceStatus,
    now: datetime = NOW,
    monotonic: float = MONOTONIC,
    windows: tuple[WindowState, ...] = (),
    vetoes: tuple[VetoStatus, ...] = (),
    holds: tuple[HoldRecord, ...] = (),
    histories: tuple[RuleHistory, ...] = (),
    gpus: tuple[GpuHistory, ...] = (),
    changes_last_day: int = 0,
    conditions: Conditions | None = None,
) -> DecisionInput:
    """Return the whole input of a decision at NOW."""
    return DecisionInput(
        now=now,
        now_monotonic=monotonic,
        snapshot=of,
        policy=rules,
        demand=demand,
        windows=windows,
        vetoes=vetoes,
        holds=holds,
        history=History(rules=histories, gpus=gpus, changes_last_day=changes_last_day),
        conditions=conditions or Conditions(),
    )
