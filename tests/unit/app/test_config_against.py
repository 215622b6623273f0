from dataclasses import replace
from datetime import UTC, datetime

import pytest

from migscaler.app.config.against import fits_together, warnings_against, warnings_against_snapshot
from migscaler.app.config.load import load_text
from migscaler.model.gpu import GpuOwner, GpuReading, GpuState, NodeSnapshot
from tests.builders import A30, A100, H100, model, uuid

NOW = datetime(2026, 3, 2, 12, 0, tzinfo=UTC)


def reading(index: int = 0, board: str = A100) -> GpuReading:
    return GpuReading(
        index=index,
        uuid=uuid(index),
        name=model(board).name,
        model=model(board),
        mig_enabled=True,
        mig_pending=True,
        instances=(),
    )


def warned(text: str, *gpus: GpuReading) -> list[tuple[int | None, str]]:
    found = warnings_against(load_text(text, "x"), gpus, NOW)
    assert all(f.remedy for f in found)
    return [(f.line, f.problem) for f in found]


def test_fitting_configuration_has_no_warnings() -> None:
    text = """\
gpus: [{model: "NVIDIA A100*", baseline: [3g, 3g]}]
rules: [{name: a, size: 1g, min: 14}, {name: b, size: 7g}]
"""
    assert warned(text, reading(0), reading(1)) == []


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ("{index: 5}", "no GPU here has index 5"),
        ('{model: "NVIDIA H200*"}', 'no GPU here has model "NVIDIA H200*"'),
        (
            "{uuid: GPU-5c89852c-d268-c3f3-1b07-005d5ae1dc3f}",
            "no GPU here has uuid GPU-5c89852c-d268-c3f3-1b07-005d5ae1dc3f",
        ),
        ('{model: "NVIDIA A100*", until: 2026-03-01}', "this line has lapsed"),
    ],
)
def test_line_that_speaks_of_no_gpu_is_a_warning(line: str, problem: str) -> None:
    text = f"gpus:\n  - {{index: 0}}\n  - {line}\n"

    assert warned(text, reading(0)) == [(3, problem)]


def test_pattern_that_leaves_cards_out_names_them() -> None:
    text = 'gpus: [{model: "NVIDIA A100*"}]'

    assert warned(text, reading(0), reading(1, H100)) == [
        (1, "left out: 1 NVIDIA H100 80GB HBM3"),
    ]


def test_cards_without_mig_are_not_left_out() -> None:
    plain = replace(reading(1), mig_enabled=None, mig_pending=None, model=None, name="NVIDIA L4")

    assert warned("gpus: [{index: 0}]", reading(0), plain) == []


def test_managed_card_without_mig_is_a_warning() -> None:
    plain = replace(reading(0), mig_enabled=None, mig_pending=None, model=None, name="NVIDIA L4")

    assert warned("gpus:\n  - {index: 0}\n", plain) == [(2, "GPU 0 (NVIDIA L4) can't do MIG")]


def test_card_of_somebody_else_is_a_warning_where_it_should_act() -> None:
    guest = replace(reading(0), foreign_owner=GpuOwner.HYPERVISOR)

    assert warned("gpus: [{index: 0, mode: observe}]", guest) == []
    ((line, problem),) = warned("gpus: [{index: 0, mode: enforce}]", guest)
    assert line == 1
    assert problem.startswith(f"GPU 0 ({guest.name}) is left alone: it is a vGPU")


def test_card_with_mig_off_is_a_warning_where_it_should_act() -> None:
    off = replace(reading(0), mig_enabled=False)

    assert warned("gpus: [{index: 0, mode: observe}]", off) == []
    assert warned("gpus: [{index: 0, mode: enforce}]", off) == [
        (1, f"MIG mode is off on GPU 0 ({off.name})")
    ]


def test_size_that_no_managed_gpu_has_is_a_warning() -> None:
    text = "gpus: [{index: 0}]\nrules:\n  - {name: a, size: 3g}\n"

    assert warned(text, reading(0, A30)) == [(3, "no managed GPU has size 3g")]


def test_floor_beyond_the_hardware_is_a_warning() -> None:
    text = """\
gpus: [{index: 0}]
rules:
  - name: a
    size: 1g
    min: 8
    at_least:
      - {count: 7, when: "sat"}
      - {count: 9, when: "sun"}
"""
    assert warned(text, reading(0)) == [
        (5, "min 8 can't be met: at most 7 x 1g fit here"),
        (8, "at_least 9 can't be met: at most 7 x 1g fit here"),
    ]


def test_rules_that_mean_one_profile_are_a_warning() -> None:
    text = """\
gpus: [{index: 0}]
rules:
  - {name: a, size: 3g}
  - {name: b, size: 3g.20gb}
"""
    assert warned(text, reading(0)) == [
        (4, f"3g.20gb and 3g (rule a) mean 3g.20gb on {model(A100).name}")
    ]


def test_baseline_that_does_not_fit_is_a_warning() -> None:
    text = "gpus:\n  - {index: 0, baseline: [4g, 4g]}\n  - {index: 1, baseline: [5g]}\n"

    assert warned(text, reading(0), reading(1)) == [
        (2, f"4g + 4g do not fit together on {model(A100).name}"),
        (3, f"{model(A100).name} has no 5g"),
    ]


@pytest.mark.parametrize(
    ("sizes", "fits"),
    [
        ("3g 3g", True),
        ("1g 1g 1g 1g 1g 1g 1g", True),
        # Fits only if the 3g is placed at 4 and the small ones before it.
        ("1g 1g 2g 3g", True),
        ("3g 2g 2g", True),
        ("3g 3g 1g", False),  # the two 3g take all memory slices
        ("4g 3g 1g", False),
        ("2g 2g 2g 2g", False),
    ],
)
def test_profiles_fit_together_if_some_placement_holds_them(sizes: str, fits: bool) -> None:
    board = model(A100)
    profiles = tuple(p for p in map(board.resolve, sizes.split()) if p is not None)

    assert fits_together(board, profiles) is fits


def test_snapshot_is_judged_at_its_own_time() -> None:
    snapshot = NodeSnapshot(
        taken_at=NOW,
        taken_monotonic=1.0,
        boot_id="b",
        gpus=(GpuState(reading=reading(0), generation=1, instances=()),),
    )

    found = warnings_against_snapshot(load_text("gpus: [{index: 1}]", "x"), snapshot)

    assert [f.problem for f in found] == [
        "left out: 0 NVIDIA A100-SXM4-40GB",
        "no GPU here has index 1",
    ]
