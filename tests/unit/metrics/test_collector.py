"""What a status becomes on /metrics; values written out as Prometheus reads them."""

import logging
from dataclasses import replace
from datetime import timedelta

import pytest

from migscaler.metrics.collector import PARTS, Collector, collect
from migscaler.metrics.fits import FitBook
from migscaler.metrics.samples import Samples
from migscaler.model.gpu import Gap, GpuState, PinReason
from migscaler.model.ids import PlanId
from migscaler.model.layout import Layout
from migscaler.model.status import Counters, Running, Status
from migscaler.store.records import NvmlAction
from tests.builders import A100, H100, NOW, gpu_state, layout, snapshot, source_status, uuid
from tests.unit.metrics.statuses import GAUGES, full_status, histogram, measured_by_dcgm


def showing(*gpus: GpuState, stale: bool = False) -> Status:
    return Status(
        version="0.1.0",
        started_at=NOW,
        now=NOW,
        snapshot=snapshot(*gpus),
        snapshot_stale=stale,
    )


def values(status: Status, short: str, gpu: int | None = None) -> dict[tuple[str, ...], float]:
    """Return the series of a family without the labels `gpu` and `gpu_uuid`."""
    series = Collector().samples(status).series.get(short, {})
    if gpu is None:
        return series
    return {labels[2:]: value for labels, value in series.items() if labels[0] == str(gpu)}


def test_slices_of_a_gpu_sum_up_by_state() -> None:
    status = showing(gpu_state(A100, "3g@0 3g@4", {"3g@0": PinReason.PROCESS}))

    assert values(status, "gpu_memory_slices", 0) == {
        ("pinned",): 4,
        ("idle",): 4,
        ("free",): 0,
        ("stranded",): 0,
    }
    assert values(status, "gpu_compute_slices", 0) == {
        ("pinned",): 3,
        ("idle",): 3,
        ("free",): 0,
        ("stranded",): 1,
    }


def test_cover_draws_the_strip() -> None:
    status = showing(gpu_state(A100, "2g@0 1g@2 3g@4"))

    assert values(status, "gpu_slice_cover", 0) == {
        ("0",): 2,
        ("1",): 2,
        ("2",): 1,
        ("3",): 0,
        ("4",): 3,
        ("5",): 3,
        ("6",): 3,
        ("7",): 3,
    }


def test_fit_counts_what_can_be_created_now_and_with_idle_ones_dissolved() -> None:
    status = showing(gpu_state(A100, "3g@0 3g@4", {"3g@0": PinReason.PROCESS}))

    creatable = values(status, "gpu_profile_creatable_instances", 0)
    reachable = values(status, "gpu_profile_reachable_instances", 0)
    assert set(creatable.values()) == {0}
    assert reachable[("1g.5gb",)] == 3
    assert reachable[("2g.10gb",)] == 1
    assert reachable[("3g.20gb",)] == 1
    assert reachable[("7g.40gb",)] == 0


def test_unused_instances_are_those_a_job_could_take() -> None:
    pins = {
        "1g@0": PinReason.PROCESS,
        "1g@1": PinReason.SETTLING,
        "1g@2": PinReason.MEMORY,
        "1g@3": PinReason.HELD,
    }
    status = showing(gpu_state(A100, "1g@0 1g@1 1g@2 1g@3 1g@4", pins))

    assert values(status, "gpu_profile_unused_instances", 0)[("1g.5gb",)] == 2


def test_verdict_is_shown_by_reason_only_while_pinned() -> None:
    status = showing(gpu_state(A100, "1g@0 1g@6", {"1g@0": PinReason.PROCESS}))

    assert values(status, "instance_idle", 0) == {
        ("1", "1g.5gb", "0:1"): 0,
        ("2", "1g.5gb", "6:1"): 1,
    }
    assert values(status, "instance_pinned_info", 0) == {("1", "1g.5gb", "0:1", "process"): 1}
    assert values(status, "pinned_instances")[("process",)] == 1
    assert values(status, "pinned_instances")[("memory",)] == 0


