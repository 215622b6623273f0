"""The forward half of a GPU plan: call after call, each on a GPU that is as expected."""

from dataclasses import dataclass

from migscaler.control.last_look import (
    Identities,
    identities,
    same_instances,
    same_uuids,
    still_free,
)
from migscaler.control.steps_run import StepRunner, Stop, find_instance, instance_at
from migscaler.model.gpu import GpuReading, GpuState, InstanceReading
from migscaler.model.ids import CiId, GiId
from migscaler.model.plan import OutcomeReason, Step, StepAction
from migscaler.model.profile import InstanceSpec
from migscaler.store.records import NvmlAction, PlanRecord, Purpose, StepRequest


@dataclass(slots=True, kw_only=True)
class GpuChange:
    """Carries a plan's steps out; `expected` is what the GPU must show before the next call."""

    runner: StepRunner
    record: PlanRecord
    assumed: GpuState
    margin_bytes: int
    purpose: Purpose = Purpose.FORWARD
    expected: Identities = frozenset()

    def carry_out(self) -> GpuReading | Stop:
        """Look, make every call, look again; return the GPU as verified, or why it stopped.

        Nothing was changed if the runner says so. What was changed is not undone here.
        """
        reading = self._first_look()
        if isinstance(reading, Stop):
            return reading
        self.expected = identities(reading)
        for step in self.record.steps:
            result = (
                self._destroy(step, reading)
                if step.action is StepAction.DESTROY
                else self._create(step)
            )
            if isinstance(result, Stop):
                return result
            reading = result
        return self._verify()

    def _first_look(self) -> GpuReading | Stop:
        """Read the GPU and drop the plan if it is not as it was when the plan was made."""
        reading = self.runner.look()
        if isinstance(reading, Stop):
            return reading
        if reading.foreign_owner is not None:  # an answer denied until now may have hidden it
            return Stop(
                reason=OutcomeReason.GATE_CLOSED,
                explanation=f"the GPU is left alone: {reading.foreign_owner.words}",
            )
        assumed = self.assumed.reading
        # The loop plans nothing where MIG is to go off; who puts back after a switch that stays
        # pending does, and knew.
        if not reading.mig_enabled or reading.mig_pending != assumed.mig_pending:
            return Stop(
                reason=OutcomeReason.CHANGED_UNDERNEATH,
                explanation="MIG mode is off, or was asked to change, since the plan was made",
            )
        if reading.layout != self.record.before:
            return Stop(
                reason=OutcomeReason.CHANGED_UNDERNEATH,
                explanation=f"the plan assumed {self.record.before}, there is {reading.layout}",
            )
        stop = same_instances(reading, identities(assumed)) or same_uuids(reading, assumed)
        if stop is not None:
            return stop
        for step in self.record.steps:
            found = instance_at(reading, step.spec)
            if step.action is StepAction.DESTROY and found is not None:
                stop = self._busy(reading, found)
                if stop is not None:
                    return stop
        return reading

    def _destroy(self, step: Step, reading: GpuReading) -> GpuReading | Stop:
        """Take an instance away: its compute instance, then itself."""
        found = instance_at(reading, step.spec)
        if found is None:
            return Stop(reason=OutcomeReason.CHANGED_UNDERNEATH, explanation=f"{step.spec} is gone")
        gi_id = found.instance.gi_id
        for ci in found.instance.compute_instances:
            result = self._call(NvmlAction.DESTROY_CI, step.spec, gi_id, ci.ci_id)
            if isinstance(result, Stop):
                return result
        result = self._call(NvmlAction.DESTROY_GI, step.spec, gi_id)
        self.expected -= {(gi_id, step.spec)}
        return result

    def _create(self, step: Step) -> GpuReading | Stop:
        """Make an instance: itself, then its compute instance."""
        result = self._call(NvmlAction.CREATE_GI, step.spec)
        if isinstance(result, Stop):
            return result
        made = instance_at(result, step.spec)
        if made is None:
            return Stop(reason=OutcomeReason.CHANGED_UNDERNEATH, explanation=f"{step.spec} is gone")
        self.expected |= {(made.instance.gi_id, step.spec)}
        return self._call(NvmlAction.CREATE_CI, step.spec, made.instance.gi_id)

    def _call(
        self,
        action: NvmlAction,
        spec: InstanceSpec,
        gi_id: GiId | None = None,
        ci_id: CiId | None = None,
    ) -> GpuReading | Stop:
        """Make one call on a GPU that shows what is expected and where nobody came in between."""
        request = StepRequest(
            action=action,
            spec=spec,
            purpose=self.purpose,
            gi_id=gi_id,
            ci_id=ci_id,
            heed_pause=not self.runner.changed,
        )
        return self.runner.run(request, _Before(change=self, request=request))

    def _verify(self) -> GpuReading | Stop:
        """Read the GPU: every new instance must be there and whole.

        What others changed beside them meanwhile is theirs; undoing ours would not bring it back.
        """
        reading = self.runner.look()
        if isinstance(reading, Stop):
            return reading
        for step in self.record.steps:
            found = instance_at(reading, step.spec)
            if step.action is StepAction.CREATE and (found is None or not found.instance.usable):
                return Stop(
                    reason=OutcomeReason.NOT_VERIFIED,
                    explanation=f"{step.spec} was made but is not there as one usable instance",
                    fault=True,
                )
        return reading

    def _busy(self, reading: GpuReading, one: InstanceReading) -> Stop | None:
        """Say who has an instance now, going by the memory it showed when it was judged idle."""
        known = find_instance(self.assumed.reading, one.instance.gi_id, one.instance.spec)
        used = None if known is None else known.memory_used_bytes
        limit = None if used is None else used + self.margin_bytes
        return still_free(self.runner.site, reading, one, limit)

    def check(self, request: StepRequest, reading: GpuReading) -> Stop | None:
        """Judge a fresh reading right before a call."""
        stop = same_instances(reading, self.expected)
        if stop is not None or request.gi_id is None:
            return stop
        found = find_instance(reading, request.gi_id, request.spec)
        if found is None:
            return stop
        cis = found.instance.compute_instances
        if request.action is NvmlAction.DESTROY_CI and [ci.ci_id for ci in cis] == [request.ci_id]:
            return self._busy(reading, found)
        if request.action is not NvmlAction.DESTROY_CI and not cis:
            # Without a compute instance nothing can run; a process listed all the same is believed.
            return None if not found.processes else _other(request.spec)
        return _other(request.spec)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Before:
    """The look before one call of a change."""

    change: GpuChange
    request: StepRequest

    def __call__(self, reading: GpuReading) -> Stop | None:
        """Say why the call must not be made."""
        return self.change.check(self.request, reading)


def _other(spec: InstanceSpec) -> Stop:
    """Return the stop for an instance whose compute instances are not as expected."""
    return Stop(
        reason=OutcomeReason.CHANGED_UNDERNEATH,
        explanation=f"the compute instances of {spec} are not as expected",
    )
