"""What was promised for a time lasts that time, however the wall clock is stepped meanwhile."""

import sqlite3
from collections.abc import Iterator
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path

import pytest

from migscaler.model.decision import GpuHistory, PauseRecord
from migscaler.model.ids import GiId, PlanId
from migscaler.model.layout import Layout
from migscaler.model.plan import Direction
from migscaler.store.records import NvmlAction, PlanRecord, Purpose, StepRequest
from migscaler.store.store import Store
from tests.builders import A100, NOW, layout, reading, spec, uuid
from tests.simulation.clockwork import HeldUpClock, VirtualClock

HOUR, DAY, YEAR = 3600.0, 86400.0, 365 * 86400.0
STEPS = pytest.mark.parametrize("step", [HOUR, -HOUR, YEAR, -YEAR])
BOOT = "boot-1"
GPU = uuid()
ONE = spec(A100, "1g@4")
DESTROY = StepRequest(
    action=NvmlAction.DESTROY_GI, spec=ONE, purpose=Purpose.FORWARD, gi_id=GiId(1)
)


@pytest.fixture
def clock() -> VirtualClock:
    return VirtualClock(NOW)


@pytest.fixture
def store(clock: VirtualClock, tmp_path: Path) -> Iterator[Store]:
    made = Store.open(tmp_path / "state.sqlite", clock, boot_id=BOOT)
    yield made
    made.close()


def begin_plan(store: Store, at: datetime) -> int:
    return store.begin_plan(
        PlanRecord(
            plan_id=PlanId("p1"),
            gpu_uuid=GPU,
            before=layout(A100, "1g@4 1g@5"),
            after=Layout(),
            steps=(),
            instances=(),
            boot_id="boot",
            begun_at=at,
        )
    )


def hold_for(store: Store, clock: VirtualClock, seconds: float) -> int:
    ends = clock.now() + timedelta(seconds=seconds)
    return store.add_hold(GPU, ONE, owner="ada", reason="measuring", expires_at=ends).hold_id


@STEPS
def test_hold_lasts_as_long_as_was_promised(store: Store, clock: VirtualClock, step: float) -> None:
    hold_for(store, clock, 8 * HOUR)
    clock.advance(HOUR)
    clock.step_wall(step)

    (there,) = store.holds(clock.now())
    clock.advance(7 * HOUR - 1)
    (still,) = store.holds(clock.now())
    clock.advance(1)

    assert there.expires_at == NOW + timedelta(seconds=8 * HOUR + step)
    assert still == there
    assert store.holds(clock.now()) == ()


@STEPS
def test_step_begun_right_after_the_clock_was_stepped_still_sees_the_hold(
    store: Store, clock: VirtualClock, step: float
) -> None:
    """Nothing may have been read since: the transaction that begins a destroy finds out itself."""
    plan = begin_plan(store, NOW)
    hold_for(store, clock, 8 * HOUR)
    clock.step_wall(step)

    ticket = store.begin_step(plan, GPU, DESTROY)

    assert ticket.step_id is None
    assert ticket.refused_by is not None
    assert "ada" in ticket.refused_by


@STEPS
def test_pruning_ends_no_hold_because_of_a_step(
    store: Store, clock: VirtualClock, step: float
) -> None:
    hold_for(store, clock, 8 * HOUR)
    stale = clock.now()
    clock.step_wall(step)

    store.prune(stale)
    store.prune(clock.now())

    assert len(store.holds(clock.now())) == 1


@STEPS
def test_lease_can_be_renewed_and_taken_by_nobody_else(
    store: Store, clock: VirtualClock, step: float
) -> None:
    ends = NOW + timedelta(hours=8)
    lease = store.take_lease(GPU, ONE, owner="bob", expires_at=ends)
    assert lease is not None
    clock.step_wall(step)

    assert store.take_lease(GPU, ONE, owner="eve", expires_at=ends) is None
    assert store.renew_hold(lease.hold_id, clock.now() + timedelta(hours=1))
    clock.advance(HOUR)
    assert store.holds(clock.now()) == ()


