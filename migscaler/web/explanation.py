"""The last decision explained, on the page and as JSON: the text of `migscaler explain`."""

from migscaler.model.status import Status
from migscaler.policy.explain import Paragraph, explain
from migscaler.web.html import Markup, tag


def paragraphs_of(status: Status, *, trusted: bool) -> tuple[Paragraph, ...]:
    """Return the last decision in words; nobody is named to callers that are not trusted.

    Empty before the first decision. Cost: see `explain`; called once per request.
    """
    if status.decision is None or status.decision_input is None:
        return ()
    return explain(status.decision_input, status.decision, names=trusted)


def explanation_view(paragraphs: tuple[Paragraph, ...]) -> dict[str, object]:
    """Return paragraphs as plain JSON values, and the same as indented lines."""
    return {
        "paragraphs": [{"title": one.title, "lines": list(one.lines)} for one in paragraphs],
        "lines": [
            text for one in paragraphs for text in (one.title, *(f"  {line}" for line in one.lines))
        ],
    }


def explanation_section(status: Status, *, trusted: bool) -> Markup:
    """Return one part to unfold per paragraph: the whole, each rule, each GPU."""
    parts = [_part(one) for one in paragraphs_of(status, trusted=trusted)]
    nothing = tag("p", "Nothing has been decided yet.", class_="quiet")
    return tag(
        "section",
        tag("h2", "Explanation"),
        *(parts or [nothing]),
        class_="panel explanation",
        aria_label="Explanation",
    )


def _part(one: Paragraph) -> Markup:
    """Return a paragraph to unfold; the page's script keeps it open by the name of the part."""
    return tag(
        "details",
        tag("summary", one.title),
        tag("ul", *(tag("li", line) for line in one.lines), class_="lines"),
        data_part=f"explained {one.title}",
    )
