"""Activity from a dcgm-exporter over a simulated node: joined, doubted, and what it means."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import timedelta

import httpx
import pytest

from migscaler.control.activity import ActivityBook
from migscaler.control.loop import Loop
from migscaler.control.observe import Observer
from migscaler.model.gpu import Activity, ActivitySource, InstanceState, PinReason
from migscaler.model.plan import Hold, Plan
from migscaler.model.policy import IdlePolicy, Policy
from migscaler.sim.dcgm_exporter import DcgmExporter
from migscaler.sources.dcgm import DcgmSettings, DcgmSource
from migscaler.sources.prometheus_api import Connection
from tests.builders import policy, rule
from tests.simulation.acting import QuietHost
from tests.unit.control.room import A100, H100, Room, room

QUICK = Policy(idle=IdlePolicy(after=timedelta(seconds=120)))
SETTINGS = DcgmSettings(
    connection=Connection(
        url="http://127.0.0.1:9400/metrics",
        timeout=timedelta(seconds=5),
    ),
    interval=timedelta(seconds=5),
    max_age=timedelta(seconds=30),
    through_prometheus=False,
)


class Watched:
    """A room with an exporter beside it, both asked every 5 seconds."""

    def __init__(self, here: Room) -> None:
        self.room = here
        self.exporter: DcgmExporter | None = DcgmExporter(here.node)
        self.replace = ("", "")
        self.book = ActivityBook()
        self.book.configure(self.source())
        here.observer = Observer(
            reader=here.reader,
            scheduler=here.scheduler,
            store=here.store,
            host=QuietHost(),
            boot_id=here.node.boot_id,
            activity=self.book,
        )

    def source(self, settings: DcgmSettings = SETTINGS) -> DcgmSource:
        client = httpx.Client(transport=httpx.MockTransport(self.answer))
        return DcgmSource(settings=settings, client=client, clock=self.room.clock)

    def answer(self, _request: httpx.Request) -> httpx.Response:
        if self.exporter is None:
            raise httpx.ConnectError("refused") from ConnectionRefusedError(111, "refused")
        return httpx.Response(200, text=self.exporter.page().replace(*self.replace))

    def restart(self) -> None:
        """Start the exporter anew, as another process."""
        self.exporter = DcgmExporter(self.room.node)

    def go(self, seconds: int = 5, *, fetch: bool = True) -> dict[str, InstanceState]:
        """Let time pass, and return the instances of GPU 0 as last judged."""
        found: tuple[InstanceState, ...] = ()
        for _ in range(seconds // 5):
            found = self.room.look(QUICK).gpus[0].instances or ()
            if fetch:
                self.book.fetch()
        return {str(state.spec): state for state in found}

    def pins(self, seconds: int = 5) -> dict[str, PinReason | None]:
        return {text: state.pin for text, state in self.go(seconds).items()}


@contextmanager
def watched(*layouts: str, spec: str = A100) -> Iterator[Watched]:
    with room(*layouts, spec=spec) as here:
        yield Watched(here)


def activity(state: InstanceState) -> Activity:
    assert state.reading.activity is not None, state.reading.activity_gap
    return state.reading.activity


def remake_as_ours(here: Watched, text: str) -> None:
    """Destroy and make an instance again, as a rollback of ours does."""
    gpu = here.room.gpu()
    assert gpu.reading.model is not None
    here.room.observer.begin_change(gpu.uuid, [gpu.reading.model.spec(text)])
    here.room.remake(text)
    here.room.observer.end_change(gpu.uuid)


def test_figures_of_each_instance_are_its_own() -> None:
    with watched("3g@0 2g@4") as here:
        here.room.node.start_job(0, here.room.gi_of("2g.10gb@4"), activity=0.5)
        here.go()

        found = here.go()

        assert activity(found["3g.20gb@0"]).graphics_ratio == 0.0
        assert activity(found["2g.10gb@4"]) == Activity(
            source=ActivitySource.DCGM,
            window_seconds=5.0,
            graphics_ratio=0.5,
            sm_ratio=0.45,
            tensor_ratio=0.25,
            dram_ratio=0.3,
            raw=(("graphics", 0.5), ("sm", 0.45), ("tensor", 0.25), ("dram", 0.3)),
        )


def test_figures_above_one_are_clamped_and_kept_raw() -> None:
    with watched("7g@0") as here:
        here.room.node.start_job(0, here.room.gi_of("7g.40gb@0"), activity=1.0)
        here.replace = ("} 0.900000", "} 1.290000")
        here.go()

        found = activity(here.go()["7g.40gb@0"])

        assert (found.sm_ratio, dict(found.raw)["sm"]) == (1.0, 1.29)


def test_quiet_instance_is_idle_on_the_evidence_of_activity_too() -> None:
    with watched("3g@0") as here:
        found = here.go(260)["3g.20gb@0"]

        assert found.pin is None
        assert found.evidence == ("process", "allocation", "memory", "activity")


def test_activity_without_process_pins() -> None:
    with watched("3g@0") as here:
        assert here.pins(260) == {"3g.20gb@0": None}
        here.replace = ("} 0.000000", "} 0.020000")

        assert here.pins(10) == {"3g.20gb@0": PinReason.ACTIVITY}


def test_gpu_with_nvml_activity_does_not_ask_dcgm() -> None:
    with watched("3g@0", spec=H100) as here:
        here.exporter = None
        found = here.go(260)["3g.40gb@0"]

        assert activity(found).source is ActivitySource.GPM
        assert found.pin is None


def test_without_dcgm_activity_is_left_out_as_ever() -> None:
    with watched("3g@0") as here:
        here.book.configure(None)

        found = here.go(260)["3g.20gb@0"]

        assert (found.pin, found.evidence) == (None, ("process", "allocation", "memory"))


def test_exporter_that_never_answers_leaves_everything_unknown() -> None:
    with watched("3g@0") as here:
        here.exporter = None

        found = here.go(400)["3g.20gb@0"]

        assert found.pin is PinReason.UNKNOWN
        assert found.reading.activity_gap is not None
        assert found.reading.activity_gap.startswith("DCGM does not answer: http://127.0.0.1:9400")


def test_silent_exporter_holds_for_max_age_and_then_nothing_is_idle() -> None:
    with watched("3g@0 3g@4") as here:
        assert set(here.pins(260).values()) == {None}
        here.exporter = None

        assert set(here.pins(30).values()) == {None}
        assert set(here.pins(10).values()) == {PinReason.UNKNOWN}


def test_answer_after_silence_starts_the_timer_anew() -> None:
    with watched("3g@0") as here:
        here.go(260)
        here.exporter = None
        here.go(60)
        here.restart()

        assert here.pins(100) == {"3g.20gb@0": PinReason.SETTLING}
        assert here.pins(60) == {"3g.20gb@0": None}


def test_fetches_that_stop_are_noticed_by_the_age_of_the_figures() -> None:
    with watched("3g@0") as here:
        here.go(260)

        found = here.go(40, fetch=False)["3g.20gb@0"]

        assert found.pin is PinReason.UNKNOWN
        assert found.reading.activity_gap == "DCGM's last figure of it is 40 s old"


def test_new_instance_is_unknown_until_the_exporter_reads_the_layout() -> None:
    with watched("3g@0") as here:
        here.go(60)
        here.room.node.foreign_create(0, "3g@4")

        assert here.pins(30)["3g.20gb@4"] is PinReason.SETTLING
        blind = here.go(300)["3g.20gb@4"]
        assert blind.pin is PinReason.UNKNOWN
        assert blind.reading.activity_gap == (
            "DCGM does not see it; its exporter has to read the layout"
        )
        assert here.exporter is not None
        here.exporter.reread()
        assert here.pins(10)["3g.20gb@4"] is PinReason.SETTLING
        assert here.pins(150) == {"3g.20gb@0": None, "3g.20gb@4": None}


def test_figures_of_a_predecessor_with_another_profile_are_not_taken() -> None:
    with watched("1g@0") as here:
        gi_id = here.room.gi_of("1g.5gb@0")
        here.go(60)
        here.room.node.foreign_destroy(0, gi_id)
        here.room.node.foreign_create(0, "1g+me@0")
        made = here.room.node.state.gpus[0].instances
        here.replace = (f'GPU_I_ID="{gi_id}"', f'GPU_I_ID="{min(made)}"')

        found = here.go(100)["1g.5gb+me@0"]

        assert found.pin is PinReason.UNKNOWN
        assert found.reading.activity_gap == (
            "DCGM takes it for a 1g.5gb; its exporter has to read the layout"
        )


def test_frozen_figures_of_an_instance_made_again_are_not_taken() -> None:
    """Same id, profile, place and MIG UUID: only that the list is older tells the two apart."""
    with watched("3g@0 2g@4") as here:
        here.go(60)
        remake_as_ours(here, "3g.20gb@0")
        here.room.node.start_job(0, here.room.gi_of("3g.20gb@0"), activity=0.9)

        found = here.go(300)

        assert found["3g.20gb@0"].reading.activity is None
        assert found["3g.20gb@0"].reading.activity_gap == (
            "DCGM may mean an instance that is gone; its exporter has to read the layout"
        )
        # The sibling stayed what it was, and so did its row.
        assert activity(found["2g.10gb@4"]).graphics_ratio == 0.0


def test_instance_made_again_is_believed_after_a_restart_of_the_exporter() -> None:
    with watched("3g@0") as here:
        here.go(60)
        remake_as_ours(here, "3g.20gb@0")
        here.go(100)
        here.exporter = None
        here.go(5)
        here.restart()

        assert activity(here.go(10)["3g.20gb@0"]).graphics_ratio == 0.0


def test_instance_made_again_is_believed_once_a_newer_one_is_listed() -> None:
    with watched("3g@0") as here:
        here.go(60)
        remake_as_ours(here, "3g.20gb@0")
        here.go(60)
        uuid = here.room.uuid()
        here.room.observer.begin_change(uuid, [])
        here.room.node.foreign_create(0, "2g@4", actor="migscaler")
        here.room.observer.end_change(uuid)
        here.go(10)
        assert here.exporter is not None
        here.exporter.reread()

        found = here.go(15)

        assert activity(found["2g.10gb@4"]).graphics_ratio == 0.0
        assert activity(found["3g.20gb@0"]).graphics_ratio == 0.0


def test_row_that_is_missing_for_a_moment_proves_no_new_list() -> None:
    with watched("3g@0 2g@4") as here:
        here.go(60)
        remake_as_ours(here, "3g.20gb@0")
        here.go(60)
        here.replace = ("GPU_I_ID=", "GPU_I_NONE=")
        here.go(10)
        here.replace = ("", "")

        assert here.go(60)["3g.20gb@0"].reading.activity is None


def test_siblings_of_a_foreign_change_are_believed_with_the_new_row() -> None:
    with watched("3g@0") as here:
        here.go(60)
        here.room.node.foreign_create(0, "2g@4")
        here.go(5)
        assert here.exporter is not None
        here.exporter.reread()

        assert all(state.reading.activity for state in here.go(15).values())


def test_list_that_is_not_the_layout_at_the_start_is_not_believed() -> None:
    with watched("3g@0 2g@4") as here:
        here.room.node.foreign_destroy(0, here.room.gi_of("2g.10gb@4"))

        found = here.go(60)["3g.20gb@0"]

        assert found.reading.activity is None
        assert found.pin is PinReason.UNKNOWN


def test_orphan_instance_has_no_figures_and_stays_unknown() -> None:
    with watched("3g@0") as here:
        here.room.node.foreign_create(0, "2g@4", compute=False)
        assert here.exporter is not None
        here.exporter.reread()

        assert here.go(100)["2g.10gb@4"].pin is PinReason.UNKNOWN


def test_instance_without_engine_or_sm_figure_is_unknown() -> None:
    with watched("3g@0") as here:
        here.exporter = DcgmExporter(
            here.room.node,
            without=frozenset({"DCGM_FI_PROF_GR_ENGINE_ACTIVE", "DCGM_FI_PROF_SM_ACTIVE"}),
        )
        here.go(10)

        found = here.go(60)["3g.20gb@0"]

        assert found.pin is PinReason.UNKNOWN
        assert found.reading.activity_gap == (
            "DCGM reports neither GR_ENGINE_ACTIVE nor SM_ACTIVE of it"
        )


def test_other_driver_s_name_of_the_profile_fits() -> None:
    with watched("3g@0", spec="A100-SXM4-80GB") as here:
        here.replace = ('"3g.40gb"', '"3g.39gb"')
        here.go(10)

        assert activity(here.go()["3g.40gb@0"]).source is ActivitySource.DCGM


def test_other_settings_forget_what_the_old_ones_answered() -> None:
    with watched("3g@0") as here:
        here.go(60)
        here.book.configure(here.source(replace(SETTINGS, max_age=timedelta(seconds=20))))

        found = here.go(fetch=False)["3g.20gb@0"]

        assert found.reading.activity_gap == "DCGM does not answer: it has not been asked yet"
        assert activity(here.go(10)["3g.20gb@0"]).sm_ratio == 0.0


FINER = policy(rule("notebooks", "1g", minimum=3), idle=IdlePolicy(after=timedelta(seconds=120)))
"""Wants one of two idle 3g cut into pieces."""


def watch(here: Watched, loop: Loop, seconds: int) -> None:
    for _ in range(seconds // 5):
        here.room.clock.advance(5)
        loop.sample()
        here.book.fetch()


def test_idle_instances_are_cut_where_dcgm_says_so_too() -> None:
    with watched("3g@0 3g@4") as here:
        loop = here.room.loop(FINER)
        watch(here, loop, 260)

        decision = loop.tick()

        assert decision is not None
        assert isinstance(decision.outcome, Plan)
        assert here.room.layout().count("1g.5gb") == 3


@pytest.mark.parametrize(
    ("pin", "silence"),
    [(PinReason.UNKNOWN, True), (PinReason.ACTIVITY, False)],
)
def test_nothing_is_destroyed_while_dcgm_is_silent_or_says_busy(
    pin: PinReason, silence: bool
) -> None:
    with watched("3g@0 3g@4") as here:
        loop = here.room.loop(FINER)
        watch(here, loop, 260)
        if silence:
            here.exporter = None
        else:
            here.replace = ("} 0.000000", "} 0.300000")
        watch(here, loop, 40)

        decision = loop.tick()

        assert decision is not None
        assert isinstance(decision.outcome, Hold)
        assert here.room.our_calls() == []
        assert here.room.layout() == "3g.20gb@0 3g.20gb@4"
        snapshot = here.room.shown[-1].snapshot
        assert snapshot is not None
        assert {one.pin for one in snapshot.gpus[0].instances or ()} == {pin}


def test_made_instances_are_supply_at_once_and_wait_for_the_exporter() -> None:
    """Unknown ones would count for nobody, and the next tick would make them again elsewhere."""
    with watched("3g@0 3g@4") as here:
        loop = here.room.loop(FINER)
        watch(here, loop, 260)
        loop.tick()
        watch(here, loop, 30)

        (gpu,) = here.room.look(QUICK).gpus
        pins = {str(one.spec): one.pin for one in gpu.instances or () if one.spec.profile[0] == "1"}

        assert set(pins.values()) == {PinReason.SETTLING}
        assert len(pins) == 3


def test_instances_that_samples_saw_being_made_are_believed_once_listed() -> None:
    """A real call takes a second: several samples fall into one plan, one list may be read there.

    They were reborn at the plan's end, and no row was ever theirs until the exporter's restart.
    """
    with watched("3g@4") as here:
        here.go(60)
        gpu, exporter = here.room.gpu(), here.exporter
        assert gpu.reading.model is not None
        assert exporter is not None
        specs = [gpu.reading.model.spec(text) for text in ("1g@0", "1g@1")]
        here.room.observer.begin_change(gpu.uuid, specs)
        for text in ("1g@0", "1g@1"):
            here.room.node.foreign_create(0, text, actor="migscaler")
            exporter.reread()  # told of a change of another GPU
            here.go(10)
        here.room.observer.end_change(gpu.uuid, here.room.clock.monotonic(), remade=False)
        here.go(5)
        exporter.reread()

        found = here.go(30)

        assert activity(found["1g.5gb@0"]).graphics_ratio == 0.0
        assert activity(found["1g.5gb@1"]).graphics_ratio == 0.0


def test_plan_that_changed_nothing_leaves_the_figures_of_its_instances() -> None:
    with watched("3g@0 3g@4") as here:
        loop = here.room.loop(FINER)
        watch(here, loop, 260)
        jobs: list[int] = []

        def come() -> None:
            for text in ("3g.20gb@0", "3g.20gb@4"):
                gi_id = here.room.gi_of(text)
                jobs.append(here.room.node.start_job(0, gi_id, activity=0.0))

        here.room.scheduler.on_fence = come
        loop.tick()
        assert jobs
        assert here.room.our_calls() == []

        found = here.go(30)

        assert activity(found["3g.20gb@0"]).graphics_ratio == 0.0
        assert activity(found["3g.20gb@4"]).graphics_ratio == 0.0
