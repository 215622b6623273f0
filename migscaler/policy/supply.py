"""What there is for each rule: instances in use, free to use, and present but not known.

Only GPUs that a line of `gpus:` names count, on either side. A profile of a model serves the first
rule, in order, whose size means it there.
"""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

from migscaler.model.decision import DecisionInput, GpuHistory
from migscaler.model.gpu import GpuState, InstanceState, NodeSnapshot, PinReason
from migscaler.model.ids import GpuUuid, RuleName
from migscaler.model.layout import GpuModel, Layout
from migscaler.model.policy import GpuEntry, Policy, Rule
from migscaler.model.profile import InstanceSpec
from migscaler.policy.idleness import is_in_use


@dataclass(frozen=True, slots=True, kw_only=True)
class ManagedGpu:
    """A GPU that the policy names and that can do MIG.

    `keys` pairs each profile name with the rule it serves. `problem` says why its layout can't be
    planned now (None: it can); `is_off` if that is MIG mode. `history` is what is remembered of it.
    """

    state: GpuState
    entry: GpuEntry
    model: GpuModel | None
    keys: tuple[tuple[str, RuleName], ...]
    history: GpuHistory
    problem: str | None = None
    is_off: bool = False

    @property
    def uuid(self) -> GpuUuid:
        """Return the GPU's UUID."""
        return self.state.uuid

    @property
    def instances(self) -> tuple[InstanceState, ...]:
        """Return the instances as far as they are known."""
        return self.state.instances or ()

    @property
    def layout(self) -> Layout:
        """Return the layout that its known instances make."""
        return Layout(tuple(one.spec for one in self.instances))

    def rule_of(self, profile: str) -> RuleName | None:
        """Return the rule that a profile serves on this GPU."""
        return dict(self.keys).get(profile)

    def supplies(self, one: InstanceState) -> bool:
        """Say whether the instance is free to use: idle, or quiet and only not long enough."""
        return self.problem is None and one.pin in (None, PinReason.SETTLING)

    def specs(self, *, idle: bool) -> tuple[InstanceSpec, ...]:
        """Return the idle instances, or the pinned ones."""
        return tuple(one.spec for one in self.instances if (one.pin is None) is idle)


@dataclass(frozen=True, slots=True, kw_only=True)
class RuleSupply:
    """Instances of one rule's size on managed GPUs.

    `idle` and `settling` are free to use; `unseen` are present, or may be, without being known to
    be free or in use. Held, protected and quietly busy instances are in none of them.
    """

    in_use: int = 0
    idle: int = 0
    settling: int = 0
    unseen: int = 0

    @property
    def free(self) -> int:
        """Return the instances free to use."""
        return self.idle + self.settling

    @property
    def present(self) -> int:
        """Return the instances that missing data must not make us create again."""
        return self.in_use + self.unseen


@dataclass(frozen=True, slots=True, kw_only=True)
class Survey:
    """The managed GPUs by rising UUID, and the supply of every rule."""

    gpus: tuple[ManagedGpu, ...]
    supply: Mapping[RuleName, RuleSupply]
    models: tuple[GpuModel, ...]

    @property
    def plannable(self) -> tuple[ManagedGpu, ...]:
        """Return the GPUs whose layout may be planned."""
        return tuple(gpu for gpu in self.gpus if gpu.problem is None)

    def gpu(self, uuid: GpuUuid) -> ManagedGpu:
        """Return a managed GPU.

        Raises:
            KeyError: no managed GPU has that UUID.
        """
        for gpu in self.gpus:
            if gpu.uuid == uuid:
                return gpu
        raise KeyError(uuid)

    def free_in(
        self, layouts: Mapping[GpuUuid, Layout], *, only_use_blocks: bool = False
    ) -> Counter[str]:
        """Return the free instances per rule once these layouts are there; other GPUs stay.

        `only_use_blocks`: count everything that isn't in use, whatever else pins it.
        """
        found: Counter[str] = Counter()
        for gpu in self.plannable:
            blocked = {
                one.spec
                for one in gpu.instances
                if (is_in_use(one) if only_use_blocks else not gpu.supplies(one))
            }
            for spec in layouts.get(gpu.uuid, gpu.layout).specs:
                rule = gpu.rule_of(spec.profile)
                if rule is not None and spec not in blocked:
                    found[rule] += 1
        return found


def survey(inp: DecisionInput) -> Survey:
    """Return what there is for every rule of the input."""
    histories = {history.gpu_uuid: history for history in inp.history.gpus}
    return _survey(inp.snapshot, inp.policy, inp.now, histories)


