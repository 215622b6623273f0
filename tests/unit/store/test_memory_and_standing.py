"""GPU memory, pause, pushed demand and the last good configuration, as written and read back."""

from dataclasses import replace
from datetime import timedelta

from migscaler.model.decision import GpuHistory, PauseRecord
from migscaler.model.layout import Layout
from migscaler.model.plan import Direction
from migscaler.store.records import GenerationRecord
from migscaler.store.store import Store
from tests.builders import A100, NOW, layout, reading, uuid
from tests.unit.store.fixed_clock import FixedClock


def test_generation_reads_back_as_written() -> None:
    store = Store.open(None, FixedClock())
    record = GenerationRecord(
        gpu_uuid=uuid(),
        generation=4,
        layout=layout(A100, "2g@0 2g@2"),
        boot_id="boot",
        changed_at=NOW,
        model_name="NVIDIA A100-SXM4-40GB",
        mig_mode_wanted=True,
    )
    unknown = GenerationRecord(
        gpu_uuid=uuid(1), generation=1, layout=None, boot_id="boot", changed_at=NOW
    )
    store.write_generation(record)
    store.write_generation(unknown)
    assert store.generations() == (record, unknown)
    assert store.generation(uuid()) == record
    assert store.generation(uuid(2)) is None


def test_generation_never_goes_back_and_a_change_gets_one_more_than_any_known() -> None:
    store = Store.open(None, FixedClock())
    record = GenerationRecord(
        gpu_uuid=uuid(),
        generation=4,
        layout=layout(A100, "2g@0"),
        boot_id="boot",
        changed_at=NOW,
        model_name="NVIDIA A100-SXM4-40GB",
        mig_mode_wanted=True,
    )
    store.write_generation(record)
    older = replace(record, generation=3, model_name=None, mig_mode_wanted=None)

    kept = store.write_generation(older)
    next_one = store.write_generation(older, moved_on=True)
    ahead = store.write_generation(replace(older, generation=9), moved_on=True)

    assert (kept, next_one, ahead) == (4, 5, 10)
    assert store.generation(uuid()) == replace(record, generation=10)


def test_empty_layout_is_not_an_unknown_one() -> None:
    store = Store.open(None, FixedClock())
    store.write_generation(
        GenerationRecord(
            gpu_uuid=uuid(), generation=1, layout=Layout(), boot_id="boot", changed_at=NOW
        )
    )
    read = store.generation(uuid())
    assert read is not None
    assert read.layout == Layout()


def test_history_reads_back_with_the_wanted_layout() -> None:
    store = Store.open(None, FixedClock())
    history = GpuHistory(
        gpu_uuid=uuid(),
        last_change_at=NOW,
        last_direction=Direction.FINER,
        rest_until=NOW + timedelta(minutes=2),
        flapping=True,
        reversals=3,
        failures_in_row=1,
        breaker_open_until=NOW + timedelta(hours=1),
        breaker_trips=2,
        held_by_client_until=NOW + timedelta(minutes=1),
        wanted=layout(A100, "7g@0"),
    )
    store.update_gpu_history(uuid(), lambda _before: history)
    store.write_wanted(uuid(), layout(A100, "7g@0"), "boot")
    store.write_wanted(uuid(1), layout(A100, "1g@0"), "boot")
    assert store.gpu_histories() == (
        history,
        GpuHistory(gpu_uuid=uuid(1), wanted=layout(A100, "1g@0")),
    )
    assert store.forget_wanted(uuid(1)) is True
    assert store.gpu_histories() == (history,)


def test_pause_lasts_until_its_time_or_until_resumed() -> None:
    clock = FixedClock()
    store = Store.open(None, clock)
    pause = PauseRecord(
        who="ada",
        why="maintenance",
        since=NOW,
        until=NOW + timedelta(hours=1),
        driver_released=True,
    )
    store.write_pause(pause)
    assert store.pause() == pause
    clock.advance(3600)
    assert store.pause() is None
    store.write_pause(PauseRecord(who="bob", why="open end", since=NOW))
    assert store.pause() == PauseRecord(who="bob", why="open end", since=NOW)
    store.write_pause(None)
    assert store.pause() is None


def test_pushed_reading_replaces_the_one_before_and_can_be_cleared() -> None:
    store = Store.open(None, FixedClock())
    store.push("queue", reading({"1g": 3}))
    second = reading({"1g": 4, "7g": 1}, overrides=True)
    store.push("queue", second)
    assert store.pushed("queue") == second
    assert store.all_pushed() == (("queue", second),)
    assert store.clear_pushed("queue") is True
    assert store.pushed("queue") is None
    assert store.clear_pushed("queue") is False


def test_good_config_keeps_the_last_one() -> None:
    store = Store.open(None, FixedClock())
    assert store.good_config() is None
    store.write_good_config("mode: observe\n", "ab" * 32)
    store.write_good_config("mode: enforce\n", "cd" * 32)
    kept = store.good_config()
    assert kept is not None
    assert (kept.text, kept.sha256, kept.at) == ("mode: enforce\n", "cd" * 32, NOW)
