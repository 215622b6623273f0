"""Which instance a lease gets, when it is refused, and when it ends by itself."""

from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest

from migscaler.control.leases import (
    LeaseRequest,
    candidates,
    end_dead_leases,
    sizes_present,
    take_lease,
)
from migscaler.hardware.host import ProcHost
from migscaler.model.gpu import GpuState, InstanceState, PinReason
from migscaler.model.ids import PlanId
from migscaler.model.plan import Step, StepAction
from migscaler.store.records import GenerationRecord, NvmlAction, PlanRecord, StepRequest
from migscaler.store.store import Store
from tests.builders import (
    A30,
    A100,
    H100,
    NOW,
    claim,
    gpu_state,
    layout,
    mig_uuid,
    snapshot,
    spec,
    uuid,
)
from tests.unit.store.fixed_clock import FixedClock

REQUEST = LeaseRequest(size="1g", owner="ada", ttl=timedelta(hours=8), pid=77)


def chosen(*gpus: GpuState, size: str = "1g") -> list[str]:
    found = candidates(snapshot(*gpus), size, frozenset())
    return [f"{one.gpu.reading.index}:{one.state.spec}" for one in found]


def changed(gpu: GpuState, text: str, **fields: object) -> GpuState:
    """Return the GPU with fields of one instance's state replaced."""
    states = tuple(
        replace(state, **fields) if str(state.spec) == text else state  # type: ignore[arg-type]  # named by tests
        for state in gpu.instances or ()
    )
    return replace(gpu, instances=states)


def only(gpu: GpuState) -> InstanceState:
    (state,) = gpu.instances or ()
    return state


def test_gpu_in_use_comes_before_the_wholly_idle_one() -> None:
    idle = gpu_state(A100, "1g@0 1g@1", index=0)
    busy = gpu_state(A100, "1g@0 3g@4", {"3g@4": PinReason.PROCESS}, index=1)

    assert chosen(idle, busy) == ["1:1g.5gb@0", "0:1g.5gb@0", "0:1g.5gb@1"]


def test_size_class_finds_the_plain_profile_of_each_model() -> None:
    gpus = (
        gpu_state(A100, "1g@0 2g@2", index=0),
        gpu_state(A30, "1g@0", index=1),
        gpu_state(H100, "1g@0", index=2),
    )

    assert chosen(*gpus) == ["0:1g.5gb@0", "1:1g.6gb@0", "2:1g.10gb@0"]


@pytest.mark.parametrize(
    ("pin", "free"),
    [
        (None, True),
        (PinReason.SETTLING, True),
        (PinReason.UNKNOWN, True),
        (PinReason.PROCESS, False),
        (PinReason.ALLOCATION, False),
        (PinReason.HELD, False),
        (PinReason.PROTECTED, False),
        (PinReason.ACTIVITY, False),
        (PinReason.MEMORY, False),
    ],
)
def test_only_missing_time_or_evidence_does_not_stand_against_a_lease(
    pin: PinReason | None, free: bool
) -> None:
    gpu = gpu_state(A100, "1g@0", {"1g@0": pin} if pin else {})

    assert bool(chosen(gpu)) is free


def test_instance_whose_processes_are_not_known_is_not_handed_out() -> None:
    gpu = gpu_state(A100, "1g@0")
    blind = replace(only(gpu).reading, processes=None)

    assert chosen(changed(gpu, "1g.5gb@0", reading=blind)) == []


def test_claimed_instance_is_not_handed_out() -> None:
    gpu = gpu_state(A100, "1g@0 1g@1")

    assert chosen(changed(gpu, "1g.5gb@0", claim=claim(0, 1))) == ["0:1g.5gb@1"]


def test_instance_without_compute_instance_is_not_handed_out() -> None:
    gpu = gpu_state(A100, "1g@0")
    bare = replace(
        only(gpu).reading, instance=replace(only(gpu).reading.instance, compute_instances=())
    )

    assert chosen(changed(gpu, "1g.5gb@0", reading=bare)) == []


def test_gpu_under_change_is_left_out() -> None:
    picture = snapshot(gpu_state(A100, "1g@0", index=0), gpu_state(A100, "1g@0", index=1))

    found = candidates(picture, "1g", frozenset({uuid(0)}))

    assert [one.gpu.reading.index for one in found] == [1]


