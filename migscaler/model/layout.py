"""Layouts and the GPU models that make them legal."""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

from migscaler.errors import ParseError
from migscaler.model.profile import InstanceSpec, Placement, Profile, split_spec_text


@dataclass(frozen=True, slots=True)
class Layout:
    """Instances of one GPU, in canonical order (by start), never overlapping.

    Whether a model allows it is `GpuModel.violation`'s to say; text `3g.20gb@0 3g.20gb@4`.
    """

    specs: tuple[InstanceSpec, ...] = ()

    def __post_init__(self) -> None:
        """Sort, and refuse overlapping instances."""
        ordered = tuple(sorted(self.specs))
        covered = 0
        for spec in ordered:
            if covered & spec.mask:
                raise ParseError(f"{spec} overlaps another instance of the layout")
            covered |= spec.mask
        object.__setattr__(self, "specs", ordered)

    def __str__(self) -> str:
        """Return the instances separated by blanks; `-` when there is none."""
        return " ".join(map(str, self.specs)) or "-"

    def __contains__(self, spec: InstanceSpec) -> bool:
        """Say whether the instance is part of the layout."""
        return spec in self.specs

    def __len__(self) -> int:
        """Return the number of instances."""
        return len(self.specs)

    @property
    def mask(self) -> int:
        """Bit i set for each memory slice i covered."""
        covered = 0
        for spec in self.specs:
            covered |= spec.mask
        return covered

    def profiles(self) -> Counter[str]:
        """Count the instances by profile name."""
        return Counter(spec.profile for spec in self.specs)

    def with_specs(self, added: Iterable[InstanceSpec]) -> "Layout":
        """Return this layout with the given instances added."""
        return Layout((*self.specs, *added))

    def without(self, removed: Iterable[InstanceSpec]) -> "Layout":
        """Return this layout without the given instances."""
        gone = frozenset(removed)
        return Layout(tuple(spec for spec in self.specs if spec not in gone))


@dataclass(frozen=True, slots=True, kw_only=True)
class GpuModel:
    """What one GPU model allows under one driver, as read from NVML (or package data).

    `memory_slices` and `compute_slices` are the GPU's totals. `profiles` are in rising
    `enum_value`. `engine_totals` are the engines that really limit creation: (engine, how many the
    GPU has); engines with incomplete or contradictory figures are left out. `exclusive_pairs` are
    pairs of profile names that may not stand together (4g with 3g before driver R510: MIG User
    Guide, Supported MIG Profiles).
    """

    name: str
    memory_slices: int
    compute_slices: int
    profiles: tuple[Profile, ...]
    engine_totals: tuple[tuple[str, int], ...] = ()
    exclusive_pairs: tuple[tuple[str, str], ...] = ()

    def find(self, name: str) -> Profile | None:
        """Return the profile of exactly this name, or None."""
        return next((p for p in self.profiles if p.name == name), None)

    def profile(self, name: str) -> Profile:
        """Return the profile of exactly this name.

        Raises:
            ParseError: this model has no such profile.
        """
        found = self.find(name)
        if found is None:
            known = ", ".join(p.name for p in self.profiles)
            raise ParseError(f"{self.name} has no profile {name!r}; it has {known}")
        return found

    def resolve(self, wanted: str) -> Profile | None:
        """Return the profile that a person's size class or name means here, or None.

        An exact name wins over a size class, a size class over a driver's renaming.
        """
        exact = self.find(wanted)
        if exact is not None:
            return exact
        of_class = [p for p in self.profiles if p.size_class == wanted]
        return next(iter(of_class or [p for p in self.profiles if p.matches(wanted)]), None)

    def spec(self, text: str) -> InstanceSpec:
        """Read `3g.20gb@4` (or `3g@4`) as an instance of this model.

        Raises:
            ParseError: unknown profile, or a start at which it may not lie.
        """
        wanted, start = split_spec_text(text)
        profile = self.resolve(wanted) or self.profile(wanted)
        if start not in profile.starts:
            starts = ", ".join(map(str, profile.starts))
            raise ParseError(f"{profile.name} may start at {starts}, not at {start}")
        return InstanceSpec(Placement(start, profile.memory_slices), profile.name)

    def layout(self, text: str) -> Layout:
        """Read `3g.20gb@0 3g.20gb@4` as a legal layout of this model; `-` or empty is none.

        Raises:
            ParseError: unreadable, or not legal here.
        """
        words = [word for word in text.split() if word != "-"]
        layout = Layout(tuple(self.spec(word) for word in words))
        problem = self.violation(layout)
        if problem is not None:
            raise ParseError(f"{layout} is not legal on {self.name}: {problem}")
        return layout

    def compute_used(self, layout: Layout) -> int:
        """Return the compute slices that a layout uses."""
        return sum(self.profile(spec.profile).compute_slices for spec in layout.specs)

    def violation(self, layout: Layout) -> str | None:
        """Say why the layout is not legal on this model; None when it is.

        Checks placements, the compute budget, instance maxima, limiting engines and exclusive
        pairs. Cost: linear in instances; the planner uses bitmasks of its own for enumeration.
        """
        misplaced = next((spec for spec in layout.specs if not self._may_lie(spec)), None)
        if misplaced is not None:
            return f"{misplaced.profile} may not lie at {misplaced.placement}"
        counts = layout.profiles()
        if self.compute_used(layout) > self.compute_slices:
            return f"more than {self.compute_slices} compute slices"
        for name, count in sorted(counts.items()):
            limit = self.profile(name).max_instances
            if count > limit:
                return f"more than {limit} x {name}"
        scarce = self._scarce_engine(counts)
        if scarce is not None:
            return scarce
        for first, second in self.exclusive_pairs:
            if counts[first] and counts[second]:
                return f"{first} beside {second} needs driver R510 or newer"
        return None

    def _may_lie(self, spec: InstanceSpec) -> bool:
        """Say whether an instance's profile exists and may lie where it does."""
        profile = self.find(spec.profile)
        return (
            profile is not None
            and spec.placement.start in profile.starts
            and spec.placement.size == profile.memory_slices
        )

    def _scarce_engine(self, counts: Counter[str]) -> str | None:
        """Say which engine these instances (by profile name) would exhaust, None if none."""
        for engine, total in self.engine_totals:
            used = sum(
                (dict(self.profile(name).engines.counts())[engine] or 0) * count
                for name, count in counts.items()
            )
            if used > total:
                return f"more than {total} {engine} engine(s)"
        return None
