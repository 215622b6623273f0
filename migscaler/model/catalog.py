"""The GPU models we know without hardware: package data with the source of every number.

The data answers for offline commands and for the simulated NVML library; on a node the profiles and
placements always come from NVML itself.
"""

import json
from collections.abc import Iterable
from dataclasses import dataclass
from importlib import resources

from migscaler.errors import NotFound
from migscaler.model.layout import GpuModel
from migscaler.model.profile import Engines, Profile

# 4g beside 3g is refused before this driver branch (MIG User Guide, Supported MIG Profiles; an
# A100-80GB on 550.54.14 accepts it).
FIRST_BRANCH_WITH_4G_3G = 510
# `+me` profiles exist from R470, the 1g profile with double memory from R525 (MIG User Guide).
FIRST_BRANCH_WITH_MEDIA = 470
FIRST_BRANCH_WITH_WIDE = 525


@dataclass(frozen=True, slots=True, kw_only=True)
class ComputeProfile:
    """One compute instance profile inside a GPU instance profile; `ci_id` equals the NVML enum."""

    ci_id: int
    slices: int
    max_instances: int | None
    sm_count: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Board:
    """One catalogued GPU: profiles, and how its generation behaves; None where no source was found.

    `compute_profiles` maps a GPU instance profile name to its compute instance profiles; a name
    that is absent had no listing. `sources` name where the figures were read.
    """

    key: str
    product_names: tuple[str, ...]
    pci_device_ids: tuple[str, ...]
    architecture: str
    nvml_arch: int
    compute_capability: str | None
    min_driver: str
    memory_total_mib: int | None
    memory_slices: int
    compute_slices: int
    sm_count: int | None
    mode_change_needs_reset: bool
    mode_survives_reboot: bool
    gpm_supported: bool
    profiles: tuple[Profile, ...]
    compute_profiles: dict[str, tuple[ComputeProfile, ...]]
    sources: tuple[str, ...]

    def model(self, driver_branch: int = 580) -> GpuModel:
        """Return what this board allows under a driver branch (the number before the first dot)."""
        profiles = tuple(p for p in self.profiles if _offered(p, driver_branch))
        return GpuModel(
            name=self.product_names[0],
            memory_slices=self.memory_slices,
            compute_slices=self.compute_slices,
            profiles=profiles,
            engine_totals=limiting_engines(profiles),
            exclusive_pairs=exclusive_pairs(profiles, driver_branch),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Catalog:
    """All boards, and what NVIDIA's driver does on boards of each number of memory slices.

    `gi_ids[memory_slices][variant]["start:size"]` is the GPU instance id of a span, for the
    variants `normal` and `mirrored`. `start_orders[family][profile id]` is the driver's order of
    preference when no placement is given. Source: the comments of docs/hardware.md.
    """

    boards: tuple[Board, ...]
    gi_ids: dict[str, dict[str, dict[str, int]]]
    start_orders: dict[str, dict[str, tuple[int, ...]]]

    def board(self, name: str) -> Board:
        """Return the board of a key or product name (with or without "NVIDIA ").

        Raises:
            NotFound: no such board; the message lists what there is.
        """
        wanted = name.strip().lower().removeprefix("nvidia ")
        for board in self.boards:
            names = (board.key, *board.product_names)
            if wanted in (n.lower().removeprefix("nvidia ") for n in names):
                return board
        known = ", ".join(n.removeprefix("NVIDIA ") for b in self.boards for n in b.product_names)
        raise NotFound(f"no GPU model {name!r} in the catalog; it has {known}")


def load_catalog() -> Catalog:
    """Read the package's GPU data (about 3 ms; callers keep the result)."""
    text = resources.files("migscaler.model.data").joinpath("gpus.json").read_text("utf-8")
    raw = json.loads(text)
    return Catalog(
        boards=tuple(_board(entry) for entry in raw["gpus"]),
        gi_ids=raw["gi_id_by_span"],
        start_orders={
            family: {profile: tuple(starts) for profile, starts in orders.items()}
            for family, orders in raw["default_start_order_observed"].items()
        },
    )


def limiting_engines(profiles: Iterable[Profile]) -> tuple[tuple[str, int], ...]:
    """Return the engines whose figures may limit creation, with what the whole GPU has.

    An engine counts only where every profile states it and no profile's own maximum contradicts it:
    on A100-80GB seven 1g.10gb show one decoder each while the GPU shows five, so decoders don't
    limit there.
    """
    known = tuple(profiles)
    if not known:
        return ()
    whole = max(known, key=lambda p: (p.memory_slices, p.compute_slices))
    limits = []
    for engine, total in whole.engines.counts():
        figures = [dict(p.engines.counts())[engine] for p in known]
        if total is None or any(figure is None for figure in figures):
            continue
        worst = max(p.max_instances * (dict(p.engines.counts())[engine] or 0) for p in known)
        if worst <= total:
            limits.append((engine, total))
    return tuple(limits)


def exclusive_pairs(
    profiles: Iterable[Profile], driver_branch: int | None
) -> tuple[tuple[str, str], ...]:
    """Return the pairs of profile names that this driver branch refuses side by side.

    An unknown branch (None) is treated as an old one: refusing a layout is safe, promising it is
    not.
    """
    if driver_branch is not None and driver_branch >= FIRST_BRANCH_WITH_4G_3G:
        return ()
    known = tuple(profiles)
    seven_slices = any(p.compute_slices == 7 for p in known)
    if not seven_slices:
        return ()
    fours = [p.name for p in known if p.compute_slices == 4]
    threes = [p.name for p in known if p.compute_slices == 3]
    return tuple((four, three) for four in fours for three in threes)


def _offered(profile: Profile, branch: int) -> bool:
    """Say whether a driver branch knows the profile."""
    if "x" in profile.size_class.split("+")[0]:
        return branch >= FIRST_BRANCH_WITH_WIDE
    return "+me" not in profile.size_class or branch >= FIRST_BRANCH_WITH_MEDIA


def _board(raw: dict) -> Board:  # type: ignore[type-arg]  # decoding JSON
    """Decode one catalogued GPU."""
    return Board(
        key=raw["key"],
        product_names=tuple(raw["product_names"]),
        pci_device_ids=tuple(raw["pci_device_ids"]),
        architecture=raw["architecture"],
        nvml_arch=raw["nvml_arch"],
        compute_capability=raw["compute_capability"],
        min_driver=raw["min_driver"],
        memory_total_mib=raw["memory_total_mib"],
        memory_slices=raw["memory_units"],
        compute_slices=raw["compute_slices"],
        sm_count=raw["sm_count"],
        mode_change_needs_reset=raw["mig_mode_change_needs_reset"],
        mode_survives_reboot=raw["mig_mode_survives_reboot"],
        gpm_supported=raw["gpm_supported"],
        profiles=tuple(sorted((_profile(p) for p in raw["profiles"]), key=lambda p: p.enum_value)),
        compute_profiles={
            p["name"]: tuple(
                ComputeProfile(
                    ci_id=c["id"],
                    slices=c["slice_count"],
                    max_instances=c["max_instances"],
                    sm_count=c["sm_count"],
                )
                for c in p["compute_instance_profiles"]
            )
            for p in raw["profiles"]
            if p["compute_instance_profiles"] is not None
        },
        sources=tuple(raw["sources"]),
    )


def _profile(raw: dict) -> Profile:  # type: ignore[type-arg]  # decoding JSON
    """Decode one GPU instance profile."""
    return Profile(
        name=raw["name"],
        profile_id=raw["profile_id"],
        enum_value=raw["nvml_enum_value"],
        compute_slices=raw["slice_count"],
        memory_slices=raw["memory_units"],
        starts=tuple(p["start"] for p in raw["placements"]),
        max_instances=raw["max_instances"],
        memory_mib=raw["memory_mib"],
        sm_count=raw["sm_count"],
        engines=Engines(**raw["engines"]),
    )
