"""Disks that fill up, directories that can't be written, files that are damaged: real processes.

Changes stop with the reason said everywhere; the exporter never stops; nothing is deleted; changes
go on when there is space again.
"""

import contextlib
import os
import signal
import sqlite3
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from migscaler.sim.faults import slow
from tests.e2e.lives import RESHAPING, RESTING, Life, Site, kill
from tests.e2e.processes import free_port, running, wait_until

pytestmark = pytest.mark.xdist_group("disk")

CREATE = "nvmlDeviceCreateGpuInstanceWithPlacement"
A100 = "1xA100-SXM4-40GB"
WRITABLE = "migscaler_state_writable"
TARGET = 'migscaler_rule_target_instances{rule="small"}'
GATE = 'migscaler_gate_closed{reason="journal_unwritable"}'
DROPPED = "-dac_override,-dac_read_search,-fowner"


@contextlib.contextmanager
def small_disk(directory: Path, kib: int = 1024) -> Iterator[None]:
    """Mount a small file system on a directory."""
    directory.mkdir(mode=0o700)
    command = ["mount", "-t", "tmpfs", "-o", f"size={kib}k,mode=700", "small", str(directory)]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode != 0:
        pytest.fail(f"a file system of its own needs root with CAP_SYS_ADMIN: {done.stderr}")
    try:
        yield
    finally:
        subprocess.run(["umount", "--lazy", str(directory)], check=True)


def fill(directory: Path) -> Path:
    """Take every byte that is left, and return the file that has them."""
    ballast = directory / "ballast"
    with ballast.open("ab", buffering=0) as file, contextlib.suppress(OSError):
        for size in (65536, 4096, 1):
            with contextlib.suppress(OSError):
                while True:
                    file.write(bytes(size))
    return ballast


def instances(life: Life) -> float | None:
    return life.shown(f'migscaler_gpu_instances{{gpu="0",gpu_uuid="{UUIDS[life.port]}"}}')


UUIDS: dict[int, str] = {}


def know(site: Site, life: Life) -> None:
    UUIDS[life.port] = site.node.state.gpus[0].uuid


def is_unwritable(life: Life) -> bool:
    return life.shown_together(WRITABLE, GATE) == (0.0, 1.0)


def opened(site: Site) -> contextlib.closing[sqlite3.Connection]:
    """Open the state file beside the daemon, which may be in the middle of a write."""
    return contextlib.closing(sqlite3.connect(site.state / "state.sqlite", timeout=60))


def test_full_disk_stops_changes_and_nothing_else_until_there_is_space(tmp_path: Path) -> None:
    site = Site(tmp_path, A100, RESTING, "3g@4")
    with small_disk(site.state), site.life() as life:
        know(site, life)
        wait_until("it can write", lambda: life.shown(WRITABLE) == 1.0)
        ballast = fill(site.state)
        wait_until("the full disk is told", lambda: is_unwritable(life))
        site.config.write_text(RESHAPING)
        wait_until("the wish is known", lambda: life.shown(TARGET))
        site.node.foreign_create(0, "1g@0")
        wait_until("what others do is seen", lambda: instances(life) == 2.0)
        status, doctor = site.cli("status"), site.cli("doctor")
        page = life.get("/").text
        untouched = site.calls()
        healthy = life.get("/-/healthy").status_code
        ballast.unlink()
        wait_until("it can write again", lambda: life.shown(WRITABLE) == 1.0)
        wait_until("changes go on", lambda: site.layout().count("1g.5gb") == 3, 60)
        gate = life.shown(GATE)

    assert (untouched, healthy, gate) == ([], 200, 0.0)
    assert "foreign_change_recorded" in site.log.read_text()
    assert "the journal can't be written" in status.stdout
    assert "state" in doctor.stdout
    assert "journal" in page


def test_disk_that_fills_up_in_the_middle_of_a_plan(tmp_path: Path) -> None:
    """The call under way can't be written as done: the plan stays open, and is settled later."""
    site = Site(tmp_path, A100, RESHAPING, "3g@4")
    (busy,) = site.node.state.gpus[0].instances.values()
    site.node.start_job(0, busy.id)
    site.add_fault(slow(CREATE, 600.0, nth=2))
    with small_disk(site.state), site.life() as life:
        know(site, life)
        site.wait_for_call(CREATE)
        ballast = fill(site.state)
        half = site.layout()
        site.node.clear_faults()
        wait_until("the full disk is told", lambda: life.shown(WRITABLE) == 0.0)
        begun = len(site.calls())
        seen = life.shown("migscaler_ticks_total") or 0.0
        wait_until("it ticks on", lambda: (life.shown("migscaler_ticks_total") or 0) >= seen + 3)
        more = len(site.calls()) - begun
        ballast.unlink()
        wait_until(
            "what was wanted is there, whole",
            lambda: site.layout().count("1g.5gb") == 3 and "!" not in site.layout(),
            90,
        )
        wait_until("no plan is open", lambda: _open_plans(site) == 0)

    assert half.count("1g.5gb") < 3
    # Of the plan cut short, at most what was under way when the disk filled up.
    assert more <= 2
    assert not any(call.in_use for call in site.calls())
    assert len(site.node.state.gpus[0].jobs) == 1


