"""Which configuration counts at a start, and what is said of it."""

import hashlib
from pathlib import Path

import pytest

from migscaler.app.clock import RealClock
from migscaler.app.start import load_in_force
from migscaler.store.store import Store

_GOOD = "mode: recommend\ngpus: [{model: '*A100*'}]\n"
_HASH = hashlib.sha256(_GOOD.encode()).hexdigest()


def _broken(directory: Path) -> Path:
    file = directory / "migscaler.yaml"
    file.write_text("mode: of course\n")
    return file


def test_bad_file_without_an_earlier_one_leaves_nothing_in_force(tmp_path: Path) -> None:
    found = load_in_force(_broken(tmp_path), {}, None, RealClock())

    assert found.loaded.policy.gpus == ()
    assert found.status.sha256 is None
    assert (found.status.valid, len(found.status.problems)) == (False, 1)
    assert "nothing is managed, observing only" in (found.status.forced_observe or "")


def test_bad_file_leaves_the_last_good_one_in_force_but_observing(tmp_path: Path) -> None:
    store = Store.open(None, RealClock())
    store.write_good_config(_GOOD, _HASH)

    found = load_in_force(_broken(tmp_path), {}, store, RealClock())
    store.close()

    assert len(found.loaded.policy.gpus) == 1
    assert found.status.sha256 == _HASH
    assert "is in force, observing only" in (found.status.forced_observe or "")


def test_without_any_file_everything_is_observed_and_nothing_is_wrong(tmp_path: Path) -> None:
    environment = {"HOME": str(tmp_path), "XDG_CONFIG_HOME": str(tmp_path)}
    found = load_in_force(None, environment, None, RealClock())

    assert (found.status.path, found.status.sha256) == (None, None)
    assert (found.status.valid, found.status.forced_observe) == (True, None)


# None of these was foreseen by any check until 2026-11-29: each ended the daemon at its start.
ONCE_UNFORESEEN = (
    'gpus: [{index: 0, until: "9999-12-31"}]\n',
    'gpus: [{index: 0, until: "9999-12-31T23:59:59-12:00"}]\n',
    'timezone: Pacific/Pago_Pago\ngpus: [{index: 0, until: "9999-12-31T23:00"}]\n',
    "gpus: [{uuid: {{ uuid }}}, {index: {}}, {model: [a]}]\n",
    'activity: {dcgm: {url: "http://[x"}}\n',
)


@pytest.mark.parametrize("text", ONCE_UNFORESEEN)
def test_file_that_no_check_foresaw_leaves_the_last_good_one_in_force(
    tmp_path: Path, text: str
) -> None:
    store = Store.open(None, RealClock())
    store.write_good_config(_GOOD, _HASH)
    file = tmp_path / "migscaler.yaml"
    file.write_text(text)

    found = load_in_force(file, {}, store, RealClock())
    store.close()

    assert found.status.sha256 == _HASH
    assert (found.status.valid, found.status.last_reload_success) == (False, False)
    assert found.status.problems
    assert "is in force, observing only" in (found.status.forced_observe or "")
