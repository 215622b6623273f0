"""Which parts a configuration makes, and which outlive it."""

from dataclasses import replace
from pathlib import Path

import pytest

from migscaler.app.config.load import load_text
from migscaler.app.wiring import Assembly, acts, push_sources
from migscaler.errors import HardwareError
from migscaler.model.demand import Counts
from migscaler.model.host import HostTable, Process, Trace
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
        assert len(gatherer.vetoes()) == 1


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
    command = f"[sh, -c, 'echo $MIGSCALER_LAYOUT >> \"{told}\"']"
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


def test_holders_are_looked_for_by_who_may_where_the_daemon_may_not(tmp_path: Path) -> None:
    asked: list[bool] = []
    with node_at_work(tmp_path, "3g@0") as here:
        reading = here.reader.read_node()
        uuid = (reading.gpus[0].instances or ())[0].instance.mig_uuid
        assert uuid is not None

        def read_host(with_traces: bool) -> HostTable:
            asked.append(with_traces)
            return HostTable(
                processes=(Process(pid=90, name="bash", parent=1),),
                traces=(Trace(pid=90, mig_uuids=(uuid,)),),
            )

        ground = replace(here.assembly.ground, read_host=read_host)
        claims = Assembly(ground).scheduler.allocations(reading).claims

    assert asked == [True]
    assert [claim.detail for claim in claims] == ["process 90 (bash, in its environment)"]


def test_holders_that_nobody_may_look_for_are_unknown_and_not_nobody(tmp_path: Path) -> None:
    def read_host(_with_traces: bool) -> HostTable:
        raise HardwareError("no NVML worker answers at /x")

    with node_at_work(tmp_path, "3g@0") as here:
        ground = replace(here.assembly.ground, read_host=read_host)
        found = Assembly(ground).scheduler.allocations(here.reader.read_node())

    assert not found.known
    assert found.why_unknown == "processes can't be listed: no NVML worker answers at /x"
