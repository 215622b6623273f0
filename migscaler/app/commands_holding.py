"""Commands about holds, leases, pause and pushed demand."""

from datetime import datetime, timedelta

from migscaler.app.accounts import name_of
from migscaler.app.arguments import Arguments
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
from migscaler.model.decision import HoldRecord, PauseRecord
from migscaler.model.demand import Counts, Reading, Want
from migscaler.model.gpu import NodeSnapshot
from migscaler.model.ids import MigUuid, RuleName, SourceName
from migscaler.model.profile import check_size_text
from migscaler.web.ports import Actor
from migscaler.web.views import index_of

# A waiter asks every second or two; one that has not asked for this long has gone.
_WAIT_HEARTBEAT = timedelta(seconds=30)
# Each is looked at by every other: 1,449 of one account made scrapes take half a second.
_MOST_WAITS = 64


class HoldingCommands:
    """What people and jobs claim, stop or ask for."""

    def __init__(self, node: Node) -> None:
        """Take the node."""
        self._node = node

    def table(self) -> dict[str, Command]:
        """Return the commands by name, each with what it takes."""
        return {
            "hold": Command(self._hold, ("gpu", "reason", "spec", "ttl_seconds")),
            "release": Command(self._release, ("hold_id",)),
            "holds": Command(self._holds),
            "pause": Command(self._pause, ("for_seconds", "release_driver", "why")),
            "resume": Command(self._resume),
            "demand": Command(self._demand),
            "demand_push": Command(self._push, ("counts", "source", "ttl_seconds", "wants")),
            "demand_override": Command(self._override, ("count", "rule", "ttl_seconds")),
            "demand_clear": Command(self._clear, ("rule", "source")),
            "lease_take": Command(
                self._lease_take, ("owner", "pid", "size", "ttl_seconds", "wait")
            ),
            "lease_poll": Command(self._lease_poll, ("ttl_seconds", "wait_id")),
            "lease_renew": Command(self._lease_renew, ("lease_id", "ttl_seconds")),
            "lease_release": Command(self._lease_release, ("lease_id",)),
            "lease_cancel": Command(self._lease_cancel, ("wait_id",)),
            "leases": Command(self._leases),
        }

    def _hold(self, arguments: Arguments, actor: Actor) -> dict[str, object]:
        """Keep a GPU, or one instance of it, as it is."""
        gpu = self._node.find_gpu(arguments.gpu())
        spec_text = arguments.optional_text("spec")
        spec = None if spec_text is None else self._node.spec_on(gpu, spec_text)
        record = self._node.store.add_hold(
            gpu_uuid=gpu.uuid,
            spec=spec,
            owner=name_of(actor),
            reason=arguments.text("reason"),
            expires_at=self._after(arguments.optional_duration("ttl_seconds")),
        )
        self._node.loop.publish()
        return {"hold_id": record.hold_id, **hold_view(record)}

    def _release(self, arguments: Arguments, _actor: Actor) -> dict[str, object]:
        """End a hold or a lease."""
        number = arguments.number("hold_id")
        if not self._node.store.release_hold(number):
            raise NotFound(f"no hold {number}; `migscaler holds` lists them")
        self._node.loop.publish()
        return {"released": number}

    def _holds(self, _arguments: Arguments, _actor: Actor) -> dict[str, object]:
        """Return all holds and leases."""
        snapshot = self._node.loop.status().snapshot
        return {
            "holds": [
                {**hold_view(record), "gpu": index_of(snapshot, record.gpu_uuid)}
                for record in self._node.store.holds(self._node.clock.now())
            ]
        }

    def _pause(self, arguments: Arguments, actor: Actor) -> dict[str, object]:
        """Stop acting, keep measuring; persists until resumed or over."""
        now = self._node.clock.now()
        duration = arguments.optional_duration("for_seconds")
        release = arguments.flag("release_driver")
        record = PauseRecord(
            who=name_of(actor),
            why=arguments.text("why"),
            since=now,
            until=now + duration if duration else None,
            driver_released=release,
        )
        self._node.store.write_pause(record)
        if release:
            self._node.release_driver()
        self._node.loop.publish()
        until = record.until.isoformat() if record.until else None
        return {"paused": True, "until": until, "driver_released": release}

    def _resume(self, _arguments: Arguments, _actor: Actor) -> dict[str, object]:
        """Act again."""
        was = self._node.store.pause()
        self._node.store.write_pause(None)
        # Whatever the pause says by now: it may have run out, or another have taken its place.
        self._node.resume_driver()
        self._node.loop.publish()
        return {"paused": False, "was_paused": was is not None}

    def _demand(self, _arguments: Arguments, _actor: Actor) -> dict[str, object]:
        """Return what every source says."""
        self._node.ask_unasked()
        return {
            "sources": [
                {
                    "source": status.name,
                    "known": status.known,
                    "problem": status.problem,
                    "counts": status.reading.counts.value if status.reading else None,
                    "true_at": status.reading.true_at.isoformat() if status.reading else None,
                    "expires_at": status.reading.expires_at.isoformat() if status.reading else None,
                    "wants": {w.size: w.count for w in status.reading.wants}
                    if status.reading
                    else {},
                }
                for status in self._node.loop.parts.gatherer.statuses()
            ]
        }

    def _push(self, arguments: Arguments, _actor: Actor) -> dict[str, object]:
        """Take demand that somebody pushes; always with an expiry."""
        name = SourceName(arguments.text("source"))
        gatherer = self._node.loop.parts.gatherer
        self._must_be_pushable(name)
        counts = arguments.optional_text("counts")
        wants = arguments.counts("wants")
        for size, _ in wants:
            check_size_text(size)
        now = self._node.clock.now()
        reading = Reading(
            counts=_counts(counts) if counts else self._node.pushable()[name],
            true_at=now,
            expires_at=now + arguments.duration("ttl_seconds"),
            wants=tuple(Want(size=s, count=n) for s, n in wants),
            absent_is_zero=True,
        )
        self._node.store.push(name, reading)
        gatherer.gather(name)
        return {"source": name, "expires_at": reading.expires_at.isoformat()}

    def _override(self, arguments: Arguments, _actor: Actor) -> dict[str, object]:
        """Set a rule's demand by hand; replaces its sources until it expires."""
        rule = self._rule(arguments)
        now = self._node.clock.now()
        policy = self._node.loop.parts.policy
        size = next(r.size for r in policy.rules if r.name == rule)
        count = arguments.count("count")
        reading = Reading(
            counts=Counts.TOTAL,
            true_at=now,
            expires_at=now + arguments.duration("ttl_seconds"),
            wants=(Want(size=size, count=count),),
            absent_is_zero=True,
            overrides=True,
        )
        self._node.store.push(override_name(rule), reading)
        return {"rule": rule, "count": count, "expires_at": reading.expires_at.isoformat()}

    def _clear(self, arguments: Arguments, _actor: Actor) -> dict[str, object]:
        """Forget pushed demand of a source, or a rule's override."""
        if arguments.optional_text("rule") is not None:
            arguments.must_lack("source", "can't be cleared together with rule; give one of them")
            name = override_name(self._rule(arguments))
        else:
            name = SourceName(arguments.text("source"))
        cleared = self._node.store.clear_pushed(name)
        # What a source said that is no longer in the file may still be forgotten.
        if not cleared and arguments.optional_text("rule") is None:
            self._must_be_pushable(name)
        return {"cleared": cleared}

    def _must_be_pushable(self, name: SourceName) -> None:
        """Refuse a source that takes no pushed numbers."""
        if name not in self._node.pushable():
            known = ", ".join(sorted(self._node.pushable())) or "none"
            raise NotFound(f"no source {name!r} of type push; configured: {known}")

    def _rule(self, arguments: Arguments) -> RuleName:
        """Return a rule that exists."""
        name = RuleName(arguments.text("rule"))
        names = [rule.name for rule in self._node.loop.parts.policy.rules]
        if name not in names:
            raise NotFound(f"no rule {name!r}; configured: {', '.join(names) or 'none'}")
        return name

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
            request.size, request.owner, pid=request.pid, expires_at=self._after(_WAIT_HEARTBEAT)
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

    def _after(self, duration: timedelta | None) -> datetime | None:
        """Return the moment that lies this long ahead."""
        return None if duration is None else self._node.clock.now() + duration

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
        expires_at = self._after(arguments.duration("ttl_seconds"))
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


def override_name(rule: RuleName) -> SourceName:
    """Return the name under which a rule's override is kept."""
    return SourceName(f"override:{rule}")


def hold_view(record: HoldRecord) -> dict[str, object]:
    """Return one hold or lease as plain values."""
    return {
        "hold_id": record.hold_id,
        "kind": record.kind,
        "gpu_uuid": record.gpu_uuid,
        "spec": str(record.spec) if record.spec else None,
        "owner": record.owner,
        "reason": record.reason,
        "expires_at": record.expires_at.isoformat() if record.expires_at else None,
    }


def _counts(text: str) -> Counts:
    """Read `waiting` or `total`."""
    if text not in ("waiting", "total"):
        raise CommandRefused(f"counts is waiting or total, not {text!r}")
    return Counts(text)