def test_activity_is_absent_where_the_gpu_has_none() -> None:
    status = showing(gpu_state(A100, "1g@0", index=0), gpu_state(H100, "1g@0", index=1, gpm=True))

    assert values(status, "instance_sm_activity_ratio", 0) == {}
    assert values(status, "instance_sm_activity_ratio", 1) == {("1", "1g.10gb", "0:1", "gpm"): 0}
    supported = values(status, "family_supported")
    assert supported[("migscaler_instance_sm_activity_ratio",)] == 1
    assert supported[("migscaler_gpu_power_watts",)] == 0
    assert ("migscaler_gpu_xid_last_timestamp_seconds",) not in supported


def test_nothing_is_said_of_what_instances_report_while_there_is_none() -> None:
    supported = values(showing(gpu_state(H100, "", gpm=True)), "family_supported")

    assert supported[("migscaler_gpu_mig_enabled",)] == 1
    assert [labels for labels in supported if "_instance_" in labels[0]] == []


def test_failed_steps_start_at_zero_for_every_kind_and_reason() -> None:
    failures = values(full_status(), "step_failures_total")

    assert failures[("destroy_gi", "held_by_client")] == 1
    assert failures[("create_gi", "insufficient_resources")] == 0
    assert len(failures) == 4 * 6


@pytest.mark.parametrize(("known", "shown"), [(True, 1.0), (False, 0.0)])
def test_driver_mismatch_is_shown_where_known(known: bool, shown: float) -> None:
    status = showing(gpu_state(A100, "7g@0"), stale=True)

    assert values(status, "driver_mismatch") == {}
    assert values(replace(status, driver_mismatch=known), "driver_mismatch") == {(): shown}


def test_activity_of_a_gpu_weighs_instances_by_compute_slices() -> None:
    status = showing(gpu_state(H100, "4g@0 1g@6", {"4g@0": PinReason.PROCESS}, gpm=True))

    assert values(status, "gpu_sm_activity_ratio", 0) == {(): pytest.approx(0.8 * 4 / 7)}


def test_activity_of_a_gpu_is_absent_while_one_instance_is_not_seen() -> None:
    gpu = measured_by_dcgm(gpu_state(A100, "3g@0 2g@4 1g@6"))
    status = showing(gpu)

    assert values(status, "dcgm_unseen_instances", 0) == {(): 1}
    assert values(status, "gpu_activity_ratio", 0) == {}
    assert values(status, "activity_ratio") == {}
    assert values(status, "activity_known_ratio") == {(): 0}


def test_activity_is_not_known_of_a_partitioned_gpu_whose_instances_can_not_be_read() -> None:
    """It was left out of the whole, and the ratio said that nothing was missing."""
    known = gpu_state(H100, "-", index=1, gpm=True)
    gpu = gpu_state(H100, "7g@0", index=2, gpm=True)
    gap = Gap(what="instances", why="no answer")
    unread = replace(gpu.reading, instances=None, gaps=(gap,))
    status = showing(known, replace(gpu, reading=unread, instances=None))

    assert values(status, "activity_known_ratio") == {(): 0.5}
    assert values(status, "activity_ratio") == {(): 0}


def test_activity_of_the_node_speaks_of_the_gpus_where_it_is_known() -> None:
    busy = measured_by_dcgm(gpu_state(A100, "3g@0 2g@4 1g@6", index=1))
    known = replace(busy.reading, instances=(busy.reading.instances or ())[:-1])
    empty = gpu_state(H100, "-", index=2, gpm=True)
    unknown = gpu_state(A100, "7g@0", index=3)
    status = showing(replace(busy, reading=known), empty, unknown)

    assert values(status, "gpu_activity_ratio", 1) == {(): pytest.approx(0.25 * 5 / 7)}
    assert values(status, "gpu_activity_ratio", 2) == {(): 0}
    assert values(status, "gpu_activity_ratio", 3) == {}
    assert values(status, "activity_ratio") == {(): pytest.approx(0.25 * 5 / 14)}
    assert values(status, "activity_known_ratio") == {(): pytest.approx(14 / 21)}


