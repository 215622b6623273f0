"""What a daemon does when it can't do everything: it exports, and says why it does no more."""

import contextlib
import os
import pty
import signal
import socket
import subprocess
import time
from pathlib import Path

import httpx
import pytest

from migscaler.app.config.settings import SOCKET_NAME
from migscaler.sim.faults import hangs
from migscaler.web.unix_path import short_path
from tests.e2e.lives import RESHAPING, RESTING, Life, Site
from tests.e2e.processes import ANSWER_SECONDS, free_port, is_listening, running, wait_until

pytestmark = pytest.mark.xdist_group("daemon-degraded")

FORCED = "migscaler_config_forced_observe"


def test_daemon_serves_within_seconds_and_ends_with_zero(tmp_path: Path) -> None:
    site = Site(tmp_path, "2xA100-SXM4-40GB,1xH100-80GB", RESTING, "3g@0 3g@4")
    began = time.monotonic()
    with site.life() as life:
        wait_until(
            "it has read the GPUs", lambda: "migscaler_instance_info" in life.get("/metrics").text
        )
        seconds = time.monotonic() - began
        code = life.end(signal.SIGTERM)

    assert code == 0
    assert seconds < 30  # the target is 3 s on a machine of its own; this one is shared


def test_second_daemon_is_refused_with_the_holder_s_name(tmp_path: Path) -> None:
    site = Site(tmp_path, "1xA100-SXM4-40GB", RESTING)
    with site.life() as life:
        second = site.cli(*site.run_words(free_port()))

        assert second.returncode == 1
        assert f"migscaler process {life.process.pid} holds this node" in second.stderr
        assert "Traceback" not in second.stderr
        assert life.get("/-/ready").is_success


def test_start_with_a_broken_file_observes_with_the_last_good_one(tmp_path: Path) -> None:
    site = Site(tmp_path, "1xA100-SXM4-40GB", RESTING)
    with site.life():
        pass
    site.config.write_text(RESHAPING.replace("min: 3", "min: three"))
    with site.life() as life:
        ticks = "migscaler_ticks_total"
        wait_until("it has ticked", lambda: (life.shown(ticks) or 0) >= 3)
        shown = life.shown(FORCED), life.shown("migscaler_config_valid")

    assert shown == (1.0, 0.0)
    assert site.calls() == []
    assert "min" in site.log.read_text()


def test_state_that_can_t_be_kept_leaves_an_exporter_that_changes_nothing(tmp_path: Path) -> None:
    site = Site(tmp_path, "1xA100-SXM4-40GB", RESHAPING)
    (tmp_path / "blocked").write_text("a file where a directory should be")
    site.state = tmp_path / "blocked" / "state"
    with site.life() as life:
        wait_until("it has ticked", lambda: (life.shown("migscaler_ticks_total") or 0) >= 3)
        shown = life.shown(FORCED)
        wait_until("it exports", lambda: "migscaler_gpu_info" in life.get("/metrics").text)

    assert shown == 1.0
    assert site.calls() == []


def test_driver_that_hangs_does_not_silence_the_exporter(tmp_path: Path) -> None:
    site = Site(tmp_path, "1xA100-SXM4-40GB", RESTING, "3g@0 3g@4")
    with site.life() as life:
        instances = "migscaler_instance_info"
        wait_until("it shows instances", lambda: instances in life.get("/metrics").text)
        site.add_fault(hangs("nvmlDeviceGetMigMode", times=None, at_most=60))
        slowest = 0.0

        def stale_is_gone() -> bool:
            nonlocal slowest
            began = time.monotonic()
            text = life.get("/metrics").text
            slowest = max(slowest, time.monotonic() - began)
            return instances not in text

        wait_until("what is stale is no longer shown", stale_is_gone)
        healthy = life.get("/").status_code
        site.node.clear_faults()

    assert slowest < 7.0  # a reading that hangs is given up on after 10 s
    assert healthy == 200


def test_pause_gives_the_driver_free_and_resume_takes_it_back(tmp_path: Path) -> None:
    site = Site(tmp_path, "1xA100-SXM4-40GB", RESTING, "3g@0 3g@4")
    with site.life() as life:
        instances = "migscaler_instance_info"
        wait_until("it shows instances", lambda: instances in life.get("/metrics").text)

        paused = site.cli("pause", "--why", "driver upgrade", "--release-driver")
        wait_until("nothing stale is shown", lambda: instances not in life.get("/metrics").text)
        shown = life.shown("migscaler_paused")
        site.node.restart_driver("560.35.03")
        resumed = site.cli("resume")
        wait_until(
            "the new driver is read",
            lambda: 'driver_version="560.35.03"' in life.get("/metrics").text,
        )

    assert (paused.returncode, resumed.returncode, shown) == (0, 0, 1.0)


def test_port_that_somebody_took_is_said_and_had_as_soon_as_it_is_free(tmp_path: Path) -> None:
    """Any account may take it before the daemon starts, which settles and acts all the same."""
    site = Site(tmp_path, "1xA100-SXM4-40GB", RESHAPING)
    with contextlib.ExitStack() as stack:
        other = stack.enter_context(socket.socket())
        port = free_port()  # which nobody else takes when it is free again
        other.bind(("127.0.0.1", port))
        other.listen()
        process = stack.enter_context(running(site.command(*site.run_words(port)), site.log))
        life = Life(process=process, port=port)
        path = site.state / SOCKET_NAME
        wait_until("somebody listens", lambda: is_listening(path))
        transport = httpx.HTTPTransport(uds=short_path(path))
        local = stack.enter_context(
            httpx.Client(transport=transport, base_url="http://node", timeout=ANSWER_SECONDS)
        )
        wait_until("it is ready", lambda: local.get("/-/ready").is_success)
        wait_until("it shows", lambda: "config_valid 0.0" in local.get("/metrics").text)
        told = str(local.get("/api/v1/status").json()["config"]["problems"])
        logged = site.log.read_text()
        other.close()

        wait_until("it is served", lambda: life.get("/metrics").is_success)
        wait_until("all is well", lambda: life.shown("migscaler_config_valid") == 1.0)

    why = f"cannot listen on 127.0.0.1:{port}: Address already in use"
    assert why in told
    assert f'event=not_listening why="{why}' in logged
    assert f"event=listening page=http://127.0.0.1:{port}/" in site.log.read_text()


def test_port_that_somebody_took_is_an_error_to_a_person_at_a_terminal(tmp_path: Path) -> None:
    site = Site(tmp_path, "1xA100-SXM4-40GB", RESTING)
    ours, theirs = pty.openpty()
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        words = site.run_words(other.getsockname()[1])

        code = subprocess.run(
            site.command(*words), stderr=theirs, timeout=120, check=False
        ).returncode

    os.close(theirs)
    said = b""
    with contextlib.suppress(OSError):  # how a terminal says that nobody writes to it any more
        while piece := os.read(ours, 65_536):
            said += piece
    os.close(ours)
    assert code == 1
    assert b"cannot listen on 127.0.0.1:" in said
    assert b"change web.listen or stop the other" in said
    assert b"Traceback" not in said
