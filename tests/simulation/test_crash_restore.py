"""A restore cut at any point is finished by the next start: no GPU stays empty or in part."""

from collections.abc import Callable
from itertools import count
from pathlib import Path

import pytest

from migscaler.sim.codes import Code
from migscaler.sim.faults import fails
from tests.simulation.crash_restore import MortalNode, mortal_node

CREATE = "nvmlDeviceCreateGpuInstanceWithPlacement"


def reboot(made: MortalNode) -> None:
    made.node.reboot()


def reload_driver(made: MortalNode) -> None:
    made.node.restart_driver()


NODES = pytest.mark.parametrize(
    ("spec", "layouts", "lose"),
    [
        ("A100-SXM4-40GB", ("2g@0 2g@2 2g@4",), reboot),
        ("A100-SXM4-40GB", ("4g@0 2g@4 1g@6",), reload_driver),
        ("A30", ("1g@0 1g@1 2g@2",), reboot),
        ("H100-80GB", ("3g@0 3g@4",), reload_driver),
        ("2xH100-80GB", ("3g@0 3g@4", "7g@0"), reboot),
    ],
    ids=["a100", "a100-reload", "a30", "h100-reload", "two-h100"],
)
Lose = Callable[[MortalNode], None]


@NODES
def test_restore_cut_at_every_point_is_finished(
    tmp_path: Path, spec: str, layouts: tuple[str, ...], lose: Lose
) -> None:
    """It was undone, and the GPU then left alone: empty for good, which no metric told."""
    for point in count(1):
        with mortal_node(tmp_path / f"{point}", *layouts, spec=spec) as made:
            lose(made)
            if made.start(die_at=point):
                break
            made.start()
            assert made.wrongs() == [], f"died at point {point}"
    assert point > 15


@NODES
def test_jobs_that_start_on_what_a_cut_restore_made_do_not_keep_the_rest_away(
    tmp_path: Path, spec: str, layouts: tuple[str, ...], lose: Lose
) -> None:
    jobs = 0
    for point in count(2, 2):
        with mortal_node(tmp_path / f"{point}", *layouts, spec=spec) as made:
            lose(made)
            if made.start(die_at=point):
                break
            jobs += made.start_jobs()
            births = made.births()
            made.start()
            assert made.wrongs(births) == [], f"died at point {point}"
    assert jobs > 3


@NODES
def test_finishing_a_restore_may_itself_be_cut(
    tmp_path: Path, spec: str, layouts: tuple[str, ...], lose: Lose
) -> None:
    cuts = 0
    for point in range(3, 40, 8):
        for second in range(1, 40, 5):
            with mortal_node(tmp_path / f"{point}-{second}", *layouts, spec=spec) as made:
                lose(made)
                if made.start(die_at=point):
                    break
                if made.start(die_at=second):
                    break
                cuts += 1
                made.start()
                assert made.wrongs() == [], f"died at {point}, then at {second}"
    assert cuts > 5


@NODES
def test_reboot_after_a_cut_restore_begins_it_anew(
    tmp_path: Path, spec: str, layouts: tuple[str, ...], lose: Lose
) -> None:
    for point in range(1, 40, 7):
        with mortal_node(tmp_path / f"{point}", *layouts, spec=spec) as made:
            lose(made)
            if made.start(die_at=point):
                break
            lose(made)
            made.start()
            assert made.wrongs() == [], f"died at point {point}"


@NODES
def test_driver_that_refuses_for_a_while_delays_a_cut_restore(
    tmp_path: Path, spec: str, layouts: tuple[str, ...], lose: Lose
) -> None:
    for point in range(1, 40, 7):
        with mortal_node(tmp_path / f"{point}", *layouts, spec=spec) as made:
            lose(made)
            if made.start(die_at=point):
                break
            made.node.add_fault(fails(CREATE, Code.UNKNOWN, times=2))
            made.start()
            made.live(300)
            assert made.wrongs() == [], f"died at point {point}"