def test_every_gpu_says_where_its_activity_comes_from() -> None:
    status = showing(
        measured_by_dcgm(gpu_state(A100, "7g@0", index=0)),
        gpu_state(A100, "7g@0", index=1),
        gpu_state(H100, "7g@0", index=2, gpm=True),
    )

    found = [values(status, "gpu_activity_source_info", index) for index in range(3)]
    assert found == [{("dcgm",): 1}, {("none",): 1}, {("gpm",): 1}]


def test_raw_activity_is_shown_where_it_was_clamped() -> None:
    status = showing(measured_by_dcgm(gpu_state(A100, "3g@0 2g@4")))

    labels = ("1", "3g.20gb", "0:4")
    assert values(status, "instance_activity_raw_ratio", 0) == {(*labels, "sm"): 1.29}
    assert values(status, "instance_sm_activity_ratio", 0) == {(*labels, "dcgm"): 1}


def test_utilization_of_the_whole_gpu_exists_only_without_mig() -> None:
    with_mig = gpu_state(A100, "1g@0", index=0)
    without = gpu_state(A100, "-", index=1, mig=False)
    gauges = replace(GAUGES, utilization_ratio=0.5)
    status = showing(
        replace(with_mig, reading=replace(with_mig.reading, gauges=gauges)),
        replace(without, reading=replace(without.reading, gauges=gauges)),
    )

    assert values(status, "gpu_utilization_ratio", 0) == {}
    assert values(status, "gpu_utilization_ratio", 1) == {(): 0.5}


def test_stale_snapshot_leaves_its_age_and_no_hardware_series() -> None:
    status = showing(gpu_state(A100, "1g@0"), stale=True)
    samples = Collector().samples(status)

    assert samples.series["snapshot_stale"] == {(): 1}
    assert samples.series["snapshot_timestamp_seconds"] == {(): NOW.timestamp()}
    hardware = ("gpu_up", "gpu_info", "gpus", "instance_idle", "gpu_memory_slices")
    assert samples.present().isdisjoint(hardware)


def test_gpu_being_changed_shows_neither_instances_nor_layout() -> None:
    both = showing(gpu_state(A100, "1g@0", index=0), gpu_state(A100, "1g@0", index=1))
    running = Running(
        plan_id=PlanId("p"),
        gpu_uuid=uuid(0),
        before=layout(A100, "1g@0"),
        after=Layout(),
        since=NOW,
        fenced_since=NOW - timedelta(seconds=3),
    )
    for status in (replace(both, running=running), replace(both, withheld=(uuid(0),))):
        assert values(status, "instance_idle", 0) == {}
        assert values(status, "gpu_layout_info", 0) == {}
        assert values(status, "gpu_changing", 0) == {(): 1}
        assert values(status, "gpu_up", 0) == {(): 1}
        assert values(status, "instance_idle", 1) == {("1", "1g.5gb", "0:1"): 1}
        assert values(status, "idle_instances") == {(): 1}
    fenced = values(replace(both, running=running), "gpu_fenced_since_timestamp_seconds", 0)
    assert fenced == {(): NOW.timestamp() - 3}


def test_gpu_that_does_not_answer_is_down_and_has_no_layout() -> None:
    gpu = gpu_state(A100, "-", excluded="lost")
    reading = replace(gpu.reading, instances=None, gaps=(Gap(what="gpu", why="lost"),))
    status = showing(replace(gpu, reading=reading, instances=None))

    assert values(status, "gpu_up", 0) == {(): 0}
    assert values(status, "gpu_layout_info", 0) == {}
    assert values(status, "gpu_memory_slices", 0) == {}


def test_gates_start_at_zero_and_close_where_they_are() -> None:
    status = full_status()

    assert values(status, "gpu_gate_closed", 2)[("resting",)] == 1
    assert values(status, "gpu_gate_closed", 3)[("resting",)] == 0
    assert values(status, "rule_gate_closed") == {
        ("notebooks", "source_unknown"): 0,
        ("notebooks", "settling_target"): 0,
        ("training", "source_unknown"): 1,
        ("training", "settling_target"): 0,
    }
    assert values(status, "gate_closed")[("paused",)] == 0
    assert values(status, "decision_outcome")[("resting",)] == 1
    assert sum(values(status, "decision_outcome").values()) == 1


