"""`export` and `import` on a whole node: over to mig-parted, and back."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import yaml
from click.testing import CliRunner, Result

from migscaler.cli.main import cli
from migscaler.cli.session import Node, Options, Session
from migscaler.web.ports import Actor
from tests.unit.app.nodes import ROOT, NodeAtWork, node_at_work

MIXED = "A100-SXM4-40GB,A100-SXM4-40GB,A30-24GB,H100-80GB"


class AsRoot:
    """Gives commands to a node as root."""

    def __init__(self, here: NodeAtWork) -> None:
        self._here = here

    def execute(self, name: str, arguments: dict[str, object]) -> dict[str, object]:
        actor: Actor = ROOT
        return self._here.runtime.commands.execute(name, arguments, actor)


def run(here: NodeAtWork, *words: str, stdin: str | None = None) -> Result:
    """Call the command line on the node."""

    @contextmanager
    def opened(_options: Options, _daemon_only: bool) -> Iterator[Node]:
        yield AsRoot(here)

    session = Session(Options(), opened)
    return CliRunner().invoke(
        cli, list(words), input=stdin, obj=session, auto_envvar_prefix="MIGSCALER"
    )


def everything(here: NodeAtWork) -> list[str]:
    return [here.layout(index) for index in range(len(here.node.state.gpus))]


@contextmanager
def node(tmp_path: Path, *layouts: str, watched: int = 90) -> Iterator[NodeAtWork]:
    with node_at_work(tmp_path, *layouts, spec=MIXED) as here:
        here.runtime.begin()
        here.watch(watched)
        yield here


LAYOUTS = ("3g@0 2g@4 1g@6", "1g@0 1g@5", "2g@2 1g@0", "4g@0 3g@4")


@pytest.mark.parametrize("kind", ["config", "checkpoint"])
def test_exported_node_is_already_as_in_the_file(tmp_path: Path, kind: str) -> None:
    with node(tmp_path, *LAYOUTS) as here:
        exported = run(here, "export", "--format", kind)
        assert (exported.exit_code, exported.stderr) == (0, "")

        back = run(here, "import", "-", "--output", "json", stdin=exported.stdout)

        assert back.exit_code == 0, back.output
        notes = [gpu["note"] for gpu in json.loads(back.stdout)["gpus"]]
        assert notes == ["has it already"] * 4
        assert here.our_calls() == []


def test_checkpoint_is_made_again_in_the_same_places(tmp_path: Path) -> None:
    file = tmp_path / "checkpoint.json"
    with node(tmp_path, *LAYOUTS) as here:
        before = everything(here)
        file.write_text(run(here, "export", "--format", "checkpoint").stdout)
        for index, gpu in enumerate(here.node.state.gpus):
            for gi_id in tuple(gpu.instances):
                here.node.foreign_destroy(index, gi_id)
            here.node.foreign_create(index, "1g@1")
        here.watch(120)

        shown = run(here, "import", str(file), "--apply")
        assert shown.exit_code == 3, shown.output
        assert here.our_calls() == []

        done = run(here, "import", str(file), "--apply", "--yes")

        assert done.exit_code == 0, done.output
        assert everything(here) == before
        assert here.store.open_plans() == ()


def test_configuration_is_made_with_the_same_counts(tmp_path: Path) -> None:
    file = tmp_path / "config.yaml"
    with node(tmp_path, *LAYOUTS) as here:
        file.write_text(run(here, "export", "--name", "mine").stdout)
        wanted = [sorted(word.split("@")[0] for word in text.split()) for text in everything(here)]
        for index, gpu in enumerate(here.node.state.gpus):
            for gi_id in tuple(gpu.instances):
                here.node.foreign_destroy(index, gi_id)
            here.node.foreign_create(index, "1g@1")
        here.watch(120)

        done = run(here, "import", str(file), "--name", "mine", "--apply", "--yes")

        assert done.exit_code == 0, done.output
        found = [sorted(word.split("@")[0] for word in text.split()) for text in everything(here)]
        assert found == wanted


def test_job_in_the_way_is_named_and_its_gpu_stays(tmp_path: Path) -> None:
    file = tmp_path / "config.yaml"
    file.write_text(
        "version: v1\nmig-configs:\n  all:\n    - devices: [0, 1]\n      mig-enabled: true\n"
        '      mig-devices: {"7g.40gb": 1}\n'
    )
    with node(tmp_path, "1g@0", "1g@0", "4g@0", "7g@0", watched=0) as here:
        (gi_id,) = here.node.state.gpus[0].instances
        pid = here.node.start_job(0, gi_id)
        here.watch(120)

        done = run(here, "import", str(file), "--apply", "--yes", "--output", "json")

        assert done.exit_code == 1
        answer = json.loads(done.stdout)
        assert "1g.5gb@0 is in the way" in answer["gpus"][0]["note"]
        assert [row["outcome"] for row in answer["outcomes"]] == ["refused", "done"]
        assert everything(here)[:2] == ["1g.5gb@0", "7g.40gb@0"]
        assert [job.pid for job in here.node.state.gpus[0].jobs] == [pid]


def test_nothing_is_taken_over_while_the_other_owner_is_there(tmp_path: Path) -> None:
    text = (
        "version: v1\nmig-configs:\n  a:\n    - devices: [0]\n      mig-enabled: true\n"
        '      mig-devices: {"7g.40gb": 1}\n'
    )
    with node(tmp_path, "1g@0", "1g@0", "1g@0", "1g@0") as here:
        here.host.process(77, "nvidia-mig-mana")
        here.watch(10)

        assert run(here, "import", "-", stdin=text).exit_code == 3
        done = run(here, "import", "-", "--apply", "--yes", stdin=text)

        assert done.exit_code == 1
        assert "nvidia.com/gpu.deploy.mig-manager=false" in done.stderr
        assert here.our_calls() == []


def test_snippet_is_a_configuration_that_is_accepted(tmp_path: Path) -> None:
    with node(tmp_path, "1g@0", "1g@0", "1g@0", "1g@0") as here:
        config = (
            "version: v1\nmig-configs:\n  a:\n    - devices: [0, 3]\n      mig-enabled: true\n"
            '      mig-devices: {"3g.40gb": 1, "1g.10gb": 1}\n'
        )
        # 3g.40gb is no profile of GPU 0; only GPU 3 can have it.
        wrong = run(here, "import", "-", stdin=config)
        assert wrong.exit_code == 1
        assert "line 6: mig-configs.a[0].mig-devices.3g.40gb: GPU 0 (" in wrong.stderr

        shown = run(here, "import", "-", stdin=config.replace("[0, 3]", "[3]"))

        assert shown.exit_code == 3
        snippet = shown.stdout[shown.stdout.index("gpus:") :]
        (line,) = yaml.safe_load(snippet)["gpus"]
        assert line["baseline"] == ["1g.10gb", "3g.40gb"]
        file = tmp_path / "ours.yaml"
        file.write_text(snippet)
        assert run(here, "config", "check", str(file)).exit_code == 0


def test_yes_without_apply_is_wrong_usage(tmp_path: Path) -> None:
    with node(tmp_path, "7g@0") as here:
        assert run(here, "import", "-", "--yes", stdin="{}").exit_code == 2


def test_gpu_that_is_only_observed_stays(tmp_path: Path) -> None:
    config = "mode: observe\ngpus: [{index: 0, mode: recommend}]\n"
    text = (
        "version: v1\nmig-configs:\n  a:\n    - devices: [1]\n      mig-enabled: true\n"
        '      mig-devices: {"7g.40gb": 1}\n'
    )
    with node_at_work(tmp_path, "1g@0", "1g@0", spec=MIXED, config=config) as here:
        here.runtime.begin()
        here.watch(120)

        done = run(here, "import", "-", "--apply", "--yes", stdin=text)

        assert done.exit_code == 1
        assert "is left alone" in done.stdout
        assert here.our_calls() == []


DISABLED = "version: v1\nmig-configs:\n  off:\n    - devices: all\n      mig-enabled: false\n"


def test_gpus_that_only_a_mode_switch_makes_so_differ(tmp_path: Path) -> None:
    """Everything was said to be as in the file, whose GPUs were to have no MIG at all."""
    with node(tmp_path, "1g@0", "1g@0", "1g@0", "1g@0") as here:
        shown = run(here, "import", "-", stdin=DISABLED)
        done = run(here, "import", "-", "--apply", "--yes", stdin=DISABLED)

        assert (shown.exit_code, done.exit_code) == (3, 3)
        assert "nothing to change" not in done.stderr
        assert "not to be made so from here (see its note): GPU 0, 1, 2, 3" in done.stderr
        assert here.our_calls() == []


def test_gpus_without_mig_differ_from_a_file_with_instances(tmp_path: Path) -> None:
    text = DISABLED.replace("false", 'true\n      mig-devices: {"7g.40gb": 1}')
    with node_at_work(tmp_path, mig=False) as here:
        here.watch(10)

        assert run(here, "import", "-", stdin=text).exit_code == 3
        assert run(here, "import", "-", "--apply", "--yes", stdin=text).exit_code == 3


def test_gpus_without_mig_are_as_in_a_file_without(tmp_path: Path) -> None:
    with node_at_work(tmp_path, mig=False) as here:
        here.watch(10)

        done = run(here, "import", "-", "--apply", "--yes", stdin=DISABLED)

        assert (done.exit_code, done.stderr) == (0, "nothing to change\n")
