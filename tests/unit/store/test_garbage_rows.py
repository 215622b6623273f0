"""A file that is sound to SQLite and holds nonsense: said as damage, by every reader."""

from collections.abc import Callable
from datetime import timedelta

import pytest

from migscaler.errors import StoreDamaged
from migscaler.model.decision import GpuHistory, PauseRecord
from migscaler.model.ids import PlanId
from migscaler.model.layout import Layout
from migscaler.store.records import GenerationRecord, PlanRecord
from migscaler.store.store import Store
from tests.builders import A100, NOW, layout, reading, spec, uuid
from tests.unit.store.fixed_clock import FixedClock

READERS: dict[str, Callable[[Store], object]] = {
    "plans": Store.open_plans,
    "past plans": lambda store: store.past_plans(5),
    "holds": lambda store: store.holds(NOW),
    "lease_waits": lambda store: store.lease_waits(NOW),
    "generations": Store.generations,
    "wanted": Store.wanted,
    "gpu_histories": Store.gpu_histories,
    "pushed": Store.all_pushed,
    "pause": Store.pause,
    "config": Store.good_config,
}
GARBAGE = [
    ("plans", "before", "3g@", "plans"),
    ("plans", "steps", "melt 1g.5gb@0:1", "plans"),
    ("plans", "instances", "[[1]]", "plans"),
    ("plans", "begun_at", "yesterday", "plans"),
    ("plans", "state", "verified ", "plans"),
    ("plans", "instances", "{", "plans"),
    ("holds", "spec", "x", "holds"),
    ("holds", "expires_at", "9999", "holds"),
    ("holds", "created_at", "0", "holds"),
    ("lease_waits", "since", "", "lease_waits"),
    ("generations", "layout", "1g", "generations"),
    ("wanted", "layout", "@@", "wanted"),
    ("wanted", "at", "2026-13-01", "gpu_histories"),
    ("gpu_histories", "rest_until", "soon", "gpu_histories"),
    ("gpu_histories", "last_direction", "up", "gpu_histories"),
    ("pushed", "reading", "{}", "pushed"),
    ("pushed", "reading", "[]", "pushed"),
    ("standing", "value", "null", "pause"),
    ("standing", "value", "\x00\x01", "pause"),
    ("standing", "value", "{}", "config"),
]


@pytest.fixture
def store() -> Store:
    made = Store.open(None, FixedClock())
    made.begin_plan(
        PlanRecord(
            plan_id=PlanId("p1"),
            gpu_uuid=uuid(),
            before=layout(A100, "3g@0"),
            after=Layout(),
            steps=(),
            instances=(),
            boot_id="boot",
            begun_at=NOW,
        )
    )
    hour = NOW + timedelta(hours=1)
    made.add_hold(uuid(), spec(A100, "3g@0"), owner="ada", reason="r", expires_at=hour)
    made.add_lease_wait("1g", "bob")
    made.write_generation(
        GenerationRecord(
            gpu_uuid=uuid(), generation=1, layout=Layout(), boot_id="boot", changed_at=NOW
        )
    )
    made.write_wanted(uuid(), layout(A100, "3g@0"), "boot")
    past = GpuHistory(gpu_uuid=uuid(), wanted=layout(A100, "3g@0"))
    made.update_gpu_history(uuid(), lambda _before: past)
    made.push("desk", reading({"1g": 1}))
    made.write_pause(PauseRecord(who="ada", why="x", since=NOW))
    made.write_good_config("mode: observe\n", "0" * 64)
    return made


@pytest.mark.parametrize(("table", "column", "value", "reader"), GARBAGE)
def test_row_that_makes_no_sense_is_damage(
    store: Store, table: str, column: str, value: str, reader: str
) -> None:
    READERS[reader](store)
    where = f" WHERE name = '{reader}'" if table == "standing" else ""
    with store._db.write() as connection:
        connection.execute("PRAGMA ignore_check_constraints = ON")
        connection.execute(f"UPDATE {table} SET {column} = ?{where}", (value,))

    with pytest.raises(StoreDamaged, match="state file"):
        READERS[reader](store)
