from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from migscaler.app.config.load import effective_yaml, find_file, load_file, load_text
from migscaler.app.config.settings import (
    PushSettings,
    SchedulerSettings,
    socket_path,
    state_directory,
)
from migscaler.errors import ConfigError
from migscaler.model.demand import Counts
from migscaler.model.plan import Direction
from migscaler.model.policy import (
    AtLeast,
    Freeze,
    GpuEntry,
    IdlePolicy,
    Mode,
    Pace,
    Policy,
    Rule,
    SourcePolicy,
)
from migscaler.sources.prometheus import PrometheusSettings, VetoSettings
from migscaler.sources.prometheus_api import Connection

ROOT = Path(__file__).parents[3]

# The example of the design, word by word.
EXAMPLE = """\
mode: recommend                     # observe | recommend | enforce; default of the GPUs below
timezone: Asia/Seoul
sampling: {interval: 5s}
tick: 15s
gpus:                               # nothing is managed unless named here; all GPUs are exported
  - {model: "NVIDIA A100*", mode: enforce, baseline: [3g, 3g]}
  - {uuid: GPU-5c89852c-d268-c3f3-1b07-005d5ae1dc3f, mode: observe, reason: "training lane", until: "2027-03-31"}
idle: {after: 5m, evidence: [process, allocation, memory, activity], activity_below: 0.01, memory_margin: 64MiB}
sources:
  queue: {type: prometheus, url: "http://127.0.0.1:9090", query: "sum by (profile) (jobs_waiting)", counts: waiting, scope: node,
          alive: 'min(up{job="queue"}) == 1', max_age: 2m, unknown_for: 4h}
rules:                              # order is priority
  - {name: notebooks, size: 1g, from: [queue], min: 2, max: 28, spare: 1, at_least: [{count: 14, when: "mon-fri 08:30-19:00"}]}
  - {name: training, size: 7g, from: [queue], reserve_after: 30m}
pace: {raise_after: 30s, lower_after: 10m, gpus_at_once: 2, per_day: 48, rest: 2m, rest_after_failure: 10m, fence_max: 2m}
freeze: [{when: "mon-fri 09:00-11:00", only: coarser}]
veto: [{source: prometheus, query: "max(maintenance) > 0"}]
on_boot: {layout: restore, mig_mode: true}    # restore | adopt | report
hooks: {after_change: [["systemctl", "kill", "-s", "HUP", "dcgm-exporter"]]}
web: {listen: "127.0.0.1:9836", config_file: null}
"""  # noqa: E501

LOCAL = Connection(url="http://127.0.0.1:9090", timeout=timedelta(seconds=5))


def minutes(count: float) -> timedelta:
    return timedelta(minutes=count)


def test_example_compiles_to_this_policy() -> None:
    policy = load_text(EXAMPLE, "example").policy

    assert policy == Policy(
        gpus=(
            GpuEntry(mode=Mode.ENFORCE, model="NVIDIA A100*", baseline=("3g", "3g")),
            GpuEntry(
                mode=Mode.OBSERVE,
                uuid="GPU-5c89852c-d268-c3f3-1b07-005d5ae1dc3f",  # type: ignore[arg-type]  # a NewType of str
                reason="training lane",
                # Through the last of March in Seoul, nine hours ahead of UTC.
                until=datetime(2027, 3, 31, 15, 0, tzinfo=UTC),
            ),
        ),
        rules=(
            Rule(
                name="notebooks",  # type: ignore[arg-type]  # a NewType of str
                size="1g",
                sources=("queue",),  # type: ignore[arg-type]  # a NewType of str
                minimum=2,
                maximum=28,
                spare=1,
                at_least=(AtLeast(count=14, window="mon-fri 08:30-19:00"),),
            ),
            Rule(
                name="training",  # type: ignore[arg-type]  # a NewType of str
                size="7g",
                sources=("queue",),  # type: ignore[arg-type]  # a NewType of str
                reserve_after=minutes(30),
            ),
        ),
        sources=(
            SourcePolicy(
                name="queue",  # type: ignore[arg-type]  # a NewType of str
                counts=Counts.WAITING,
                max_age=minutes(2),
                unknown_for=timedelta(hours=4),
            ),
            SourcePolicy(
                name="scheduler",  # type: ignore[arg-type]  # a NewType of str
                counts=Counts.WAITING,
                max_age=minutes(1),
                unknown_for=timedelta(hours=4),
            ),
        ),
        pace=Pace(
            raise_after=minutes(0.5),
            lower_after=minutes(10),
            gpus_at_once=2,
            per_day=48,
            rest=minutes(2),
            rest_after_failure=minutes(10),
            fence_max=minutes(2),
        ),
        freezes=(Freeze(window="mon-fri 09:00-11:00", only=Direction.COARSER),),
        vetoes=("veto-1",),
        idle=IdlePolicy(
            after=minutes(5),
            evidence=frozenset({"process", "allocation", "memory", "activity"}),
            activity_below=0.01,
            memory_margin_bytes=67_108_864,
        ),
        sampling=timedelta(seconds=5),
        tick=timedelta(seconds=15),
    )