def test_rules_show_wanted_there_and_missing() -> None:
    status = full_status()

    assert values(status, "rule_wanted_instances")[("notebooks",)] == 11
    assert values(status, "rule_in_use_instances")[("notebooks",)] == 7
    assert values(status, "rule_supply_instances")[("notebooks",)] == 2
    assert values(status, "rule_unmet_instances")[("notebooks",)] == 2
    by_cause = values(status, "rule_unmet_by_cause_instances")
    assert {labels[1]: count for labels, count in by_cause.items() if labels[0] == "notebooks"} == {
        "capacity": 0,
        "held": 0,
        "gate": 2,
        "configuration": 0,
    }


def test_reading_that_no_longer_holds_is_absent() -> None:
    status = full_status()

    assert values(status, "source_reading_instances") == {("queue", "1g"): 4}
    assert values(status, "source_known") == {("queue",): 1, ("batch",): 0}


def test_sizes_of_an_answer_are_shown_as_far_as_rules_ask_for_them() -> None:
    """The label's values came from whoever answered: 5,000 made-up sizes were 5,000 series."""
    wants = {f"1g.{n}gb": 1 for n in range(1, 300)}
    status = replace(full_status(), demand=(source_status("queue", wants),))

    shown = values(status, "source_reading_instances")

    around = (5, 9, 10, 11)  # drivers' words for one profile differ by a gigabyte
    assert shown == {("queue", f"1g.{n}gb"): 1 for n in around}


def silent(unmet: int) -> Status:
    """Return a status with a silent source of training, of which so much is missing for certain."""
    status = full_status()
    assert status.decision is not None
    rules = tuple(
        replace(one, unmet=unmet, unmet_since=NOW) if one.rule == "training" else one
        for one in status.decision.rules
    )
    return replace(status, decision=replace(status.decision, rules=rules))


def test_rule_with_a_silent_source_shows_no_figure_that_is_not_known() -> None:
    """Unmet fell to 0 at one missed answer, and an alert of 30 minutes began anew."""
    for short in (
        "rule_wanted_instances",
        "rule_target_instances",
        "rule_unmet_instances",
        "rule_unmet_since_timestamp_seconds",
    ):
        assert list(values(silent(0), short)) == [("notebooks",)]
    causes = values(silent(0), "rule_unmet_by_cause_instances")
    assert {rule for rule, _ in causes} == {"notebooks"}
    assert values(silent(0), "rule_floor_instances")[("training",)] == 0
    assert values(silent(2), "rule_unmet_instances")[("training",)] == 2


def test_counts_of_instances_are_absent_where_none_can_be_read() -> None:
    gpu = gpu_state(A100, "-")
    blind = replace(gpu, instances=None, reading=replace(gpu.reading, instances=None))
    seen = gpu_state(A100, "1g@0", index=1)

    assert values(showing(blind), "idle_instances") == {}
    assert values(showing(blind), "pinned_instances") == {}
    assert values(showing(blind, seen), "idle_instances") == {(): 1}


def test_reading_that_can_not_be_true_hides_its_own_gpu_alone() -> None:
    torn = gpu_state(A100, "-")
    whole = gpu_state(A100, "7g@0").instances or ()
    half = gpu_state(A100, "3g@4").instances or ()
    readings = tuple(one.reading for one in (*whole, *half))
    reading = replace(torn.reading, instances=readings)
    torn = replace(torn, instances=(*whole, *half), reading=reading)
    status = showing(torn, gpu_state(A100, "1g@0", index=1))

    success = values(status, "collector_success")

    assert [name for (name,), worked in success.items() if not worked] == []
    assert values(status, "gpu_layout_info", 0) == {}
    assert len(values(status, "gpu_layout_info", 1)) == 1
    assert len(values(status, "fragmentation_ratio")) == 1


def test_veto_that_does_not_answer_stands() -> None:
    assert values(full_status(), "veto_stands") == {("maintenance",): 0, ("backup",): 1}


