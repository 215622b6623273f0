"""Leasing by any account: bound to the caller, ended by the caller, queued in order."""

from datetime import timedelta
from pathlib import Path

import pytest

from migscaler.errors import CommandRefused, NotFound
from migscaler.web.ports import Actor
from tests.unit.app.nodes import ADA, BOB, RECOMMEND, ROOT, NodeAtWork, node_at_work


def take(here: NodeAtWork, actor: Actor = ADA, **more: object) -> dict[str, object]:
    values: dict[str, object] = {"size": "3g", "ttl_seconds": 3600, **more}
    return here.runtime.commands.execute("lease_take", values, actor)


def sampled(here: NodeAtWork) -> NodeAtWork:
    here.runtime.loop.sample()
    return here


def test_lease_names_the_device_and_is_seen_at_once(tmp_path: Path) -> None:
    with node_at_work(tmp_path, "3g@0 3g@4") as here:
        answer = take(sampled(here))

        gpu = here.node.state.gpus[0]
        first = next(gi for gi in gpu.instances.values() if gi.start == 0)
        assert answer == {
            "granted": True,
            "lease_id": 1,
            "gpu_uuid": here.uuid(),
            "spec": "3g.20gb@0",
            "mig_uuid": here.node.mig_uuid(gpu, first.id, 0),
            "message": f"3g.20gb@0 on {here.uuid()}",
        }
        snapshot = here.runtime.loop.status().snapshot
        assert snapshot is not None
        claims = [state.claim for state in snapshot.gpus[0].instances or ()]
        assert [claim.owner if claim else None for claim in claims] == ["lease 1", None]


def test_owner_and_process_are_the_peers_whatever_an_account_claims(tmp_path: Path) -> None:
    with node_at_work(tmp_path, "3g@0 3g@4") as here:
        take(sampled(here), ADA, owner="root", pid=1)

        (lease,) = here.store.holds(here.clock.now())
        assert (lease.owner, lease.pid) == ("uid 1000", 777)


def test_root_may_lease_for_somebody_else(tmp_path: Path) -> None:
    with node_at_work(tmp_path, "3g@0 3g@4") as here:
        take(sampled(here), ROOT, owner="ada", pid=555)
        take(here, ROOT)

        leases = here.store.holds(here.clock.now())
        assert [(one.owner, one.pid) for one in leases] == [("ada", 555), ("uid 0", None)]


def test_place_in_the_queue_is_the_peers_too(tmp_path: Path) -> None:
    with node_at_work(tmp_path, "1g@0") as here:
        take(sampled(here), ADA, owner="root", pid=1, wait=True)

        (wait,) = here.store.lease_waits(here.clock.now())
        assert (wait.owner, wait.pid, wait.size) == ("uid 1000", 777, "3g")


def test_account_has_so_many_places_in_the_queue_and_no_more(tmp_path: Path) -> None:
    """One account took 1,449 places in twelve seconds, and every scrape waited for them."""
    with node_at_work(tmp_path, "1g@0") as here:
        numbers = [take(sampled(here), ADA, wait=True)["wait_id"] for _ in range(64)]

        with pytest.raises(CommandRefused, match=r"^uid 1000 has 64 waiting leases already$"):
            take(here, ADA, wait=True)

        assert take(here, BOB, wait=True)["wait_id"]
        here.ask_as(ADA, "lease_cancel", wait_id=numbers[0])
        assert take(here, ADA, wait=True)["wait_id"]


