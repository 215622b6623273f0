"""What the page says in words, read from its HTML."""

import html
import re
from dataclasses import replace
from datetime import timedelta

import pytest

from migscaler.model.gpu import Gap, GpuProcess, InstanceState, PinReason
from migscaler.model.ids import PlanId
from migscaler.model.plan import Gate, GateReason, Hold, OutcomeReason
from migscaler.model.process import Container
from migscaler.model.status import ConfigStatus, Running, Status
from migscaler.policy.explain import explain
from migscaler.web.page import page
from migscaler.web.views import status_view
from migscaler.web.words import GATE_WORDS, OUTCOME_WORDS
from tests.builders import (
    A100,
    NOW,
    gpu_state,
    instance_reading,
    layout,
    snapshot,
    spec,
    uuid,
)
from tests.unit.metrics.statuses import full_status


def text_of(status: Status | None, *, trusted: bool = False) -> str:
    """Return the words of the page without its tags."""
    plain = re.sub(r"<[^>]+>", " ", page(status, trusted=trusted))
    return " ".join(html.unescape(plain).split())


def test_page_says_what_was_decided_and_why() -> None:
    text = text_of(full_status())

    assert "Waiting to make GPU 2 finer" in text
    assert "on hold: resting 4 s ago" in text
    assert "opens in 1 min 15 s, 12:01:15 UTC" in text
    assert "notebooks 1g 11 7 2 2" in text
    assert "wanted: 3g.20gb@0 2g.10gb@4 1g.5gb@6" in text


def test_page_tells_how_plans_ended_and_hides_texts_that_may_name_somebody() -> None:
    status = full_status()

    assert "GPU 1 an instance came into use abandoned 25 min ago, took 3 s" in text_of(status)
    assert "1g.5gb@4 got a process before its step began" in text_of(status, trusted=True)


def test_every_gpu_says_where_its_activity_comes_from() -> None:
    text = text_of(full_status())

    assert text.count("activity by DCGM") == 1
    assert text.count("activity by GPM") == 2
    assert text.count("no activity figures") == 4


def test_pause_and_troubles_are_said_first() -> None:
    troubled = replace(
        full_status(paused=True),
        snapshot_stale=True,
        state_writable=False,
        config=ConfigStatus(forced_observe="the file has 2 problems"),
    )
    text = text_of(troubled)

    assert "Paused driver upgrade, until 13:00:00 UTC. Nothing is changed meanwhile." in text
    assert "by root" in text_of(troubled, trusted=True)
    assert "Old figures" in text
    assert "Only observing the file has 2 problems" in text
    assert "The journal can't be written" in text


def test_findings_of_a_file_are_told_to_the_trusted_and_their_number_to_all() -> None:
    """A finding quotes the file, in which anything may stand at any place."""
    config = ConfigStatus(valid=False, problems=("line 3: mode: 's3cr3t' is not one of", "line 5"))
    status = replace(full_status(), config=config)

    stranger, trusted = text_of(status), text_of(status, trusted=True)

    assert "s3cr3t" not in stranger + str(status_view(status, trusted=False))
    assert "Configuration 2 problems: see the log, or `migscaler status` as root" in stranger
    assert "s3cr3t" in trusted
    assert "s3cr3t" in str(status_view(status, trusted=True))


def test_gpu_being_changed_shows_what_it_becomes() -> None:
    running = Running(
        plan_id=PlanId("p"),
        gpu_uuid=uuid(2),
        before=layout(A100, "3g@0 3g@4"),
        after=layout(A100, "3g@0 2g@4 1g@6"),
        since=NOW,
    )
    written = page(replace(full_status(), running=running), trusted=False)

    assert "GPU 2 is being changed from 3g.20gb@0 3g.20gb@4 to 3g.20gb@0 2g.10gb@4" in written
    assert "changing now" in written


def test_gpus_without_strip_say_why() -> None:
    silent = gpu_state(A100, "-", index=0, excluded="fell off the bus")
    no_mig = gpu_state(A100, "-", index=1, mig=None)
    unread = gpu_state(A100, "-", index=2)
    silent = replace(
        silent,
        instances=None,
        reading=replace(silent.reading, instances=None, gaps=(Gap(what="gpu", why="lost"),)),
    )
    unread = replace(unread, instances=None, reading=replace(unread.reading, instances=None))
    status = Status(
        version="0.1.0", started_at=NOW, now=NOW, snapshot=snapshot(silent, no_mig, unread)
    )
    text = text_of(status)

    assert "does not answer: lost" in text
    assert "can't be partitioned" in text
    assert "layout not known" in text
    assert "Nothing has been decided yet." in text


def test_page_before_the_first_status_is_a_page() -> None:
    assert "The daemon is starting." in text_of(None)
    assert "No GPU has been read yet." in text_of(Status(version="0.1.0", started_at=NOW, now=NOW))


