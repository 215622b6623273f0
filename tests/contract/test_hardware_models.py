"""GPU models and activity as read from the simulated library, on many boards and drivers."""

from pathlib import Path

import pytest

from migscaler.errors import DriverGone, NvmlError
from migscaler.model.catalog import load_catalog
from migscaler.model.gpu import ActivitySource
from migscaler.model.layout import GpuModel
from migscaler.planner.layouts import all_layouts
from migscaler.sim import faults
from tests.unit.hardware.rig import SimulatedRig, in_process, through_worker


def read_model(board: str, driver: str) -> GpuModel:
    with in_process(board, driver=driver) as rig:
        return rig.model()


@pytest.mark.parametrize(
    ("board", "driver"),
    [
        ("A30", "550.54.14"),
        ("A100-SXM4-40GB", "550.54.14"),
        ("A100-SXM4-80GB", "535.104.05"),
        ("H100-SXM5-80GB", "550.54.14"),
        ("H100-NVL", "570.169"),
        ("H200", "560.35.03"),
        ("RTX PRO 6000", "580.65.06"),
    ],
)
def test_model_read_from_nvml_equals_the_catalog(board: str, driver: str) -> None:
    with in_process(board, driver=driver) as rig:
        key = rig.node.state.gpus[0].board
        expected = load_catalog().board(key).model(int(driver.split(".")[0]))
        assert rig.model() == expected


@pytest.mark.parametrize("board", ["B200", "GH200-144GB"])
def test_figures_the_catalog_lacks_change_nothing_about_legal_layouts(board: str) -> None:
    with in_process(board, driver="595.58.03") as rig:
        key = rig.node.state.gpus[0].board
        expected = load_catalog().board(key).model(595)
        assert all_layouts(rig.model()) == all_layouts(expected)


def test_old_driver_without_names_gives_derived_names_and_no_4g_beside_3g() -> None:
    model = read_model("A100-SXM4-40GB", "470.57.02")
    assert [p.name for p in model.profiles] == [
        "1g.5gb",
        "2g.10gb",
        "3g.20gb",
        "4g.20gb",
        "7g.40gb",
        "1g.5gb+me",
    ]
    assert model.exclusive_pairs == (("4g.20gb", "3g.20gb"),)


def test_old_driver_reads_processes_by_the_second_version() -> None:
    with in_process("A100-SXM4-40GB", driver="470.57.02") as rig:
        gi_id = rig.create("1g@0")
        pid = rig.node.start_job(0, gi_id)
        assert [p.pid for p in rig.instance(gi_id).processes or ()] == [pid]
        assert rig.gpu().gaps == ()


def test_oldest_driver_tells_no_placements_and_the_gap_says_so() -> None:
    with in_process("A100-SXM4-40GB", driver="450.80.02") as rig:
        gpu = rig.gpu()
        assert gpu.model is None
        assert gpu.instances is None
        why = {gap.what: gap.why for gap in gpu.gaps}
        assert "PossiblePlacements answered FUNCTION_NOT_FOUND" in why["model"]
        assert gpu.gauges.power_watts is not None


def test_driver_upgrade_needs_a_new_process_and_the_worker_is_one(tmp_path: Path) -> None:
    with through_worker("A100-SXM4-40GB", tmp_path) as rig:
        rig.gpu()
        rig.node.restart_driver("560.35.03")
        with pytest.raises(DriverGone, match="upgraded underneath"):
            rig.reader.read_node()
        assert rig.reader.read_node().driver_version == "560.35.03"
        assert rig.reader.call_stats().worker_restarts == 1


def test_wide_one_slice_gets_the_compute_instance_with_all_its_multiprocessors() -> None:
    with in_process("H100-SXM5-80GB") as rig:
        gi_id = rig.create("1gx@0")
        assert rig.instance(gi_id).instance.usable
        state = rig.node.state.gpus[0].instances[gi_id].compute[0]
        assert (state.profile_id, state.sm_count) == (7, 26)


def test_seven_slices_prefer_the_plain_profile_over_nvl() -> None:
    with in_process("H100-SXM5-80GB", driver="570.169") as rig:
        gi_id = rig.create("7g@0")
        assert rig.node.state.gpus[0].instances[gi_id].compute[0].profile_id == 4
        assert rig.instance(gi_id).instance.usable


def test_partial_compute_instance_is_seen_as_not_full_width() -> None:
    with in_process("A100-SXM4-40GB") as rig:
        gi_id = rig.create_orphan("3g@0")
        with rig.node.changing() as state:
            gpu = state.gpus[0]
            for _ in range(2):
                rig.node.create_compute(gpu, gpu.instances[gi_id], 0, None, "foreign")
        instance = rig.instance(gi_id).instance
        assert [(c.compute_slices, c.full_width) for c in instance.compute_instances] == [
            (1, False),
            (1, False),
        ]
        assert not instance.usable


def activity_of(rig: SimulatedRig) -> list[float | None]:
    found = rig.gpu().instances or ()
    return [r.activity.graphics_ratio if r.activity else None for r in found]


def test_hopper_activity_appears_with_the_second_sample() -> None:
    with in_process("H100-SXM5-80GB") as rig:
        gi_id = rig.create("1g@0")
        rig.node.start_job(0, gi_id, activity=0.5)
        assert activity_of(rig) == [None]
        rig.clock.sleep(10)
        activity = rig.instance(gi_id).activity
        assert activity is not None
        assert activity.source is ActivitySource.GPM
        assert activity.window_seconds == 10
        assert activity.graphics_ratio == 0.5


