import pytest

from migscaler.errors import HardwareError
from migscaler.hardware.exclusions import Exclusions
from tests.unit.hardware.rig import SteppedClock


def test_exclusion_doubles_to_its_longest_and_is_cleared_by_success() -> None:
    clock = SteppedClock()
    book = Exclusions(clock, first=30, longest=100)
    lasted = []
    for _ in range(4):
        book.add("gpu", "hung")
        start = clock.seconds
        while True:
            try:
                book.check("gpu")
                break
            except HardwareError:
                clock.sleep(1)
        lasted.append(clock.seconds - start)
    assert lasted == [30, 60, 100, 100]
    book.clear("gpu")
    book.add("gpu", "hung")
    clock.sleep(30)
    book.check("gpu")


def test_exclusion_says_why_and_for_how_long_and_concerns_one_key() -> None:
    clock = SteppedClock()
    book = Exclusions(clock, first=30, longest=100)
    book.add("gpu", "read_index did not answer within 10 s")
    clock.sleep(10)
    with pytest.raises(
        HardwareError, match="left alone for 20 s more: read_index did not answer within 10 s"
    ):
        book.check("gpu")
    book.check("other")
