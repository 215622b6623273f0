"""Which parts a configuration makes, and which outlive it."""

from pathlib import Path

import pytest

from migscaler.app.config.load import load_text
from migscaler.app.wiring import acts, push_sources
from migscaler.model.demand import Counts
from tests.unit.app.nodes import ENFORCE, RECOMMEND, node_at_work

SOURCES = """
sources:
  told: {type: push, counts: total}
  also: {type: push, counts: waiting}
  queue: {type: prometheus, url: "http://a:9", query: "sum by (profile) (x)", counts: waiting}
  same: {type: prometheus, url: "http://a:9", query: "sum by (profile) (y)", counts: waiting}
rules: [{name: notebooks, size: 1g, from: [told, also, queue, same]}]
veto: [{source: queue, query: "max(maintenance) > 0"}]
"""


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("mode: observe\n", False),
        ("mode: enforce\n", False),
        ("mode: observe\ngpus: [{index: 0}]\n", False),
        ("mode: observe\ngpus: [{index: 0}, {index: 1, mode: recommend}]\n", True),
        (RECOMMEND, True),
        (ENFORCE, True),
    ],
)
def test_node_acts_only_where_some_named_gpu_is_more_than_observed(
    text: str, expected: bool
) -> None:
    assert acts(load_text(text, "test").policy) is expected


def test_push_sources_are_those_of_that_type_with_their_meaning() -> None:
    loaded = load_text(RECOMMEND + SOURCES, "test")

    assert push_sources(loaded.settings, loaded.policy) == {
        "told": Counts.TOTAL,
        "also": Counts.WAITING,
    }


def test_every_source_and_veto_is_built(tmp_path: Path) -> None:
    with node_at_work(tmp_path, "7g@0", config=RECOMMEND + SOURCES) as here:
        gatherer = here.runtime.loop.parts.gatherer

        assert gatherer.names() == ("told", "also", "queue", "same", "scheduler")
        assert len(gatherer.veto_names()) == 1


def test_leases_are_demand_also_where_the_file_does_not_say_so(tmp_path: Path) -> None:
    with node_at_work(tmp_path, "1g@0") as here:
        here.watch(5)
        here.ask("lease_take", size="3g", ttl_seconds=60, wait=True)

        answer = here.ask("source_test", source="scheduler")

        assert answer["rows"] == [{"labels": "3g", "value": "1"}]


def test_configuration_that_is_held_in_observe_has_no_writer(tmp_path: Path) -> None:
    with node_at_work(tmp_path, "7g@0", config="mode: sometimes\n") as here:
        assert here.runtime.loop.parts.enforcer is None


def test_hook_of_the_configuration_in_force_runs_after_a_change(tmp_path: Path) -> None:
    told = tmp_path / "told"
    command = f'["sh", "-c", "echo $MIGSCALER_LAYOUT >> {told}"]'
    with node_at_work(tmp_path, "3g@0") as here:
        here.watch()
        here.config.write_text(RECOMMEND + f"hooks: {{after_change: [{command}]}}\n")
        here.runtime.reload()

        here.ask("apply", gpu=0, layout="3g 3g")

        assert told.read_text() == "3g.20gb@0 3g.20gb@4\n"


def test_windows_are_those_of_the_file_in_its_time_zone(tmp_path: Path) -> None:
    config = RECOMMEND + "timezone: Asia/Seoul\nfreeze: [{when: 'mon-fri 21:00-23:00'}]\n"
    with node_at_work(tmp_path, "7g@0", config=config) as here:
        (window,) = here.runtime.loop.parts.evaluate_windows(here.clock.now())

        # Noon UTC is nine in the evening in Seoul.
        assert (window.window, window.open) == ("mon-fri 21:00-23:00", True)
