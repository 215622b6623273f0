"""What a board's driver allows: profiles, compute profiles, admission and default placement.

Everything comes from the catalog; a number it does not have is derived and named in `derived`.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property

from migscaler.model.catalog import Board, Catalog, ComputeProfile
from migscaler.model.layout import GpuModel
from migscaler.model.profile import Profile
from migscaler.sim.state import InstanceState

# Compute instance profile of a slice count: NVML_COMPUTE_INSTANCE_PROFILE_*, nvml.h.
CI_OF_SLICES = {1: 0, 2: 1, 3: 2, 4: 3, 7: 4, 8: 5, 6: 6}
CI_REV1 = 7
CI_7_SLICE_NVL = 8
# Recent drivers list 7_SLICE_NVL beside 7_SLICE (a belief as to the branch: seen with R570
# listings).
FIRST_BRANCH_WITH_NVL = 570
_WIDE_ORDER = (4, 0, 2, 6)  # GH200 1g.24gb: 4, 0, 2 seen; the last is what then remains


@dataclass(frozen=True, slots=True, kw_only=True)
class Figures:
    """Numbers of one GPU instance profile, complete; memory in MiB."""

    memory_mib: int
    sm_count: int
    engines: dict[str, int]


@dataclass(frozen=True, kw_only=True)
class Rules:
    """One board under one driver branch.

    `derived` names what the catalog does not have ("3g.90gb memory").
    """

    board: Board
    model: GpuModel
    by_id: dict[int, Profile]
    by_enum: dict[int, Profile]
    figures: dict[str, Figures]
    compute: dict[str, tuple[ComputeProfile, ...]]
    orders: dict[int, tuple[int, ...]]
    gi_ids: dict[str, dict[str, int]]
    derived: frozenset[str]
    branch: int

    @cached_property
    def memory_total_mib(self) -> int:
        """MiB of the whole GPU, derived from the whole profile where not known."""
        known = self.board.memory_total_mib
        largest = max(figure.memory_mib for figure in self.figures.values())
        return known if known is not None else largest + largest // 64

    @cached_property
    def sm_total(self) -> int:
        """Multiprocessors of the whole GPU."""
        return self.board.sm_count or max(figure.sm_count for figure in self.figures.values())

    @cached_property
    def max_mig_devices(self) -> int:
        """Most MIG devices at a time: one per compute slice."""
        return self.board.compute_slices

    def refusal(self, present: Iterable[InstanceState], profile: Profile, start: int) -> str | None:
        """Say why the profile can't be added at a start; None when it can."""
        mask = ((1 << profile.memory_slices) - 1) << start
        covered = compute = same = 0
        names: list[str] = []
        for gi in present:
            covered |= ((1 << gi.size) - 1) << gi.start
            compute += self.by_id[gi.profile_id].compute_slices
            same += gi.profile_id == profile.profile_id
            names.append(gi.profile)
        if covered & mask:
            return "occupied"
        if compute + profile.compute_slices > self.board.compute_slices:
            return "no compute slice left"
        if same >= profile.max_instances:
            return "instance maximum"
        return self._contention(names, profile)

    def _contention(self, names: list[str], profile: Profile) -> str | None:
        """Say which engine or neighbor refuses the profile."""
        for engine, total in self.model.engine_totals:
            used = sum(self.figures[name].engines[engine] for name in names)
            if used + self.figures[profile.name].engines[engine] > total:
                return f"{engine} engines"
        for first, second in self.model.exclusive_pairs:
            if (profile.name == first and second in names) or (
                profile.name == second and first in names
            ):
                return f"{first} beside {second}"
        return None

    def default_start(self, present: Iterable[InstanceState], profile: Profile) -> int | None:
        """Return the start the driver picks: the first of its fixed list that fits."""
        known = tuple(present)
        for start in self.orders[profile.profile_id]:
            if self.refusal(known, profile, start) is None:
                return start
        return None

    def capacity(self, present: Iterable[InstanceState], profile: Profile) -> int:
        """Return how many more instances of the profile fit, taken alone.

        Leftmost first is optimal for intervals of one length.
        """
        trial = list(present)
        count = 0
        for start in profile.starts:
            if self.refusal(trial, profile, start) is None:
                trial.append(_ghost(profile, start))
                count += 1
        return count


