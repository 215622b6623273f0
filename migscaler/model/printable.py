"""Texts of others (people, processes, files) as logs, answers and terminals may have them."""

import re

# Half a character has no encoding; the others order a terminal about. Line ends and tabs are text.
_NO_TEXT = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x84\x86-\x9f\ud800-\udfff]")


def no_text_in(text: str) -> str | None:
    """Return the first character that is no text, as `U+001B`, None if all are."""
    found = _NO_TEXT.search(text)
    return None if found is None else f"U+{ord(found.group()):04X}"


def printable(text: str) -> str:
    r"""Return a text on one line, with what can't be seen written out: `\x1b[2J`."""
    if text.isprintable():
        return text
    return "".join(
        c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in text
    )
