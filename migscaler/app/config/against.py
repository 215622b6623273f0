"""What a configuration asks for and the hardware at hand can't give: warnings, never errors.

A fleet has one file for many nodes; that a line speaks of a GPU that is elsewhere must not stop a
node.
"""

from collections.abc import Iterable, Iterator
from datetime import datetime

from migscaler.app.config.findings import finding_at
from migscaler.app.config.load import LoadedConfig
from migscaler.app.config.yaml_text import Path
from migscaler.errors import Finding
from migscaler.model.gpu import GpuReading, NodeSnapshot
from migscaler.model.layout import GpuModel, Layout
from migscaler.model.policy import GpuEntry, Mode, Rule
from migscaler.model.profile import InstanceSpec, Profile

Doubt = tuple[Path, str, str]
Managed = tuple[tuple[GpuReading, GpuEntry], ...]


def warnings_against(
    loaded: LoadedConfig, gpus: Iterable[GpuReading], now: datetime
) -> tuple[Finding, ...]:
    """Return what does not fit the GPUs of a node at a moment (lines may lapse), in file order."""
    present = tuple(gpus)
    policy = loaded.policy
    entries = ((gpu, policy.entry_for(gpu, now)) for gpu in present)
    managed = tuple((gpu, entry) for gpu, entry in entries if entry is not None)
    doubts = [
        *_lines(policy.gpus, present, now),
        *_left_out(policy.gpus, present, managed),
        *_unready(policy.gpus, managed),
        *_baselines(policy.gpus, managed),
        *_sizes(policy.rules, managed),
        *_shared_profiles(policy.rules, managed),
    ]
    found = [finding_at(loaded.document, path, problem, remedy) for path, problem, remedy in doubts]
    return tuple(sorted(found, key=lambda f: (f.line or 0, f.column or 0)))


def warnings_against_snapshot(loaded: LoadedConfig, snapshot: NodeSnapshot) -> tuple[Finding, ...]:
    """Return what does not fit a recorded or live picture of a node."""
    return warnings_against(loaded, [gpu.reading for gpu in snapshot.gpus], snapshot.taken_at)


def _lines(
    lines: tuple[GpuEntry, ...], present: tuple[GpuReading, ...], now: datetime
) -> Iterator[Doubt]:
    """Lines that speak of no GPU here, or have lapsed."""
    for number, line in enumerate(lines):
        if line.until is not None and now >= line.until:
            yield ("gpus", number, "until"), "this line has lapsed", "remove it"
        elif not any(line.matches(gpu, now) for gpu in present):
            key, wanted = _chosen(line)
            yield (
                ("gpus", number, key),
                f"no GPU here has {key} {wanted}",
                f"here are: {_names(present)}",
            )


def _left_out(
    lines: tuple[GpuEntry, ...], present: tuple[GpuReading, ...], managed: Managed
) -> Iterator[Doubt]:
    """MIG-capable GPUs that no line speaks of, where some line speaks of others."""
    known = {gpu.uuid for gpu, _ in managed}
    left = tuple(gpu for gpu in present if gpu.mig_enabled is not None and gpu.uuid not in known)
    if lines and left:
        yield (
            ("gpus",),
            f"left out: {_names(left)}",
            "add a line for them; with mode observe if that is meant",
        )


def _unready(lines: tuple[GpuEntry, ...], managed: Managed) -> Iterator[Doubt]:
    """Managed GPUs that can't have instances now."""
    for gpu, line in managed:
        where = ("gpus", lines.index(line))
        if gpu.mig_enabled is None and not gpu.gaps:
            yield where, f"GPU {gpu.index} ({gpu.name}) can't do MIG", "leave it out"
        elif gpu.foreign_owner is not None and line.mode is not Mode.OBSERVE:
            words = f"GPU {gpu.index} ({gpu.name}) is left alone: {gpu.foreign_owner.words}"
            yield where, words, "give it mode: observe and a reason; see migscaler doctor"
        elif gpu.mig_enabled is False and line.mode is not Mode.OBSERVE:
            remedy = f"run: migscaler mig-mode on --gpu {gpu.index}"
            yield where, f"MIG mode is off on GPU {gpu.index} ({gpu.name})", remedy


