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


def moment(answer: Mapping[str, object], key: str) -> str:
    """Return a time to the second, in UTC as it was answered; `-` when it is absent."""
    found = text(answer, key)
    return found if found == "-" else found[:19].replace("T", " ") + "Z"


def kept_where(answer: Mapping[str, object]) -> str:
    """Return what to add where it matters who took the command: for whom, or how long, it holds."""
    problem = text(answer, "not_kept", "")
    if problem:
        return f" (only until the daemon ends, since it can't be kept: {problem})"
    place = text(answer, "kept_in", "")
    return f" (no daemon answers; in force for the state in {place})" if place else ""


def picture_problem(answer: Mapping[str, object]) -> str | None:
    """Return why the picture that an answer rests on is old, None where it is not."""
    return text(answer, "snapshot_problem", "") or None


def short_uuid(uuid: str) -> str:
    """Return the beginning of a GPU's UUID, which is enough to tell a node's GPUs apart."""
    return uuid[:12]


def gpu_name(answer: Mapping[str, object]) -> str:
    """Return a GPU by its index, as people name it; by its UUID where it is not there now."""
    return text(answer, "gpu", short_uuid(text(answer, "gpu_uuid")))


def sizes(layout: str) -> str:
    """Return a layout's profiles without their places: `3g.20gb + 4 x 1g.5gb`."""
    counts: dict[str, int] = {}
    for word in layout.split():
        name = word.split("@")[0]
        counts[name] = counts.get(name, 0) + 1
    return " + ".join(name if n == 1 else f"{n} x {name}" for name, n in counts.items()) or "-"
