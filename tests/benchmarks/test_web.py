import pytest

from tests.benchmarks.web_bench import measure, measure_tls, report


@pytest.mark.bench
def test_scrapes_hold_their_figures_under_attack() -> None:
    seen = {**measure(), **measure_tls()}
    print("\n" + report(seen))

    for kind, one in seen.items():
        assert one.anew.percentile(0.99) <= 100.0, kind
        assert one.kept.percentile(0.99) <= 100.0, kind
        assert one.anew.failures == one.kept.failures == [], kind
        assert one.rss_most <= one.rss_before + 32.0, kind
