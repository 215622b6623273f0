"""The rules of evidence: what proves an instance idle, and what takes the proof away."""

from dataclasses import dataclass, field, replace
from datetime import timedelta

from migscaler.model.decision import HoldRecord
from migscaler.model.gpu import (
    ActivitySource,
    Allocations,
    ComputeInstance,
    GpuProcess,
    GpuReading,
    InstanceState,
    PinReason,
)
from migscaler.model.ids import CiId
from migscaler.model.policy import IdlePolicy, Mode, Policy
from migscaler.model.process import Container
from migscaler.policy.idleness import IdleMemory, judge
from tests.builders import (
    A100,
    EMPTY_BYTES,
    H100,
    MIB,
    MONOTONIC,
    NOW,
    activity,
    allocations,
    claim,
    gpu_entry,
    gpu_reading,
    hold_record,
    instance_reading,
    mig_uuid,
    node_reading,
    policy,
    process,
    spec,
    uuid,
)

STEP = 5.0
AFTER = 300.0
SMALL = spec(A100, "1g@0")


@dataclass
class Watch:
    """Feeds readings every five seconds to `judge` and keeps its memory."""

    rules: Policy = field(default_factory=policy)
    memory: IdleMemory = field(default_factory=IdleMemory)
    seconds: float = 0.0
    processes_visible: bool = True

    def see(
        self,
        *gpus: GpuReading,
        allocated: Allocations | None = None,
        holds: tuple[HoldRecord, ...] = (),
        wait: float = STEP,
        born: int = 1,
    ) -> InstanceState | None:
        """Judge one sample, `wait` seconds after the last; return the first instance of GPU 0."""
        self.seconds += wait
        reading = node_reading(
            *gpus,
            at=NOW + timedelta(seconds=self.seconds),
            monotonic=MONOTONIC + self.seconds,
        )
        ids = {(gpu.uuid, one.instance.gi_id): born for gpu in gpus for one in gpu.instances or ()}
        self.memory, states = judge(
            self.memory,
            reading=reading,
            born=ids,
            allocations=allocated or allocations(),
            holds=holds,
            policy=self.rules,
            processes_visible=self.processes_visible,
        )
        mine = states.get(uuid(0), ())
        return mine[0] if mine else None

    def quiet(self, gpu: GpuReading, seconds: float) -> InstanceState | None:
        """Show the same reading for so long."""
        state = None
        for _ in range(int(seconds / STEP)):
            state = self.see(gpu)
        return state


def pin(state: InstanceState | None) -> PinReason | None:
    """Return the primary reason of an instance that must be there."""
    assert state is not None
    return state.pin


def one(**changes: object) -> GpuReading:
    """Return an A100 with one 1g, changed as told."""
    return gpu_reading(A100, readings=[instance_reading(SMALL, **changes)])  # type: ignore[arg-type]  # test shorthand


def watched(rules: Policy | None = None) -> Watch:
    """Return a watch that has seen its GPU empty before, so that instances are seen to appear."""
    watch = Watch(rules=rules or policy())
    watch.see(gpu_reading(A100))
    return watch


def test_idleness_after_a_start_is_unknown_until_proven() -> None:
    watch = Watch()
    assert pin(watch.see(one())) is PinReason.UNKNOWN
    assert pin(watch.quiet(one(), AFTER - STEP)) is PinReason.UNKNOWN
    state = watch.see(one())
    assert pin(state) is None
    assert state is not None
    assert state.quiet_since_monotonic == MONOTONIC + STEP
    assert state.idle_at_monotonic == MONOTONIC + STEP + AFTER


def test_idleness_of_an_instance_seen_to_appear_is_settling() -> None:
    watch = watched()
    assert pin(watch.see(one())) is PinReason.SETTLING
    assert pin(watch.quiet(one(), AFTER)) is None


def test_idleness_after_a_process_settles_and_keeps_the_time_of_last_use() -> None:
    watch = Watch()
    busy = watch.see(one(processes=(process(),), used=900 * MIB))
    assert pin(busy) is PinReason.PROCESS
    after = watch.see(one())
    assert pin(after) is PinReason.SETTLING
    assert after is not None
    assert after.last_activity_at == NOW + timedelta(seconds=5)


