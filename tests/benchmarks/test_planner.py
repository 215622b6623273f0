import pytest

from tests.benchmarks.planner_bench import main


@pytest.mark.bench
def test_planner_holds_its_figures(capfd: pytest.CaptureFixture[str]) -> None:
    """One seed of the protocol up to 1,000 GPUs, with the baselines; main says what is missed."""
    with capfd.disabled():
        missed = main(["--quick"])

    assert missed == 0
