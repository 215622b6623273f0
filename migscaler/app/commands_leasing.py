"""Commands about leases and the queue for them."""

from datetime import timedelta

from migscaler.app.arguments import Arguments
from migscaler.app.commands_holding import hold_view
from migscaler.app.node import Command, Node
from migscaler.control.leases import (
    LeaseRequest,
    candidates,
    same_queue,
    sizes_present,
    take_lease,
    waiting_words,
)
from migscaler.errors import CommandRefused, NotFound
from migscaler.model.decision import HoldRecord
from migscaler.model.gpu import NodeSnapshot
from migscaler.model.ids import MigUuid
from migscaler.web.ports import Actor

# A waiter asks every second or two; one that has not asked for this long has gone.
_WAIT_HEARTBEAT = timedelta(seconds=30)
# Each is looked at by every other: 1,449 of one account made scrapes take half a second.
_MOST_WAITS = 64


class LeasingCommands:
    """What a job takes for itself, and how it waits for it."""

    def __init__(self, node: Node) -> None:
        """Take the node."""
        self._node = node

    def table(self) -> dict[str, Command]:
        """Return the commands by name, each with what it takes."""
        return {
            "lease_take": Command(
                self._lease_take, ("owner", "pid", "size", "ttl_seconds", "wait")
            ),
            "lease_poll": Command(self._lease_poll, ("ttl_seconds", "wait_id")),
            "lease_renew": Command(self._lease_renew, ("lease_id", "ttl_seconds")),
            "lease_release": Command(self._lease_release, ("lease_id",)),
            "lease_cancel": Command(self._lease_cancel, ("wait_id",)),
            "leases": Command(self._leases),
        }

    def _lease_take(self, arguments: Arguments, actor: Actor) -> dict[str, object]:
        """Take a free instance, or a place in the queue."""
        request = LeaseRequest(
            size=arguments.text("size"),
            owner=(actor.trusted and arguments.optional_text("owner")) or actor.name,
            ttl=arguments.duration("ttl_seconds"),
            pid=arguments.optional_number("pid") if actor.trusted else actor.pid,
        )
        sizes = sizes_present(self._node.snapshot())
        if not any(
            gpu.reading.model and gpu.reading.model.resolve(request.size)
            for gpu in self._node.snapshot().gpus
        ):
            raise CommandRefused(
                f"no GPU here offers {request.size!r}; sizes here: {', '.join(sizes) or 'none'}"
            )
        granted = self._grant(request)
        if granted is not None:
            return granted
        if not arguments.flag("wait"):
            return {
                "granted": False,
                "message": f"no {request.size} is free",
            }
        waits = self._node.store.lease_waits(self._node.clock.now())
        if sum(one.owner == request.owner for one in waits) >= _MOST_WAITS:
            raise CommandRefused(f"{request.owner} has {_MOST_WAITS} waiting leases already")
        number = self._node.store.add_lease_wait(
            request.size,
            request.owner,
            pid=request.pid,
            expires_at=self._node.after(_WAIT_HEARTBEAT),
        )
        return {
            "granted": False,
            "wait_id": number,
            "message": self._words(request.size),
        }

    def _lease_poll(self, arguments: Arguments, actor: Actor) -> dict[str, object]:
        """Ask again for a place in the queue; asking keeps the place."""
        number = arguments.number("wait_id")
        store, now = self._node.store, self._node.clock.now()
        wait = next((w for w in store.lease_waits(now) if w.wait_id == number), None)
        if (
            wait is None
            or not _owns(actor, wait.owner)
            or not store.renew_lease_wait(number, now + _WAIT_HEARTBEAT)
        ):
            raise NotFound(f"no waiting lease {number}; it lapsed, ask anew")
        request = LeaseRequest(
            size=wait.size,
            owner=wait.owner,
            ttl=arguments.duration("ttl_seconds"),
            pid=wait.pid,
        )
        granted = self._grant(request, number)
        if granted is None:
            return {"granted": False, "wait_id": number, "message": self._words(wait.size)}
        store.remove_lease_wait(number)
        return granted

    def _words(self, size: str) -> str:
        return waiting_words(self._node.loop.parts.policy, self._node.snapshot(), size)

    def _grant(self, request: LeaseRequest, wait_id: int | None = None) -> dict[str, object] | None:
        """Lease an instance if one is free beyond those for which others have waited longer."""
        snapshot = self._node.snapshot()
        ahead = sum(
            same_queue(snapshot, wait.size, request.size)
            and (wait_id is None or wait.wait_id < wait_id)
            for wait in self._node.store.lease_waits(self._node.clock.now())
        )
        free = candidates(self._node.snapshot(), request.size, self._node.acting_on())
        if len(free) <= ahead:
            return None
        taken = take_lease(
            self._node.store,
            self._node.snapshot(),
            request,
            self._node.acting_on(),
            self._node.clock.now(),
        )
        if taken is None:
            return None
        lease, mig_uuid = taken
        if not _is_there(self._node.loop.sample(), lease, mig_uuid):
            # Chosen from a picture that is over: somebody took it or its place since.
            self._node.store.release_hold(lease.hold_id)
            return None
        return {
            "granted": True,
            "lease_id": lease.hold_id,
            "gpu_uuid": lease.gpu_uuid,
            "spec": str(lease.spec),
            "mig_uuid": mig_uuid,
            "message": f"{lease.spec} on {lease.gpu_uuid}",
        }

    def _lease_renew(self, arguments: Arguments, actor: Actor) -> dict[str, object]:
        """Move the end of a lease."""
        number = arguments.number("lease_id")
        expires_at = self._node.after(arguments.duration("ttl_seconds"))
        lease = self._lease_of(actor, number)
        if lease is None or not self._node.store.renew_hold(number, expires_at):
            raise NotFound(f"no lease {number} of yours; it ended or expired")
        return {"lease_id": number}

    def _lease_release(self, arguments: Arguments, actor: Actor) -> dict[str, object]:
        """Give a leased instance back."""
        number = arguments.number("lease_id")
        lease = self._lease_of(actor, number)
        released = lease is not None and self._node.store.release_hold(number)
        self._node.loop.publish()
        return {"released": number if released else None}

    def _lease_cancel(self, arguments: Arguments, actor: Actor) -> dict[str, object]:
        """Leave the queue."""
        number = arguments.number("wait_id")
        waits = self._node.store.lease_waits(self._node.clock.now())
        mine = any(w.wait_id == number and _owns(actor, w.owner) for w in waits)
        if mine:
            self._node.store.remove_lease_wait(number)
        return {"cancelled": number if mine else None}

    def _lease_of(self, actor: Actor, number: int) -> HoldRecord | None:
        """Return a lease that the caller may end or renew, None if there is none."""
        holds = self._node.store.holds(self._node.clock.now())
        return next(
            (
                hold
                for hold in holds
                if hold.hold_id == number and hold.kind == "lease" and _owns(actor, hold.owner)
            ),
            None,
        )

    def _leases(self, _arguments: Arguments, _actor: Actor) -> dict[str, object]:
        """Return leases and who waits."""
        holds = [h for h in self._node.store.holds(self._node.clock.now()) if h.kind == "lease"]
        waits = self._node.store.lease_waits(self._node.clock.now())
        return {
            "leases": [hold_view(record) for record in holds],
            "waiting": [
                {
                    "wait_id": w.wait_id,
                    "size": w.size,
                    "owner": w.owner,
                    "since": w.since.isoformat(),
                }
                for w in waits
            ],
        }


def _owns(actor: Actor, owner: str) -> bool:
    """Say whether a lease is the caller's to end: his own, or anybody's for the trusted."""
    return actor.trusted or owner == actor.name


def _is_there(snapshot: NodeSnapshot | None, lease: HoldRecord, mig_uuid: MigUuid) -> bool:
    """Say whether a fresh picture shows that MIG device at the leased place, and nobody on it."""
    gpu = None if snapshot is None else snapshot.gpu(lease.gpu_uuid)
    found = () if gpu is None else gpu.instances or ()
    return any(
        one.spec == lease.spec
        and one.reading.instance.mig_uuid == mig_uuid
        and one.reading.processes == ()
        for one in found
    )
