"""Commands about holds, pause and pushed demand."""

from migscaler.app.accounts import name_of
from migscaler.app.arguments import Arguments
from migscaler.app.node import Command, Node
from migscaler.errors import CommandRefused, NotFound
from migscaler.model.decision import HoldRecord, PauseRecord
from migscaler.model.demand import Counts, Reading, Want
from migscaler.model.ids import RuleName, SourceName
from migscaler.model.profile import check_size_text
from migscaler.web.ports import Actor
from migscaler.web.views import index_of


class HoldingCommands:
    """What people claim, stop or ask for."""

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
            expires_at=self._node.after(arguments.optional_duration("ttl_seconds")),
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
