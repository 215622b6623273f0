"""Options kept from one planning problem to the next; imports neither numpy nor the solver."""

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from migscaler.model.layout import GpuModel
from migscaler.planner.space import Space, make_space

if TYPE_CHECKING:
    from migscaler.planner.options import OptionMaker, Table

# GPU states kept for later calls before the cache is emptied (about 2 kB each).
_MOST_STATES = 20_000
# Demands (each with its options) and tables of layouts (0.3 MB) kept.
_MOST_SCOPES = 64
_MOST_TABLES = 16


@dataclass(frozen=True, slots=True, kw_only=True)
class Scope:
    """What counts in a problem, the same for all its GPUs; `clips` and `kept_keys` are sorted.

    `clips`: (demanded key, instances beyond which more are of no use). `kept_keys`: those with a
    floor against destruction. `weights`: (key, weight) in the fragmentation, 1 where absent.
    """

    clips: tuple[tuple[str, int], ...]
    kept_keys: tuple[str, ...]
    no_create: frozenset[str]
    weights: tuple[tuple[str, int], ...]


@dataclass(slots=True)
class OptionCache:
    """Options already worked out; pass the same one to many `solve` calls to save time.

    Never changes an answer. Not thread-safe. Emptied once it keeps more than it may of one kind.
    """

    most_states: int = _MOST_STATES
    most_scopes: int = _MOST_SCOPES
    most_tables: int = _MOST_TABLES
    spaces: dict[GpuModel, Space] = field(default_factory=dict)
    makers: "dict[tuple[GpuModel, Scope], OptionMaker]" = field(default_factory=dict)
    tables: "dict[GpuModel, dict[int, Table]]" = field(default_factory=dict)

    def space(self, model: GpuModel) -> Space:
        """Return the tables of a model."""
        found = self.spaces.get(model)
        if found is None:
            found = self.spaces[model] = make_space(model)
        return found

    def maker(self, model: GpuModel, scope: Scope) -> "OptionMaker":
        """Return the maker of options for a model in a scope."""
        from migscaler.planner.options import OptionMaker

        found = self.makers.get((model, scope))
        if found is None:
            found = self.makers[model, scope] = OptionMaker(
                self.space(model), scope, self.tables.setdefault(model, {})
            )
        return found

    def trim(self) -> None:
        """Forget what is too much to keep; called at the start of a problem."""
        states = sum(maker.size for maker in self.makers.values())
        if states > self.most_states or len(self.makers) > self.most_scopes:
            self.makers.clear()
        if sum(map(len, self.tables.values())) > self.most_tables:
            self.makers.clear()
            self.tables.clear()


def one_node_cache() -> OptionCache:
    """Return a cache for one node, planned in milliseconds with nothing kept.

    What suits a fleet fills for hours there, which looks like a process that grows.
    """
    return OptionCache(most_scopes=8, most_tables=4)
