import tempfile
from pathlib import Path
from statistics import median

import pytest

from tests.benchmarks.step_bench import measure, table


@pytest.mark.bench
def test_step_holds_its_figure() -> None:
    """The journal lies beside the sources, as a temporary directory may be in memory."""
    with tempfile.TemporaryDirectory(dir=".") as directory:
        timings = measure(20, Path(directory))
    print("\n" + table(timings))

    assert 1_000 * median(one.seconds - one.nvml_seconds for one in timings) <= 25.0
