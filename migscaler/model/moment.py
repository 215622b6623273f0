"""Both clocks read at one moment."""

from datetime import datetime

from migscaler.model.ports import Clock

# Between two looks at the one clock the other one was read at the same moment.
_SAME_MOMENT_SECONDS = 0.1
_TRIES = 5


def moment(clock: Clock) -> tuple[datetime, float]:
    """Return wall and monotonic clock (seconds) as they are at one moment, as near as may be.

    A process that is held up between the two would see a step of the wall clock where there was
    none; then both are read again.
    """
    before, wall = clock.monotonic(), clock.now()
    for _ in range(_TRIES):
        if clock.monotonic() - before < _SAME_MOMENT_SECONDS:
            break
        before, wall = clock.monotonic(), clock.now()
    return wall, before
