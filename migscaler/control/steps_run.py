"""One NVML call of a plan: journal it, look, call, look again, journal what became of it.

A call's own answer is never trusted: what the GPU shows afterwards decides. So an answer that got
lost after the work was done counts as done, and a success that shows nothing counts as failed.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import assert_never

from migscaler.control.site import Site
from migscaler.errors import (
    HardwareError,
    InsufficientResources,
    InUse,
    NoPermission,
    StoreError,
)
from migscaler.model.gpu import GpuReading, InstanceReading
from migscaler.model.ids import CiId, GiId, GpuUuid
from migscaler.model.plan import OutcomeReason, StepFailure, StepTiming
from migscaler.model.profile import InstanceSpec
from migscaler.store.records import NvmlAction, StepRequest, StepState

_READ_TRIES = 3
_READ_PAUSE_SECONDS = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Stop:
    """Why a plan can't go on. `fault`: something is broken, not just the world moved on.

    `blind`: nothing more can be done now, not even undoing (GPU unreadable or journal unwritable);
    the plan stays open and is settled later.
    """

    reason: OutcomeReason
    explanation: str
    fault: bool = False
    blind: bool = False


Check = Callable[[GpuReading], Stop | None]
"""Looks at the GPU right before a call and says why it must not be made."""


def find_instance(reading: GpuReading, gi_id: GiId, spec: InstanceSpec) -> InstanceReading | None:
    """Return the instance of that identity, None without; ids are reused, so both count."""
    return next(
        (
            one
            for one in reading.instances or ()
            if one.instance.gi_id == gi_id and one.instance.spec == spec
        ),
        None,
    )


def instance_at(reading: GpuReading, spec: InstanceSpec) -> InstanceReading | None:
    """Return the instance of that profile and placement, None if there is none."""
    return next((one for one in reading.instances or () if one.instance.spec == spec), None)


class StepRunner:
    """Makes the calls of one plan on one GPU, one at a time, each in the journal."""

    def __init__(self, site: Site, plan_seq: int, gpu_uuid: GpuUuid) -> None:
        """Work for the plan of that journal number.

        `called`: a call was tried. `changed`: one is known to have changed something.
        """
        self.site = site
        self.plan_seq = plan_seq
        self.gpu_uuid = gpu_uuid
        self.timings: list[StepTiming] = []
        self.failures: list[StepFailure] = []
        self.changed = False
        self.called = False

    def look(self) -> GpuReading | Stop:
        """Read the GPU afresh, a few times if it does not answer."""
        problem = "no answer"
        for attempt in range(_READ_TRIES):
            if attempt:
                self.site.clock.sleep(_READ_PAUSE_SECONDS)
            try:
                reading = self.site.reader.read_gpu(self.gpu_uuid)
            except HardwareError as error:
                problem = str(error)
                continue
            if reading.instances is not None:
                return reading
            problem = "; ".join(gap.why for gap in reading.gaps) or "instances can't be listed"
        return Stop(reason=OutcomeReason.DRIVER_FAULT, explanation=problem, fault=True, blind=True)

    def run(self, request: StepRequest, check: Check) -> GpuReading | Stop:
        """Make one call and return the GPU as it is after it, or why it was not made or failed.

        Between `begun` in the journal and the call lies one fresh reading, which `check` judges.
        """
        started, in_nvml = self.site.clock.monotonic(), self._nvml_seconds()
        try:
            result = self._run(request, check)
        except StoreError as problem:
            return Stop(
                reason=OutcomeReason.JOURNAL_UNWRITABLE,
                explanation=str(problem),
                fault=True,
                blind=True,
            )
        if not isinstance(result, Stop):
            self.changed = True
            self.timings.append(
                StepTiming(
                    kind=request.action.value,
                    seconds=self.site.clock.monotonic() - started,
                    nvml_seconds=self._nvml_seconds() - in_nvml,
                )
            )
        return result

    def _run(self, request: StepRequest, check: Check) -> GpuReading | Stop:
        """Do what `run` does, leaving the journal's errors to it."""
        ticket = self.site.store.begin_step(self.plan_seq, self.gpu_uuid, request)
        if ticket.step_id is None:
            return Stop(reason=ticket.reason, explanation=ticket.refused_by)
        before = self.look()
        stop = before if isinstance(before, Stop) else check(before)
        if stop is not None or isinstance(before, Stop):
            self.site.store.end_step(ticket.step_id, StepState.VOID, note=_note(stop))
            return stop if stop is not None else before
        self.called = True
        error = self._call(request)
        after = self.look()
        if not isinstance(after, Stop):
            after = self._judge(ticket.step_id, request, after, error)
        if isinstance(after, Stop):
            failure = StepFailure(kind=request.action.value, reason=after.reason)
            self.failures.append(failure)
        return after

    def _call(self, request: StepRequest) -> HardwareError | None:
        """Make the NVML call; its error is a matter of judging, not of control flow."""
        writer, gpu = self.site.writer, self.gpu_uuid
        gi_id, ci_id = request.gi_id or GiId(0), request.ci_id or CiId(0)
        try:
            match request.action:
                case NvmlAction.DESTROY_CI:
                    writer.destroy_compute_instance(gpu, gi_id, ci_id)
                case NvmlAction.DESTROY_GI:
                    writer.destroy_gpu_instance(gpu, gi_id)
                case NvmlAction.CREATE_GI:
                    writer.create_gpu_instance(gpu, request.spec)
                case NvmlAction.CREATE_CI:
                    writer.create_compute_instance(gpu, gi_id)
                case _:
                    assert_never(request.action)
        except HardwareError as error:
            return error
        return None

    def _judge(
        self, step_id: int, request: StepRequest, after: GpuReading, error: HardwareError | None
    ) -> GpuReading | Stop:
        """Write whether the call happened, going by what the GPU shows."""
        store, note = self.site.store, "" if error is None else str(error)
        happened, gi_id, ci_id = happened_by(request.action, request.spec, request.gi_id, after)
        if happened:
            store.end_step(step_id, StepState.DONE, gi_id=gi_id, ci_id=ci_id, note=note)
            return after
        store.end_step(step_id, StepState.VOID, note=note or "it did not happen")
        return _stop_for(request, after, error)

    def _nvml_seconds(self) -> float:
        """Return the seconds spent in NVML so far."""
        return sum(one.seconds for one in self.site.reader.call_stats().functions)