def test_example_compiles_to_these_settings() -> None:
    settings = load_text(EXAMPLE, "example").settings

    queue, scheduler = settings.sources
    assert queue == PrometheusSettings(
        name="queue",  # type: ignore[arg-type]  # a NewType of str
        connection=LOCAL,
        query="sum by (profile) (jobs_waiting)",
        label="profile",
        counts=Counts.WAITING,
        interval=timedelta(seconds=15),
        max_age=minutes(2),
        size=None,  # two rules use it
        alive='min(up{job="queue"}) == 1',
    )
    assert isinstance(scheduler, SchedulerSettings)
    assert scheduler.declared is False
    assert settings.vetoes == (
        VetoSettings(
            name="veto-1",
            connection=LOCAL,
            query="max(maintenance) > 0",
            interval=timedelta(seconds=15),
        ),
    )
    assert settings.timezone == "Asia/Seoul"
    assert settings.windows == ("mon-fri 08:30-19:00", "mon-fri 09:00-11:00")
    assert (settings.web.host, settings.web.port) == ("127.0.0.1", 9836)
    assert settings.hooks.after_change == (("systemctl", "kill", "-s", "HUP", "dcgm-exporter"),)
    assert (settings.on_boot.layout, settings.on_boot.mig_mode) == ("restore", True)


def test_example_doubts_only_the_reservation() -> None:
    warnings = load_text(EXAMPLE, "example").warnings

    assert [(w.line, w.where) for w in warnings] == [(14, "rules[1].reserve_after")]


@pytest.mark.parametrize("text", ["", "# nothing\n", "{}", "---\n"])
def test_empty_file_observes_and_manages_nothing(text: str) -> None:
    loaded = load_text(text, "empty")

    assert loaded.policy.gpus == ()
    assert loaded.policy.rules == ()
    assert loaded.settings.mode == "observe"
    assert loaded.warnings == ()


def test_defaults_of_the_file_are_those_of_the_policy() -> None:
    policy = load_text("", "empty").policy

    assert policy.pace == Pace()
    assert policy.idle == IdlePolicy()
    assert (policy.sampling, policy.tick) == (Policy().sampling, Policy().tick)


def test_effective_configuration_loads_to_the_same_meaning() -> None:
    loaded = load_text(EXAMPLE, "example")

    again = load_text(effective_yaml(loaded), "effective")

    assert (again.policy, again.settings) == (loaded.policy, loaded.settings)


@pytest.mark.parametrize("name", ["migscaler.yaml", "starter.yaml", "promql.yaml"])
def test_shipped_file_loads_without_doubts(name: str) -> None:
    assert load_file(ROOT / "config" / name).warnings == ()


def test_shipped_default_file_states_every_default() -> None:
    shipped = load_file(ROOT / "config" / "migscaler.yaml")

    assert shipped.config == load_text("", "empty").config


def test_commented_examples_of_the_default_file_load() -> None:
    text = (ROOT / "config" / "migscaler.yaml").read_text("utf-8")

    loaded = load_text(text.replace("\n#  ", "\n   "), "examples")

    assert len(loaded.policy.gpus) == 3
    assert [rule.name for rule in loaded.policy.rules] == ["notebooks", "training"]
    assert [source.name for source in loaded.settings.sources] == ["queue", "portal", "scheduler"]
    assert len(loaded.policy.freezes) == 2
    assert loaded.settings.hooks.after_change