def test_account_may_end_and_renew_only_its_own_leases(tmp_path: Path) -> None:
    with node_at_work(tmp_path, "3g@0 3g@4") as here:
        mine = take(sampled(here), ADA)["lease_id"]

        refused = here.ask_as(BOB, "lease_release", lease_id=mine)
        with pytest.raises(NotFound) as problem:
            here.ask_as(BOB, "lease_renew", lease_id=mine, ttl_seconds=60)
        renewed = here.ask_as(ADA, "lease_renew", lease_id=mine, ttl_seconds=60)
        ends = here.store.holds(here.clock.now())[0].expires_at
        released = here.ask_as(ADA, "lease_release", lease_id=mine)

        assert refused == {"released": None}
        assert str(problem.value) == "no lease 1 of yours; it ended or expired"
        assert renewed == {"lease_id": 1}
        assert ends == here.clock.now() + timedelta(seconds=60)
        assert released == {"released": 1}
        assert here.store.holds(here.clock.now()) == ()


def test_hold_of_a_person_is_no_lease_to_be_ended(tmp_path: Path) -> None:
    with node_at_work(tmp_path, "3g@0 3g@4") as here:
        hold = sampled(here).ask("hold", gpu=0, spec="3g@0", reason="measuring")["hold_id"]

        assert here.ask("lease_release", lease_id=hold) == {"released": None}
        assert len(here.store.holds(here.clock.now())) == 1


def test_root_may_end_anybodys_lease(tmp_path: Path) -> None:
    with node_at_work(tmp_path, "3g@0 3g@4") as here:
        take(sampled(here), ADA)

        assert here.ask("lease_release", lease_id=1) == {"released": 1}


def test_account_may_leave_only_its_own_place_in_the_queue(tmp_path: Path) -> None:
    with node_at_work(tmp_path, "1g@0") as here:
        place = take(sampled(here), ADA, wait=True)["wait_id"]

        by_bob = here.ask_as(BOB, "lease_cancel", wait_id=place)
        with pytest.raises(NotFound) as problem:
            here.ask_as(BOB, "lease_poll", wait_id=place, ttl_seconds=60)
        by_ada = here.ask_as(ADA, "lease_cancel", wait_id=place)

        assert by_bob == {"cancelled": None}
        assert str(problem.value) == "no waiting lease 1; it lapsed, ask anew"
        assert by_ada == {"cancelled": 1}
        assert here.store.lease_waits(here.clock.now()) == ()


def test_no_free_instance_is_told_and_queues_nobody(tmp_path: Path) -> None:
    with node_at_work(tmp_path, "1g@0") as here:
        assert take(sampled(here)) == {"granted": False, "message": "no 3g is free"}
        assert here.store.lease_waits(here.clock.now()) == ()


def test_size_that_no_gpu_offers_is_refused_with_what_there_is(tmp_path: Path) -> None:
    with node_at_work(tmp_path, "1g@0") as here:
        with pytest.raises(CommandRefused) as refusal:
            take(sampled(here), size="9g")

        assert str(refusal.value) == (
            "no GPU here offers '9g'; sizes here: 1g, 1g+me, 1gx, 2g, 3g, 4g, 7g"
        )


def test_wait_for_what_no_rule_makes_says_so(tmp_path: Path) -> None:
    """It waited for ever, and nobody said why."""
    rules = "rules: [{name: big, size: 7g, from: [scheduler]}]\n"
    with node_at_work(tmp_path, "2g@0", config=RECOMMEND + rules) as here:
        made = take(sampled(here), size="7g", wait=True)
        vain = take(here, size="3g", wait=True)
        polled = here.ask_as(ADA, "lease_poll", wait_id=vain["wait_id"], ttl_seconds=60)

        assert made["message"] == "waiting for a 7g"
        assert polled["message"] == vain["message"]
        assert vain["message"] == (
            "waiting for a 3g that somebody gives back: none is made, since no rule of that size"
            " is from: [scheduler]"
        )


def test_wait_ends_in_a_lease_once_there_is_an_instance(tmp_path: Path) -> None:
    with node_at_work(tmp_path, "1g@0") as here:
        place = take(sampled(here), wait=True)["wait_id"]
        still = here.ask_as(ADA, "lease_poll", wait_id=place, ttl_seconds=3600)
        here.node.foreign_create(0, "3g@4")
        here.watch(5)

        granted = here.ask_as(ADA, "lease_poll", wait_id=place, ttl_seconds=3600)

        assert (still["granted"], still["wait_id"]) == (False, 1)
        assert (granted["granted"], granted["spec"]) == (True, "3g.20gb@4")
        assert here.store.lease_waits(here.clock.now()) == ()


