"""Holds and leases: expiry, heartbeats, and who wins against a plan."""

from datetime import timedelta

import pytest

from migscaler.model.decision import PauseRecord
from migscaler.model.ids import GiId, PlanId
from migscaler.model.layout import Layout
from migscaler.model.plan import OutcomeReason
from migscaler.store.records import (
    GenerationRecord,
    NvmlAction,
    PlanRecord,
    Purpose,
    StepRequest,
    StepState,
)
from migscaler.store.store import Store
from tests.builders import A100, NOW, layout, spec, uuid
from tests.unit.store.fixed_clock import FixedClock

GPU = uuid()
ONE = spec(A100, "1g@4")
OTHER = spec(A100, "1g@5")


@pytest.fixture
def clock() -> FixedClock:
    return FixedClock()


@pytest.fixture
def store(clock: FixedClock) -> Store:
    return Store.open(None, clock)


def open_plan(store: Store) -> int:
    return store.begin_plan(
        PlanRecord(
            plan_id=PlanId("p1"),
            gpu_uuid=GPU,
            before=layout(A100, "1g@4 1g@5"),
            after=Layout(),
            steps=(),
            instances=(),
            boot_id="boot",
            begun_at=NOW,
        )
    )


def request(action: NvmlAction, purpose: Purpose = Purpose.FORWARD) -> StepRequest:
    return StepRequest(action=action, spec=ONE, purpose=purpose, gi_id=GiId(11))


def test_hold_lasts_until_it_expires(store: Store, clock: FixedClock) -> None:
    hold = store.add_hold(
        GPU, ONE, owner="ada", reason="measuring", expires_at=NOW + timedelta(minutes=5)
    )
    assert store.holds(NOW) == (hold,)
    assert store.holds(NOW + timedelta(minutes=5)) == ()
    clock.advance(301)
    store.prune(clock.now())
    assert store._db.rows("SELECT * FROM holds") == []


def test_hold_released_is_gone_and_release_says_so(store: Store) -> None:
    hold = store.add_hold(GPU, None, owner="ada", reason="measuring")
    assert hold.kind == "hold"
    assert store.release_hold(hold.hold_id) is True
    assert store.release_hold(hold.hold_id) is False
    assert store.holds(NOW) == ()


def test_lease_of_a_leased_or_held_instance_is_refused(store: Store) -> None:
    lease = store.take_lease(GPU, ONE, owner="ada", pid=77)
    assert lease is not None
    assert (lease.kind, lease.pid) == ("lease", 77)
    assert store.take_lease(GPU, ONE, owner="bob") is None
    assert store.take_lease(GPU, OTHER, owner="bob") is not None
    store.add_hold(uuid(1), None, owner="ada", reason="the whole GPU")
    assert store.take_lease(uuid(1), ONE, owner="bob") is None


def test_lease_renewed_lasts_longer_and_an_expired_one_does_not_come_back(
    store: Store, clock: FixedClock
) -> None:
    lease = store.take_lease(GPU, ONE, owner="ada", expires_at=NOW + timedelta(seconds=30))
    assert lease is not None
    assert store.renew_hold(lease.hold_id, NOW + timedelta(seconds=60)) is True
    clock.advance(59)
    assert len(store.holds(clock.now())) == 1
    clock.advance(2)
    assert store.renew_hold(lease.hold_id, NOW + timedelta(hours=1)) is False
    assert store.take_lease(GPU, ONE, owner="bob") is not None


def test_lease_on_a_layout_that_moved_on_is_refused(store: Store) -> None:
    store.write_generation(
        GenerationRecord(
            gpu_uuid=GPU, generation=8, layout=Layout((ONE,)), boot_id="boot", changed_at=NOW
        )
    )
    assert store.take_lease(GPU, ONE, owner="ada", generation=7) is None
    assert store.take_lease(GPU, ONE, owner="ada", generation=8) is not None


