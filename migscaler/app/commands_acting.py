"""Commands that change GPUs, or allow it again; every one has a dry run."""

from dataclasses import asdict, replace

from migscaler.app.arguments import Arguments
from migscaler.app.node import Command, Node
from migscaler.app.nvidia_smi import command_lines
from migscaler.app.plan_view import decision_view, outcome_view, plan_view
from migscaler.control.aftermath import closed_breaker
from migscaler.control.mig_mode import ModeResult, one_by_one
from migscaler.control.orphans import is_orphan, plan_removal
from migscaler.control.request import plan_layout, refuse_switched_off
from migscaler.errors import CommandRefused
from migscaler.model.decision import DecisionInput
from migscaler.model.gpu import GpuState, NodeSnapshot
from migscaler.model.plan import Hold, Outcome, Plan
from migscaler.model.policy import Mode
from migscaler.model.profile import InstanceSpec
from migscaler.policy.decide import decide
from migscaler.policy.gates import owner_words
from migscaler.web.ports import Actor


class ActingCommands:
    """Apply, settle, MIG mode, breakers, reload."""

    def __init__(self, node: Node) -> None:
        """Take the node."""
        self._node = node

    def table(self) -> dict[str, Command]:
        """Return the commands by name, each with what it takes."""
        return {
            "apply": Command(self._apply, ("dry_run", "gpu", "layout")),
            "orphans": Command(self._orphans),
            "remove_orphan": Command(self._remove_orphan, ("gpu", "instance")),
            "settle": Command(self._settle, ("dry_run",)),
            "mig_mode": Command(self._mig_mode, ("dry_run", "enabled", "gpus", "layout")),
            "breaker_reset": Command(self._breaker_reset, ("gpu",)),
            "reload": Command(self._reload),
        }

    def _apply(self, arguments: Arguments, _actor: Actor) -> dict[str, object]:
        """Carry out the present plan, or give one GPU a named layout."""
        layout = arguments.optional_text("layout")
        dry_run = arguments.flag("dry_run")
        if layout is not None:
            return self._apply_layout(arguments.gpu(), layout, dry_run=dry_run)
        arguments.must_lack("gpu", "goes with layout; without one the plan is for all GPUs")
        inp = self._node.input_of_decision()
        decision = decide(allowed(inp))
        answer = decision_view(decision, inp.snapshot)
        if dry_run or isinstance(decision.outcome, Hold):
            return {**answer, "outcomes": [], "dry_run": dry_run}
        return {**answer, "outcomes": self._carry_out(decision.outcome), "dry_run": False}

    def _apply_layout(self, gpu_name: str, layout: str, *, dry_run: bool) -> dict[str, object]:
        """Give one GPU a layout; what is in use there stays."""
        gpu = self._node.find_gpu(gpu_name)
        self._must_be_ours(gpu)
        refuse_switched_off(gpu)
        self._must_not_be_anothers()
        gpu_plan = plan_layout(gpu, layout, self._node.store.holds(self._node.clock.now()))
        if gpu_plan is None:
            return {
                "sentence": f"GPU {gpu.reading.index} has that layout already",
                "gpu_plans": [],
                "outcomes": [],
                "nvidia_smi": [],
                "dry_run": dry_run,
            }
        plan = Plan(gpu_plans=(gpu_plan,))
        snapshot = self._node.snapshot()
        return {
            "sentence": f"GPU {gpu.reading.index}: {gpu_plan.before} to {gpu_plan.after}",
            "gpu_plans": plan_view(plan, snapshot),
            "nvidia_smi": list(command_lines(plan, snapshot)),
            "outcomes": [] if dry_run else self._carry_out(plan),
            "dry_run": dry_run,
        }

    def _orphans(self, _arguments: Arguments, _actor: Actor) -> dict[str, object]:
        """GPU instances without compute instance, and what keeps each."""
        snapshot = self._node.snapshot()
        found = [
            {
                "gpu": gpu.reading.index,
                "gpu_uuid": gpu.uuid,
                "instance": str(one.spec),
                "gi_id": one.gi_id,
                **self._removal(snapshot, gpu, one.spec),
            }
            for gpu in snapshot.gpus
            for one in gpu.instances or ()
            if is_orphan(one)
        ]
        return {"orphans": found}

    def _removal(
        self, snapshot: NodeSnapshot, gpu: GpuState, spec: InstanceSpec
    ) -> dict[str, object]:
        """Return the steps that would remove an orphan, or what keeps it."""
        try:
            self._must_be_ours(gpu)
            plan = plan_removal(snapshot, gpu, spec)
        except CommandRefused as refusal:
            return {"steps": [], "kept": str(refusal)}
        return {"steps": list(map(str, plan.steps)), "kept": None}

    def _remove_orphan(self, arguments: Arguments, _actor: Actor) -> dict[str, object]:
        """Remove one GPU instance without compute instance."""
        gpu = self._node.find_gpu(arguments.gpu())
        model = gpu.reading.model
        if model is None:
            raise CommandRefused(f"the profiles of GPU {gpu.reading.index} are not known")
        spec = model.spec(arguments.text("instance"))
        self._must_be_ours(gpu)
        plan = plan_removal(self._node.snapshot(), gpu, spec)
        return {"outcomes": self._carry_out(Plan(gpu_plans=(plan,)))}

    def _must_be_ours(self, gpu: GpuState) -> None:
        """Refuse for a GPU that is only observed, or whose layout is somebody else's."""
        owner = gpu.reading.foreign_owner
        if owner is not None:
            raise CommandRefused(f"GPU {gpu.reading.index} is left alone: {owner.words}")
        entry = self._node.loop.parts.policy.entry_for(gpu.reading, self._node.clock.now())
        if entry is None or entry.mode is Mode.OBSERVE:
            why = (entry.reason if entry else None) or "its mode is observe"
            raise CommandRefused(
                f"GPU {gpu.reading.index} is left alone ({why}); name it in gpus: with mode "
                "recommend or enforce to allow it"
            )

    def _must_not_be_anothers(self) -> None:
        """Refuse beside somebody who shapes the node's GPUs, or may: he would undo it."""
        owner = owner_words(self._node.snapshot())
        if owner is not None:
            raise CommandRefused(owner)

    def _must_not_be_paused(self) -> None:
        """Refuse during a pause."""
        pause = self._node.store.pause()
        if pause is not None:
            raise CommandRefused(f"paused by {pause.who}: {pause.why}; `migscaler resume` first")

    def _carry_out(self, plan: Plan) -> list[dict[str, object]]:
        """Execute a plan now, after a look at what forbids it."""
        self._must_have_writer()
        self._must_not_be_paused()
        return self._ended(self._node.loop.request(plan))

    def _ended(self, outcomes: tuple[Outcome, ...]) -> list[dict[str, object]]:
        """Return how plans ended, each with its GPU's index as it is now."""
        snapshot = self._node.loop.status().snapshot
        return [outcome_view(outcome, snapshot) for outcome in outcomes]

    def _settle(self, arguments: Arguments, _actor: Actor) -> dict[str, object]:
        """End plans that were found open."""
        dry_run = arguments.flag("dry_run")
        if not dry_run:
            self._must_have_writer()
            self._must_not_be_anothers()
        outcomes = self._node.settle(not dry_run)
        return {"outcomes": self._ended(outcomes), "dry_run": dry_run}

    def _mig_mode(self, arguments: Arguments, _actor: Actor) -> dict[str, object]:
        """Switch MIG mode, one GPU at a time."""
        enabled, dry_run = arguments.required_flag("enabled"), arguments.flag("dry_run")
        layout, switch = arguments.optional_text("layout"), self._node.mode_switch
        if switch is None:
            raise CommandRefused(self._node.why_no_writer)
        names = arguments.gpus("gpus")

        def change_one(gpu: GpuState) -> ModeResult:
            # Asked again: minutes may lie between two GPUs.
            self._may_switch(gpu)
            return switch.change(gpu, layout, enabled=enabled, dry_run=False)

        def change_all() -> list[ModeResult]:
            # All that may forbid it is asked here: it may have come while a plan was waited for.
            gpus = [self._node.find_gpu(named) for named in names]
            for gpu in gpus:
                self._may_switch(gpu)
            foreseen = [switch.change(gpu, layout, enabled=enabled, dry_run=True) for gpu in gpus]
            if dry_run:
                return foreseen
            return one_by_one(gpus, change_one)

        results = list(map(asdict, self._node.loop.between_ticks(change_all)))
        return {"results": results, "dry_run": dry_run}

    def _may_switch(self, gpu: GpuState) -> None:
        """Refuse to switch the mode of a GPU that `apply` would refuse to change, or that is held.

        A switch is no call that the journal could refuse: nobody else asks for pause and holds.
        """
        self._must_be_ours(gpu)
        self._must_not_be_anothers()
        self._must_not_be_paused()
        store, index = self._node.store, gpu.reading.index
        for hold in store.holds(self._node.clock.now()):
            if hold.gpu_uuid == gpu.uuid:
                raise CommandRefused(f"GPU {index} is held by {hold.owner}: {hold.reason}")
        for plan in store.open_plans():
            if plan.gpu_uuid == gpu.uuid:
                raise CommandRefused(
                    f"plan {plan.plan_id} is still open on GPU {index}; "
                    "`migscaler apply --settle` first"
                )

    def _breaker_reset(self, arguments: Arguments, _actor: Actor) -> dict[str, object]:
        """Close a GPU's breaker and end its rest."""
        gpu = self._node.find_gpu(arguments.gpu())
        history = self._node.store.update_gpu_history(gpu.uuid, closed_breaker)
        self._node.loop.publish()
        return {"gpu": gpu.reading.index, "was_open": history.breaker_open_until is not None}

    def _reload(self, _arguments: Arguments, _actor: Actor) -> dict[str, object]:
        """Read the configuration anew, all or nothing."""
        problems = self._node.reload()
        if problems:
            raise CommandRefused("the old configuration stays: " + "; ".join(problems))
        return {"reloaded": True}

    def _must_have_writer(self) -> None:
        """Refuse where nothing may be changed."""
        if self._node.loop.parts.enforcer is None:
            raise CommandRefused(self._node.why_no_writer)


def allowed(inp: DecisionInput) -> DecisionInput:
    """Return the input with every GPU in `recommend` raised to `enforce`: a person asked for it.

    GPUs in `observe` stay untouched; that mode is how they are protected.
    """
    entries = tuple(
        replace(entry, mode=Mode.ENFORCE) if entry.mode is Mode.RECOMMEND else entry
        for entry in inp.policy.gpus
    )
    return replace(
        inp,
        policy=replace(inp.policy, gpus=entries),
        conditions=replace(inp.conditions, forced_observe=None),
    )
