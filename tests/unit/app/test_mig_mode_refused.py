"""`mig-mode` heeds what `apply` heeds, at the moment of switching; what was switched is told."""

from collections.abc import Callable
from pathlib import Path

import pytest

from migscaler.errors import CommandRefused
from migscaler.model.ids import CiId, GiId, GpuUuid
from migscaler.sim.codes import Code
from migscaler.sim.faults import fails
from tests.unit.app.nodes import ENFORCE, NodeAtWork, node_at_work
from tests.unit.app.test_comeback import live
from tests.unit.app.test_runtime_start import leave_open

H100 = "H100-80GB"
TWO = f"2x{H100}"
ALLOW = "name it in gpus: with mode recommend or enforce to allow it"


def just_before(here: NodeAtWork, happens: Callable[[], object]) -> None:
    """Let something happen while the command waits for a plan under way."""
    loop = here.runtime.loop
    real = loop.between_ticks

    def late(work: Callable[[], object]) -> object:
        loop.between_ticks = real  # type: ignore[method-assign]
        happens()
        return real(work)

    loop.between_ticks = late  # type: ignore[method-assign,assignment]


def refusal(here: NodeAtWork, *, on: bool, dry_run: bool = False) -> str:
    """Switch the first GPU; return why it was refused."""
    with pytest.raises(CommandRefused) as refused:
        here.ask("mig_mode", gpus=["0"], enabled=on, dry_run=dry_run)
    return str(refused.value)


@pytest.mark.parametrize("on", [True, False])
@pytest.mark.parametrize("late", [True, False])
def test_pause_forbids_switching(tmp_path: Path, on: bool, late: bool) -> None:
    """On, it left the GPU empty for as long as the pause lasted."""
    layouts = () if on else ("3g@0 3g@4",)
    with node_at_work(tmp_path, *layouts, config=ENFORCE, spec=H100, mig=not on) as here:
        here.runtime.begin()
        here.watch(60)

        def pause() -> None:
            here.ask("pause", why="maintenance")

        just_before(here, pause) if late else pause()

        why = refusal(here, on=on)

        assert why == "paused by root: maintenance; `migscaler resume` first"
        assert here.our_calls() == []


@pytest.mark.parametrize("on", [True, False])
def test_hold_placed_while_a_plan_was_waited_for_forbids_switching(
    tmp_path: Path, on: bool
) -> None:
    layouts = () if on else ("3g@0 3g@4",)
    with node_at_work(tmp_path, *layouts, config=ENFORCE, spec=H100, mig=not on) as here:
        here.runtime.begin()
        here.watch(60)
        just_before(here, lambda: here.ask("hold", gpu=0, reason="mine"))

        assert refusal(here, on=on) == "GPU 0 is held by root: mine"
        assert here.our_calls() == []


@pytest.mark.parametrize("on", [True, False])
@pytest.mark.parametrize(
    ("entries", "why"),
    [
        ('[{uuid: FIRST, mode: observe, reason: "lane"}, {model: "*"}]', "lane"),
        ('[{uuid: FIRST, mode: observe}, {model: "*"}]', "its mode is observe"),
        ("[{uuid: SECOND}]", "its mode is observe"),
    ],
    ids=["protected", "observed", "unnamed"],
)
def test_gpu_that_apply_leaves_alone_is_not_switched(
    tmp_path: Path, entries: str, why: str, on: bool
) -> None:
    layouts = () if on else ("3g@0 3g@4", "3g@0")
    with node_at_work(tmp_path, *layouts, config=ENFORCE, spec=TWO, mig=not on) as here:
        entries = entries.replace("FIRST", here.uuid(0)).replace("SECOND", here.uuid(1))
        here.config.write_text(ENFORCE.replace('[{model: "*"}]', entries))
        here.restart()
        here.runtime.begin()
        here.watch(60)

        assert refusal(here, on=on) == f"GPU 0 is left alone ({why}); {ALLOW}"
        assert here.our_calls() == []


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("mig_mode", {"gpus": ["0"], "enabled": True}),
        ("mig_mode", {"gpus": ["0"], "enabled": False}),
        ("apply", {"gpu": 0, "layout": "1g@6 3g@0"}),
        ("apply", {"gpu": 0, "layout": "1g@6 3g@0", "dry_run": True}),
        ("settle", {}),
    ],
)
@pytest.mark.parametrize(
    ("process", "words"),
    [
        ("migagent", "the layout belongs to nos' MIG agent (process 77"),
        ("lim", "it is not known who else shapes the GPUs: LSF runs here (process 77, lim)"),
    ],
    ids=["seen", "not-known"],
)
def test_nothing_is_changed_by_hand_beside_another_owner(
    tmp_path: Path, name: str, arguments: dict[str, object], process: str, words: str
) -> None:
    """Beside one of whom it was not known whether he shapes the GPUs only ticks stood down."""
    mig = arguments.get("enabled") is not True
    layouts = ("3g@0 3g@4",) if mig else ()
    with node_at_work(tmp_path, *layouts, config=ENFORCE, spec=H100, mig=mig) as here:
        here.runtime.begin()
        here.watch(60)
        here.host.process(77, process)
        here.watch(5)
        decision = here.runtime.loop.tick()

        with pytest.raises(CommandRefused) as refused:
            here.ask(name, **arguments)

        assert str(refused.value).startswith(words)
        assert "; way out: " in str(refused.value)
        assert decision is not None
        assert str(refused.value) in [gate.explanation for gate in decision.gates]
        assert here.our_calls() == []