def test_key_without_a_value_has_its_default() -> None:
    text = "rules:\ngpus:\ntick: ~\nidle:\n  after:\nweb: {config_file: null}\n"

    assert load_text(text, "x").config == load_text("", "x").config


def test_all_findings_of_a_file_come_at_once_in_file_order() -> None:
    text = """\
mode: off
tick: 15
gpus:
  - {index: 0, uuid: GPU-1}
rules:
  - {name: a, size: huge, min: 3, max: 2}
  - {name: a, size: 1g, from: [nobody]}
web: {listen: "0.0.0.0:9836"}
tick: 20s
"""

    with pytest.raises(ConfigError) as refused:
        load_text(text, "bad")

    assert [(f.line, f.where) for f in refused.value.findings] == [
        (1, "mode"),
        (2, "tick"),
        (4, "gpus[0]"),
        (4, "gpus[0].uuid"),
        (6, "rules[0].size"),
        (6, "rules[0].min"),
        (7, "rules[1].name"),
        (7, "rules[1].from[0]"),
        (8, "web.listen"),
        (9, "tick"),
    ]
    assert str(refused.value) == "bad: 10 problem(s)"


def test_source_used_by_one_rule_takes_its_size_for_answers_without_label() -> None:
    text = """\
sources:
  depth: {type: prometheus, url: "http://p:9090", query: "sum(depth)"}
  told: {type: push, max_age: 10m}
rules: [{name: a, size: 2g, from: [depth, told]}]
"""
    depth, told, _ = load_text(text, "x").settings.sources

    assert isinstance(depth, PrometheusSettings)
    assert depth.size == "2g"
    assert told == PushSettings(name="told", max_age=minutes(10))  # type: ignore[arg-type]  # a NewType of str


def test_veto_with_its_own_address_does_not_get_the_token_of_a_source() -> None:
    text = """\
sources:
  q: {type: prometheus, url: "http://p:9090", query: "sum(d)", bearer_token_file: /etc/token}
veto:
  - {source: q, query: "max(m) > 0"}
  - {source: q, url: "http://elsewhere:9090", query: "max(m) > 0"}
  - {source: prometheus, url: "http://alone:9090", query: "max(m) > 0"}
"""
    first, second, third = load_text(text, "x").settings.vetoes

    assert first.connection.bearer_token_file == Path("/etc/token")
    assert (second.connection.url, second.connection.bearer_token_file) == (
        "http://elsewhere:9090",
        None,
    )
    assert (third.connection.url, third.connection.bearer_token_file) == ("http://alone:9090", None)


def test_doubtful_settings_are_warnings() -> None:
    text = """\
sources:
  idle: {type: push}
rules: [{name: a, size: 1g}]
veto:
  - {source: prometheus, url: "http://p:9090", query: "a and b > 0"}
"""
    warnings = load_text(text, "x").warnings

    assert [(w.line, w.problem) for w in warnings] == [
        (2, "no rule uses source 'idle'"),
        (5, "an empty answer of this veto is unknown, and unknown forbids every change"),
        (3, "there are rules, but no GPU is managed"),
    ]


def test_rule_follows_the_nodes_own_scheduler_unless_it_says_otherwise() -> None:
    text = "rules: [{name: a, size: 1g}, {name: b, size: 2g, from: []}]"

    first, second = load_text(text, "x").policy.rules

    assert (first.sources, second.sources) == (("scheduler",), ())


def test_file_that_is_named_is_taken_even_if_missing(tmp_path: Path) -> None:
    missing = tmp_path / "missing.yaml"

    assert find_file(missing, {}) == missing
    assert find_file(None, {"MIGSCALER_CONFIG": str(missing)}) == missing


