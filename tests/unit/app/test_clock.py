from datetime import UTC
from pathlib import Path

import pytest

from migscaler.app.clock import RealClock, read_boot_id


def test_wall_clock_is_aware_and_in_utc() -> None:
    assert RealClock().now().tzinfo is UTC


def test_monotonic_clock_counts_from_boot_with_suspend() -> None:
    def uptime() -> float:
        return float(Path("/proc/uptime").read_text("ascii").split()[0])

    before, seconds, after = uptime(), RealClock().monotonic(), uptime()

    assert before <= seconds < after + 0.01  # of which it tells hundredths


def test_sleep_waits_and_ignores_the_past() -> None:
    clock = RealClock()
    before = clock.monotonic()

    clock.sleep(-1.0)
    clock.sleep(0.01)

    assert 0.01 <= clock.monotonic() - before < 5.0


def test_boot_id_is_the_kernels(tmp_path: Path) -> None:
    path = tmp_path / "boot_id"
    path.write_text("0b1c6c1e-6a5d-4a3e-9d0f-1f1f1f1f1f1f\n")

    assert read_boot_id(path) == "0b1c6c1e-6a5d-4a3e-9d0f-1f1f1f1f1f1f"
    assert read_boot_id() == read_boot_id()


def test_boot_id_that_cannot_be_read_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="No such file"):
        read_boot_id(tmp_path / "none")