def test_lease_is_durable_and_names_the_device() -> None:
    store = Store.open(None, FixedClock())
    picture = snapshot(gpu_state(A100, "1g@0 3g@4"))

    taken = take_lease(store, picture, REQUEST, frozenset(), NOW)

    assert taken is not None
    lease, device = taken
    assert device == mig_uuid(0, 1)
    assert store.holds(NOW) == (lease,)
    assert (lease.kind, lease.owner, lease.pid, lease.spec, lease.expires_at) == (
        "lease",
        "ada",
        77,
        spec(A100, "1g@0"),
        NOW + timedelta(hours=8),
    )


def test_second_lease_from_the_same_picture_gets_another_instance_then_none() -> None:
    store = Store.open(None, FixedClock())
    picture = snapshot(gpu_state(A100, "1g@0 1g@1 3g@4"))

    got = [take_lease(store, picture, REQUEST, frozenset(), NOW) for _ in range(3)]

    assert [str(one[0].spec) if one else None for one in got] == ["1g.5gb@0", "1g.5gb@1", None]


def test_gpu_whose_generation_moved_on_since_the_picture_refuses() -> None:
    store = Store.open(None, FixedClock())
    store.write_generation(
        GenerationRecord(
            gpu_uuid=uuid(),
            generation=2,
            layout=layout(A100, "1g@0"),
            boot_id="b",
            changed_at=NOW,
        )
    )

    old = take_lease(store, snapshot(gpu_state(A100, "1g@0")), REQUEST, frozenset(), NOW)
    new = take_lease(
        store, snapshot(gpu_state(A100, "1g@0", generation=2)), REQUEST, frozenset(), NOW
    )

    assert old is None
    assert new is not None


def test_instance_that_an_open_plan_began_to_take_away_refuses() -> None:
    store = Store.open(None, FixedClock())
    one, other = spec(A100, "1g@0"), spec(A100, "1g@1")
    seq = store.begin_plan(
        PlanRecord(
            plan_id=PlanId("p1"),
            gpu_uuid=uuid(),
            before=layout(A100, "1g@0 1g@1"),
            after=layout(A100, "1g@1"),
            steps=(Step(action=StepAction.DESTROY, spec=one),),
            instances=(),
            boot_id="b",
            begun_at=NOW,
        )
    )
    store.begin_step(seq, uuid(), StepRequest(action=NvmlAction.DESTROY_CI, spec=one))

    taken = take_lease(store, snapshot(gpu_state(A100, "1g@0 1g@1")), REQUEST, frozenset(), NOW)

    assert taken is not None
    assert taken[0].spec == other


def test_lease_and_wait_of_a_dead_process_end(tmp_path: Path) -> None:
    store = Store.open(None, FixedClock())
    (tmp_path / "12").mkdir()
    alive = store.take_lease(uuid(), spec(A100, "1g@0"), owner="ada", pid=12)
    store.take_lease(uuid(), spec(A100, "1g@1"), owner="bob", pid=13)
    unbound = store.take_lease(uuid(), spec(A100, "1g@2"), owner="eve")
    hold = store.add_hold(uuid(), spec(A100, "1g@3"), owner="root", reason="", pid=14)
    waits = [store.add_lease_wait("1g", "ada", pid=pid) for pid in (12, 13, None)]

    ended = end_dead_leases(store, ProcHost(tmp_path), NOW)

    assert ended == 1
    assert store.holds(NOW) == (alive, unbound, hold)
    assert [one.wait_id for one in store.lease_waits(NOW)] == [waits[0], waits[2]]


def test_sizes_of_a_mixed_node_are_listed_once() -> None:
    picture = snapshot(gpu_state(A30, "1g@0", index=0), gpu_state(A30, "-", index=1))

    assert sizes_present(picture) == ("1g", "1g+me", "2g", "2g+me", "4g")


def test_node_without_mig_gpus_has_no_sizes() -> None:
    gpu = gpu_state(A100, "-")
    plain = replace(gpu, reading=replace(gpu.reading, model=None))

    assert sizes_present(snapshot(plain)) == ()
    assert candidates(snapshot(plain), "1g", frozenset()) == ()