def in_use_by_size(
    snapshot: NodeSnapshot, policy: Policy, now: datetime
) -> tuple[tuple[str, int], ...]:
    """Return the instances in use per size text of the rules; `in_use_at_reading` records it."""
    found = _survey(snapshot, policy, now, {})
    counts: dict[str, int] = {}
    for rule in policy.rules:
        counts[rule.size] = max(counts.get(rule.size, 0), found.supply[rule.name].in_use)
    return tuple(sorted(counts.items()))


def rule_keys(model: GpuModel, rules: tuple[Rule, ...]) -> tuple[tuple[str, RuleName], ...]:
    """Return (profile name, rule) for every profile of a model that some rule asks for."""
    keys: dict[str, RuleName] = {}
    for rule in rules:
        profile = model.resolve(rule.size)
        if profile is not None:
            keys.setdefault(profile.name, rule.name)
    return tuple(sorted(keys.items()))


def _survey(
    snapshot: NodeSnapshot,
    policy: Policy,
    now: datetime,
    histories: Mapping[GpuUuid, GpuHistory],
) -> Survey:
    """Return what there is for every rule."""
    by_name = {
        gpu.reading.name: gpu.reading.model
        for gpu in sorted(snapshot.gpus, key=lambda gpu: gpu.uuid)
        if gpu.reading.model is not None
    }
    managed = []
    for state in sorted(snapshot.gpus, key=lambda gpu: gpu.uuid):
        entry = policy.entry_for(state.reading, now)
        model = state.reading.model or by_name.get(state.reading.name)
        if entry is None or _never_mig(state):
            continue
        problem, is_off = _problem(state)
        managed.append(
            ManagedGpu(
                state=state,
                entry=entry,
                model=model,
                keys=() if model is None else rule_keys(model, policy.rules),
                history=histories.get(state.uuid, GpuHistory(gpu_uuid=state.uuid)),
                problem=problem,
                is_off=is_off,
            )
        )
    gpus = tuple(managed)
    models = {model.name: model for model in by_name.values()}
    return Survey(
        gpus=gpus,
        supply={rule.name: _supply(rule.name, gpus) for rule in policy.rules},
        models=tuple(models[name] for name in sorted(models)),
    )


def _never_mig(state: GpuState) -> bool:
    """Say whether the GPU answered that it can't do MIG at all."""
    reading = state.reading
    answered = not reading.gaps and state.excluded is None
    return answered and reading.mig_enabled is None and reading.model is None


def _problem(state: GpuState) -> tuple[str | None, bool]:
    """Return why a GPU's layout can't be planned, and whether that is MIG mode."""
    reading = state.reading
    if state.excluded is not None:
        return state.excluded, False
    if reading.mig_enabled is False:
        pending = " (on is pending)" if reading.mig_pending else ""
        return f"MIG mode is off{pending}", True
    if reading.mig_pending is False:
        return "MIG mode is about to be switched off (pending)", True
    if reading.model is None or state.instances is None or reading.mig_enabled is None:
        why = "; ".join(sorted(gap.why for gap in reading.gaps)) or "no answer"
        return f"its layout could not be read: {why}", False
    if overlaps(state):
        return "its instances were read while they changed: they overlap", False
    return None, False


def overlaps(state: GpuState) -> bool:
    """Say whether two instances claim the same slice: a reading that can't be true."""
    covered = 0
    for one in state.instances or ():
        if covered & one.spec.mask:
            return True
        covered |= one.spec.mask
    return False


def _supply(rule: RuleName, gpus: tuple[ManagedGpu, ...]) -> RuleSupply:
    """Count one rule's instances."""
    in_use = idle = settling = unseen = 0
    for gpu in gpus:
        if gpu.state.instances is None:
            unseen += _out_of_sight(rule, gpu)
        for one in gpu.instances:
            if gpu.rule_of(one.spec.profile) != rule:
                continue
            in_use += is_in_use(one)
            idle += gpu.supplies(one) and one.pin is None
            settling += gpu.supplies(one) and one.pin is PinReason.SETTLING
            unseen += one.pin is PinReason.UNKNOWN or (
                gpu.problem is not None and one.pin in (None, PinReason.SETTLING)
            )
    return RuleSupply(in_use=in_use, idle=idle, settling=settling, unseen=unseen)


def _out_of_sight(rule: RuleName, gpu: ManagedGpu) -> int:
    """Return how many instances of a rule a GPU that can't be read may have.

    The layout last carried out for it tells; without one, the most that the profile allows.
    """
    if gpu.is_off:
        return 0
    if gpu.history.wanted is not None:
        return sum(gpu.rule_of(spec.profile) == rule for spec in gpu.history.wanted.specs)
    profiles = () if gpu.model is None else gpu.model.profiles
    return max((p.max_instances for p in profiles if gpu.rule_of(p.name) == rule), default=0)
