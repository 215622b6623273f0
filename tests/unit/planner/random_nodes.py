"""Random planning problems from a seed: models, what is busy, demand, sometimes limits."""

import random

from migscaler.model.ids import GpuUuid
from migscaler.model.layout import GpuModel
from migscaler.model.plan import Direction
from migscaler.planner.problem import BOTH_DIRECTIONS, PlanGpu, Problem, Tier, Want
from tests.builders import A30, A100, H100, model
from tests.unit.planner.exact import board

RTX = "rtx-pro-6000-blackwell-96gb"
BOARDS = (A100, A100, H100, A30, RTX)
CLASSES = ("1g", "2g", "3g", "4g", "7g", "1gx", "1g+me")
# Largest product of (target + 1) over keys, so that the exact answer stays quick.
CELLS = 3_000


def random_problem(seed: int, *, limits: bool) -> Problem:
    """Return the problem of a seed: 1-8 GPUs, 1-4 rules; with `limits` also rows and directions."""
    rng = random.Random(seed)
    classes = rng.sample(CLASSES, rng.choice((1, 2, 2, 3, 3, 4)))
    count = rng.choice((1, 2, 2, 3, 3, 4, 4, 5, 6, 8))
    names = (rng.choice(BOARDS),) if rng.random() < 0.5 else BOARDS
    busy = rng.choice((0.0, 0.3, 0.5, 0.8, 1.0)) if rng.random() < 0.9 else 0.4
    gpus = tuple(
        _gpu(rng, index, model(rng.choice(names)), classes, busy, limits) for index in range(count)
    )
    tiers = _tiers(rng, classes, count)
    return Problem(
        gpus=gpus,
        tiers=tiers,
        max_touched=rng.choice((None, 0, 1, 2)) if limits else None,
        kept=tuple((key, rng.randint(0, 2)) for key in classes[:1]) if limits else (),
        no_create=frozenset(key for key in classes if limits and rng.random() < 0.15),
        fragmentation_weights=tuple((key, rng.randint(1, 3)) for key in classes)
        if rng.random() < 0.3
        else (),
    )


def _gpu(
    rng: random.Random,
    index: int,
    of: GpuModel,
    classes: list[str],
    busy: float,
    limits: bool,
) -> PlanGpu:
    """Return a GPU with a random legal layout, each instance busy by chance."""
    known = board(of)
    row = int(known.rows[rng.randrange(len(known.rows))])
    specs = [spec for n, spec in enumerate(known.specs) if row >> n & 1]
    specs = [spec for spec in specs if rng.random() < 0.8]
    pinned = tuple(spec for spec in specs if rng.random() < busy)
    idle = tuple(spec for spec in specs if spec not in pinned)
    return PlanGpu(
        uuid=GpuUuid(f"GPU-{index:04d}"),
        model=of,
        pinned=pinned,
        idle=idle,
        keys=tuple((p.name, p.size_class) for p in of.profiles if p.size_class in classes),
        directions=frozenset({rng.choice(list(Direction))})
        if limits and rng.random() < 0.3
        else BOTH_DIRECTIONS,
        fixed=limits and rng.random() < 0.15,
        idle_not_supply=frozenset(spec for spec in idle if limits and rng.random() < 0.1),
        supply_pinned=tuple(spec for spec in pinned if rng.random() < 0.1),
    )


def _tiers(rng: random.Random, classes: list[str], count: int) -> tuple[Tier, ...]:
    """Return floors, one tier per rule, and spare."""
    total = {key: rng.randint(0, 3 * count) for key in classes}
    while _cells(total) > CELLS:
        key = max(total, key=lambda k: (total[k], k))
        total[key] -= 1
    parts = {key: sorted(rng.randint(0, n) for _ in range(2)) for key, n in total.items()}
    return (
        Tier(name="floor", wants=tuple(Want(key=key, count=parts[key][0]) for key in classes)),
        *(
            Tier(name=key, wants=(Want(key=key, count=parts[key][1] - parts[key][0]),))
            for key in classes
        ),
        Tier(
            name="spare",
            wants=tuple(
                Want(key=key, count=total[key] - parts[key][1], weight=rng.choice((1, 1, 2, 4)))
                for key in classes
            ),
        ),
    )


def _cells(total: dict[str, int]) -> int:
    """Return the number of supply vectors that matter."""
    product = 1
    for count in total.values():
        product *= count + 1
    return product