def test_activity_window_is_neither_too_short_nor_too_long() -> None:
    with in_process("H100-SXM5-80GB") as rig:
        rig.create("1g@0")
        assert activity_of(rig) == [None]
        rig.clock.sleep(0.05)
        assert activity_of(rig) == [None]
        rig.clock.sleep(0.06)
        assert activity_of(rig) == [0.0]
        rig.clock.sleep(601)
        assert activity_of(rig) == [None]
        rig.clock.sleep(10)
        assert activity_of(rig) == [0.0]


def test_second_look_within_a_moment_repeats_the_activity() -> None:
    """A lease took a sample right after the sampler's, and the whole node became unknown."""
    with in_process("H100-SXM5-80GB") as rig:
        rig.node.start_job(0, rig.create("1g@0"), activity=0.5)
        activity_of(rig)
        rig.clock.sleep(5)
        assert activity_of(rig) == [0.5]
        rig.clock.sleep(0.05)
        assert activity_of(rig) == [0.5]


def test_activity_starts_anew_at_our_own_re_creation() -> None:
    # GI id, span and MIG UUID come back; only the writer knows that it is another instance.
    with in_process("H100-SXM5-80GB") as rig:
        gi_id = rig.create("1g@0")
        activity_of(rig)
        rig.destroy(gi_id)
        assert rig.create("1g@0") == gi_id
        rig.clock.sleep(10)
        assert activity_of(rig) == [None]
        rig.clock.sleep(10)
        assert activity_of(rig) == [0.0]


def test_activity_of_neighbors_goes_on_over_our_own_change() -> None:
    with in_process("H100-SXM5-80GB") as rig:
        rig.create("1g@0")
        changed = rig.create("1g@1")
        activity_of(rig)
        rig.clock.sleep(10)
        rig.destroy(changed)
        rig.create("2g@2")
        rig.clock.sleep(10)
        assert activity_of(rig) == [0.0, None]
        rig.clock.sleep(10)
        assert activity_of(rig) == [0.0, 0.0]


def test_activity_never_spans_two_instances_of_the_same_id_beside_a_neighbor() -> None:
    # A busy one is replaced by an idle one: a difference over both would not be 0.
    with in_process("H100-SXM5-80GB") as rig:
        rig.create("1g@0")
        gi_id = rig.create("1g@1")
        pid = rig.node.start_job(0, gi_id, activity=0.9)
        activity_of(rig)
        rig.clock.sleep(10)
        assert activity_of(rig) == [0.0, 0.9]
        rig.node.end_job(pid)
        rig.destroy(gi_id)
        assert rig.create("1g@1") == gi_id
        rig.clock.sleep(10)
        assert activity_of(rig) == [0.0, None]
        rig.clock.sleep(10)
        assert activity_of(rig) == [0.0, 0.0]


def test_activity_of_all_starts_anew_when_a_creation_loses_its_answer() -> None:
    with in_process("H100-SXM5-80GB") as rig:
        rig.create("1g@0")
        activity_of(rig)
        rig.clock.sleep(10)
        rig.node.add_fault(faults.loses_answer("nvmlDeviceCreateGpuInstanceWithPlacement"))
        with pytest.raises(NvmlError):
            rig.create("1g@1")
        assert activity_of(rig) == [None, None]


def test_activity_starts_anew_when_a_neighbor_is_changed_by_somebody_else() -> None:
    with in_process("H100-SXM5-80GB") as rig:
        rig.create("1g@0")
        activity_of(rig)
        rig.node.foreign_create(0, "1g@1")
        rig.clock.sleep(10)
        assert activity_of(rig) == [None, None]
        rig.clock.sleep(10)
        assert activity_of(rig) == [0.0, 0.0]


def test_activity_does_not_exist_on_ampere() -> None:
    with in_process("A100-SXM4-40GB") as rig:
        rig.create("1g@0")
        activity_of(rig)
        rig.clock.sleep(10)
        gpu = rig.gpu()
        assert gpu.gpm is False
        assert activity_of(rig) == [None]
        assert gpu.gaps == ()


def test_orphan_beside_a_busy_instance_has_no_activity() -> None:
    with in_process("H100-SXM5-80GB") as rig:
        rig.create("1g@0")
        rig.create_orphan("1g@1")
        activity_of(rig)
        rig.clock.sleep(10)
        assert activity_of(rig) == [0.0, None]


def test_calls_of_a_sample_grow_by_six_per_instance_on_ampere() -> None:
    with in_process("A100-SXM4-40GB") as rig:
        counts = []
        for start in range(3):
            rig.create(f"1g@{start}")
            rig.gpu()
            before = total_calls(rig)
            rig.gpu()
            counts.append(total_calls(rig) - before)
        assert counts == [28, 34, 40]


def total_calls(rig: SimulatedRig) -> int:
    return sum(entry.calls for entry in rig.reader.call_stats().functions)


def test_closed_reader_has_given_its_samples_back() -> None:
    with in_process("H100-SXM5-80GB") as rig:
        for start in range(3):
            rig.create(f"1g@{start}")
        for _ in range(3):
            rig.gpu()
            rig.clock.sleep(10)
    counts = {entry.function: entry.calls for entry in rig.reader.call_stats().functions}
    assert counts["nvmlGpmSampleAlloc"] == counts["nvmlGpmSampleFree"] == 4
