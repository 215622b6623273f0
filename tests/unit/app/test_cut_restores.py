"""A restore that ends the daemon, or the node, each time is not begun again for ever."""

from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import pytest

from migscaler.model.decision import GpuHistory
from migscaler.model.gpu import ModeChange
from migscaler.model.ids import CiId, GiId, GpuUuid
from migscaler.model.plan import GateReason, OutcomeReason
from migscaler.model.profile import InstanceSpec
from migscaler.sim.codes import Code
from migscaler.sim.faults import fails
from tests.unit.app.nodes import ENFORCE, NodeAtWork, node_at_work
from tests.unit.app.test_comeback import HALVES, HOPPER_HALVES, live, missing, wanting
from tests.unit.app.test_comeback_again import CREATE, keep_house
from tests.unit.app.test_cut_plans import Died
from tests.unit.app.test_open_plans import DEMANDING, TWO
from tests.unit.app.test_runtime_start import leave_open

HALF = "3g.20gb@0"
H100 = "H100-80GB"
HOUR = timedelta(hours=1)
OBSERVE = 'mode: observe\ngpus: [{model: "*"}]\n'


def die_at(here: NodeAtWork, nth: int) -> None:
    """Let the process end at the n-th instance of the first GPU that is still to be made."""
    writer, first = here.assembly.ground.writer, here.uuid()
    create = writer.create_gpu_instance

    def die(uuid: GpuUuid, spec: InstanceSpec) -> GiId:
        if uuid == first and len(here.node.state.gpus[0].instances) == nth - 1:
            raise Died
        return create(uuid, spec)

    writer.create_gpu_instance = die  # type: ignore[method-assign]


def die_with_the_mode(here: NodeAtWork, _nth: int) -> None:
    """Let the process end where it asks for MIG mode."""

    def die(uuid: GpuUuid, *, enabled: bool) -> ModeChange:
        raise Died

    here.assembly.ground.writer.set_mig_mode = die  # type: ignore[method-assign]


def deaths(
    here: NodeAtWork,
    starts: int,
    nth: int,
    *,
    lose: Callable[[NodeAtWork], object] = lambda here: None,
    die: Callable[[NodeAtWork, int], None] = die_at,
) -> int:
    """Start so often; return how often the process died."""
    died = 0
    for _ in range(starts):
        lose(here)
        here.restart()
        die(here, nth)
        try:
            here.runtime.begin()
        except Died:
            died += 1
    return died


def rebooted(here: NodeAtWork) -> None:
    wanting(here)
    here.node.reboot()


def well_again(here: NodeAtWork) -> None:
    """Mend what ended the process; the present one goes on."""
    writer = here.assembly.ground.writer
    for name in ("create_gpu_instance", "set_mig_mode"):
        vars(writer).pop(name, None)


def history(here: NodeAtWork) -> GpuHistory:
    return next(one for one in here.store.gpu_histories() if one.gpu_uuid == here.uuid())


def gates(here: NodeAtWork) -> set[GateReason]:
    decision = here.runtime.loop.status().decision
    assert decision is not None
    return {gate.reason for gate in decision.gates if gate.gpu_uuid == here.uuid()}


@pytest.mark.parametrize("nth", [1, 2], ids=["nothing made", "a part made"])
@pytest.mark.parametrize("node_dies", [False, True])
def test_restore_that_ends_the_daemon_each_time_is_begun_three_times(
    tmp_path: Path, nth: int, node_dies: bool
) -> None:
    """Each start tried again at once, and systemd started the next one, for ever."""
    with node_at_work(tmp_path, "3g@0 3g@4", config=ENFORCE) as here:
        rebooted(here)
        lose = (lambda here: here.node.reboot()) if node_dies else (lambda here: None)

        died = deaths(here, 8, nth, lose=lose)
        live(here, 30)

        kept = history(here)
        assert (died, kept.breaker_trips) == (3, 1)
        assert kept.breaker_open_until is not None
        assert GateReason.BREAKER_OPEN in gates(here)
        lacks = 1 if here.layout() else 2
        assert (missing(here), here.layout()) == (lacks, HALF if nth == 2 and not node_dies else "")


def test_mode_that_ends_the_daemon_each_time_is_asked_for_three_times(tmp_path: Path) -> None:
    with node_at_work(tmp_path, "3g@0 3g@4", config=ENFORCE, spec=H100) as here:
        rebooted(here)
        died = deaths(here, 8, 1, die=die_with_the_mode)
        well_again(here)
        live(here, 600)
        before = here.layout()

        here.clock.advance(3600)
        live(here, 30)

        assert (died, before, here.layout()) == (3, "", HOPPER_HALVES)


