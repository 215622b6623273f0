"""Why there is no picture, or an old one, is said in one place and shown everywhere."""

from dataclasses import replace
from datetime import timedelta
from pathlib import Path

from migscaler.model.decision import PauseRecord
from migscaler.model.status import CollectorStatus, Status
from migscaler.web.views import status_view
from migscaler.web.words import unread_words
from tests.builders import NOW
from tests.unit.metrics.statuses import full_status
from tests.unit.web.sites import running
from tests.unit.web.test_page import text_of

NO_LIBRARY = CollectorStatus(
    name="nvml",
    success=False,
    duration_seconds=0.1,
    problem="nvmlInit answered LIBRARY_NOT_FOUND (12): libnvidia-ml.so.1 is not here",
)
NEVER_READ = Status(version="0.1.0", started_at=NOW, now=NOW, collectors=(NO_LIBRARY,))
WHY = (
    "the GPUs can't be read: nvmlInit answered LIBRARY_NOT_FOUND (12): "
    "libnvidia-ml.so.1 is not here"
)


def released(since: float, **more: object) -> Status:
    """A node whose driver was released so many seconds after the last reading."""
    status = full_status()
    assert status.snapshot is not None
    pause = PauseRecord(
        who="root",
        why="kernel",
        since=status.snapshot.taken_at + timedelta(seconds=since),
        until=None,
        driver_released=True,
    )
    return replace(status, pause=pause, **more)  # type: ignore[arg-type]  # fields of a status


def test_node_that_was_read_lately_has_nothing_to_say() -> None:
    assert unread_words(full_status()) is None
    assert status_view(full_status(), trusted=False)["snapshot_problem"] is None


def test_node_that_was_never_read_says_why() -> None:
    assert unread_words(NEVER_READ) == WHY
    assert status_view(NEVER_READ, trusted=False)["snapshot_problem"] == WHY
    assert unread_words(replace(NEVER_READ, collectors=())) == (
        "the GPUs can't be read: the driver has not answered yet"
    )


def test_strangers_are_not_told_whose_process_is_in_the_way() -> None:
    listener = replace(NO_LIBRARY, problem="uid 65534 listens at worker.sock; process 7 ((x)) too")
    status = replace(NEVER_READ, collectors=(listener,))

    told = [status_view(status, trusted=trusted)["snapshot_problem"] for trusted in (True, False)]

    assert told == [
        "the GPUs can't be read: uid 65534 listens at worker.sock; process 7 ((x)) too",
        "the GPUs can't be read: an account listens at worker.sock; a process too",
    ]


def test_old_picture_says_since_when_and_why() -> None:
    status = full_status()
    assert status.snapshot is not None
    later = status.snapshot.taken_at + timedelta(seconds=45)
    stale = replace(status, now=later, snapshot_stale=True, collectors=(NO_LIBRARY,))

    assert unread_words(stale) == (
        "the GPUs were last read 45 s ago: nvmlInit answered LIBRARY_NOT_FOUND (12): "
        "libnvidia-ml.so.1 is not here"
    )


def test_released_driver_is_told_at_once() -> None:
    """For three periods, and in every table longer, the old picture passed for the present one."""
    assert (unread_words(released(2.0)) or "").endswith(
        "the driver is released until `migscaler resume`"
    )


def test_command_that_reads_the_hardware_itself_is_not_released() -> None:
    assert unread_words(released(-2.0)) is None
    assert unread_words(released(-2.0, snapshot_stale=True)) is not None


def test_page_says_why_there_are_no_figures() -> None:
    """It said that every gate was open."""
    text = text_of(NEVER_READ)

    assert "No figures The GPUs can't be read: nvmlInit answered LIBRARY_NOT_FOUND" in text
    assert "Every gate is open" not in text
    assert "the driver is released until" in text_of(released(2.0))


def test_probe_says_why_the_node_is_not_ready(tmp_path: Path) -> None:
    with running(NEVER_READ, tmp_path) as made:
        ready = made.tcp.get("/-/ready")

    assert (ready.status_code, ready.text) == (503, f"{WHY}\n")