def test_idleness_timer_starts_anew_after_a_gap() -> None:
    watch = watched()
    watch.quiet(one(), AFTER)
    assert pin(watch.see(one(), wait=16.0)) is PinReason.SETTLING
    assert pin(watch.quiet(one(), AFTER)) is None


def test_idleness_survives_a_delay_of_three_periods() -> None:
    watch = watched()
    watch.quiet(one(), AFTER + STEP)
    assert pin(watch.see(one(), wait=15.0)) is None


def test_idleness_needs_every_signal_each_time() -> None:
    watch = watched()
    watch.quiet(one(), AFTER + STEP)
    assert pin(watch.see(one(used=None))) is PinReason.UNKNOWN
    assert pin(watch.see(one())) is PinReason.SETTLING


def test_unknown_processes_pin() -> None:
    assert pin(watched().see(one(processes=None))) is PinReason.UNKNOWN


def test_invisible_host_processes_pin() -> None:
    watch = watched()
    watch.processes_visible = False
    assert pin(watch.quiet(one(), 2 * AFTER)) is PinReason.UNKNOWN


def test_processes_are_named_with_user_and_container_up_to_three() -> None:
    inside = Container(container_id=64 * "a", runtime="docker")
    crowd = tuple(
        GpuProcess(pid=pid, name="train", user="ada", container=inside if pid == 1 else None)
        for pid in range(1, 6)
    )

    state = watched().see(one(processes=crowd))

    assert state is not None
    assert state.explanation == (
        "used by train of ada (pid 1, docker aaaaaaaaaaaa), train of ada (pid 2),"
        " train of ada (pid 3), 2 more"
    )


def test_processes_without_names_say_what_would_name_them() -> None:
    watch = watched()
    watch.processes_visible = False

    state = watch.see(one(processes=(GpuProcess(pid=7),)))

    assert pin(state) is PinReason.PROCESS
    assert state is not None
    assert state.explanation == (
        "used by a process (pid 7) (names and containers need the host's PID namespace)"
    )


def test_unknown_allocations_pin() -> None:
    watch = watched()
    watch.quiet(one(), AFTER + STEP)
    assert pin(watch.see(one(), allocated=allocations(known=False))) is PinReason.UNKNOWN


def test_claimed_instance_is_an_allocation_and_carries_its_claim() -> None:
    state = watched().see(one(), allocated=allocations(claim(0, 1, "slurm job 12")))
    assert pin(state) is PinReason.ALLOCATION
    assert state is not None
    assert state.claim is not None
    assert state.claim.owner == "slurm job 12"
    assert state.explanation == "it belongs to slurm job 12"


def test_claim_of_another_instance_does_not_pin() -> None:
    assert pin(watched().see(one(), allocated=allocations(claim(0, 2)))) is PinReason.SETTLING


def test_lease_counts_as_an_allocation_and_resets_the_timer() -> None:
    watch = watched()
    watch.quiet(one(), AFTER + STEP)
    lease = hold_record(0, SMALL, kind="lease", hold_id=4)
    state = watch.see(one(), holds=(lease,))
    assert pin(state) is PinReason.ALLOCATION
    assert state is not None
    assert state.explanation == "it belongs to lease 4 of ada"
    assert pin(watch.see(one())) is PinReason.SETTLING


def test_hold_pins_without_touching_the_timer() -> None:
    watch = watched()
    watch.quiet(one(), AFTER)
    assert pin(watch.see(one(), holds=(hold_record(0, SMALL),))) is PinReason.HELD
    assert pin(watch.see(one(), holds=(hold_record(0),))) is PinReason.HELD
    assert pin(watch.see(one())) is None


def test_hold_of_another_instance_or_an_expired_one_does_not_pin() -> None:
    watch = watched()
    watch.quiet(one(), AFTER)
    other = hold_record(0, spec(A100, "1g@1"))
    expired = replace(hold_record(0, SMALL), expires_at=NOW)
    assert pin(watch.see(one(), holds=(other, expired))) is None


def test_gpu_observed_for_a_reason_is_protected() -> None:
    watch = watched(policy(gpus=(gpu_entry(Mode.OBSERVE, reason="training lane"),)))
    watch.quiet(one(), AFTER)
    state = watch.see(one())
    assert pin(state) is PinReason.PROTECTED
    assert state is not None
    assert "training lane" in state.explanation