def build_rules(catalog: Catalog, board: Board, branch: int) -> Rules:
    """Combine the catalog's figures for a board with what a driver branch offers."""
    model = board.model(branch)
    derived: set[str] = set()
    figures = {p.name: _figures(model.profiles, p, derived) for p in model.profiles}
    compute = {
        p.name: _compute_profiles(board, p, figures, branch, derived) for p in model.profiles
    }
    return Rules(
        board=board,
        model=model,
        by_id={p.profile_id: p for p in model.profiles},
        by_enum={p.enum_value: p for p in model.profiles},
        figures=figures,
        compute=compute,
        orders={p.profile_id: _order(catalog, board, p) for p in model.profiles},
        gi_ids=catalog.gi_ids[str(board.memory_slices)],
        derived=frozenset(derived),
        branch=branch,
    )


def _ghost(profile: Profile, start: int) -> InstanceState:
    """Return an instance that exists only in a calculation."""
    return InstanceState(
        -1, profile.profile_id, profile.name, start, profile.memory_slices, 0, 0, 0
    )


def _order(catalog: Catalog, board: Board, profile: Profile) -> tuple[int, ...]:
    """Return the driver's order of starts; rising where no transcript shows it."""
    family = {8: "a100_h100", 4: "a30", 12: "rtx_pro_6000"}[board.memory_slices]
    orders = catalog.start_orders[family]
    seen = orders.get(str(profile.profile_id))
    if seen is not None:
        return tuple(start for start in seen if start in profile.starts)
    if board.memory_slices == 8 and profile.starts == _rising(orders, "19"):
        return orders["19"]
    if board.memory_slices == 8 and len(profile.starts) == len(_WIDE_ORDER):
        return _WIDE_ORDER
    return profile.starts


def _rising(orders: dict[str, tuple[int, ...]], profile_id: str) -> tuple[int, ...]:
    """Return the starts of an observed order, rising."""
    return tuple(sorted(orders[profile_id]))


def _figures(profiles: tuple[Profile, ...], profile: Profile, derived: set[str]) -> Figures:
    """Complete a profile's numbers from those of the smallest one."""
    smallest = profiles[0]
    unit_memory, unit_sms = smallest.memory_mib, smallest.sm_count
    memory, sms = profile.memory_mib, profile.sm_count
    if memory is None:
        derived.add(f"{profile.name} memory")
        label = int(profile.name.split(".")[1].split("gb")[0]) * 1024
        memory = label * 15 // 16 if unit_memory is None else unit_memory * profile.memory_slices
    if sms is None:
        derived.add(f"{profile.name} multiprocessors")
        sms = (unit_sms or 16) * profile.compute_slices
    engines = {}
    for engine, count in profile.engines.counts():
        if count is None:
            derived.add(f"{profile.name} {engine} engines")
            unit = dict(smallest.engines.counts())[engine] or 0
            count = unit * profile.compute_slices or (engine == "copy") * profile.compute_slices
        engines[engine] = count
    return Figures(memory_mib=memory, sm_count=sms, engines=engines)


def _compute_profiles(
    board: Board, profile: Profile, figures: dict[str, Figures], branch: int, derived: set[str]
) -> tuple[ComputeProfile, ...]:
    """Return the compute instance profiles, with a full-width one even where none was listed."""
    rows = {row.ci_id: row for row in board.compute_profiles.get(profile.name, ())}
    whole = figures[profile.name].sm_count
    if all(row.sm_count != whole for row in rows.values()):
        derived.add(f"{profile.name} compute instances")
        ci_id = CI_OF_SLICES[profile.compute_slices]
        narrow = _narrow_sms(board, profile, figures)
        if narrow is not None and narrow < whole:
            rows[ci_id] = _row(ci_id, profile, narrow)
            ci_id = CI_REV1
        rows[ci_id] = _row(ci_id, profile, whole)
    full = CI_OF_SLICES[7]
    if board.nvml_arch >= 9 and branch >= FIRST_BRANCH_WITH_NVL and full in rows:
        derived.add(f"{profile.name} compute instances")
        rows[CI_7_SLICE_NVL] = _row(CI_7_SLICE_NVL, profile, whole)
    return tuple(rows[ci_id] for ci_id in sorted(rows))


def _row(ci_id: int, profile: Profile, sms: int) -> ComputeProfile:
    """Return a compute profile that takes all compute slices of the GPU instance."""
    return ComputeProfile(ci_id=ci_id, slices=profile.compute_slices, max_instances=1, sm_count=sms)


def _narrow_sms(board: Board, profile: Profile, figures: dict[str, Figures]) -> int | None:
    """Return the multiprocessors of an ordinary slice if this is a one-slice profile.

    On Hopper the 1g profile with double memory has 26 SMs: its CI id 0 gives 16 and id 7 gives 26.
    """
    plain = next((p for p in board.profiles if p.enum_value == 0), None)
    if profile.compute_slices != 1 or plain is None:
        return None
    return figures[plain.name].sm_count