@pytest.mark.parametrize("action", [NvmlAction.DESTROY_CI, NvmlAction.DESTROY_GI])
def test_destroy_of_a_leased_instance_is_not_begun(store: Store, action: NvmlAction) -> None:
    seq = open_plan(store)
    store.take_lease(GPU, ONE, owner="ada")
    ticket = store.begin_step(seq, GPU, request(action))
    assert ticket.step_id is None
    assert ticket.refused_by == "lease 1 of ada on 1g.5gb@4: lease"
    assert ticket.reason is OutcomeReason.HELD
    assert store.steps_of(seq) == ()


def test_hold_on_the_gpu_stops_what_leads_forward_but_not_putting_back(store: Store) -> None:
    seq = open_plan(store)
    store.add_hold(GPU, None, owner="ada", reason="exam")
    assert store.begin_step(seq, GPU, request(NvmlAction.CREATE_GI)).step_id is None
    assert store.begin_step(seq, GPU, request(NvmlAction.DESTROY_GI, Purpose.UNDO)).step_id is None
    assert store.begin_step(seq, GPU, request(NvmlAction.CREATE_GI, Purpose.UNDO)).step_id == 1


def test_lease_is_refused_from_the_moment_a_destroy_is_begun(store: Store) -> None:
    seq = open_plan(store)
    assert store.begin_step(seq, GPU, request(NvmlAction.DESTROY_CI)).step_id == 1
    assert store.take_lease(GPU, ONE, owner="ada") is None
    assert store.take_lease(GPU, OTHER, owner="ada") is not None


def test_lease_is_possible_again_when_the_destroy_did_not_happen(store: Store) -> None:
    seq = open_plan(store)
    ticket = store.begin_step(seq, GPU, request(NvmlAction.DESTROY_CI))
    assert ticket.step_id is not None
    store.end_step(ticket.step_id, StepState.VOID, note="in use")
    assert store.take_lease(GPU, ONE, owner="ada") is not None


def test_lease_is_possible_again_when_the_instance_was_put_back_whole(store: Store) -> None:
    seq = open_plan(store)
    for action, purpose in (
        (NvmlAction.DESTROY_CI, Purpose.FORWARD),
        (NvmlAction.CREATE_CI, Purpose.UNDO),
    ):
        assert store.take_lease(GPU, ONE, owner="ada") is None or action is NvmlAction.DESTROY_CI
        for lease in store.holds(NOW):
            store.release_hold(lease.hold_id)
        ticket = store.begin_step(seq, GPU, request(action, purpose))
        assert ticket.step_id is not None
        store.end_step(ticket.step_id, StepState.DONE)
    assert store.take_lease(GPU, ONE, owner="ada") is not None


def test_pause_stops_a_step_only_while_nothing_was_changed(store: Store) -> None:
    seq = open_plan(store)
    store.write_pause(PauseRecord(who="ada", why="maintenance", since=NOW))
    first = StepRequest(action=NvmlAction.DESTROY_CI, spec=ONE, heed_pause=True)
    later = StepRequest(action=NvmlAction.DESTROY_CI, spec=ONE)
    assert store.begin_step(seq, GPU, first).reason is OutcomeReason.PAUSED
    assert store.begin_step(seq, GPU, later).step_id == 1


def test_wait_is_kept_until_it_is_removed_or_not_renewed(store: Store, clock: FixedClock) -> None:
    first = store.add_lease_wait("2g", "ada", pid=5, expires_at=NOW + timedelta(seconds=20))
    second = store.add_lease_wait("7g", "bob", expires_at=NOW + timedelta(seconds=20))
    assert [(w.size, w.owner, w.pid) for w in store.lease_waits(NOW)] == [
        ("2g", "ada", 5),
        ("7g", "bob", None),
    ]
    assert store.remove_lease_wait(second) is True
    assert store.renew_lease_wait(first, NOW + timedelta(seconds=40)) is True
    clock.advance(39)
    assert [w.wait_id for w in store.lease_waits(clock.now())] == [first]
    clock.advance(2)
    assert store.lease_waits(clock.now()) == ()
