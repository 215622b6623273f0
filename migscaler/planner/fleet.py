"""GPUs merged into classes of equal options.

Two GPUs with different placements but the same list of gains and costs are one class, so that the
size of the programme grows with the variety of a fleet, not with its size.
"""

from dataclasses import dataclass

from migscaler.model.ids import GpuUuid
from migscaler.planner.cache import OptionCache, Scope
from migscaler.planner.demand import Stack, idle_supply, supply
from migscaler.planner.options import GAIN_MAX, OptionMaker, Options, State
from migscaler.planner.problem import PlanGpu, Problem
from migscaler.planner.space import Space


@dataclass(frozen=True, slots=True, kw_only=True)
class Member:
    """One GPU of a class, with its own layouts for the class's options."""

    uuid: GpuUuid
    space: Space
    options: Options


@dataclass(frozen=True, slots=True, kw_only=True)
class Fleet:
    """A problem's GPUs as the programme needs them.

    `classes`: members by rising UUID, classes in order of signature. `unexplained`: GPUs that stay
    as they are because their model does not explain their layout. `apart`: what those supply.
    `floors`: kept key and how many of the classes' idle instances must stay.
    """

    classes: tuple[tuple[Member, ...], ...]
    unexplained: tuple[PlanGpu, ...]
    apart: dict[str, int]
    floors: tuple[tuple[str, int], ...]


def make_fleet(problem: Problem, targets: Stack, cache: OptionCache) -> Fleet:
    """Work out the options of all GPUs and merge those that are equal."""
    cache.trim()
    scope = Scope(
        clips=tuple((key, min(count, GAIN_MAX)) for key, count in targets.missing),
        kept_keys=tuple(sorted({key for key, n in problem.kept if n > 0})),
        no_create=problem.no_create,
        weights=tuple(sorted(problem.fragmentation_weights)),
    )
    gpus = sorted(problem.gpus, key=lambda gpu: gpu.uuid)
    groups: dict[bytes, list[Member]] = {}
    unexplained = []
    for gpu, maker, state in _states(gpus, scope, cache):
        options = None if state is None else maker.options(state)
        if options is None:
            unexplained.append(gpu)
        else:
            member = Member(uuid=gpu.uuid, space=maker.space, options=options)
            groups.setdefault(options.signature, []).append(member)
    classes = tuple(tuple(members) for _, members in sorted(groups.items()))
    apart = supply((gpu, idle_supply(gpu)) for gpu in unexplained)
    return Fleet(
        classes=classes,
        unexplained=tuple(unexplained),
        apart=apart,
        floors=_floors(problem, scope, classes, apart),
    )


def _states(
    gpus: list[PlanGpu], scope: Scope, cache: OptionCache
) -> list[tuple[PlanGpu, OptionMaker, State | None]]:
    """Return each GPU with its model's maker of options and its state."""
    makers: dict[int, OptionMaker] = {}
    found = []
    for gpu in gpus:
        # Hashing a model walks all its profiles; one object usually serves a whole fleet.
        maker = makers.get(id(gpu.model))
        if maker is None:
            maker = makers[id(gpu.model)] = cache.maker(gpu.model, scope)
        found.append((gpu, maker, maker.state(gpu)))
    return found


def _floors(
    problem: Problem,
    scope: Scope,
    classes: tuple[tuple[Member, ...], ...],
    apart: dict[str, int],
) -> tuple[tuple[str, int], ...]:
    """Return how many of the classes' idle instances must stay, per kept key."""
    floors = []
    for number, key in enumerate(scope.kept_keys, start=len(scope.clips)):
        present = sum(
            int(members[0].options.gains[0, number]) * len(members) for members in classes
        )
        wanted = max(n for name, n in problem.kept if name == key)
        floors.append((key, max(0, min(wanted - apart.get(key, 0), present))))
    return tuple(floors)