@STEPS
def test_pause_wait_and_pushed_demand_end_when_they_were_to_end(
    store: Store, clock: VirtualClock, step: float
) -> None:
    ends = NOW + timedelta(hours=2)
    store.write_pause(PauseRecord(who="ada", why="upgrade", since=NOW, until=ends))
    store.push("desk", replace(reading({"1g": 3}), true_at=NOW, expires_at=ends))
    store.add_lease_wait("1g", "bob", expires_at=ends)
    clock.step_wall(step)

    clock.advance(2 * HOUR - 1)
    pause, pushed = store.pause(), store.pushed("desk")
    waits = store.lease_waits(clock.now())
    late = clock.now() + timedelta(seconds=1)
    clock.advance(1)

    assert pause is not None
    assert (pause.until, pause.since) == (late, late - timedelta(hours=2))
    assert pushed is not None
    assert (pushed.expires_at, pushed.true_at) == (late, late - timedelta(hours=2))
    assert len(waits) == 1
    assert store.pause() is None
    assert store.lease_waits(clock.now()) == ()


@STEPS
def test_rest_breaker_and_back_off_keep_what_is_left_of_them(
    store: Store, clock: VirtualClock, step: float
) -> None:
    past = GpuHistory(
        gpu_uuid=GPU,
        last_change_at=NOW,
        last_direction=Direction.FINER,
        rest_until=NOW + timedelta(minutes=2),
        breaker_open_until=NOW + timedelta(hours=4),
        held_by_client_until=NOW + timedelta(minutes=10),
    )
    store.update_gpu_history(GPU, lambda _before: past)
    clock.step_wall(step)

    (found,) = store.gpu_histories()

    by = timedelta(seconds=step)
    assert found == replace(
        past,
        last_change_at=NOW + by,
        rest_until=NOW + timedelta(minutes=2) + by,
        breaker_open_until=NOW + timedelta(hours=4) + by,
        held_by_client_until=NOW + timedelta(minutes=10) + by,
    )


@STEPS
def test_budget_counts_the_changes_of_the_last_day(
    store: Store, clock: VirtualClock, step: float
) -> None:
    plan = begin_plan(store, NOW)
    store.begin_step(plan, GPU, DESTROY)
    clock.advance(HOUR)
    clock.step_wall(step)

    day = timedelta(hours=24)
    counted = store.changes_since(clock.now() - day)
    clock.advance(24 * HOUR)

    assert (counted, store.changes_since(clock.now() - day)) == (1, 0)


def test_plans_of_days_ago_keep_the_times_at_which_they_ran(
    store: Store, clock: VirtualClock
) -> None:
    begin_plan(store, NOW - timedelta(days=3))
    clock.step_wall(HOUR)

    store.holds(clock.now())

    assert store.past_plans(1)[0].begun_at == NOW - timedelta(days=3)


def test_clock_that_was_wrong_for_days_leaves_no_plans_ahead_of_it(
    store: Store, clock: VirtualClock
) -> None:
    """They counted as changes of the last day until the clock got there: a year without a budget
    for those that are wanted.
    """
    clock.step_wall(YEAR)
    seq = begin_plan(store, clock.now())
    store.begin_step(seq, GPU, DESTROY)
    clock.advance(5 * 24 * HOUR)
    clock.step_wall(-YEAR)

    assert store.changes_since(clock.now() - timedelta(days=1)) == 0
    assert store.changes_since(clock.now() - timedelta(days=6)) == 1


@STEPS
def test_step_while_nobody_ran_is_seen_by_the_next_process_of_the_boot(
    clock: VirtualClock, tmp_path: Path, step: float
) -> None:
    path = tmp_path / "state.sqlite"
    first = Store.open(path, clock, boot_id=BOOT)
    hold_for(first, clock, 8 * HOUR)
    first.close()
    clock.advance(HOUR)
    clock.step_wall(step)

    again = Store.open(path, clock, boot_id=BOOT)

    clock.advance(7 * HOUR - 1)
    assert len(again.holds(clock.now())) == 1
    clock.advance(1)
    assert again.holds(clock.now()) == ()