def test_page_needs_neither_inline_script_nor_inline_style() -> None:
    written = page(full_status(paused=True), trusted=True)

    assert " style=" not in written
    assert "<style" not in written
    assert re.findall(r"<script[^>]*>[^<]", written) == []
    assert re.findall(r'(?:src|href)="(?:https?:)?//', written) == []


def test_texts_from_outside_are_quoted() -> None:
    status = full_status()
    bad = replace(status.config, warnings=("<script>alert(1)</script>",))

    assert "<script>alert" not in page(replace(status, config=bad), trusted=False)


@pytest.mark.parametrize("reason", GateReason)
def test_every_gate_reason_has_words(reason: GateReason) -> None:
    assert GATE_WORDS[reason]


@pytest.mark.parametrize("reason", OutcomeReason)
def test_every_outcome_reason_has_words(reason: OutcomeReason) -> None:
    assert OUTCOME_WORDS[reason]


def test_old_changes_say_how_long_ago() -> None:
    status = full_status()
    old = replace(status.outcomes[0], started_at=NOW - timedelta(days=3), rolled_back=True)

    assert "3 d ago" in text_of(replace(status, outcomes=(old,)))
    assert "put back" in text_of(replace(status, outcomes=(old,)))


def test_page_explains_each_rule_and_gpu_as_the_command_does() -> None:
    status = full_status()
    assert status.decision_input is not None
    assert status.decision is not None
    told = explain(status.decision_input, status.decision)
    text = text_of(status, trusted=True)

    assert [one.title for one in told][:3] == [
        "Decision",
        "Rule notebooks (1g)",
        "Rule training (7g)",
    ]
    assert len(told) == 11
    assert [line for one in told for line in one.lines if line not in text] == []
    assert "1g.5gb@6 pinned (allocation); nothing has run on it for 3 h" in text


def test_page_shows_a_change_before_and_after() -> None:
    written = page(full_status(), trusted=False)

    assert 'aria-label="before: 3g.20gb@0 3g.20gb@4"' in written
    assert 'aria-label="after: 3g.20gb@0 2g.10gb@4 1g.5gb@6"' in written
    assert written.count("strip past") == 2  # the abandoned plan changed nothing


def test_page_tells_regret_in_words() -> None:
    text = text_of(full_status())

    assert (
        "An instance would be or was destroyed: 12 times."
        " Used again: 1 within 5 min, 2 within 30 min."
    ) in text


def test_page_and_status_tell_who_is_on_an_instance_to_the_trusted_only() -> None:
    """The container's whole id is for programs; people read twelve digits of it."""
    inside = Container(container_id="4f797c539e6c" + 52 * "0", runtime="docker")
    running = GpuProcess(pid=4711, name="trainer", user="ada", container=inside)
    reading = instance_reading(spec(A100, "1g@0"), processes=(running,))
    state = InstanceState(
        reading=reading,
        born=1,
        pin=PinReason.PROCESS,
        explanation=f"used by {running}",
        quiet_since_monotonic=None,
    )
    gpu = replace(gpu_state(A100, "1g@0"), instances=(state,))
    status = replace(full_status(), snapshot=snapshot(gpu))
    words = "trainer of ada (pid 4711, docker 4f797c539e6c)"

    assert words in text_of(status, trusted=True)
    (shown,) = status_view(status, trusted=True)["gpus"][0]["instances"]  # type: ignore[index]  # JSON values
    assert shown["process_details"][0]["container_id"] == inside.container_id
    for text in (text_of(status), str(status_view(status, trusted=False))):
        assert [word for word in ("trainer", "ada", "4711", "4f797c") if word in text] == []


def test_strangers_are_not_told_who_paused_in_the_sentence() -> None:
    status = full_status(paused=True)
    assert status.decision is not None
    gate = Gate(reason=GateReason.PAUSED, explanation="paused by grace: upgrade", blocks=True)
    decision = replace(
        status.decision,
        outcome=Hold(reason=GateReason.PAUSED, explanation=gate.explanation),
        sentence="Hold: paused by grace: upgrade",
        gates=(gate,),
    )
    status = replace(status, decision=decision)

    assert "grace" not in text_of(status)
    assert "Hold: paused by grace: upgrade" in text_of(status, trusted=True)


def test_switch_of_mig_that_waits_for_a_reset_is_shown() -> None:
    status = full_status()
    assert status.snapshot is not None
    first, *others = status.snapshot.gpus
    off = replace(first, reading=replace(first.reading, mig_pending=False))

    text = text_of(replace(status, snapshot=replace(status.snapshot, gpus=(off, *others))))

    assert text.count("MIG goes off at the next reset") == 1
    assert "MIG goes off at the next reset" not in text_of(status)
