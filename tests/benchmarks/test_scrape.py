import pytest

from tests.benchmarks.scrape_bench import measure, report


@pytest.mark.bench
def test_scrape_holds_its_figures() -> None:
    figures = measure()
    print("\n" + report(figures))

    # Percentiles near the end move with whatever else the machine does; the middle must hold.
    assert figures.first_p50 <= 30.0
    assert figures.cached_p50 <= 3.0
    assert figures.parallel_p50 <= 50.0