@pytest.mark.parametrize(("nth", "left"), [(1, ""), (2, HALF)])
def test_rest_is_made_once_the_breaker_closes(tmp_path: Path, nth: int, left: str) -> None:
    with node_at_work(tmp_path, "3g@0 3g@4", config=ENFORCE) as here:
        rebooted(here)
        deaths(here, 4, nth)
        well_again(here)

        keep_house(here, 3540)
        before = here.layout()
        keep_house(here, 120)

        assert (before, here.layout()) == (left, HALVES)
        assert (missing(here), here.store.open_plans()) == (0, ())
        assert GateReason.BREAKER_OPEN not in gates(here)


@pytest.mark.parametrize(("nth", "left"), [(1, ""), (2, HALF)])
def test_breaker_that_a_person_closes_lets_it_be_made_at_once(
    tmp_path: Path, nth: int, left: str
) -> None:
    with node_at_work(tmp_path, "3g@0 3g@4", config=ENFORCE) as here:
        rebooted(here)
        deaths(here, 4, nth)
        well_again(here)
        before = here.layout()

        here.ask("breaker_reset", gpu="0")
        keep_house(here, 45)

        assert (before, here.layout()) == (left, HALVES)


@pytest.mark.parametrize("nth", [1, 2])
def test_further_death_opens_the_breaker_for_twice_as_long(tmp_path: Path, nth: int) -> None:
    """Starts in between, at which nothing dies, prolong nothing."""
    with node_at_work(tmp_path, "3g@0 3g@4", config=ENFORCE) as here:
        rebooted(here)
        deaths(here, 3, nth)
        begun = here.clock.now()
        quiet = deaths(here, 3, nth)
        first = history(here).breaker_open_until
        here.clock.advance(3700)

        died, now = deaths(here, 3, nth), here.clock.now()

        assert (quiet, first) == (0, begun + HOUR)
        assert (died, history(here).breaker_open_until) == (1, now + 2 * HOUR)


def test_death_after_the_breaker_in_the_middle_of_a_day_counts_too(tmp_path: Path) -> None:
    """Not at a start, but when housekeeping goes on with what waited."""
    with node_at_work(tmp_path, "3g@0 3g@4", config=ENFORCE) as here:
        rebooted(here)
        deaths(here, 4, 2)

        with pytest.raises(Died):
            keep_house(here, 3700)
        died = deaths(here, 3, 2)

        assert (died, history(here).breaker_trips) == (0, 2)


@pytest.mark.parametrize("nth", [1, 2])
def test_gpu_whose_restore_waits_keeps_no_other_gpu_back(tmp_path: Path, nth: int) -> None:
    layouts = ("3g@0 3g@4", "3g@0 3g@4")
    with node_at_work(tmp_path, *layouts, config=DEMANDING, spec=TWO) as here:
        rebooted(here)
        deaths(here, 4, nth)
        well_again(here)
        left = here.layout()

        back = here.layout(1)
        for _ in range(5):
            here.watch(60)
            keep_house(here, 15)

        assert back == HALVES
        assert here.layout() == left
        assert "1g.5gb" in here.layout(1)
        assert missing(here) == 3 - nth


@pytest.mark.parametrize("nth", [1, 2])
def test_why_it_is_left_is_told(tmp_path: Path, nth: int) -> None:
    with node_at_work(tmp_path, "3g@0 3g@4", config=ENFORCE) as here:
        rebooted(here)
        deaths(here, 4, nth)
        outcome = here.runtime.loop.status().outcomes[0]
        why = (
            "its breaker is open: the daemon, or the node, died 3 times in a row at restoring it;"
            f" migscaler breaker reset {here.uuid()} tries it now"
        )

        assert outcome.reason is OutcomeReason.GATE_CLOSED
        assert outcome.explanation == (
            f"{HALVES} is gone; {why}, not restored"
            if nth == 1
            else f"found open with {HALF}; the rest waits: {why}"
        )
        answer = here.ask("settle")
        assert isinstance(answer["outcomes"], list)
        assert len(answer["outcomes"]) == nth - 1


