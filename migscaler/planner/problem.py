"""What is asked of the planner and what it answers: plain values."""

from dataclasses import dataclass
from fractions import Fraction

from migscaler.errors import PlanningFailed
from migscaler.model.ids import GpuUuid
from migscaler.model.layout import GpuModel, Layout
from migscaler.model.plan import Direction, Level
from migscaler.model.profile import InstanceSpec

BOTH_DIRECTIONS = frozenset(Direction)
# Keeps every cost of a layout within 64 bits, and sums over a fleet exact in the solver's doubles.
LARGEST_WEIGHT = 1_000


@dataclass(frozen=True, slots=True, kw_only=True)
class PlanGpu:
    """One GPU as the planner sees it: what must stay, what may go, what counts for whom.

    `pinned` and `idle` together are today's layout. `keys` pairs a profile name with the key (a
    rule) whose demand an instance of it serves; a profile without a key serves nobody and is
    never created. `fixed`: the layout stays as it is, its instances still count. `directions`:
    which changes are allowed. `idle_not_supply`: idle instances that may be destroyed but serve
    nobody. `supply_pinned`: the part of `pinned` that still counts as supply (just made, not yet
    proven idle).

    A GPU whose present layout its model does not explain is treated as fixed.
    """

    uuid: GpuUuid
    model: GpuModel
    pinned: tuple[InstanceSpec, ...] = ()
    idle: tuple[InstanceSpec, ...] = ()
    keys: tuple[tuple[str, str], ...] = ()
    directions: frozenset[Direction] = BOTH_DIRECTIONS
    fixed: bool = False
    idle_not_supply: frozenset[InstanceSpec] = frozenset()
    supply_pinned: tuple[InstanceSpec, ...] = ()

    @property
    def layout(self) -> Layout:
        """Today's layout."""
        return Layout((*self.pinned, *self.idle))


@dataclass(frozen=True, slots=True, kw_only=True)
class Want:
    """Instances wanted for a key beyond those in use; `weight` (from 1): cost of one unmet."""

    key: str
    count: int
    weight: int = 1

    def __post_init__(self) -> None:
        """Refuse counts and weights that mean nothing."""
        if self.count < 0 or self.weight < 1:
            raise PlanningFailed(f"want of {self.key}: count {self.count}, weight {self.weight}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Tier:
    """Wants of equal importance; those of one key add up over tiers, earlier tiers first."""

    name: str
    wants: tuple[Want, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Problem:
    """A whole planning question.

    `tiers`: most important first. `max_touched`: most GPUs whose layout may change. `kept`: (key,
    n), at least min(n, present) of today's idle instances that supply the key stay where they
    are. `no_create`: keys for which nothing may be created. `fragmentation_weights`: (key,
    weight) in the fragmentation of what stays free, 1 for keys not named.
    """

    gpus: tuple[PlanGpu, ...]
    tiers: tuple[Tier, ...] = ()
    max_touched: int | None = None
    kept: tuple[tuple[str, int], ...] = ()
    no_create: frozenset[str] = frozenset()
    fragmentation_weights: tuple[tuple[str, int], ...] = ()

    def __post_init__(self) -> None:
        """Refuse a fleet that names a GPU twice."""
        if len({gpu.uuid for gpu in self.gpus}) != len(self.gpus):
            raise PlanningFailed("a GPU appears twice in the planning problem")
        if not all(0 <= weight <= LARGEST_WEIGHT for _, weight in self.fragmentation_weights):
            raise PlanningFailed(f"fragmentation weights are 0 to {LARGEST_WEIGHT}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Solution:
    """The chosen layout of every GPU, and how good it is.

    `layouts` are sorted by UUID. `levels`: one per tier, then churn, touched, fragmentation.
    `unmet`: (tier, key, instances), only where something is unmet, tiers in order, keys sorted.
    `fragmentation` in 0..1: part of the free memory slices that a wanted profile could not use,
    in the mean over profiles by weight; 0 when nothing is free. `used_solver` is False when
    nothing needed solving.
    """

    layouts: tuple[tuple[GpuUuid, Layout], ...]
    levels: tuple[Level, ...]
    unmet: tuple[tuple[str, str, int], ...]
    fragmentation: Fraction = Fraction(0)

    def layout(self, uuid: GpuUuid) -> Layout:
        """Return the layout chosen for a GPU (linear search; build a dict for many).

        Raises:
            KeyError: the GPU was not in the problem.
        """
        for known, layout in self.layouts:
            if known == uuid:
                return layout
        raise KeyError(uuid)