@STEPS
def test_two_processes_move_the_deadlines_once(
    store: Store, clock: VirtualClock, tmp_path: Path, step: float
) -> None:
    other = Store.open(tmp_path / "state.sqlite", clock, boot_id=BOOT)
    hold_for(store, clock, 8 * HOUR)
    clock.step_wall(step)

    found = [one.holds(clock.now()) for one in (store, other, store)]

    ends = NOW + timedelta(seconds=8 * HOUR + step)
    assert [[hold.expires_at for hold in holds] for holds in found] == [[ends]] * 3
    other.close()


@STEPS
def test_reading_alone_tells_the_same_holds(
    store: Store, clock: VirtualClock, tmp_path: Path, step: float
) -> None:
    """A command without a daemon reads only: it can't move deadlines, and counts with the step."""
    hold_for(store, clock, 8 * HOUR)
    clock.step_wall(step)

    reader = Store.open(tmp_path / "state.sqlite", clock, boot_id=BOOT, read_only=True)

    assert len(reader.holds(clock.now())) == 1
    clock.advance(8 * HOUR)
    assert reader.holds(clock.now()) == ()
    reader.close()


def reboot(clock: VirtualClock, *, wall: float, up: float = 20) -> None:
    """Begin another boot, now `up` seconds old, whose wall clock shows so much more."""
    by = up - clock.monotonic()
    clock.advance(by)
    clock.step_wall(wall - by)


def rebooted(path: Path, clock: VirtualClock, *, wall: float, up: float = 20) -> Store:
    """Open the file in another boot, as `reboot` begins it."""
    reboot(clock, wall=wall, up=up)
    return Store.open(path, clock, boot_id="boot-2")


@pytest.mark.parametrize(("up", "passed"), [(20, 20), (600, 600), (900, 600)])
def test_across_a_reboot_the_seconds_of_the_new_boot_count(
    store: Store, clock: VirtualClock, tmp_path: Path, up: float, passed: float
) -> None:
    """The wall clock advanced by 600 s; how many of them the node was off nobody can tell."""
    hold_for(store, clock, HOUR)
    store.close()

    there = rebooted(tmp_path / "state.sqlite", clock, wall=600, up=up)

    clock.advance(HOUR - passed - 1)
    assert len(there.holds(clock.now())) == 1
    clock.advance(1)
    assert there.holds(clock.now()) == ()
    there.close()


AHEAD = pytest.mark.parametrize("ahead", [9 * HOUR, YEAR])
OFF = 120.0


@AHEAD
def test_clock_ahead_at_boot_and_then_set_right_ends_no_hold(
    store: Store, clock: VirtualClock, tmp_path: Path, ahead: float
) -> None:
    """A hardware clock kept in local time; NTP sets the node's back minutes after the boot."""
    plan = begin_plan(store, NOW)
    hold_for(store, clock, 8 * HOUR)
    store.close()

    there = rebooted(tmp_path / "state.sqlite", clock, wall=OFF + ahead)
    there.prune(clock.now())
    at_boot = there.holds(clock.now())
    at_step = there.begin_step(plan, GPU, DESTROY)
    clock.advance(60)
    clock.step_wall(-ahead)
    there.prune(clock.now())
    (set_right,) = there.holds(clock.now())

    assert len(at_boot) == 1
    assert at_step.step_id is None
    # What the node was off is the only time that is not counted.
    assert set_right.expires_at == NOW + timedelta(seconds=8 * HOUR + OFF - 20)
    there.close()


@AHEAD
def test_clock_ahead_at_boot_and_then_set_right_ends_no_pause_nor_rest(
    store: Store, clock: VirtualClock, tmp_path: Path, ahead: float
) -> None:
    ends = NOW + timedelta(hours=8)
    store.write_pause(PauseRecord(who="ada", why="upgrade", since=NOW, until=ends))
    past = GpuHistory(
        gpu_uuid=GPU,
        last_change_at=NOW,
        rest_until=ends,
        breaker_open_until=ends,
        held_by_client_until=ends,
    )
    store.update_gpu_history(GPU, lambda _before: past)
    store.close()

    there = rebooted(tmp_path / "state.sqlite", clock, wall=OFF + ahead)
    at_boot = there.pause()
    clock.advance(60)
    clock.step_wall(-ahead)
    pause, (found,) = there.pause(), there.gpu_histories()

    late = ends + timedelta(seconds=OFF - 20)
    assert at_boot is not None
    assert pause is not None
    assert pause.until == late
    assert (found.rest_until, found.breaker_open_until, found.held_by_client_until) == (late,) * 3
    there.close()