def test_file_of_the_user_is_found_where_it_exists(tmp_path: Path) -> None:
    own = tmp_path / "migscaler" / "migscaler.yaml"
    environment = {"XDG_CONFIG_HOME": str(tmp_path)}
    before = find_file(None, environment)
    own.parent.mkdir()
    own.write_text("mode: observe\n")

    assert before != own
    assert find_file(None, environment) == own


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (None, "can't be read: No such file or directory"),
        (b"mode: \xff\n", "is not UTF-8 text (byte 6)"),
        (b"#" * 1_048_577, "is larger than 1 MiB"),
    ],
)
def test_unreadable_file_is_one_finding(
    tmp_path: Path, content: bytes | None, problem: str
) -> None:
    path = tmp_path / "migscaler.yaml"
    if content is not None:
        path.write_bytes(content)

    with pytest.raises(ConfigError) as refused:
        load_file(path)

    assert [f.problem for f in refused.value.findings] == [problem]
    assert refused.value.findings[0].remedy


def test_directory_instead_of_a_file_is_a_finding(tmp_path: Path) -> None:
    with pytest.raises(ConfigError):
        load_file(tmp_path)


def test_byte_order_mark_is_ignored(tmp_path: Path) -> None:
    path = tmp_path / "migscaler.yaml"
    path.write_bytes(b"\xef\xbb\xbfmode: recommend\n")

    assert load_file(path).settings.mode == "recommend"


def test_state_directory_is_the_first_that_is_told() -> None:
    default = load_text("", "x").settings
    named = load_text("state_dir: /srv/migscaler", "x").settings

    assert state_directory(named, {"STATE_DIRECTORY": "/a"}, 0) == Path("/srv/migscaler")
    assert state_directory(default, {"STATE_DIRECTORY": "/a:/b"}, 0) == Path("/a")
    assert state_directory(default, {}, 0) == Path("/var/lib/migscaler")
    assert state_directory(default, {"XDG_STATE_HOME": "/s"}, 7) == Path("/s/migscaler")
    assert state_directory(default, {"HOME": "/h"}, 7) == Path("/h/.local/state/migscaler")


def test_socket_lies_where_named_then_in_the_units_directory_then_beside_the_state() -> None:
    default = load_text("", "x").settings
    named = load_text("web: {unix_socket: /run/m.sock}", "x").settings

    unit = {"RUNTIME_DIRECTORY": "/run/migscaler"}

    assert socket_path(default, Path("/s"), {}) == Path("/s/migscaler.sock")
    assert socket_path(default, Path("/s"), unit) == Path("/run/migscaler/migscaler.sock")
    assert socket_path(named, Path("/s"), unit) == Path("/run/m.sock")


@pytest.mark.parametrize(
    ("text", "warned"),
    [
        ("activity: {dcgm: {}}", True),
        ('activity: {prometheus: {url: "http://127.0.0.1:9090"}}', True),
        ("activity: {dcgm: {}}\nhooks: {after_change: [[systemctl, restart, x]]}", False),
        ("rules: []", False),
    ],
)
@pytest.mark.parametrize("mode", ["enforce", "recommend"])
def test_activity_from_dcgm_that_nobody_tells_of_changes_is_a_warning(
    text: str, warned: bool, mode: str
) -> None:
    """dcgm-exporter keeps its list of instances: after the first change activity was unknown."""
    loaded = load_text(f"gpus: [{{index: 0, mode: {mode}}}]\n{text}\n", "x")

    found = [(w.line, w.where) for w in loaded.warnings]
    assert found == ([(2, "activity")] if warned and mode == "enforce" else [])


class Fragile(str):
    """A text on which the last of all checks fails in a way that nobody foresaw."""

    __slots__ = ()

    def encode(self, *_arguments: object, **_more: object) -> bytes:
        raise OverflowError("a secret of the file")


def test_check_that_fails_is_one_finding_that_quotes_nothing() -> None:
    with pytest.raises(ConfigError) as refused:
        load_text(Fragile("mode: observe\n"), "some.yaml")

    (finding,) = refused.value.findings
    assert finding.problem.startswith("could not be judged (OverflowError in load.py")
    assert "secret" not in finding.found + finding.remedy
    assert finding.remedy.startswith("a fault of migscaler: report it")


def test_file_that_can_not_be_looked_at_in_somebody_elses_home_is_none() -> None:
    environment = {"XDG_CONFIG_HOME": f"/{'x' * 300}"}

    assert find_file(None, environment) == find_file(None, {"HOME": "relative"})
