"""Bodies of answers: no text, wherever it comes from, makes one fail.

A name or path that was no UTF-8 is held with half characters (os.fsdecode), which have no encoding.
"""

import json

from starlette.responses import JSONResponse


class JsonAnswer(JSONResponse):
    """JSON in which half a character is written as its escape."""

    def render(self, content: object) -> bytes:
        """Return the body."""
        text = json.dumps(content, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
        return text.encode("utf-8", "backslashreplace")  # \udc80, as JSON itself writes it


def page_body(text: str) -> bytes:
    """Return a page; half a character shows as a question mark."""
    return text.encode("utf-8", "replace")
