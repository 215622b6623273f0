"""DCGM's profiling series: their names in every spelling, as text of a page and as a query."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

from prometheus_client.parser import text_string_to_metric_families

# DCGM 4.6 renamed the fields and kept the old names as aliases; which of the two an exporter shows
# depends on its list of counters (dcgm_fields.h of DCGM 4.6; ids 1001, 1002, 1004, 1005).
FIELDS: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "graphics": ("DCGM_FI_PROF_GR_ENGINE_ACTIVE", "DCGM_FI_PROF_GR_ENGINE_UTIL_RATIO"),
        "sm": ("DCGM_FI_PROF_SM_ACTIVE", "DCGM_FI_PROF_SM_UTIL_RATIO"),
        "tensor": ("DCGM_FI_PROF_PIPE_TENSOR_ACTIVE", "DCGM_FI_PROF_TENSOR_UTIL_RATIO"),
        "dram": ("DCGM_FI_PROF_DRAM_ACTIVE", "DCGM_FI_PROF_DRAM_UTIL_RATIO"),
    }
)
"""Names of each field's series, in the order of fields everywhere."""

# Up to 1.29 has been seen on MIG; DCGM's "blank" double is 2**47 and more (dcgm_structs.h).
_LARGEST = 10.0
_FIELD_OF = {name: field for field, names in FIELDS.items() for name in names}
_PREFIXES = tuple(f"{name}{{" for name in _FIELD_OF)


@dataclass(frozen=True, slots=True, kw_only=True)
class Series:
    """One value with its labels; `age_seconds` is how long ago it was taken."""

    field: str
    labels: tuple[tuple[str, str], ...]
    value: float
    age_seconds: float = 0.0

    def label(self, name: str) -> str | None:
        """Return a label's value."""
        return next((value for key, value in self.labels if key == name), None)


def parse_page(body: bytes) -> tuple[Series, ...]:
    """Return the profiling series of an exporter's page (text format 0.0.4).

    Raises:
        ValueError: a line of theirs can't be read.
    """
    # The other lines, nine in ten, are not looked at: they are none of our business.
    lines = [line for line in body.decode("utf-8").splitlines() if line.startswith(_PREFIXES)]
    text = "\n".join(lines) + "\n"
    found = []
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            value = ratio_of(sample.value)
            if value is not None:
                labels = tuple(sample.labels.items())
                found.append(Series(field=_FIELD_OF[sample.name], labels=labels, value=value))
    return tuple(found)


def selector_query(gpus: Sequence[str]) -> str:
    """Return the query for every field of the instances of these GPUs, each with its time.

    Series are told apart by labels of ours, since a function drops the metric's name.
    """
    return " or ".join(_terms("|".join(gpus)))


def ratio_of(value: float | str) -> float | None:
    """Return a ratio as told; None for what can't be one."""
    try:
        number = float(value)
    except ValueError:
        return None
    return number if math.isfinite(number) and 0 <= number <= _LARGEST else None


def _terms(uuids: str) -> Iterator[str]:
    """Yield the parts of the query."""
    for field, names in FIELDS.items():
        for name in names:
            series = f'{name}{{GPU_I_ID!="",UUID=~"{uuids}"}}'
            for what, expression in (("value", series), ("time", f"timestamp({series})")):
                named = f'label_replace({expression}, "migscaler_field", "{field}", "", "")'
                yield f'label_replace({named}, "migscaler_what", "{what}", "", "")'