def test_hold_of_a_boot_whose_clock_was_ahead_lasts_what_was_promised(
    store: Store, clock: VirtualClock, tmp_path: Path
) -> None:
    store.close()
    there = rebooted(tmp_path / "state.sqlite", clock, wall=9 * HOUR)
    hold_for(there, clock, HOUR)
    clock.step_wall(-9 * HOUR)

    clock.advance(HOUR - 1)
    assert len(there.holds(clock.now())) == 1
    clock.advance(1)
    assert there.holds(clock.now()) == ()
    there.close()


def test_time_off_prolongs_once_however_many_processes_look(
    store: Store, clock: VirtualClock, tmp_path: Path
) -> None:
    path = tmp_path / "state.sqlite"
    hold_for(store, clock, HOUR)
    store.close()
    first = rebooted(path, clock, wall=DAY)
    other = Store.open(path, clock, boot_id="boot-2")
    clock.advance(100)
    first.close()
    again = Store.open(path, clock, boot_id="boot-2")

    ends = {hold.expires_at for one in (other, again) for hold in one.holds(clock.now())}

    assert ends == {NOW + timedelta(seconds=HOUR + DAY - 20)}
    other.close()
    again.close()


def test_reading_alone_after_a_reboot_tells_the_same_holds(
    store: Store, clock: VirtualClock, tmp_path: Path
) -> None:
    hold_for(store, clock, HOUR)
    ends = NOW + timedelta(hours=1)
    store.write_pause(PauseRecord(who="ada", why="upgrade", since=NOW, until=ends))
    store.close()
    reboot(clock, wall=DAY)
    reader = Store.open(tmp_path / "state.sqlite", clock, boot_id="boot-2", read_only=True)

    at_boot = len(reader.holds(clock.now())), reader.pause() is None
    clock.advance(HOUR - 20)

    assert at_boot == (1, False)
    assert (len(reader.holds(clock.now())), reader.pause() is None) == (0, True)
    reader.close()


def test_reading_alone_after_a_reboot_tells_the_ends_that_are_in_force(
    store: Store, clock: VirtualClock, tmp_path: Path
) -> None:
    """Where the file could not be written, `holds` showed an end that was over."""
    hold_for(store, clock, HOUR)
    ends = NOW + timedelta(hours=1)
    store.write_pause(PauseRecord(who="ada", why="upgrade", since=NOW, until=ends))
    past = GpuHistory(
        gpu_uuid=GPU, rest_until=ends, breaker_open_until=ends, held_by_client_until=ends
    )
    store.update_gpu_history(GPU, lambda _before: past)
    store.close()
    reboot(clock, wall=DAY)
    reader = Store.open(tmp_path / "state.sqlite", clock, boot_id="boot-2", read_only=True)

    (hold,), pause, (found,) = reader.holds(clock.now()), reader.pause(), reader.gpu_histories()

    late = ends + timedelta(seconds=DAY - 20)
    assert pause is not None
    assert (hold.expires_at, pause.until) == (late, late)
    assert (found.rest_until, found.breaker_open_until, found.held_by_client_until) == (late,) * 3
    reader.close()


def test_demand_is_not_prolonged_by_the_time_off(
    store: Store, clock: VirtualClock, tmp_path: Path
) -> None:
    """Old numbers must not make instances; and history keeps its times."""
    ends = NOW + timedelta(hours=2)
    store.push("desk", replace(reading({"1g": 3}), true_at=NOW, expires_at=ends))
    store.add_lease_wait("1g", "bob", expires_at=ends)
    begin_plan(store, NOW)
    store.close()

    there = rebooted(tmp_path / "state.sqlite", clock, wall=DAY)

    pushed = there.pushed("desk")
    assert pushed is not None
    assert (pushed.true_at, pushed.expires_at) == (NOW, ends)
    assert there.lease_waits(clock.now()) == ()
    assert there.past_plans(1)[0].begun_at == NOW
    there.close()


