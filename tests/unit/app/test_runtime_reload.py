"""A reload takes the whole file or nothing of it, and says why."""

from pathlib import Path
from typing import Any

import pytest

from migscaler.app.config.load import LoadedConfig
from migscaler.app.runtime import Runtime
from migscaler.app.start import load_in_force
from migscaler.app.wiring import Assembly
from migscaler.control.parts import Parts
from migscaler.errors import CommandRefused
from migscaler.model.policy import Mode
from tests.unit.app.nodes import ENFORCE, RECOMMEND, NodeAtWork, node_at_work

RULE = "rules: [{name: notebooks, size: 1g, min: 3}]\n"


def rules(here: NodeAtWork) -> list[str]:
    return [str(rule.name) for rule in here.runtime.loop.parts.policy.rules]


def test_good_file_is_in_force_at_once_and_kept_as_the_last_good_one(tmp_path: Path) -> None:
    with node_at_work(tmp_path, "7g@0") as here:
        here.watch(5)
        here.config.write_text(ENFORCE + RULE)
        here.clock.advance(60)

        assert here.ask("reload") == {"reloaded": True}

        assert rules(here) == ["notebooks"]
        assert here.runtime.loop.parts.policy.gpus[0].mode is Mode.ENFORCE
        config = here.shown[-1].config
        assert (config.valid, config.last_reload_success, config.problems) == (True, True, ())
        assert config.last_reload_success_at == here.clock.now()
        good = here.store.good_config()
        assert good is not None
        assert good.text == ENFORCE + RULE
        assert here.told == ["config"]


def test_one_mistake_leaves_everything_as_it_was(tmp_path: Path) -> None:
    with node_at_work(tmp_path, "7g@0") as here:
        here.watch(5)
        here.config.write_text(ENFORCE + "rules: [{name: notebooks, size: 9q, min: 3}]\n")

        with pytest.raises(CommandRefused, match=r"^the old configuration stays: line 5: rules"):
            here.ask("reload")

        assert rules(here) == []
        assert here.runtime.loop.parts.policy.gpus[0].mode is Mode.RECOMMEND
        config = here.shown[-1].config
        assert (config.valid, config.last_reload_success) == (False, False)
        assert len(config.problems) == 1
        assert here.told == []


@pytest.mark.parametrize(
    ("lines", "problem"),
    [
        (
            'web: {listen: "127.0.0.1:9999"}\n',
            "web can't change while the daemon runs; restart it",
        ),
        ("state_dir: /elsewhere\n", "state_dir can't change while the daemon runs; restart it"),
    ],
)
def test_what_is_bound_at_start_can_not_be_reloaded(
    tmp_path: Path, lines: str, problem: str
) -> None:
    with node_at_work(tmp_path, "7g@0") as here:
        here.watch(5)
        here.config.write_text(RECOMMEND + RULE + lines)

        assert here.runtime.reload() == (problem,)

        assert rules(here) == []
        config = here.shown[-1].config
        assert (config.valid, config.last_reload_success, config.problems) == (
            True,
            False,
            (problem,),
        )


def test_good_file_after_a_bad_one_clears_what_was_said(tmp_path: Path) -> None:
    with node_at_work(tmp_path, "7g@0") as here:
        here.watch(5)
        here.config.write_text("mode: sometimes\n")
        here.runtime.reload()
        here.config.write_text(RECOMMEND + RULE)

        assert here.runtime.reload() == ()

        config = here.shown[-1].config
        assert (config.valid, config.last_reload_success, config.problems) == (True, True, ())


def test_what_the_hardware_does_not_fit_is_a_warning(tmp_path: Path) -> None:
    with node_at_work(tmp_path, "7g@0") as here:
        here.watch(5)
        here.config.write_text(RECOMMEND + "rules: [{name: big, size: 7g.141gb, min: 1}]\n")

        assert here.runtime.reload() == ()

        (warning,) = here.shown[-1].config.warnings
        assert "7g.141gb" in warning
        assert rules(here) == ["big"]


def test_enforcer_keeps_its_books_over_a_reload_and_goes_when_all_is_observed(
    tmp_path: Path,
) -> None:
    with node_at_work(tmp_path, "7g@0", config=ENFORCE) as here:
        first = here.runtime.loop.parts.enforcer
        here.config.write_text(RECOMMEND)
        here.runtime.reload()
        second = here.runtime.loop.parts.enforcer
        here.config.write_text("mode: observe\n")
        here.runtime.reload()

        assert first is not None
        assert second is first
        assert here.runtime.loop.parts.enforcer is None