@pytest.mark.parametrize("nth", [1, 2])
def test_two_deaths_keep_nothing_from_coming_back_and_are_forgotten_then(
    tmp_path: Path, nth: int
) -> None:
    with node_at_work(tmp_path, "3g@0 3g@4", config=ENFORCE) as here:
        for _ in range(3):
            rebooted(here)
            deaths(here, 2, nth)
            here.restart()
            here.runtime.begin()

            assert here.layout() == HALVES
        kept = history(here)
        assert (kept.failures_in_row, kept.breaker_open_until) == (0, None)


def test_breaker_that_plans_opened_keeps_nothing_from_coming_back(tmp_path: Path) -> None:
    """An ordinary reboot, with one restore that a kill met."""
    with node_at_work(tmp_path, "3g@0 3g@4", config=ENFORCE) as here:
        for _ in range(2):
            leave_open(here)
            here.restart()
            here.runtime.begin()
        tripped = history(here)
        rebooted(here)

        deaths(here, 2, 2)
        here.restart()
        here.runtime.begin()

        assert tripped.breaker_open_until is not None
        assert here.layout() == HALVES
        assert (history(here).failures_in_row, history(here).breaker_trips) == (2, 1)


def go_blind(here: NodeAtWork, nth: int) -> None:
    """Let the GPU hang at the n-th instance that is still to be made."""
    writer = here.assembly.ground.writer
    create = writer.create_gpu_instance

    def hang(uuid: GpuUuid, spec: InstanceSpec) -> GiId:
        if len(here.node.state.gpus[0].instances) == nth - 1:
            for function in (CREATE, "nvmlDeviceGetGpuInstances"):
                here.node.add_fault(fails(function, Code.UNKNOWN, times=None))
        return create(uuid, spec)

    writer.create_gpu_instance = hang  # type: ignore[method-assign]


def test_call_that_a_living_process_left_in_doubt_is_no_death(tmp_path: Path) -> None:
    """The GPU hangs at each creation; the process lives, and is started anew by a person."""
    with node_at_work(tmp_path, "3g@0 3g@4", config=ENFORCE) as here:
        rebooted(here)

        died = deaths(here, 4, 2, lose=lambda here: here.node.clear_faults(), die=go_blind)
        left = (here.layout(), [plan.left_open for plan in here.store.open_plans()])
        here.node.clear_faults()
        here.restart()
        here.runtime.begin()

        assert (died, left) == (0, (HALF, [True]))
        assert here.layout() == HALVES


def test_gpu_that_is_no_longer_to_be_changed_is_not_told_as_missing(tmp_path: Path) -> None:
    with node_at_work(tmp_path, "3g@0 3g@4", config=ENFORCE) as here:
        rebooted(here)
        deaths(here, 4, 1)
        here.config.write_text(OBSERVE)
        here.restart()
        here.runtime.begin()

        assert here.runtime.loop.status().outcomes[0].explanation == (
            f"{HALVES} is gone; acting is off, not restored"
        )
        assert missing(here) is None


def die_after_the_last_call(here: NodeAtWork, _nth: int) -> None:
    """Let the process end where its layout has just become whole."""
    writer = here.assembly.ground.writer
    create = writer.create_compute_instance

    def die(uuid: GpuUuid, gi_id: GiId) -> CiId:
        create(uuid, gi_id)
        raise Died

    writer.create_compute_instance = die  # type: ignore[method-assign]


def test_restore_that_lacks_nothing_waits_for_no_breaker(tmp_path: Path) -> None:
    """The third death left the whole layout: its plan stayed open for an hour all the same."""
    with node_at_work(tmp_path, "2g@0 2g@2 3g@4", config=ENFORCE) as here:
        rebooted(here)
        died = deaths(here, 4, 0, die=die_after_the_last_call)
        live(here, 30)

        assert (died, here.layout()) == (3, "2g.10gb@0 2g.10gb@2 3g.20gb@4")
        assert here.store.open_plans() == ()
        assert GateReason.BREAKER_OPEN not in gates(here)


@pytest.mark.parametrize("nth", [1, 2])
def test_deaths_are_forgotten_once_the_gpu_has_its_layout(tmp_path: Path, nth: int) -> None:
    """They went on counting: the first plan that failed, weeks later, opened the breaker anew."""
    with node_at_work(tmp_path, "3g@0 3g@4", config=ENFORCE) as here:
        rebooted(here)
        deaths(here, 4, nth)
        well_again(here)
        keep_house(here, 3660)
        healed = history(here)

        leave_open(here)
        here.restart()
        here.runtime.begin()

        assert here.layout() == HALVES
        assert (healed.failures_in_row, healed.breaker_trips) == (0, 0)
        assert history(here).breaker_open_until is None
