"""Plans that a person asks for: a named layout of one GPU, made with what is idle there."""

from collections import Counter
from collections.abc import Collection, Mapping, Sequence

from migscaler.control.restores import held_text
from migscaler.errors import CommandRefused
from migscaler.model.decision import HoldRecord
from migscaler.model.gpu import GpuState, InstanceState, NodeSnapshot
from migscaler.model.ids import GpuUuid
from migscaler.model.layout import GpuModel, Layout
from migscaler.model.plan import GpuPlan, Plan
from migscaler.model.profile import InstanceSpec
from migscaler.planner.layouts import all_layouts
from migscaler.planner.steps import order_steps
from migscaler.store.records import PlanRecord
from migscaler.store.store import Store


def refuse_switched_off(gpu: GpuState) -> None:
    """Refuse a GPU that can take no layout now, since MIG mode is off or about to change.

    Raises:
        CommandRefused: so it is; the message says what to do first.
    """
    reading = gpu.reading
    if reading.mig_enabled is None or reading.mig_enabled is reading.mig_pending is True:
        return
    if reading.mig_enabled is not reading.mig_pending:
        word = "on" if reading.mig_pending else "off"
        raise CommandRefused(
            f"MIG mode {word} of GPU {reading.index} is pending; reset the GPU first"
            f" (nvidia-smi --gpu-reset -i {reading.index}) or take that back"
            f" (migscaler mig-mode {'off' if reading.mig_pending else 'on'} --gpu {reading.index})"
        )
    raise CommandRefused(
        f"MIG mode of GPU {reading.index} is off; first:"
        f" migscaler mig-mode on --gpu {reading.index}, which takes --layout too"
    )


def plan_layout(gpu: GpuState, wanted: str, holds: Sequence[HoldRecord] = ()) -> GpuPlan | None:
    """Return the plan that gives a GPU the named layout; None when it has it already.

    `wanted` is specs (`3g@0 3g@4`) or sizes (`3g 3g`), whose placements are then chosen so that
    instances in use stay where they are and as few as possible change. `holds` are those in force,
    which may be younger than the picture of the GPU.

    Raises:
        CommandRefused: the GPU's layout is not known, or something in use is in the way.
        ParseError: the text is not a legal layout of this model.
    """
    model, before = gpu.reading.model, gpu.layout
    if model is None or before is None or gpu.instances is None:
        gaps = "; ".join(f"{gap.what}: {gap.why}" for gap in gpu.reading.gaps)
        why = gaps or "is MIG on?"
        raise CommandRefused(f"GPU {gpu.reading.index} has no readable MIG layout ({why})")
    if not wanted.split():
        raise CommandRefused("a GPU is never left without an instance; name a layout")
    mine = [hold for hold in holds if hold.gpu_uuid == gpu.uuid]
    pinned = {state.spec: why_pinned(state) for state in gpu.instances if state.pin is not None}
    pinned |= {hold.spec: held_text(hold) for hold in mine if hold.spec and hold.spec in before}
    after = _named(model, wanted) if "@" in wanted else place(model, wanted, before, pinned)
    missing = [spec for spec in pinned if spec not in after]
    if missing:
        why = pinned[missing[0]]
        raise CommandRefused(f"{missing[0]} on GPU {gpu.reading.index} must stay: {why}")
    if after == before:
        return None
    whole = next((hold for hold in mine if hold.spec is None), None)
    if whole is not None:
        raise CommandRefused(f"GPU {gpu.reading.index} must stay as it is: {held_text(whole)}")
    steps = order_steps(model, before, after)
    return GpuPlan(gpu_uuid=gpu.uuid, before=before, after=after, steps=steps)


def refuse_beside_open_plan(plan: Plan, store: Store) -> None:
    """Refuse a plan of a GPU on which another is still open.

    Settling that one would take what this one makes for its own work, and undo it.

    Raises:
        CommandRefused: there is one.
        StoreError: the journal can't be read.
    """
    asked = {gpu_plan.gpu_uuid for gpu_plan in plan.gpu_plans}
    for record in store.open_plans():
        if record.gpu_uuid in asked:
            raise CommandRefused(
                f"plan {record.plan_id} is still open on that GPU and may be undone; "
                "`migscaler apply --settle` first"
            )


def why_open(
    plans: Sequence[PlanRecord],
    snapshot: NodeSnapshot | None,
    waiting: Sequence[tuple[GpuUuid, str]] = (),
    acting_on: Collection[GpuUuid] = (),
) -> str | None:
    """Return which open plan keeps the node from changing and the way out, None without one.

    The plan of a GPU that does not answer, or is not there, keeps only that GPU: nothing can be
    planned on it, and once it answers the plan is settled before anything else is changed. So is a
    restore that is `waiting`, which keeps everybody else off that GPU too. One that is being
    carried out (`acting_on` its GPU) needs no way out.
    """
    for plan in plans:
        if any(plan.gpu_uuid == uuid for uuid, _ in waiting):
            continue
        gpu = None if snapshot is None else snapshot.gpu(plan.gpu_uuid)
        if snapshot is None or (gpu is not None and gpu.instances is not None):
            named = plan.gpu_uuid if gpu is None else f"GPU {gpu.reading.index}"
            if plan.gpu_uuid in acting_on:
                return f"{plan.plan_id} on {named} is being carried out"
            return f"{plan.plan_id} on {named}; way out: migscaler apply --settle"
    return None


def why_pinned(state: InstanceState) -> str:
    """Return in words why an instance must keep its place."""
    return state.explanation or (state.pin.value if state.pin else "")


def _named(model: GpuModel, wanted: str) -> Layout:
    """Read a layout whose placements are given."""
    return model.layout(wanted)


def place(
    model: GpuModel, wanted: str, before: Layout, pinned: Mapping[InstanceSpec, str]
) -> Layout:
    """Choose placements for the wanted sizes: pinned kept, then fewest changes, then by text.

    `pinned` gives for each instance that must keep its place the reason, for people.

    Raises:
        CommandRefused: they do not fit on the model, or not beside what is pinned.
        ParseError: the model has no such size.
    """
    names = [(model.resolve(word) or model.profile(word)).name for word in wanted.split()]
    counts = Counter(names)
    fitting = [
        layout
        for layout in all_layouts(model, tuple(sorted(counts)))
        if layout.profiles() == counts
    ]
    if not fitting:
        raise CommandRefused(f"{wanted!r} does not fit on one {model.name}")
    keeping = [layout for layout in fitting if all(spec in layout for spec in pinned)]
    if not keeping:
        stay = ", ".join(f"{spec} ({pinned[spec]})" for spec in Layout(tuple(pinned)).specs)
        raise CommandRefused(f"{wanted!r} does not fit beside what must stay: {stay}")
    return min(keeping, key=lambda layout: (_changes(before, layout), str(layout)))


def _changes(before: Layout, after: Layout) -> int:
    """Return how many instances go or come."""
    return len(set(before.specs) ^ set(after.specs))