def happened_by(
    action: NvmlAction, spec: InstanceSpec, gi_id: GiId | None, after: GpuReading
) -> tuple[bool, GiId | None, CiId | None]:
    """Say by a reading taken after it whether a call happened, and which ids it gave.

    A GI that is there where ours was to be made, with a CI before we made one, is somebody else's.
    """
    if action is NvmlAction.CREATE_GI:
        made = instance_at(after, spec)
        if made is None or made.instance.compute_instances:
            return (False, None, None)
        return (True, made.instance.gi_id, None)
    found = None if gi_id is None else find_instance(after, gi_id, spec)
    if action is NvmlAction.DESTROY_GI:
        return (found is None, None, None)
    cis = () if found is None else found.instance.compute_instances
    if action is NvmlAction.DESTROY_CI:
        return (not cis, None, None)
    return (bool(cis), None, cis[0].ci_id if cis else None)


def _note(stop: Stop | None) -> str:
    """Return the words of a stop for the journal."""
    return "" if stop is None else stop.explanation


def _stop_for(request: StepRequest, after: GpuReading, error: HardwareError | None) -> Stop:
    """Return what a call that did not happen means."""
    what = f"{request.action.value} {request.spec}"
    match error:
        case InUse():
            return _in_use(request, after, what)
        case InsufficientResources():
            reason = OutcomeReason.INSUFFICIENT_RESOURCES
        case NoPermission():
            reason = OutcomeReason.NO_PERMISSION
        case None:
            reason = OutcomeReason.NOT_VERIFIED
        case _:
            reason = OutcomeReason.DRIVER_FAULT
    why = "answered success, but the GPU does not show it" if error is None else str(error)
    return Stop(reason=reason, explanation=f"{what}: {why}", fault=True)


def _in_use(request: StepRequest, after: GpuReading, what: str) -> Stop:
    """Return the expected refusal: a process in sight holds it, or a client without one."""
    found = None if request.gi_id is None else find_instance(after, request.gi_id, request.spec)
    if found is not None and found.processes:
        users = ", ".join(map(str, found.processes))
        return Stop(
            reason=OutcomeReason.NO_LONGER_IDLE,
            explanation=f"{what}: in use by {users}",
        )
    return Stop(
        reason=OutcomeReason.HELD_BY_CLIENT,
        explanation=f"{what}: in use, but no process is listed; some client holds a handle",
    )
