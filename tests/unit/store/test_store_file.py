"""The file itself: versions, damage, durability, two connections."""

import os
import sqlite3
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from migscaler.errors import NotFound, StoreDamaged, StoreUnwritable
from migscaler.store.store import Store, opened
from tests.builders import A100, layout, uuid
from tests.unit.store.fixed_clock import FixedClock


def test_store_uses_wal_full_sync_and_little_memory(tmp_path: Path) -> None:
    store = Store.open(tmp_path / "state.db", FixedClock())
    assert store._db.rows("PRAGMA journal_mode")[0][0] == "wal"
    assert store._db.rows("PRAGMA synchronous")[0][0] == 2
    assert store._db.rows("PRAGMA user_version")[0][0] == 1
    assert store._db.rows("PRAGMA cache_size")[0][0] == -256
    store.close()


def test_store_in_memory_keeps_what_is_written() -> None:
    store = Store.open(None, FixedClock())
    store.write_wanted(uuid(), layout(A100, "3g@0"), "boot")
    assert [str(w.layout) for w in store.wanted()] == ["3g.20gb@0"]
    assert store.path is None


def test_store_reopened_has_what_was_written(tmp_path: Path) -> None:
    path = tmp_path / "state.db"
    with opened(path, FixedClock()) as store:
        store.write_wanted(uuid(), layout(A100, "3g@0 3g@4"), "boot")
    with opened(path, FixedClock(), read_only=True) as store:
        assert [str(w.layout) for w in store.wanted()] == ["3g.20gb@0 3g.20gb@4"]


def test_store_of_a_newer_version_is_refused_and_left_as_it_is(tmp_path: Path) -> None:
    path = tmp_path / "state.db"
    Store.open(path, FixedClock()).close()
    raw = sqlite3.connect(path)
    raw.execute("PRAGMA user_version = 99")
    raw.close()
    before = path.read_bytes()
    with pytest.raises(StoreDamaged, match="version 99"):
        Store.open(path, FixedClock())
    assert path.read_bytes() == before


def test_store_refuses_a_foreign_file_and_leaves_it(tmp_path: Path) -> None:
    path = tmp_path / "state.db"
    path.write_text("not a database at all, but somebody's notes\n" * 20)
    before = path.read_bytes()
    with pytest.raises(StoreDamaged):
        Store.open(path, FixedClock())
    assert path.read_bytes() == before


def test_store_with_scrambled_pages_is_damaged(tmp_path: Path) -> None:
    path = tmp_path / "state.db"
    Store.open(path, FixedClock()).close()
    content = bytearray(path.read_bytes())
    content[4096:12288] = os.urandom(8192)
    path.write_bytes(content)
    with pytest.raises(StoreDamaged):
        Store.open(path, FixedClock())


def test_store_in_a_missing_directory_is_unwritable(tmp_path: Path) -> None:
    with pytest.raises(StoreUnwritable):
        Store.open(tmp_path / "absent" / "state.db", FixedClock())


def test_store_read_only_without_file_is_not_found(tmp_path: Path) -> None:
    with pytest.raises(NotFound):
        Store.open(tmp_path / "state.db", FixedClock(), read_only=True)


def test_store_full_disk_is_unwritable_and_recovers(tmp_path: Path) -> None:
    store = Store.open(tmp_path / "state.db", FixedClock())
    pages = store._db.rows("PRAGMA page_count")[0][0]
    store._db.rows(f"PRAGMA max_page_count = {pages}")
    with pytest.raises(StoreUnwritable, match="full"):
        store.write_good_config("x" * 100_000, "0" * 64)
    store._db.rows("PRAGMA max_page_count = 1000000")
    assert store.check_writable() is None
    assert store.good_config() is None
    store.close()


def test_check_writable_says_why_it_is_not(tmp_path: Path) -> None:
    with opened(tmp_path / "state.db", FixedClock()) as store:
        assert store.check_writable() is None
        store._db.rows("PRAGMA query_only = ON")
        assert "can't be used now" in (store.check_writable() or "")


def test_store_file_is_not_executable(tmp_path: Path) -> None:
    path = tmp_path / "state.db"
    Store.open(path, FixedClock()).close()
    assert not path.stat().st_mode & stat.S_IXUSR


def test_store_modules_of_settling_import_neither_pydantic_nor_solver() -> None:
    code = (
        "import sys, migscaler.store.store, migscaler.store.codec, migscaler.control.recovery,"
        " migscaler.control.executor;"
        "print([m for m in ('pydantic', 'highspy', 'numpy', 'pynvml') if m in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60
    )
    assert done.stdout.strip() == "[]"