def test_gpu_observed_without_a_reason_is_not_protected() -> None:
    watch = watched(policy(gpus=(gpu_entry(Mode.OBSERVE),)))
    assert pin(watch.quiet(one(), AFTER + STEP)) is None


def test_memory_above_the_measured_baseline_pins() -> None:
    watch = watched()
    watch.quiet(one(), AFTER + STEP)
    assert pin(watch.see(one(used=EMPTY_BYTES + 64 * MIB))) is None
    assert pin(watch.see(one(used=EMPTY_BYTES + 65 * MIB))) is PinReason.MEMORY
    assert pin(watch.see(one())) is PinReason.SETTLING


def test_memory_of_an_unseen_process_never_becomes_the_baseline() -> None:
    watch = Watch()
    assert pin(watch.quiet(one(used=450 * MIB), 3 * AFTER)) is PinReason.MEMORY
    watch.see(one())
    assert pin(watch.quiet(one(), AFTER)) is None


def test_memory_of_an_unseen_process_is_no_baseline_on_a_large_instance_either() -> None:
    """A hundredth of 141 GB is more than a CUDA context takes: it passed for the empty state."""
    watch = Watch()
    state = watch.quiet(one(used=520 * MIB, total=141_000 * MIB), 3 * AFTER)
    assert pin(state) is PinReason.MEMORY


def test_memory_baseline_is_the_lowest_seen() -> None:
    watch = watched()
    watch.see(one(used=60 * MIB))
    watch.see(one(used=10 * MIB))
    assert pin(watch.see(one(used=80 * MIB))) is PinReason.MEMORY


def test_memory_baseline_is_not_measured_while_somebody_uses_the_instance() -> None:
    watch = watched()
    watch.see(one(processes=(process(),), used=70 * MIB))
    [entry] = watch.memory.entries.values()
    assert entry.baseline_bytes is None


def test_memory_left_out_of_the_evidence_does_not_pin() -> None:
    rules = policy(idle=IdlePolicy(evidence=frozenset({"process", "allocation"})))
    watch = watched(rules)
    state = watch.quiet(one(used=None), AFTER + STEP)
    assert pin(state) is None
    assert state is not None
    assert state.evidence == ("process", "allocation")


def test_process_pins_even_if_left_out_of_the_evidence() -> None:
    watch = watched(policy(idle=IdlePolicy(evidence=frozenset({"memory"}))))
    assert pin(watch.see(one(processes=(process(),)))) is PinReason.PROCESS


def test_activity_that_cannot_exist_is_left_out_and_named() -> None:
    watch = watched()
    state = watch.quiet(one(), AFTER + STEP)
    assert pin(state) is None
    assert state is not None
    assert state.evidence == ("process", "allocation", "memory")
    assert "activity can't be known here" in state.explanation


def hopper(ratio: float | None) -> GpuReading:
    """Return an H100 with one 1g of that activity; None: no figure."""
    figure = None if ratio is None else activity(ratio)
    reading = instance_reading(spec(H100, "1g@0"), activity=figure, total=9_984 * MIB)
    return gpu_reading(H100, gpm=True, readings=[reading])


def test_activity_at_the_threshold_pins() -> None:
    watch = Watch()
    watch.see(gpu_reading(H100, gpm=True))
    watch.quiet(hopper(0.0), AFTER + STEP)
    assert pin(watch.see(hopper(0.009))) is None
    assert pin(watch.see(hopper(0.01))) is PinReason.ACTIVITY
    assert pin(watch.see(hopper(0.0))) is PinReason.SETTLING


def test_activity_that_is_due_and_silent_is_unknown() -> None:
    watch = Watch()
    watch.see(gpu_reading(H100, gpm=True))
    watch.quiet(hopper(0.0), AFTER + STEP)
    assert pin(watch.see(hopper(None))) is PinReason.UNKNOWN


def test_activity_of_a_new_instance_is_awaited_for_three_periods() -> None:
    watch = Watch()
    watch.see(gpu_reading(H100, gpm=True))
    first = watch.see(hopper(None))
    assert pin(first) is PinReason.SETTLING
    assert first is not None
    assert first.quiet_since_monotonic is None
    assert pin(watch.see(hopper(None), wait=15.0)) is PinReason.SETTLING
    assert pin(watch.see(hopper(None))) is PinReason.UNKNOWN


