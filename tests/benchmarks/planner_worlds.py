"""Fleets and demand for the planner's benchmark: histories, busyness and tightness from a seed."""

import random
from dataclasses import dataclass
from functools import cache

from migscaler.model.ids import GpuUuid
from migscaler.model.layout import GpuModel, Layout
from migscaler.model.profile import InstanceSpec
from migscaler.planner.layouts import all_layouts
from migscaler.planner.problem import PlanGpu, Problem, Tier, Want
from tests.builders import A30, H100, model

A100_80 = "a100-sxm4-80gb"
PLAIN = ("1g", "2g", "3g", "4g", "7g")
KEYS = {2: ("1g", "3g"), 4: ("1g", "2g", "3g", "4g"), 7: (*PLAIN, "1gx", "1g+me")}
SLICES = {"1g": 1, "2g": 2, "3g": 4, "4g": 4, "7g": 8, "1gx": 2, "1g+me": 1}
HISTORIES = ("hand-configured", "organic", "blank")
PRESSURES = ((0.3, 0.5), (0.5, 0.9), (0.6, 1.2))


@dataclass(frozen=True, slots=True, kw_only=True)
class World:
    """One cell of the protocol; `busy`: share of instances, `tightness`: share of free slices."""

    gpus: int
    history: str
    busy: float
    tightness: float
    keys: int
    mixed: bool
    seed: int


@cache
def fixed_configurations(of: GpuModel) -> tuple[Layout, ...]:
    """Return the layouts an operator would write down: one per plain size, and two mixed ones."""
    plain = {p.size_class: p for p in of.profiles if p.size_class in PLAIN}
    uniform = [
        Layout(tuple(of.spec(f"{p.name}@{start}") for start in p.starts[: p.max_instances]))
        for p in plain.values()
    ]
    texts = ("3g@4 2g@0 1g@2 1g@3", "4g@0 2g@4 1g@6") if "7g" in plain else ("2g@0 1g@2 1g@3",)
    return (*uniform, *(of.layout(text) for text in texts))


@cache
def organic_layouts(of: GpuModel) -> tuple[Layout, ...]:
    """Return all layouts of plain profiles but the empty one."""
    return all_layouts(of, [p.name for p in of.profiles if p.size_class in PLAIN])[1:]


def make_world(world: World) -> Problem:
    """Return the planning problem of a world."""
    rng = random.Random(repr(world))
    boards = (A100_80, H100, A30) if world.mixed else (A100_80,)
    keys = KEYS[world.keys]
    gpus = tuple(_gpu(rng, n, model(rng.choice(boards)), keys, world) for n in range(world.gpus))
    free = sum(gpu.model.memory_slices - Layout(gpu.pinned).mask.bit_count() for gpu in gpus)
    return Problem(gpus=gpus, tiers=_tiers(rng, keys, free * world.tightness))


def _gpu(
    rng: random.Random, number: int, of: GpuModel, keys: tuple[str, ...], world: World
) -> PlanGpu:
    """Return one GPU with its past."""
    specs: list[InstanceSpec] = []
    if world.history == "hand-configured":
        specs = list(rng.choice(fixed_configurations(of)).specs)
    elif world.history == "organic":
        specs = list(rng.choice(organic_layouts(of)).specs)
    pinned = tuple(spec for spec in specs if rng.random() < world.busy)
    return PlanGpu(
        uuid=GpuUuid(f"GPU-{number:06d}"),
        model=of,
        pinned=pinned,
        idle=tuple(spec for spec in specs if spec not in pinned),
        keys=tuple((p.name, p.size_class) for p in of.profiles if p.size_class in keys),
    )


def _tiers(rng: random.Random, keys: tuple[str, ...], slices: float) -> tuple[Tier, ...]:
    """Return floors and wants in two priorities that together ask for so many memory slices."""
    shares = [rng.random() + 0.1 for _ in keys]
    counts = [
        int(slices * share / sum(shares) / SLICES[key] + rng.random())
        for key, share in zip(keys, shares, strict=True)
    ]
    floors = [count // 3 for count in counts]
    return tuple(
        Tier(
            name=name,
            wants=tuple(Want(key=k, count=n) for k, n in zip(keys, numbers, strict=True)),
        )
        for name, numbers in (
            ("first", floors),
            ("second", [count - floor for count, floor in zip(counts, floors, strict=True)]),
        )
    )
