"""What the page and the API explain is what the command explains, and changes have two sides."""

from pathlib import Path

from migscaler.web.explanation import explanation_view, paragraphs_of
from tests.unit.app.nodes import node_at_work

WANTING = """
mode: recommend
gpus: [{model: "*"}]
idle: {after: 20s}
rules: [{name: small, size: 1g, min: 2}]
"""


def test_daemon_keeps_what_its_last_decision_was_made_from(tmp_path: Path) -> None:
    with node_at_work(tmp_path, "3g@0", config=WANTING) as here:
        before = paragraphs_of(here.runtime.loop.status(), trusted=True)
        here.watch(60)
        here.runtime.tick()
        status = here.runtime.loop.status()
        shown = explanation_view(paragraphs_of(status, trusted=True))

        assert before == ()
        assert status.decision_at == here.clock.now()
        assert {**shown, "snapshot_problem": None} == here.ask("explain")
        assert isinstance(shown["lines"], list)
        assert "Rule small (1g)" in shown["lines"]


def test_outcome_of_a_change_keeps_the_layout_before(tmp_path: Path) -> None:
    with node_at_work(tmp_path, "3g@0 3g@4") as here:
        here.watch(60)
        here.ask("apply", gpu="0", layout="7g", dry_run=False)
        (outcome,) = here.runtime.loop.status().outcomes

        assert (str(outcome.before), str(outcome.layout)) == ("3g.20gb@0 3g.20gb@4", "7g.40gb@0")