def test_activity_from_elsewhere_is_due_once_it_was_seen() -> None:
    watch = watched()
    figure = activity(0.0, ActivitySource.DCGM)
    assert pin(watch.see(one(activity=figure))) is PinReason.SETTLING
    assert pin(watch.quiet(one(), 4 * STEP)) is PinReason.UNKNOWN


def test_instance_without_compute_instance_is_unknown() -> None:
    assert pin(watched().see(one(usable=False))) is PinReason.UNKNOWN


def test_instance_with_a_narrow_compute_instance_is_unknown() -> None:
    reading = instance_reading(spec(A100, "2g@0"))
    narrow = ComputeInstance(
        ci_id=CiId(0), mig_uuid=mig_uuid(0, 1), compute_slices=1, full_width=False
    )
    reading = replace(reading, instance=replace(reading.instance, compute_instances=(narrow,)))
    state = watched().see(gpu_reading(A100, readings=[reading]))
    assert pin(state) is PinReason.UNKNOWN


def test_instance_born_again_with_the_same_id_starts_anew() -> None:
    watch = watched()
    watch.quiet(one(), AFTER + STEP)
    assert pin(watch.see(one(), born=2)) is PinReason.SETTLING


def test_gpu_that_could_not_be_read_starts_anew_as_unknown() -> None:
    watch = watched()
    watch.quiet(one(), AFTER + STEP)
    assert watch.see(replace(gpu_reading(A100), instances=None)) is None
    assert pin(watch.see(one())) is PinReason.UNKNOWN
    assert pin(watch.quiet(one(), AFTER)) is None


def test_gpu_that_was_not_listed_starts_anew_as_unknown() -> None:
    watch = watched()
    watch.quiet(one(), AFTER + STEP)
    watch.see()
    assert pin(watch.see(one())) is PinReason.UNKNOWN


def test_pins_are_all_named_and_ordered_by_precedence() -> None:
    state = watched().see(
        one(processes=None),
        allocated=allocations(claim(0, 1)),
        holds=(hold_record(0),),
    )
    assert state is not None
    assert state.pins == (
        PinReason.ALLOCATION,
        PinReason.HELD,
        PinReason.UNKNOWN,
    )


def test_monotonic_clock_of_another_boot_is_a_gap() -> None:
    watch = watched()
    watch.quiet(one(), AFTER + STEP)
    assert pin(watch.see(one(), wait=-10_000.0)) is PinReason.SETTLING


def test_shorter_idle_after_is_obeyed() -> None:
    watch = watched(policy(idle=IdlePolicy(after=timedelta(seconds=10))))
    assert pin(watch.see(one())) is PinReason.SETTLING
    assert pin(watch.see(one())) is PinReason.SETTLING
    assert pin(watch.see(one())) is None


def test_process_without_activity_is_held_unused_since_it_became_quiet() -> None:
    watch = Watch()
    reading = gpu_reading(H100, "1g@0", gpm=True, busy=["1g.10gb@0"])
    working = _with_activity(reading, 0.4)
    idling = _with_activity(reading, 0.0)

    assert unused(watch.see(working)) is None
    assert unused(watch.see(idling)) == MONOTONIC + 2 * STEP
    assert unused(watch.see(idling)) == MONOTONIC + 2 * STEP
    assert unused(watch.see(working)) is None


def test_owner_without_process_is_held_unused_where_no_activity_is_told() -> None:
    watch = Watch()
    given = allocations(claim(0, 1))

    assert unused(watch.see(one(), allocated=given)) == MONOTONIC + STEP
    assert unused(watch.see(one())) is None


def test_process_without_known_activity_is_not_called_unused() -> None:
    assert unused(Watch().see(gpu_reading(A100, "1g@0", busy=["1g.5gb@0"]))) is None


def test_gap_in_the_samples_starts_the_unused_time_anew() -> None:
    watch = Watch()
    given = allocations(claim(0, 1))
    watch.see(one(), allocated=given)

    assert unused(watch.see(one(), allocated=given, wait=60.0)) == MONOTONIC + 65.0


def unused(state: InstanceState | None) -> float | None:
    """Return since when a kept instance does nothing."""
    assert state is not None
    return state.held_unused_since_monotonic


def _with_activity(gpu: GpuReading, ratio: float) -> GpuReading:
    """Return the GPU with every instance so busy."""
    instances = tuple(replace(i, activity=activity(ratio)) for i in gpu.instances or ())
    return replace(gpu, instances=instances)