def test_who_waited_longer_is_served_first(tmp_path: Path) -> None:
    with node_at_work(tmp_path, "1g@0") as here:
        first = take(sampled(here), ADA, wait=True)["wait_id"]
        second = take(here, BOB, wait=True)["wait_id"]
        here.node.foreign_create(0, "3g@4")
        here.watch(5)

        too_soon = here.ask_as(BOB, "lease_poll", wait_id=second, ttl_seconds=3600)
        served = here.ask_as(ADA, "lease_poll", wait_id=first, ttl_seconds=3600)

        assert (too_soon["granted"], served["granted"]) == (False, True)


def test_newcomer_does_not_overtake_who_waits_for_the_size(tmp_path: Path) -> None:
    """Only those in the queue were once held to its order."""
    with node_at_work(tmp_path, "1g@0") as here:
        place = take(sampled(here), ADA, wait=True)["wait_id"]
        here.node.foreign_create(0, "3g@4")
        here.watch(5)

        newcomer = take(here, BOB, wait=True)
        waiting = here.ask_as(ADA, "lease_poll", wait_id=place, ttl_seconds=3600)

        assert (newcomer["granted"], waiting["granted"]) == (False, True)


def test_newcomer_gets_what_the_waiters_leave(tmp_path: Path) -> None:
    with node_at_work(tmp_path, "1g@0") as here:
        take(sampled(here), ADA, wait=True)
        here.node.foreign_destroy(0, next(iter(here.node.state.gpus[0].instances)))
        here.node.foreign_create(0, "3g@0")
        here.node.foreign_create(0, "3g@4")
        here.watch(5)

        assert [take(here, BOB)["granted"] for _ in range(2)] == [True, False]


def test_waiter_that_stops_asking_loses_its_place(tmp_path: Path) -> None:
    with node_at_work(tmp_path, "1g@0") as here:
        place = take(sampled(here), wait=True)["wait_id"]
        here.clock.advance(29)
        here.ask_as(ADA, "lease_poll", wait_id=place, ttl_seconds=3600)
        here.clock.advance(29)
        kept = here.ask_as(ADA, "lease_poll", wait_id=place, ttl_seconds=3600)
        here.clock.advance(31)

        with pytest.raises(NotFound):
            here.ask_as(ADA, "lease_poll", wait_id=place, ttl_seconds=3600)

        assert kept["wait_id"] == place


def test_lease_ends_with_its_process_at_the_next_housekeeping(tmp_path: Path) -> None:
    with node_at_work(tmp_path, "3g@0 3g@4") as here:
        here.host.process(777, "python3")
        take(sampled(here), ADA)
        take(here, BOB)

        here.runtime.housekeeping()

        assert [one.owner for one in here.store.holds(here.clock.now())] == ["uid 1000"]


def test_leases_and_waits_are_listed(tmp_path: Path) -> None:
    with node_at_work(tmp_path, "3g@0") as here:
        take(sampled(here), ADA)
        take(here, BOB, wait=True)

        answer = here.ask("leases")

        assert answer == {
            "leases": [
                {
                    "hold_id": 1,
                    "kind": "lease",
                    "gpu_uuid": here.uuid(),
                    "spec": "3g.20gb@0",
                    "owner": "uid 1000",
                    "reason": "lease",
                    "expires_at": "2026-03-02T13:00:00+00:00",
                }
            ],
            "waiting": [
                {
                    "wait_id": 1,
                    "size": "3g",
                    "owner": "uid 1001",
                    "since": "2026-03-02T12:00:00+00:00",
                }
            ],
        }
