from collections import Counter
from pathlib import Path

import pytest

from migscaler.metrics.collector import Collector
from migscaler.metrics.families import FAMILIES, series_bound
from migscaler.metrics.family import Kind, Many
from migscaler.metrics.reference import reference
from migscaler.model.status import Status
from tests.builders import A30, A100, NOW, model, snapshot
from tests.unit.metrics.statuses import full_status, node_of_eight

ROOT = Path(__file__).parents[3]
FORBIDDEN_LABELS = {"instance", "job_name", "node", "cluster", "zone", "owner", "type", "service"}


def test_table_names_each_family_once() -> None:
    assert [n for n, times in Counter(f.name for f in FAMILIES).items() if times > 1] == []


def test_table_uses_no_label_that_prometheus_sets_itself() -> None:
    assert {label for f in FAMILIES for label in f.labels} & FORBIDDEN_LABELS == set()


def test_table_queries_name_only_families_of_the_table() -> None:
    assert [f.name for f in FAMILIES if f.name not in f.example] == []


def test_table_says_everything_of_every_family() -> None:
    assert [f.name for f in FAMILIES if not (f.help.endswith((".", "plan")) and f.origin)] == []


def test_reference_is_the_committed_file() -> None:
    assert (ROOT / "docs/metrics.md").read_text(encoding="utf-8") == reference()


@pytest.mark.parametrize(("name", "bound"), [(A100, 243), (A30, 177)])
def test_series_bound_of_a_gpu_is_the_published_one(name: str, bound: int) -> None:
    assert series_bound(model(name)) == bound


def test_series_of_every_gpu_stay_within_the_bound() -> None:
    samples = Collector().samples(full_status())
    counts = Counter[str]()
    for family in FAMILIES:
        if family.many is not Many.NODE:
            at = family.labels.index("gpu")
            counts.update(values[at] for values in samples.series.get(family.short, {}))

    assert len(counts) == 8
    assert max(counts.values()) <= series_bound(model(A100))


def test_every_family_has_series_when_everything_is_known() -> None:
    present = Collector().samples(full_status(paused=True)).present()

    assert [f.name for f in FAMILIES if f.short not in present] == []


def test_unlabelled_counters_start_at_zero() -> None:
    samples = Collector().samples(Status(version="0.1.0", started_at=NOW, now=NOW))
    plain = [f for f in FAMILIES if f.kind is Kind.COUNTER and not f.labels]

    assert [f.name for f in plain if samples.series.get(f.short) != {(): 0}] == []


def test_stems_follow_openmetrics_naming() -> None:
    stems = {f.name: f.stem for f in FAMILIES}

    assert stems["migscaler_plans_total"] == "migscaler_plans"
    assert stems["migscaler_gpu_info"] == "migscaler_gpu"
    assert stems["migscaler_gpu_power_watts"] == "migscaler_gpu_power_watts"


def test_statuses_for_tests_show_eight_gpus() -> None:
    assert [g.reading.index for g in snapshot(*node_of_eight()).gpus] == list(range(8))