def test_gpu_with_an_open_plan_is_not_switched(tmp_path: Path) -> None:
    with node_at_work(tmp_path, "3g@0 3g@4", config=ENFORCE) as here:
        here.runtime.begin()
        here.watch(60)
        leave_open(here)

        words = "plan p1 is still open on GPU 0; `migscaler apply --settle` first"
        assert refusal(here, on=False) == words


def test_instance_made_while_a_plan_was_waited_for_forbids_switching_off(tmp_path: Path) -> None:
    with node_at_work(tmp_path, "3g@0", config=ENFORCE, spec=H100) as here:
        here.runtime.begin()
        here.watch(60)
        just_before(here, lambda: here.node.foreign_create(0, "3g@4", actor="bob"))

        assert refusal(here, on=False) == (
            "somebody is changing GPU 0: it has 3g.40gb@0 3g.40gb@4 now"
        )
        assert here.our_calls() == []


def test_no_gpu_is_switched_if_a_later_one_is_in_use(tmp_path: Path) -> None:
    with node_at_work(tmp_path, "3g@0", "3g@0", config=ENFORCE, spec=TWO) as here:
        here.runtime.begin()
        here.watch(60)
        here.node.start_job(1, next(iter(here.node.state.gpus[1].instances)))

        with pytest.raises(CommandRefused):
            here.ask("mig_mode", gpus=["0", "1"], enabled=False)

        assert here.our_calls() == []


def test_gpu_that_was_switched_is_told_though_the_next_one_failed(tmp_path: Path) -> None:
    with node_at_work(tmp_path, config=ENFORCE, spec=TWO, mig=False) as here:
        here.runtime.begin()
        here.watch(60)
        here.node.add_fault(fails("nvmlDeviceSetMigMode", Code.UNKNOWN, nth=2))

        answer = here.ask("mig_mode", gpus=["0", "1"], enabled=True)

        assert isinstance(answer["results"], list)
        first, second = answer["results"]
        assert (first["gpu"], first["active"]) == (0, True)
        assert (second["gpu"], second["active"]) == (1, False)
        assert second["message"].startswith("not switched: ")
        assert [gpu.mig_current for gpu in here.node.state.gpus] == [1, 0]


def test_no_further_gpu_is_switched_after_one_that_did_not_get_its_layout(tmp_path: Path) -> None:
    with node_at_work(tmp_path, config=ENFORCE, spec=TWO, mig=False) as here:
        here.runtime.begin()
        here.watch(60)
        create = "nvmlDeviceCreateGpuInstanceWithPlacement"
        here.node.add_fault(fails(create, Code.UNKNOWN, times=None))

        answer = here.ask("mig_mode", gpus=["0", "1"], enabled=True)

        assert isinstance(answer["results"], list)
        (only,) = answer["results"]
        assert (only["gpu"], only["active"], only["layout_made"]) == (0, True, False)
        assert [gpu.mig_current for gpu in here.node.state.gpus] == [1, 0]
        here.node.clear_faults()
        live(here, 150)
        assert here.layout() == "7g.80gb@0"


def test_pause_while_the_first_gpu_is_switched_keeps_the_second_as_it_is(tmp_path: Path) -> None:
    """It was switched on and then left empty, as the pause forbade to make its instance."""
    with node_at_work(tmp_path, config=ENFORCE, spec=TWO, mig=False) as here:
        here.runtime.begin()
        here.watch(60)
        writer = here.assembly.ground.writer
        assert writer is not None
        make = writer.create_compute_instance

        def make_and_pause(uuid: GpuUuid, gi_id: GiId) -> CiId:
            made = make(uuid, gi_id)
            here.ask("pause", why="stop")
            return made

        writer.create_compute_instance = make_and_pause  # type: ignore[method-assign]
        answer = here.ask("mig_mode", gpus=["0", "1"], enabled=True)

        results = answer["results"]
        assert isinstance(results, list)
        assert results[0]["layout_made"] is True
        assert "not switched: paused by" in results[1]["message"]
        assert [gpu.mig_current for gpu in here.node.state.gpus] == [1, 0]
