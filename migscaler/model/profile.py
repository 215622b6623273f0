"""Kinds of GPU instance, where they may lie, and the text forms of both."""

import re
from dataclasses import dataclass

from migscaler.errors import ParseError

_NAME = re.compile(
    r"^(?:(?P<ci>\d+)c\.)?(?P<g>\d+)g\.(?P<gb>\d+)gb(?P<attributes>(?:[+-][a-z.]+)*)$"
)
_CLASS = re.compile(r"^(?P<g>\d+)g(?P<wide>x?)(?P<attributes>(?:[+-][a-z.]+)*)$")
_SPEC = re.compile(r"^(?P<profile>[^@\s]+)@(?P<start>\d+)$")

# Enum value of the one-compute-slice profile with double memory:
# NVML_GPU_INSTANCE_PROFILE_1_SLICE_REV2, nvml.h.
WIDE_ENUM = 9
# The GB figure of a name is a rounded label that moves with the driver (3g.39gb and 3g.40gb on
# A100-80GB, 1g.11gb and 1g.12gb on H100 NVL, 1g.24gb and 1g.23gb on GB200); 1g.5gb and 1g.6gb stay
# two different things.
_LABEL_TOLERANCE = 0.1


@dataclass(frozen=True, slots=True, order=True)
class Placement:
    """A contiguous interval of memory slices, `start` counted from 0; text `4:4`."""

    start: int
    size: int

    def __post_init__(self) -> None:
        """Refuse an interval that can't exist."""
        if self.start < 0 or self.size < 1:
            raise ParseError(f"placement {self.start}:{self.size} is not an interval of slices")

    @property
    def end(self) -> int:
        """First memory slice after the interval."""
        return self.start + self.size

    @property
    def mask(self) -> int:
        """Bit i set for each memory slice i covered."""
        return ((1 << self.size) - 1) << self.start

    def __str__(self) -> str:
        """Return `start:size`, as nvidia-smi prints it."""
        return f"{self.start}:{self.size}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Engines:
    """Engines of a GPU instance, as NVML counts them; None where the figure is not known."""

    copy: int | None = None
    decoder: int | None = None
    encoder: int | None = None
    jpeg: int | None = None
    ofa: int | None = None

    def counts(self) -> tuple[tuple[str, int | None], ...]:
        """Return (engine name, count) in a fixed order."""
        return (
            ("copy", self.copy),
            ("decoder", self.decoder),
            ("encoder", self.encoder),
            ("jpeg", self.jpeg),
            ("ofa", self.ofa),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Profile:
    """A kind of GPU instance on one GPU model.

    `profile_id` is NVML's `info.id` (what create calls want), `enum_value` the
    NVML_GPU_INSTANCE_PROFILE_* constant (what profile queries want): the two are different numbers.
    `memory_slices` is a placement's length, `starts` the legal first slices in rising order.
    """

    name: str
    profile_id: int
    enum_value: int
    compute_slices: int
    memory_slices: int
    starts: tuple[int, ...]
    max_instances: int
    memory_mib: int | None = None
    sm_count: int | None = None
    engines: Engines = Engines()

    @property
    def size_class(self) -> str:
        """Shape of the profile on any model: `1g`, `2g`, `1g+me`, `1gx` (double memory), `7g`."""
        match = _NAME.match(self.name)
        attributes = match["attributes"] if match else ""
        wide = "x" if self.enum_value == WIDE_ENUM else ""
        return f"{self.compute_slices}g{wide}{attributes}"

    def placements(self) -> tuple[Placement, ...]:
        """Return every legal placement, by rising start."""
        return tuple(Placement(start, self.memory_slices) for start in self.starts)

    def matches(self, wanted: str) -> bool:
        """Say whether a person's text names this profile: its size class, or its name.

        A name whose GB figure differs only as driver versions differ matches too.
        """
        if wanted in (self.name, self.size_class):
            return True
        mine, other = _NAME.match(self.name), _NAME.match(wanted)
        if mine is None or other is None or other["ci"]:
            return False
        if (mine["g"], mine["attributes"]) != (other["g"], other["attributes"]):
            return False
        gb_mine, gb_other = int(mine["gb"]), int(other["gb"])
        return abs(gb_mine - gb_other) <= max(gb_mine, gb_other) * _LABEL_TOLERANCE


def check_size_text(text: str) -> str:
    """Return the text if it has the form of a size class or a profile name.

    Raises:
        ParseError: it has neither form; the message shows both.
    """
    if _CLASS.match(text) or _NAME.match(text):
        return text
    raise ParseError(
        f"{text!r} is neither a size class (1g to 7g, 1gx, 1g+me) nor a profile name (3g.20gb)"
    )


@dataclass(frozen=True, slots=True, order=True)
class InstanceSpec:
    """A profile at a placement, which may or may not exist; text `3g.40gb@4`.

    Sorts by place, so that a layout has one canonical order.
    """

    placement: Placement
    profile: str

    def __str__(self) -> str:
        """Return `profile@start`."""
        return f"{self.profile}@{self.placement.start}"

    @property
    def mask(self) -> int:
        """Bit i set for each memory slice i covered."""
        return self.placement.mask


def split_spec_text(text: str) -> tuple[str, int]:
    """Split `3g.40gb@4` into profile name and start.

    Raises:
        ParseError: the text does not have that form.
    """
    match = _SPEC.match(text.strip())
    if match is None:
        raise ParseError(f"{text!r} is not an instance; write profile@start, e.g. 3g.40gb@4")
    return match["profile"], int(match["start"])
