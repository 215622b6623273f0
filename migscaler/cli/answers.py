"""Reads the daemon's JSON answers, in which a missing or null field means "not known"."""

from collections.abc import Mapping

Answer = dict[str, object]
"""One JSON object, as a command answered it."""


def rows(answer: Mapping[str, object], key: str) -> list[Answer]:
    """Return a list of objects; empty when it is absent."""
    found = answer.get(key)
    if not isinstance(found, list | tuple):
        return []
    return [dict(row) for row in found if isinstance(row, Mapping)]


def part(answer: Mapping[str, object], key: str) -> Answer:
    """Return an object inside; empty when it is absent."""
    found = answer.get(key)
    return dict(found) if isinstance(found, Mapping) else {}


def lines(answer: Mapping[str, object], key: str) -> list[str]:
    """Return a list of texts; empty when it is absent."""
    found = answer.get(key)
    return [str(line) for line in found] if isinstance(found, list | tuple) else []


def text(answer: Mapping[str, object], key: str, missing: str = "-") -> str:
    """Return a field as people read it; `missing` when it is absent, null or empty."""
    found = answer.get(key)
    if found is None or found == "":
        return missing
    if isinstance(found, bool):
        return "yes" if found else "no"
    return str(found)


def whole(answer: Mapping[str, object], key: str) -> int | None:
    """Return a whole number, None when it is absent."""
    found = answer.get(key)
    return found if isinstance(found, int) and not isinstance(found, bool) else None


def real(answer: Mapping[str, object], key: str) -> float | None:
    """Return a number, None when it is absent."""
    found = answer.get(key)
    return float(found) if isinstance(found, int | float) and not isinstance(found, bool) else None
