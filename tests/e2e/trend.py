"""Whether a quantity grows: a line through samples, with the interval its slope lies in.

Samples of one process follow each other closely (memory that is given back late stays high for
many minutes), so that the textbook's interval, which takes every sample for news, would be far too
narrow. The interval here counts only as many samples as are news, after their first-order
autocorrelation (Bartlett's factor), and takes at least four.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from statistics import fmean

# Two-sided 95 % points of Student's t by degrees of freedom (NIST/SEMATECH e-Handbook, 1.3.6.7.2);
# between two of them the smaller number of degrees counts, which gives the wider interval.
_T95 = {
    1: 12.706, 2: 4.303, 3: 3.182, 4: 2.776, 5: 2.571, 6: 2.447, 7: 2.365, 8: 2.306, 9: 2.262,
    10: 2.228, 12: 2.179, 15: 2.131, 20: 2.086, 25: 2.060, 30: 2.042, 40: 2.021, 60: 2.000,
    100: 1.984,
}  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class Trend:
    """Slope per hour, and half the width of its 95 % interval; `samples` are those counted."""

    slope: float
    half_width: float
    samples: float

    @property
    def low(self) -> float:
        """Return the lower end: growth that is shown, not only possible."""
        return self.slope - self.half_width

    @property
    def high(self) -> float:
        """Return the upper end: growth that the samples do not rule out."""
        return self.slope + self.half_width


def trend(hours: Sequence[float], values: Sequence[float]) -> Trend:
    """Fit a line through at least four samples.

    Raises:
        ValueError: fewer samples, or all of one moment.
    """
    if len(hours) < 4 or len(hours) != len(values):
        raise ValueError("at least four samples are needed")
    middle, mean = fmean(hours), fmean(values)
    spread = sum((hour - middle) ** 2 for hour in hours)
    if spread == 0:
        raise ValueError("all samples are of one moment")
    slope = sum((h - middle) * (v - mean) for h, v in zip(hours, values)) / spread
    rest = [v - mean - slope * (h - middle) for h, v in zip(hours, values)]
    squares = sum(r * r for r in rest)
    if squares <= 1e-18 * max(1.0, mean * mean):
        return Trend(slope=slope, half_width=0.0, samples=len(hours))
    follows = sum(a * b for a, b in pairwise(rest)) / squares
    share = (1 - follows) / (1 + follows) if follows > 0 else 1.0
    samples = max(4.0, len(hours) * share)
    variance = squares / (samples - 2) / (spread * samples / len(hours))
    return Trend(slope=slope, half_width=_t95(samples - 2) * math.sqrt(variance), samples=samples)


def _t95(freedom: float) -> float:
    """Return the two-sided 95 % point, on the wide side."""
    return _T95[max(known for known in _T95 if known <= max(1.0, freedom))]
