"""A window that opens is acted on when it opens."""

from datetime import UTC, datetime, timedelta

from migscaler.app.edges import WindowEdges

OPENS = datetime(2026, 3, 2, 9, 0, tzinfo=UTC)


class Wall:
    """A wall clock moved by hand."""

    def __init__(self) -> None:
        self.time = OPENS - timedelta(seconds=1)

    def now(self) -> datetime:
        return self.time

    def monotonic(self) -> float:
        return self.time.timestamp()

    def sleep(self, seconds: float) -> None:
        self.time += timedelta(seconds=seconds)


class Ticks:
    """Ticks asked for, by time; the first `refused` of them find one under way."""

    def __init__(self, clock: Wall, refused: int = 0) -> None:
        self.asked: list[datetime] = []
        self._clock = clock
        self._refused = refused

    def __call__(self) -> bool:
        self.asked.append(self._clock.time)
        return len(self.asked) > self._refused


def test_tick_is_brought_forward_once_when_an_edge_passes() -> None:
    clock = Wall()
    ticks = Ticks(clock)
    edges = WindowEdges(lambda: OPENS, clock, ticks)

    for _ in range(4):
        edges.look()
        clock.sleep(1)

    assert ticks.asked == [OPENS]


def test_edge_during_a_tick_is_acted_on_when_that_has_ended() -> None:
    clock = Wall()
    ticks = Ticks(clock, refused=2)
    edges = WindowEdges(lambda: OPENS, clock, ticks)

    for _ in range(6):
        edges.look()
        clock.sleep(1)

    assert ticks.asked == [OPENS + timedelta(seconds=n) for n in range(3)]


def test_nothing_is_brought_forward_without_windows() -> None:
    clock = Wall()
    ticks = Ticks(clock)

    WindowEdges(lambda: None, clock, ticks).look()

    assert ticks.asked == []
