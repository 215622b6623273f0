"""What a plan's finished calls add up to, and what promise (b) asks for after them."""

from collections import Counter
from dataclasses import dataclass, field

from migscaler.control.last_look import Identities
from migscaler.model.gpu import GpuReading
from migscaler.model.ids import GiId
from migscaler.model.profile import InstanceSpec
from migscaler.store.records import NvmlAction, PlanRecord, StepRecord


@dataclass(slots=True)
class Ledger:
    """What a plan's finished calls add up to, by identity."""

    created: set[tuple[GiId, InstanceSpec]] = field(default_factory=set)
    destroyed: set[InstanceSpec] = field(default_factory=set)
    without_ci: set[tuple[GiId, InstanceSpec]] = field(default_factory=set)

    def add(self, step: StepRecord) -> None:
        """Take one call into account that is done."""
        if step.gi_id is None:
            return
        key = (step.gi_id, step.spec)
        match step.action:
            case NvmlAction.DESTROY_CI:
                self.without_ci.add(key)
            case NvmlAction.DESTROY_GI:
                self.without_ci.discard(key)
                self.created.discard(key)
                self.destroyed.add(step.spec)
            case NvmlAction.CREATE_GI:
                self.created.add(key)
                self.without_ci.add(key)
            case NvmlAction.CREATE_CI:
                self.without_ci.discard(key)


def required(record: PlanRecord, ledger: Ledger, reading: GpuReading) -> Counter[str]:
    """Return what promise (b) asks for: min(before, after), less what others took away."""
    there = {one.instance.spec for one in reading.instances or ()}
    before = Counter(
        spec.profile for spec in record.before.specs if spec in there or spec in ledger.destroyed
    )
    made = {spec for _, spec in ledger.created}
    after = Counter(
        spec.profile for spec in record.after.specs if spec not in made or spec in there
    )
    return before & after


def usable(reading: GpuReading, ledger: Ledger) -> Counter[str]:
    """Count the instances that are whole, or that we never touched."""
    touched: Identities = frozenset(ledger.created | ledger.without_ci)
    return Counter(
        one.instance.spec.profile
        for one in reading.instances or ()
        if one.instance.usable or (one.instance.gi_id, one.instance.spec) not in touched
    )
