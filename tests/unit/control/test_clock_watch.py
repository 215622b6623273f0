"""What counts as a step of the wall clock, and what does not."""

from datetime import UTC, datetime, timedelta

import pytest

from migscaler.control.clock_watch import ClockWatch

NOTHING = timedelta()
PAUSE = 3.0


class PausedClock:
    """Both clocks run evenly; the process that reads them is paused before one of its reads."""

    def __init__(self) -> None:
        self.seconds = 1_000.0
        self.stepped = NOTHING
        self.reads_until_pause: int | None = None

    def now(self) -> datetime:
        return datetime(2026, 3, 2, tzinfo=UTC) + timedelta(seconds=self._read()) + self.stepped

    def monotonic(self) -> float:
        return self._read()

    def sleep(self, seconds: float) -> None:
        self.seconds += seconds

    def _read(self) -> float:
        if self.reads_until_pause is not None:
            self.reads_until_pause -= 1
            if self.reads_until_pause < 0:
                self.seconds, self.reads_until_pause = self.seconds + PAUSE, None
        return self.seconds


@pytest.mark.parametrize("reads", range(8))
def test_process_that_is_paused_between_two_clocks_sees_no_step(reads: int) -> None:
    """On a busy machine one that read them three seconds apart held changes back for a minute."""
    clock = PausedClock()
    watch = ClockWatch(clock)
    clock.sleep(60.0)
    clock.reads_until_pause = reads

    seen = [(watch.look(), watch.problem()) for _ in range(4)]

    assert seen == [(NOTHING, None)] * 4


@pytest.mark.parametrize("reads", range(4))
def test_step_is_seen_whole_whenever_the_process_is_paused(reads: int) -> None:
    clock = PausedClock()
    watch = ClockWatch(clock)
    clock.stepped = timedelta(hours=1)
    clock.reads_until_pause = reads

    assert watch.look() == timedelta(hours=1)
    assert watch.problem() == "the clock was stepped by +3600 s"
