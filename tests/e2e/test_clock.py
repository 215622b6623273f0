"""The real daemon under Debian's faketime: its clock is stepped; summer time ends."""

import contextlib
import json
import subprocess
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

import pytest

from tests.e2e.lives import RESHAPING, Life, Site
from tests.e2e.processes import free_port, running, wait_until

pytestmark = pytest.mark.xdist_group("clock")

GATE = 'migscaler_gate_closed{reason="clock_step"}'
TICKS = "migscaler_ticks_total"
HOURS = 3600.0
YEAR = 365 * 24 * HOURS
EIGHT_HOURS = 8 * HOURS
# clock_nanosleep of libfaketime 0.9.10 answers EINVAL, and time.sleep of Python 3.11 needs it.
SLEEP_BY_WAITING = """
import threading, time
time.sleep = lambda seconds: threading.Event().wait(seconds) and None
"""


class FakeTime:
    """The offset of a process's wall clock in seconds, moved while it runs."""

    def __init__(self, directory: Path, offset: float = 0.0) -> None:
        self._file = directory / "faketime"
        site = directory / "site"
        site.mkdir()
        (site / "sitecustomize.py").write_text(SLEEP_BY_WAITING)
        listed = subprocess.run(["dpkg", "-L", "libfaketime"], capture_output=True, text=True)
        library = next(x for x in listed.stdout.split() if x.endswith("libfaketimeMT.so.1"))
        self.environment = {
            "LD_PRELOAD": library,
            "FAKETIME_TIMESTAMP_FILE": str(self._file),
            "FAKETIME_CACHE_DURATION": "1",
            "FAKETIME_DONT_FAKE_MONOTONIC": "1",
            "PYTHONPATH": str(site),
            "TZ": "Europe/Berlin",
        }
        self.set(offset)

    def set(self, offset: float) -> None:
        self.offset = offset
        new = self._file.with_suffix(".new")
        new.write_text(f"{offset:+.0f}\n")
        new.replace(self._file)

    def now(self) -> float:
        return time.time() + self.offset


@contextlib.contextmanager
def life_in(site: Site, faked: FakeTime) -> Iterator[Life]:
    port = free_port()
    command = site.command(*site.run_words(port))
    with running(command, site.log, faked.environment) as process:
        life = Life(process=process, port=port)
        wait_until("it is ready", lambda: life.get("/-/ready").is_success)
        yield life


def ticked(life: Life, more: int) -> None:
    """Wait until it has ticked so often more."""
    before = life.shown(TICKS) or 0.0
    wait_until(f"{more} more ticks", lambda: (life.shown(TICKS) or 0.0) >= before + more)


def test_steps_of_hours_and_years_end_no_hold_and_silence_nothing(tmp_path: Path) -> None:
    """Both ways, one after the other, on a node where the hold alone keeps a plan back."""
    site = Site(tmp_path, "1xA100-SXM4-40GB", RESHAPING, "3g@0 3g@4")
    uuid = site.node.state.gpus[0].uuid
    gpu = f'gpu="0",gpu_uuid="{uuid}"'
    faked = FakeTime(tmp_path)
    with life_in(site, faked) as life:
        held = site.cli("hold", "0", "--reason", "measuring", "--ttl", "8h", "--output", "json")
        assert held.returncode == 0, held.stderr
        hold_id = json.loads(held.stdout)["hold_id"]
        end = time.monotonic() + EIGHT_HOURS
        ticked(life, 12)  # what is not held would be proved idle by now
        for offset in (HOURS, 0.0, YEAR, 0.0, -YEAR):
            noticed = steps(site)
            faked.set(offset)
            wait_until("the step is noticed", partial(_is_noticed, site, life, noticed))
            wait_until("the hold's end has moved", partial(_is_kept, life, gpu, faked, end))
            ticked(life, 3)
            assert _is_kept(life, gpu, faked, end)
            wait_until("all is well", lambda: life.get("/-/healthy").is_success)
        untouched, missed = (
            site.calls(),
            life.shown('migscaler_scheduler_job_missed_total{task="tick"}'),
        )
        released = site.cli("release", str(hold_id))
        wait_until("the gate opens again", lambda: life.shown(GATE) == 0.0, 90)
        wait_until("the plan goes on", lambda: site.layout().count("1g.5gb") == 3)

    assert released.returncode == 0, released.stderr
    assert untouched == []
    # A clock set forwards makes a tick due that may still be under way, as a busy machine does; of
    # the first hour alone 3,600 were left out.
    assert missed is not None
    assert missed <= 60


def steps(site: Site) -> int:
    """Return how many steps the log tells of."""
    return site.log.read_text().count("event=clock_stepped")


def _is_noticed(site: Site, life: Life, before: int) -> bool:
    return steps(site) > before and life.shown(GATE) == 1.0


def _is_kept(life: Life, gpu: str, faked: FakeTime, end: float) -> bool:
    """Say whether the hold is there, and shown to end at this monotonic second or so."""
    ends = f"migscaler_gpu_hold_until_timestamp_seconds{{{gpu}}}"
    held, until = life.shown_together(f"migscaler_gpu_holds{{{gpu}}}", ends)
    left = (until or 0.0) - faked.now()
    return held == 1.0 and abs(end - time.monotonic() - left) < 60


def test_change_of_summer_time_is_no_step(tmp_path: Path) -> None:
    """In Berlin it ended on 2026-10-25 and begins on 2027-03-28, both at 01:00 UTC."""
    changes = (datetime(2026, 10, 25, 1, tzinfo=UTC), datetime(2027, 3, 28, 1, tzinfo=UTC))
    with contextlib.ExitStack() as stack:
        nodes = []
        for number, change in enumerate(changes):
            (tmp_path / str(number)).mkdir()
            site = Site(tmp_path / str(number), "1xA100-SXM4-40GB", RESHAPING, "3g@4")
            faked = FakeTime(site.directory, change.timestamp() - 20 - time.time())
            nodes.append((change, site, faked, stack.enter_context(life_in(site, faked))))
        for change, site, faked, life in nodes:
            wait_until("summer time changes", partial(_is_past, faked, change))
            ticked(life, 3)
            assert life.shown(GATE) == 0.0
            wait_until("the plan is carried out", partial(_has_three, site))
            told = site.log.read_text()
            assert "clock_stepped" not in told
            assert "scheduler_stalled" not in told


def _is_past(faked: FakeTime, moment: datetime) -> bool:
    return faked.now() > moment.timestamp()


def _has_three(site: Site) -> bool:
    return site.layout().count("1g.5gb") == 3
