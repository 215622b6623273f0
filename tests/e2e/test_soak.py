"""A real daemon at work for SOAK_MINUTES (default 120): nothing grows, no tick is missed."""

import os
from pathlib import Path

import pytest

from tests.e2e.soak import Soak


@pytest.mark.soak
def test_nothing_grows_and_no_tick_is_missed(tmp_path: Path) -> None:
    minutes = float(os.environ.get("SOAK_MINUTES", "120"))

    record = Soak(tmp_path, minutes).run()

    print("\n" + record.report())
    assert record.problems() == []
