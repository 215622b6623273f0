"""What one row of the metric table says, and how many series a GPU can get from it."""

import enum
from dataclasses import dataclass

from migscaler.model.gpu import PinReason
from migscaler.model.layout import GpuModel
from migscaler.model.plan import GateReason
from migscaler.model.policy import Mode

PREFIX = "migscaler_"
GPU_LABELS = ("gpu", "gpu_uuid")
INSTANCE_LABELS = ("gpu", "gpu_uuid", "gi_id", "profile", "placement")
SLICE_STATES = ("pinned", "idle", "free", "stranded")
MODES = tuple(mode.value for mode in Mode)
GATE_REASONS = tuple(reason.value for reason in GateReason)
PIN_REASONS = tuple(reason.value for reason in PinReason)


class Kind(enum.Enum):
    """Type of a family; an info is a gauge that is always 1."""

    GAUGE = "gauge"
    COUNTER = "counter"
    INFO = "info"
    HISTOGRAM = "histogram"


class Many(enum.Enum):
    """How many series of a family there are at most."""

    NODE = "per node"
    GPU = "1 per GPU"
    SLICE_STATE = "4 per GPU"
    MODE = "3 per GPU"
    GATE = "1 per GPU and gate reason"
    SLICE = "1 per memory slice"
    PROFILE = "1 per GPU and profile"
    INSTANCE = "1 per instance"
    INSTANCE_FIELD = "4 per instance"
    COMPUTE_INSTANCE = "1 per compute instance"


@dataclass(frozen=True, slots=True, kw_only=True)
class Family:
    """One row of the table.

    `name` is complete, as it is queried (`_total` and `_info` included). `labels` are in the order
    in which the collector gives their values. `unit` is a word for readers. `optional`: not every
    GPU or driver has it, so `migscaler_family_supported` tells whether this node does. `example`
    is a query worth knowing.
    """

    name: str
    kind: Kind
    unit: str
    help: str
    labels: tuple[str, ...]
    many: Many
    origin: str
    example: str
    optional: bool = False

    @property
    def short(self) -> str:
        """Return the name without the product's prefix: the collector's key."""
        return self.name.removeprefix(PREFIX)

    @property
    def stem(self) -> str:
        """Return the name that OpenMetrics and prometheus_client know the family by."""
        if self.kind is Kind.COUNTER:
            return self.name.removesuffix("_total")
        return self.name.removesuffix("_info") if self.kind is Kind.INFO else self.name

    @property
    def declared_unit(self) -> str:
        """Return the OpenMetrics unit: only one that the name ends in may be declared."""
        return self.unit if self.unit and self.stem.endswith(f"_{self.unit}") else ""


def row(
    name: str,
    unit: str,
    text: str,
    many: Many = Many.NODE,
    *labels: str,
    kind: Kind | None = None,
    origin: str = "",
    example: str = "",
    optional: bool = False,
) -> Family:
    """Return a row; the kind follows from the name's suffix, leading labels from `many`."""
    if kind is None:
        kind = Kind.COUNTER if name.endswith("_total") else Kind.GAUGE
        kind = Kind.INFO if name.endswith("_info") else kind
    full = PREFIX + name
    return Family(
        name=full,
        kind=kind,
        unit=unit,
        help=text,
        labels=(*_leading(many), *labels),
        many=many,
        origin=origin,
        example=example or _plain_example(full, kind),
        optional=optional,
    )


def most_series(families: tuple[Family, ...], model: GpuModel) -> int:
    """Return the most series that one GPU of a model can have: the published bound.

    Every instance has at least one compute slice, so no GPU holds more instances, or compute
    instances, than it has compute slices.
    """
    times = {
        Many.NODE: 0,
        Many.GPU: 1,
        Many.SLICE_STATE: len(SLICE_STATES),
        Many.MODE: len(MODES),
        Many.GATE: len(GATE_REASONS),
        Many.SLICE: model.memory_slices,
        Many.PROFILE: len(model.profiles),
        Many.INSTANCE: model.compute_slices,
        Many.INSTANCE_FIELD: 4 * model.compute_slices,
        Many.COMPUTE_INSTANCE: model.compute_slices,
    }
    return sum(times[family.many] for family in families)


def _leading(many: Many) -> tuple[str, ...]:
    """Return the labels that every family of that multiplicity has first."""
    if many in (Many.INSTANCE, Many.INSTANCE_FIELD, Many.COMPUTE_INSTANCE):
        return INSTANCE_LABELS
    return () if many is Many.NODE else GPU_LABELS


def _plain_example(name: str, kind: Kind) -> str:
    """Return the query that a reader tries first."""
    if kind is Kind.COUNTER:
        return f"increase({name}[1h])"
    if kind is Kind.HISTOGRAM:
        return f"histogram_quantile(0.9, sum by (le) (rate({name}_bucket[1d])))"
    return f"time() - {name}" if name.endswith("_timestamp_seconds") else name
