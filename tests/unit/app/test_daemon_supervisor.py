"""The thread that hides what is stale and feeds the watchdog waits for nobody who acts or reads."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from migscaler.app.aside import Aside
from migscaler.app.daemon import Daemon, DaemonOptions
from migscaler.cli.simulated import boot_id_of, host_of, preparation, quiet_host
from migscaler.sim.node import build_node

_PATIENCE_SECONDS = 30.0
RULE = "rules: [{name: notebooks, size: 1g, min: 3}]\n"


@contextmanager
def daemon_in(tmp_path: Path, during_start: Callable[[], object]) -> Iterator[Daemon]:
    """Build a daemon; something happens after it has loaded its configuration."""
    node = tmp_path / "node"
    build_node("A100-SXM4-40GB", "580.65.06", node)
    (tmp_path / "migscaler.yaml").write_text("mode: observe\n")
    boot_id = boot_id_of(node)

    def late_boot_id() -> str:
        during_start()
        return boot_id()

    made = Daemon(
        DaemonOptions(
            config=tmp_path / "migscaler.yaml",
            state_dir=tmp_path / "state",
            listen="127.0.0.1:0",
            prepare=preparation(node),
            make_host=host_of(node),
            boot_id=late_boot_id,
            roots=quiet_host(node),
            hardware=f"test of the supervisor at {tmp_path}",
        )
    )
    made._jobs.stop()  # a sample would start a process
    yield made
    made._end()


@pytest.fixture
def daemon(tmp_path: Path) -> Iterator[Daemon]:
    with daemon_in(tmp_path, during_start=lambda: None) as made:
        yield made


@contextmanager
def change_under_way(daemon: Daemon) -> Iterator[None]:
    """Let a settle, a restore or a plan hold everybody else off for the length of the block."""
    begun, may_end = threading.Event(), threading.Event()

    def change() -> None:
        begun.set()
        may_end.wait()

    acting = threading.Thread(target=daemon.runtime.loop.between_ticks, args=(change,))
    acting.start()
    begun.wait()
    try:
        yield
    finally:
        may_end.set()
        acting.join()


def returns(work: Callable[[], object]) -> bool:
    """Say whether it returns though a change is under way."""
    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    thread.join(_PATIENCE_SECONDS)
    return not thread.is_alive()


def wait_for(aside: Aside) -> None:
    if aside._thread is not None:
        aside._thread.join(_PATIENCE_SECONDS)
    assert aside.is_free()


def test_reload_waits_for_a_change_under_way_and_the_supervisor_does_not(
    daemon: Daemon, tmp_path: Path
) -> None:
    """It stood in the reload: stale series were shown as fresh, and systemd, not fed for a minute,
    would have killed the daemon in the middle of its plan.
    """
    (tmp_path / "migscaler.yaml").write_text("mode: observe\n" + RULE)
    with change_under_way(daemon):
        looks = [returns(daemon._look_after) for _ in range(3)]
        meanwhile = daemon.runtime.loop.parts.policy.rules
    wait_for(daemon._aside)

    assert looks == [True] * 3
    assert meanwhile == ()
    assert [rule.name for rule in daemon.runtime.loop.parts.policy.rules] == ["notebooks"]


def test_file_written_while_a_reload_waits_is_loaded_after_it(
    daemon: Daemon, tmp_path: Path
) -> None:
    with change_under_way(daemon):
        daemon._reload.set()
        daemon._look_after()
        (tmp_path / "migscaler.yaml").write_text("mode: observe\n" + RULE)
        daemon._look_after()
    wait_for(daemon._aside)
    daemon._look_after()
    wait_for(daemon._aside)

    assert [rule.name for rule in daemon.runtime.loop.parts.policy.rules] == ["notebooks"]


def rules(daemon: Daemon) -> list[str]:
    """Return the rules in force after two looks."""
    for _ in range(2):
        daemon._look_after()
        wait_for(daemon._aside)
    return [rule.name for rule in daemon.runtime.loop.parts.policy.rules]


def test_file_written_while_the_daemon_starts_is_loaded(tmp_path: Path) -> None:
    """What was written after the file was read, and before it was watched, was never loaded."""
    file = tmp_path / "migscaler.yaml"
    with daemon_in(tmp_path, lambda: file.write_text("mode: observe\n" + RULE)) as daemon:
        assert rules(daemon) == ["notebooks"]


def test_file_that_is_being_written_is_loaded_once_it_stands_still(
    daemon: Daemon, tmp_path: Path
) -> None:
    """The half of it that was there was put in force, without the freeze that stood at its end."""
    daemon._look_after()
    with (tmp_path / "migscaler.yaml").open("w") as file:
        file.write("mode: observe\n" + RULE)
        file.flush()
        daemon._look_after()
        wait_for(daemon._aside)
        half = daemon.runtime.loop.parts.policy.rules
        file.write("freeze: [{when: 'mon-sun 00:00-24:00'}]\n")

    whole = rules(daemon)

    assert half == ()
    assert whole == ["notebooks"]


def test_what_is_shown_grows_old_though_nobody_publishes(daemon: Daemon) -> None:
    now = daemon._clock.monotonic()
    fresh = replace(daemon.runtime.loop.status(), stale_from=now + 3600)
    daemon._publish(fresh)
    first = daemon._seen()
    daemon._publish(replace(fresh, stale_from=now - 1))

    then = daemon._seen()

    assert first is fresh
    assert then is not None
    assert then.snapshot_stale


def test_one_work_that_fails_keeps_none_of_the_others_back() -> None:
    aside, done = Aside(), []

    def fails() -> None:
        raise ValueError

    aside.run((fails, lambda: done.append(1)))
    wait_for(aside)

    assert done == [1]


def test_restore_under_way_ends_before_the_daemon_does(daemon: Daemon, tmp_path: Path) -> None:
    """Only plans were waited for: a `systemctl stop` cut a late restore short, which then counted
    as a death of the daemon.
    """
    assert daemon.runtime.loop.sample() is not None
    (gpu,) = daemon.runtime.loop.status().snapshot.gpus  # type: ignore[union-attr]
    begun, found = threading.Event(), []

    def restore() -> None:
        with daemon.runtime._comeback.our_change({gpu.uuid: ()}):
            begun.set()
            while not daemon._assembly.enforcer.stopping():
                threading.Event().wait(0.01)
            threading.Event().wait(0.5)
            found.append(daemon._state.store.check_writable())

    acting = threading.Thread(target=daemon.runtime.loop.between_ticks, args=(restore,))
    acting.start()
    begun.wait()

    code = daemon._end()
    acting.join()

    assert (code, found) == (0, [None])
