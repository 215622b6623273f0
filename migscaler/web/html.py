"""HTML elements as escaped text: whatever is not markup already is quoted."""

import html


class Markup(str):
    """Text that is HTML already."""

    __slots__ = ()


_VOID = frozenset({"img", "link", "meta", "wbr"})
Attribute = str | int | bool | None


def tag(name: str, /, *children: str, **attributes: Attribute) -> Markup:
    """Return an element; `data_part` becomes data-part; None and False leave an attribute out."""
    words = [name]
    for key, value in attributes.items():
        if value is None or value is False:
            continue
        attribute = key.rstrip("_").replace("_", "-")
        words.append(attribute if value is True else f'{attribute}="{html.escape(str(value))}"')
    opening = f"<{' '.join(words)}>"
    if name in _VOID:
        return Markup(opening)
    return Markup(f"{opening}{join(*children)}</{name}>")


def join(*children: str) -> Markup:
    """Return the children one after another, quoting those that are plain text."""
    return Markup(
        "".join(c if isinstance(c, Markup) else html.escape(c, quote=False) for c in children)
    )