def _open_plans(site: Site) -> int:
    with opened(site) as file:
        return int(file.execute("SELECT count(*) FROM plans WHERE state <> 'closed'").fetchone()[0])


def test_start_on_a_full_disk_exports_and_says_so(tmp_path: Path) -> None:
    site = Site(tmp_path, A100, RESHAPING, "3g@4")
    with small_disk(site.state):
        fill(site.state)
        with site.life() as life:
            know(site, life)
            wait_until("it exports", lambda: instances(life) == 1.0)
            wait_until("it says that nothing is kept", lambda: is_unwritable(life))

    assert site.calls() == []
    assert "observing_only" in site.log.read_text()


@contextlib.contextmanager
def life_without_power(site: Site) -> Iterator[Life]:
    """Run a daemon as a user whom file permissions bind, as they bind everybody but root.

    Another uid could not reach an interpreter below /root: so it keeps its uid, without the
    capabilities that put root above permissions.
    """
    port = free_port()
    words = ["setpriv", f"--bounding-set={DROPPED}", f"--inh-caps={DROPPED}"]
    with running([*words, *site.command(*site.run_words(port))], site.log) as process:
        life = Life(process=process, port=port)
        wait_until("it is ready", lambda: life.get("/-/ready").is_success)
        yield life


def test_directory_that_may_not_be_written_leaves_an_exporter(tmp_path: Path) -> None:
    site = Site(tmp_path, A100, RESTING, "3g@4")
    with site.life():
        pass
    for path in site.state.iterdir():
        path.chmod(0o444)
    site.state.chmod(0o555)
    site.config.write_text(RESHAPING)
    before = {path.name: path.read_bytes() for path in site.state.glob("state*")}
    with life_without_power(site) as life:
        know(site, life)
        wait_until("it exports", lambda: instances(life) == 1.0)
        wait_until("it says that nothing is kept", lambda: is_unwritable(life))
        page = life.get("/").text

    assert site.calls() == []
    assert {path.name: path.read_bytes() for path in site.state.glob("state*")} == before
    assert "no durable state" in page


def test_file_that_can_t_be_used_is_left_as_it_is_and_nothing_is_changed(tmp_path: Path) -> None:
    site = Site(tmp_path, A100, RESTING, "3g@4")
    with site.life():
        pass
    path = site.state / "state.sqlite"
    size = path.stat().st_size
    with path.open("r+b") as file:
        file.seek(4096)
        file.write(os.urandom(size - 4096))
    before = path.read_bytes()
    site.config.write_text(RESHAPING)
    with site.life() as life:
        know(site, life)
        wait_until("it exports", lambda: instances(life) == 1.0)
        wait_until("it says that nothing is kept", lambda: is_unwritable(life))
        status, doctor = site.cli("status"), site.cli("doctor")

    assert path.read_bytes() == before
    assert site.calls() == []
    assert "state file" in status.stdout
    assert "state" in doctor.stdout
    assert "state file" in site.log.read_text()


def test_file_without_content_is_a_new_one(tmp_path: Path) -> None:
    """SQLite makes one before it writes its first page: a start may be killed right then."""
    site = Site(tmp_path, A100, RESTING)
    site.state.mkdir(mode=0o700)
    (site.state / "state.sqlite").touch()
    with site.life() as life:
        wait_until("it can write", lambda: life.shown(WRITABLE) == 1.0)


def test_log_left_behind_by_a_kill_is_read_by_the_next_start(tmp_path: Path) -> None:
    site = Site(tmp_path, A100, RESTING, "3g@4")
    with site.life() as life:
        held = site.cli("hold", "0", "--reason", "measuring", "--output", "json")
        kill(life)
    left = (site.state / "state.sqlite-wal").stat().st_size
    with site.life() as life:
        know(site, life)
        gpu = f'gpu="0",gpu_uuid="{UUIDS[life.port]}"'
        wait_until("the hold is there", lambda: life.shown(f"migscaler_gpu_holds{{{gpu}}}") == 1.0)
        assert life.end(signal.SIGTERM) == 0

    assert held.returncode == 0, held.stderr
    assert left > 0


def test_row_that_makes_no_sense_stops_changes_only(tmp_path: Path) -> None:
    site = Site(tmp_path, A100, RESTING, "3g@4")
    with site.life() as life:
        know(site, life)
        wait_until("it can write", lambda: life.shown(WRITABLE) == 1.0)
        with opened(site) as file, file:
            file.execute(
                "INSERT INTO holds (gpu_uuid, spec, owner, reason, kind, created_at)"
                " VALUES ('GPU-x', 'nonsense', 'ada', 'r', 'hold', 'yesterday')"
            )
        site.config.write_text(RESHAPING)
        wait_until("the damage is told", lambda: is_unwritable(life))
        # Before anybody changes something: the pace of the other file would let the GPU rest.
        wait_until("the wish is known", lambda: life.shown(TARGET))
        site.node.foreign_create(0, "1g@0")
        wait_until("what others do is seen", lambda: instances(life) == 2.0)
        untouched = site.calls()
        with opened(site) as file, file:
            file.execute("DELETE FROM holds")
        wait_until("changes go on", lambda: site.layout().count("1g.5gb") == 3, 60)

    assert untouched == []
