"""A GPU's past is changed by several threads and processes, and none undoes another's part."""

import threading
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

from migscaler.model.decision import GpuHistory
from migscaler.store.store import Store
from tests.builders import A100, NOW, layout, uuid
from tests.unit.store.fixed_clock import FixedClock


def failed_once_more(history: GpuHistory) -> GpuHistory:
    return replace(history, failures_in_row=history.failures_in_row + 1, wanted=history.wanted)


def test_changes_from_several_threads_and_processes_are_all_kept(tmp_path: Path) -> None:
    """Read and written apart, a foreign change took back the breaker of a plan that just ended."""
    stores = [Store.open(tmp_path / "state.sqlite", FixedClock()) for _ in range(2)]
    for store in stores:  # on a slow disk, where one may wait for many writes of the others
        store._db.rows("PRAGMA busy_timeout = 120000")

    def often(store: Store) -> None:
        for _ in range(10):
            store.update_gpu_history(uuid(), failed_once_more)

    threads = [threading.Thread(target=often, args=(store,)) for store in stores * 2]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert stores[0].gpu_histories() == (GpuHistory(gpu_uuid=uuid(), failures_in_row=40),)
    for store in stores:
        store.close()


def test_update_gives_the_past_before_and_keeps_a_wanted_layout_that_it_does_not_drop() -> None:
    store = Store.open(None, FixedClock())
    store.write_wanted(uuid(), layout(A100, "7g@0"), "boot")

    before = store.update_gpu_history(
        uuid(), lambda past: replace(past, rest_until=NOW + timedelta(minutes=1))
    )

    wanted = layout(A100, "7g@0")
    assert before == GpuHistory(gpu_uuid=uuid(), wanted=wanted)
    (after,) = store.gpu_histories()
    assert (after.rest_until, after.wanted) == (NOW + timedelta(minutes=1), wanted)
    store.update_gpu_history(uuid(), lambda past: replace(past, wanted=None))
    assert store.wanted() == ()
    store.close()
