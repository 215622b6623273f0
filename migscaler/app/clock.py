"""The real clock: the only file that reads time or sleeps."""

import time
from datetime import UTC, datetime
from pathlib import Path

BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


class RealClock:
    """Wall clock, and seconds since boot with suspend included (CLOCK_BOOTTIME).

    CLOCK_MONOTONIC stands still while a machine sleeps; idle timers would then count an hour of
    suspend as no time at all, and processes of one boot could not compare their values with a
    wall-clock distance.
    """

    def now(self) -> datetime:
        """Return the wall clock as an aware UTC datetime."""
        return datetime.now(UTC)

    def monotonic(self) -> float:
        """Return seconds since boot; equal for all processes of a boot."""
        return time.clock_gettime(time.CLOCK_BOOTTIME)

    def sleep(self, seconds: float) -> None:
        """Wait that long; nothing for zero or less."""
        if seconds > 0:
            time.sleep(seconds)


def read_boot_id(path: Path = BOOT_ID) -> str:
    """Return the kernel's id of this boot: another id means that instances are gone.

    Raises:
        OSError: the kernel does not tell (no /proc).
    """
    return path.read_text("ascii").strip()