def test_clock_behind_the_last_boot_s_stood_still_until_it_is_set_right(
    store: Store, clock: VirtualClock, tmp_path: Path
) -> None:
    """A board without battery starts in 1970; NTP corrects it minutes later."""
    hold_for(store, clock, HOUR)
    store.close()
    long_ago = -50 * YEAR

    there = rebooted(tmp_path / "state.sqlite", clock, wall=long_ago)

    assert len(there.holds(clock.now())) == 1
    clock.advance(600)
    clock.step_wall(-long_ago)
    assert len(there.holds(clock.now())) == 1
    clock.advance(HOUR - 601)
    assert len(there.holds(clock.now())) == 1
    clock.advance(1)
    assert there.holds(clock.now()) == ()


class FullDisk:
    """A connection whose disk is full: in WAL that shows at COMMIT, not before."""

    def __init__(self, inner: sqlite3.Connection) -> None:
        self._inner = inner

    def __getattr__(self, name: str) -> object:
        return getattr(self._inner, name)

    def execute(self, sql: str, values: tuple[object, ...] = ()) -> sqlite3.Cursor:
        if sql == "COMMIT":
            raise sqlite3.OperationalError("database or disk is full")
        return self._inner.execute(sql, values)


@STEPS
def test_full_disk_and_a_stepped_clock_end_no_hold_and_no_pause(
    store: Store, clock: VirtualClock, step: float
) -> None:
    """The step was taken for done though the transaction that moved the deadlines failed."""
    hold_for(store, clock, 8 * HOUR)
    ends = NOW + timedelta(hours=8)
    store.write_pause(PauseRecord(who="ada", why="upgrade", since=NOW, until=ends))
    database, connection = store._db, store._db._connection
    database._connection = FullDisk(connection)  # type: ignore[assignment] # as far as it is used
    clock.step_wall(step)
    problem = store.check_writable()
    found = [(len(store.holds(clock.now())), store.pause() is None) for _ in range(3)]
    clock.advance(8 * HOUR)
    late = len(store.holds(clock.now())), store.pause() is None
    database._connection = connection

    assert problem is not None
    assert found == [(1, False)] * 3
    assert late == (0, True)
    assert store.holds(clock.now()) == ()


def test_clock_that_is_slewed_moves_nothing(store: Store, clock: VirtualClock) -> None:
    """NTP slews by up to 500 ppm: 0.1 s in 200 s."""
    hold_for(store, clock, 8 * HOUR)
    for _ in range(100):
        clock.advance(200)
        clock.step_wall(0.1)
        store.holds(clock.now())
        store.check_writable()

    (there,) = store.holds(clock.now())
    assert there.expires_at == NOW + timedelta(hours=8)


@pytest.mark.parametrize("reading", range(1, 24))
def test_process_that_is_held_up_while_it_reads_the_clocks_moves_nothing(
    tmp_path: Path, reading: int
) -> None:
    clock = HeldUpClock(NOW, reading)
    store = Store.open(tmp_path / "state.sqlite", clock, boot_id=BOOT)
    ends = NOW + timedelta(hours=8)
    store.add_hold(GPU, ONE, owner="ada", reason="measuring", expires_at=ends)

    found = [hold.expires_at for _ in range(3) for hold in store.holds(NOW)]

    assert found == [ends] * 3
    store.close()


def test_deadline_beyond_the_calendar_stays_where_it_is(store: Store, clock: VirtualClock) -> None:
    far = datetime.max.replace(tzinfo=NOW.tzinfo) - timedelta(days=30)
    store.add_hold(GPU, ONE, owner="ada", reason="for ever", expires_at=far)
    clock.step_wall(YEAR)

    assert [hold.expires_at for hold in store.holds(clock.now())] == [far]


def test_clock_record_that_makes_no_sense_is_written_anew(
    store: Store, clock: VirtualClock
) -> None:
    hold_for(store, clock, 8 * HOUR)
    with store._db.write() as connection:
        connection.execute("UPDATE standing SET value = 'x' WHERE name = 'clock'")
    clock.advance(61)
    store.check_writable()
    clock.step_wall(YEAR)

    assert len(store.holds(clock.now())) == 1