def _baselines(lines: tuple[GpuEntry, ...], managed: Managed) -> Iterator[Doubt]:
    """Baselines that do not fit on a GPU."""
    seen: set[tuple[int, str]] = set()
    for gpu, line in managed:
        number = lines.index(line)
        if gpu.model is None or not line.baseline or (number, gpu.name) in seen:
            continue
        seen.add((number, gpu.name))
        where = ("gpus", number, "baseline")
        profiles = [(size, gpu.model.resolve(size)) for size in line.baseline]
        missing = [size for size, profile in profiles if profile is None]
        if missing:
            known = ", ".join(p.name for p in gpu.model.profiles)
            yield where, f"{gpu.name} has no {' and no '.join(missing)}", f"it has {known}"
        elif not fits_together(gpu.model, tuple(p for _, p in profiles if p is not None)):
            yield (
                where,
                f"{' + '.join(line.baseline)} do not fit together on {gpu.name}",
                ("see `migscaler layouts` for what does"),
            )


def fits_together(model: GpuModel, profiles: tuple[Profile, ...]) -> bool:
    """Say whether instances of these profiles can stand on one GPU at the same time.

    Cost: a search over starts, largest first; at most 8 memory slices, so some hundred steps.
    """
    largest_first = sorted(profiles, key=lambda p: (-p.memory_slices, len(p.starts), p.name))

    def place(layout: Layout, left: list[Profile]) -> bool:
        if not left:
            return True
        for placement in left[0].placements():
            if not layout.mask & placement.mask:
                bigger = layout.with_specs([InstanceSpec(placement, left[0].name)])
                if model.violation(bigger) is None and place(bigger, left[1:]):
                    return True
        return False

    return place(Layout(), largest_first)


def _sizes(rules: tuple[Rule, ...], managed: Managed) -> Iterator[Doubt]:
    """Rules for sizes that no managed GPU has, and floors that can never be met."""
    models = [gpu.model for gpu, _ in managed if gpu.model is not None]
    if not models:
        return
    for number, rule in enumerate(rules):
        profiles = [p for p in (model.resolve(rule.size) for model in models) if p is not None]
        if not profiles:
            known = sorted({p.size_class for model in models for p in model.profiles})
            problem = f"no managed GPU has size {rule.size}"
            yield ("rules", number, "size"), problem, f"sizes here: {', '.join(known)}"
            continue
        most = sum(profile.max_instances for profile in profiles)
        if rule.minimum > most:
            problem = f"min {rule.minimum} can't be met: at most {most} x {rule.size} fit here"
            yield ("rules", number, "min"), problem, f"write at most {most}"
        for place, floor in enumerate(rule.at_least):
            if floor.count > most:
                problem = (
                    f"at_least {floor.count} can't be met: at most {most} x {rule.size} fit here"
                )
                yield (
                    ("rules", number, "at_least", place, "count"),
                    problem,
                    f"write at most {most}",
                )


def _shared_profiles(rules: tuple[Rule, ...], managed: Managed) -> Iterator[Doubt]:
    """Rules whose sizes mean one profile on some GPU: its instances serve only the first."""
    models = {gpu.name: gpu.model for gpu, _ in managed if gpu.model is not None}
    told: set[int] = set()
    for name, model in sorted(models.items()):
        owners: dict[str, Rule] = {}
        for number, rule in enumerate(rules):
            profile = model.resolve(rule.size)
            first = owners.setdefault(profile.name, rule) if profile else rule
            if profile is not None and first is not rule and number not in told:
                told.add(number)
                both = f"{rule.size} and {first.size} (rule {first.name})"
                where = ("rules", number, "size")
                yield where, f"{both} mean {profile.name} on {name}", "join the two rules"


def _chosen(line: GpuEntry) -> tuple[str, object]:
    if line.uuid is not None:
        return "uuid", line.uuid
    return ("index", line.index) if line.index is not None else ("model", f'"{line.model}"')


def _names(gpus: tuple[GpuReading, ...]) -> str:
    return ", ".join(f"{gpu.index} {gpu.name}" for gpu in gpus) or "no GPUs"