def test_file_that_is_gone_is_a_problem_of_its_own(tmp_path: Path) -> None:
    with node_at_work(tmp_path, "7g@0") as here:
        here.config.unlink()

        (problem,) = here.runtime.reload()

        assert problem.startswith("(file): can't be read: No such file or directory; ")


def test_file_that_no_check_foresaw_is_rejected_and_told(tmp_path: Path) -> None:
    with node_at_work(tmp_path, "7g@0") as here:
        here.watch(5)
        here.config.write_text(RECOMMEND + 'activity: {dcgm: {url: "http://[x"}}\n')

        assert here.runtime.reload()

        config = here.shown[-1].config
        assert (config.valid, config.last_reload_success) == (False, False)
        assert here.runtime.loop.parts.policy.gpus[0].mode is Mode.RECOMMEND


SOURCE = """
mode: enforce
gpus: [{model: "*"}]
idle: {after: 10m}
sources: {q: {type: prometheus, url: "https://127.0.0.1:1", query: up, FILE}}
rules: [{name: notebooks, size: 1g, min: 1, from: [q]}]
veto: [{source: q, query: max(maintenance) > 0}]
"""
FIGURES = """
mode: enforce
gpus: [{model: "*"}]
idle: {after: 10m}
activity: {prometheus: {url: "https://127.0.0.1:1", FILE}}
"""


@pytest.mark.parametrize("file", ["/nonexistent/x.pem", "/etc", "/proc/version"])
@pytest.mark.parametrize("key", ["ca_file", "bearer_token_file"])
@pytest.mark.parametrize("text", [SOURCE, FIGURES], ids=["source", "activity"])
def test_file_of_a_source_that_can_not_be_read_ends_nothing(
    tmp_path: Path, text: str, key: str, file: str
) -> None:
    """The daemon ended at its start, or passed the reload by, saying that all was well."""
    text = text.replace("FILE", f"{key}: {file}")
    with node_at_work(tmp_path, "7g@0", config=text) as here:
        here.watch(2)
        here.config.write_text(text + "tick: 30s\n")

        assert here.runtime.reload() == ()

        assert here.runtime.loop.parts.policy.tick.total_seconds() == 30


class Fragile(Assembly):
    """Makes no parts of a file that names Seoul, for a reason that no check foresaw."""

    def parts(self, loaded: LoadedConfig, **more: Any) -> Parts:
        if loaded.settings.timezone == "Asia/Seoul":
            raise OverflowError("a secret of the file")
        return super().parts(loaded, **more)


SEOUL = RECOMMEND + "timezone: Asia/Seoul\n"


def fragile(here: NodeAtWork) -> Runtime:
    """Begin another process, with such an assembly."""
    here.assembly = Fragile(here.assembly.ground)
    in_force = load_in_force(here.config, {}, here.store, here.clock)
    here.runtime = Runtime(here.assembly, in_force, here.runtime._outside)
    return here.runtime


def test_file_that_loads_and_can_not_be_put_in_force_is_rejected_whole(tmp_path: Path) -> None:
    with node_at_work(tmp_path, "7g@0", config=RECOMMEND) as here:
        runtime = fragile(here)
        here.watch(5)
        here.config.write_text(SEOUL + RULE)

        (problem,) = runtime.reload()

        assert problem.startswith("(file): could not be judged (OverflowError in runtime.py")
        assert "secret" not in problem
        assert rules(here) == []
        assert runtime.loaded.settings.timezone == "UTC"
        config = here.shown[-1].config
        assert (config.valid, config.last_reload_success) == (False, False)
        here.config.write_text(RECOMMEND + RULE)
        assert runtime.reload() == ()
        assert rules(here) == ["notebooks"]


@pytest.mark.parametrize("good", [RECOMMEND + RULE, SEOUL, None])
def test_start_with_such_a_file_observes_with_the_last_good_one_if_that_can_be(
    tmp_path: Path, good: str | None
) -> None:
    with node_at_work(tmp_path, "7g@0", config=SEOUL) as here:
        if good is not None:
            here.store.write_good_config(good, "0")

        runtime = fragile(here)
        here.watch(5)
        runtime.tick()

        assert rules(here) == (["notebooks"] if good == RECOMMEND + RULE else [])
        config = here.shown[-1].config
        assert (config.valid, config.last_reload_success) == (False, False)
        assert "observing only" in str(config.forced_observe)
        assert len(config.problems) == 1
