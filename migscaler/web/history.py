"""The page's look back: how the last plans ended, before and after, and what was regretted."""

from datetime import timedelta

from migscaler.model.layout import GpuModel, Layout
from migscaler.model.plan import Outcome, OutcomeKind
from migscaler.model.status import Regret, Status
from migscaler.web.gpu_rows import strip_box
from migscaler.web.html import Markup, join, tag
from migscaler.web.strip import planned_cells
from migscaler.web.views import index_of, outcome_view
from migscaler.web.words import OUTCOME_WORDS, ago, count_of, span_words

_OUTCOMES = 8
_VERDICT_WORDS = {"destroy": "would be or was destroyed", "kept": "was found idle and stayed"}


def outcome_list(status: Status, *, trusted: bool) -> Markup:
    """Return how the last plans ended, the newest first."""
    items = [_outcome(status, one, trusted=trusted) for one in status.outcomes[:_OUTCOMES]]
    nothing = tag("p", "Nothing has been changed since the start.", class_="quiet")
    return tag("ul", *items, class_="list") if items else nothing


def regret_list(regret: Regret) -> Markup:
    """Return how often what was judged idle was used again soon after."""
    items = [
        tag("li", tag("p", _regret_words(regret, verdict, count), class_="where"))
        for verdict, count in sorted(regret.verdicts)
        if count
    ]
    nothing = tag("p", "Nothing has been found idle since the start.", class_="quiet")
    return tag("ul", *items, class_="list") if items else nothing


def _outcome(status: Status, outcome: Outcome, *, trusted: bool) -> Markup:
    index = index_of(status.snapshot, outcome.gpu_uuid)
    view = outcome_view(outcome, status.snapshot, trusted=trusted)
    direction = "" if outcome.direction is None else outcome.direction.value
    is_done = outcome.kind is OutcomeKind.DONE
    words = f"made {direction}".rstrip() if is_done else OUTCOME_WORDS[outcome.reason]
    kind = {"done": "enforce", "abandoned": "waiting", "failed": "failed"}[outcome.kind.value]
    took = f"{ago(outcome.started_at, status.now)}, took {span_words(outcome.duration)}"
    back = "; put back" if outcome.rolled_back else ""
    text = str(view["explanation"] or "")
    return tag(
        "li",
        tag(
            "p",
            tag("strong", "GPU gone" if index is None else f"GPU {index}"),
            tag("span", f"{words}{back}", class_="where"),
            tag("span", outcome.kind.value, class_=f"badge {kind}"),
        ),
        tag("p", text) if text else Markup(),
        _before_and_after(status, outcome),
        tag("small", took),
    )


def _before_and_after(status: Status, outcome: Outcome) -> Markup:
    """Return both strips where the layout changed and the GPU's slices are known."""
    gpu = None if status.snapshot is None else status.snapshot.gpu(outcome.gpu_uuid)
    model = None if gpu is None else gpu.reading.model
    before, after = outcome.before, outcome.layout
    if model is None or before is None or after is None or before == after:
        return Markup()
    if any(model.violation(one) is not None for one in (before, after)):
        return Markup()  # another GPU model has come into the slot
    return join(_past(model, "before", before), _past(model, "after", after))


def _past(model: GpuModel, when: str, layout: Layout) -> Markup:
    """Return one small strip with its word; the layout in full is its label."""
    words = f"{when}: {layout if len(layout) else 'nothing'}"
    return tag(
        "div",
        tag("small", when, aria_hidden="true"),
        strip_box(planned_cells(model, layout), words, "strip past"),
        class_="pair",
    )


def _regret_words(regret: Regret, verdict: str, count: int) -> str:
    """Return one verdict's count, and how many of them were used again in each window."""
    again = [
        f"{used} within {span_words(timedelta(seconds=window))}"
        for name, window, used in sorted(regret.regrets)
        if name == verdict
    ]
    what = _VERDICT_WORDS.get(verdict, verdict)
    counted = count_of(count, "time", "times")
    return f"An instance {what}: {counted}. Used again: {', '.join(again) or 'not known'}."