def test_mode_is_one_of_three_and_protection_has_its_end() -> None:
    status = full_status()

    assert values(status, "gpu_mode", 3) == {("observe",): 1, ("recommend",): 0, ("enforce",): 0}
    assert values(status, "gpu_mode", 2)[("enforce",)] == 1
    assert values(status, "gpu_protected", 3) == {(): 1}
    end = (NOW + timedelta(days=30)).timestamp()
    assert values(status, "gpu_protected_until_timestamp_seconds", 3) == {(): end}


def test_holds_of_persons_count_and_leases_do_not() -> None:
    status = full_status()

    assert values(status, "gpu_holds", 7) == {(): 1}
    assert values(status, "gpu_holds", 0) == {(): 0}
    end = (NOW + timedelta(hours=2)).timestamp()
    assert values(status, "gpu_hold_until_timestamp_seconds", 7) == {(): end}


def test_closed_sets_start_at_zero_before_anything_happened() -> None:
    status = showing(gpu_state(A100, "-"))

    assert set(values(status, "steps_total")) == {(one.value,) for one in NvmlAction}
    assert values(status, "plans_total") == {("finer",): 0, ("coarser",): 0}
    assert values(status, "idle_regrets_total") == {
        ("kept", "300"): 0,
        ("kept", "1800"): 0,
        ("destroy", "300"): 0,
        ("destroy", "1800"): 0,
    }
    assert set(values(status, "hold_ticks_total").values()) == {0}


def test_part_that_raises_loses_only_itself(caplog: pytest.LogCaptureFixture) -> None:
    broken = Counters(histograms=(("nonsense", histogram()),))
    status = replace(full_status(), counters=broken)
    collector = Collector()

    with caplog.at_level(logging.ERROR):
        first = collector.samples(status)
        collector.samples(status)

    success = first.series["collector_success"]
    assert success[("exposition_histograms",)] == 0
    assert [part for part in PARTS if not success[(f"exposition_{part}",)]] == ["histograms"]
    assert "gpu_up" in first.present()
    assert len(caplog.records) == 1


def test_gpu_that_breaks_does_not_hide_the_next() -> None:
    sane = gpu_state(A100, "1g@0", index=1)
    broken = gpu_state(A100, "1g@0", index=0)
    object.__setattr__(broken, "instances", (None,))  # what no type allows, on purpose
    status = showing(broken, sane)

    assert values(status, "instance_idle", 1) == {("1", "1g.5gb", "0:1"): 1}
    assert values(status, "collector_success")[("exposition_instance",)] == 0


def test_histogram_ends_in_infinity() -> None:
    metric = next(m for m in collect(full_status()) if m.name.endswith("_step_duration_seconds"))

    assert [(s.name.rpartition("_")[2], s.labels.get("le"), s.value) for s in metric.samples] == [
        ("bucket", "0.5", 1),
        ("bucket", "10.0", 4),
        ("bucket", "60.0", 5),
        ("bucket", "+Inf", 6),
        ("sum", None, 21.25),
        ("count", None, 6),
    ]


def test_samples_refuse_what_the_table_does_not_say() -> None:
    out = Samples()

    with pytest.raises(ValueError, match="has labels"):
        out.add("gpu_up", 1, "0")
    with pytest.raises(ValueError, match="is no histogram"):
        out.add_histogram("gpu_up", histogram())
    with pytest.raises(ValueError, match="has labels"):
        out.add_histogram("step_duration_seconds", histogram(("other", "x")))
    out.add("fragmentation_ratio", float("nan"))
    assert out.present() == frozenset()


def test_fits_are_kept_until_layout_or_verdicts_change() -> None:
    book = FitBook()
    pins = {"1g@0": PinReason.PROCESS}
    first = book.fit(gpu_state(A100, "1g@0 2g@2", pins))

    assert book.fit(gpu_state(A100, "1g@0 2g@2", pins)) is first
    assert book.fit(gpu_state(A100, "1g@0 2g@2")) is not first
    assert book.fit(gpu_state(A100, "1g@0")) is not first
