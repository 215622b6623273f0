import pytest

from tests.benchmarks.daemon_bench import OURS, REAL_PROC, THEIRS, Bars, measure_all, report


@pytest.mark.bench
def test_daemon_at_rest_holds_its_figures() -> None:
    seconds, bars = 60.0, Bars()
    costs = measure_all(seconds)
    print("\n" + report(costs, seconds))

    assert {cost.name for cost in costs} >= {OURS, REAL_PROC}
    for cost in costs:
        if cost.name != THEIRS:
            assert 100 * cost.cpu_seconds / seconds <= bars.cpu_percent
            assert cost.resident_mib <= bars.resident_mib
            # Linear in instances: at most 6 of each (8 with GPM), 9 per profile and 20 per GPU.
            assert cost.library_calls * 5 / seconds <= 56 * 8 + 8 * 29
