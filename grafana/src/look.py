"""Colors, thresholds and value mappings that mean the same on every dashboard."""

from grafana_foundation_sdk.builders.dashboard import ThresholdsConfig
from grafana_foundation_sdk.models.dashboard import (
    DashboardRegexMapOptions,
    RegexMap,
    Threshold,
    ThresholdsMode,
    ValueMap,
    ValueMapping,
    ValueMappingResult,
)

FREE = "#9fa7b3"
GOOD, WARN, BAD, PLAIN = "#1f8a70", "#e0a100", "#d1383d", "#3d71d9"
STATES = {"pinned": "#3d71d9", "idle": "#4fa890", "free": "#b8c0cc", "stranded": "#e0a100"}
"""Color of slices by state."""
SIZES = {"1": GOOD, "2": "#2f6fce", "3": "#6f55d0", "4": "#b0449b", "7": "#d0641e"}
"""Color of an instance by its number of compute slices; the page uses the same hues."""
SIZE_NAMES = {f"^{size}g$": color for size, color in SIZES.items()}
"""Color of a line named by a size."""


def steps(*pairs: tuple[float | None, str]) -> ThresholdsConfig:
    """Return thresholds (from this value on, this color); the first has no value."""
    made = [Threshold(value=value, color=color) for value, color in pairs]
    return ThresholdsConfig().mode(ThresholdsMode.ABSOLUTE).steps(made)


def plain() -> ThresholdsConfig:
    """Return one color for every value: a figure that is neither good nor bad."""
    return steps((None, PLAIN))


def bad_above(value: float, color: str = BAD) -> ThresholdsConfig:
    """Return thresholds for a figure that should stay below a value."""
    return steps((None, GOOD), (value, color))


def words(**colored: tuple[str, str]) -> list[ValueMapping]:
    """Return a mapping of values (`v0=` for 0) to a word in a color."""
    options = {
        name.removeprefix("v"): ValueMappingResult(text=text, color=color, index=position)
        for position, (name, (text, color)) in enumerate(colored.items())
    }
    return [ValueMap(options=options)]


def yes_no(yes: str, no: str) -> list[ValueMapping]:
    """Return a mapping of 1 and 0 to words in two colors."""
    return words(v0=("no", no), v1=("yes", yes))


def slices() -> list[ValueMapping]:
    """Return what a memory slice shows: the size of the instance that covers it."""
    sizes = {f"v{size}": (f"{size}g", color) for size, color in SIZES.items()}
    return words(v0=("free", FREE), **sizes)


def layouts() -> list[ValueMapping]:
    """Return colors of layout texts by their largest instance; the text stays."""
    found: list[ValueMapping] = [
        _colored(f"(^|.* ){size}g\\..*", color, index)
        for index, (size, color) in enumerate(reversed(SIZES.items()))
    ]
    return found


def _colored(pattern: str, color: str, index: int) -> ValueMapping:
    """Return a mapping that only colors what matches."""
    result = ValueMappingResult(color=color, index=index)
    return RegexMap(options=DashboardRegexMapOptions(pattern=pattern, result=result))
