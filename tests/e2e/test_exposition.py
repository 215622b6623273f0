"""What a scraper gets from the real daemon, through changes of layout by others and by itself."""

import subprocess
import time
from collections import Counter
from collections.abc import Iterator

import pytest
from prometheus_client.parser import text_string_to_metric_families

from migscaler.metrics.families import series_bound
from migscaler.model.catalog import load_catalog
from tests.e2e.processes import Daemon, daemon, wait_until

pytestmark = pytest.mark.xdist_group("exposition")

BOARDS = ("h100-sxm5-80gb", "a30-24gb", "rtx-pro-6000-blackwell-96gb", "a100-sxm4-40gb")
H100, A30, RTX, WHOLE = "0", "1", "2", "3"
CONFIG = """
mode: observe
sampling: {interval: 1s}
tick: 1s
gpus: [{model: "*H100*", mode: enforce}]
idle: {after: 10s}
rules: [{name: notebooks, size: 1g, from: [scheduler], min: 2, raise_after: 0s}]
pace: {rest: 0s}
"""
Sample = tuple[str, dict[str, str], float]


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    made = daemon(
        tmp_path_factory.mktemp("exposition"),
        ",".join(BOARDS),
        CONFIG,
        driver="580.65.06",
        mig=(True, True, True, False),
    )
    with made as running:
        yield running


def checked(text: str) -> None:
    """Let promtool judge an exposition."""
    done = subprocess.run(
        ["promtool", "check", "metrics"], input=text, capture_output=True, text=True, timeout=120
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def samples(text: str) -> list[Sample]:
    families = text_string_to_metric_families(text)
    return [(s.name, s.labels, s.value) for family in families for s in family.samples]


def value(found: list[Sample], name: str, **labels: str) -> float | None:
    """Return the one series that has these labels, None without."""
    values = [v for n, has, v in found if n == name and labels.items() <= has.items()]
    assert len(values) < 2, (name, labels, values)
    return values[0] if values else None


def instances(found: list[Sample], gpu: str) -> set[tuple[str, str]]:
    """Return profile and placement of every instance that any series of a GPU speaks of."""
    return {
        (labels["profile"], labels["placement"])
        for _, labels, _ in found
        if labels.get("gpu") == gpu and "gi_id" in labels
    }


def is_made_and_told(found: list[Sample]) -> bool:
    """Say whether both instances that the rule wants are shown, and the plan that made them."""
    is_told = value(found, "migscaler_gpu_plans_total", direction="finer") == 1
    return is_told and instances(found, H100) == {("1g.10gb", "0:1"), ("1g.10gb", "1:1")}


def after(running: Daemon, moment: float) -> str:
    """Return the exposition of the first sample that was taken after a moment."""
    shown: list[str] = []

    def newer() -> bool:
        shown.append(running.metrics())
        taken = value(samples(shown[-1]), "migscaler_snapshot_timestamp_seconds")
        return taken is not None and taken > moment

    wait_until("a newer sample is shown", newer)
    return shown[-1]


def test_series_follow_the_layout_and_die_with_their_instance(node: Daemon) -> None:
    sim = node.node
    first = sim.foreign_create(1, "2g.12gb@0")
    sim.foreign_create(1, "1g.6gb@2")
    made = samples(after(node, time.time()))
    sim.foreign_destroy(1, first)
    # In the same place, and by the driver's habit with the same id, something else.
    sim.foreign_create(1, "1g.6gb@1")
    text = after(node, time.time())
    changed = samples(text)

    checked(text)
    assert instances(made, A30) == {("2g.12gb", "0:2"), ("1g.6gb", "2:1")}
    assert instances(changed, A30) == {("1g.6gb", "1:1"), ("1g.6gb", "2:1")}
    generations = [value(s, "migscaler_gpu_generation", gpu=A30) or 0.0 for s in (made, changed)]
    assert generations[1] > generations[0]


def test_own_change_withholds_the_gpu_s_instances_and_stays_clean(node: Daemon) -> None:
    began = time.monotonic()
    texts = [node.metrics()]
    # A sample may show what was made just before the plan counts as ended.
    while not is_made_and_told(samples(texts[-1])):
        assert time.monotonic() - began < 120, texts[-1]
        time.sleep(0.02)  # a faster client would be sent away
        texts.append(node.metrics())

    for text in (texts[0], texts[-1]):
        checked(text)
    for found in map(samples, texts):
        if value(found, "migscaler_gpu_changing", gpu=H100) == 1:
            assert instances(found, H100) == set()
            assert value(found, "migscaler_gpu_layout_info", gpu=H100) is None
    last = samples(texts[-1])
    assert value(last, "migscaler_steps_total", kind="create_gi") == 2
    assert value(last, "migscaler_step_duration_seconds_count", kind="create_ci") == 2
    assert value(last, "migscaler_gpu_layout_as_wanted", gpu=H100) == 1


def test_whole_gpu_utilization_only_where_mig_is_off(node: Daemon) -> None:
    found = samples(node.metrics())

    for name in ("migscaler_gpu_utilization_ratio", "migscaler_gpu_memory_utilization_ratio"):
        assert {labels["gpu"] for n, labels, _ in found if n == name} == {WHOLE}
    assert value(found, "migscaler_gpu_mig_enabled", gpu=WHOLE) == 0
    assert value(found, "migscaler_gpu_layout_info", gpu=WHOLE) is None
    assert value(found, "migscaler_driver_mismatch") == 0


def test_no_gpu_has_more_series_than_published(node: Daemon) -> None:
    sim = node.node
    for start in range(0, 12, 3):
        sim.foreign_create(2, f"1g.24gb@{start}")
    text = after(node, time.time())
    counts = Counter(labels["gpu"] for _, labels, _ in samples(text) if "gpu" in labels)

    checked(text)
    catalog = load_catalog()
    bounds = [series_bound(catalog.board(key).model()) for key in BOARDS]
    assert sorted(counts) == [H100, A30, RTX, WHOLE]
    assert [gpu for gpu, bound in enumerate(bounds) if counts[str(gpu)] > bound] == []
