"""Tables: several queries merged into rows by their labels, and the strip of slices."""

import string
from collections.abc import Sequence
from dataclasses import dataclass, field

from grafana_foundation_sdk.builders import common, table
from grafana_foundation_sdk.builders.dashboard import FieldColor
from grafana_foundation_sdk.models import common as common_model
from grafana_foundation_sdk.models import dashboard as model
from grafana_foundation_sdk.models.prometheus import PromQueryFormat

from grafana.src.look import plain
from grafana.src.parts import WIDE, Size, Text, finished, instant, sorted_by, to_matrix
from grafana.src.query import Query

_COLORED = {"type": "color-background", "mode": "basic"}
_COLORED_TEXT = {"type": "color-text"}
_HIDDEN = ("Time", "cluster")


_SLOT_WIDTH = 46
_NAME_WIDTH = 70


@dataclass(frozen=True, slots=True, kw_only=True)
class Column:
    """A column in order of display: a label, or the value of the query given by its letter."""

    name: str
    title: str
    unit: str | None = None
    width: int | None = None
    mappings: list[model.ValueMapping] = field(default_factory=list)
    link: str | None = None
    """Address that a cell leads to."""
    is_gauge: bool = False
    """Whether a share (0..1) is drawn as a bar."""
    is_filled: bool = False
    """Whether the cell, not only its text, takes the color of its word."""


def column(
    name: str,
    title: str,
    unit: str | None = None,
    *,
    width: int | None = None,
    mappings: list[model.ValueMapping] | None = None,
    link: str | None = None,
    is_gauge: bool = False,
    is_filled: bool = False,
) -> Column:
    """Return a column; `name` is a label or the letter of a query."""
    return Column(
        name=name,
        title=title,
        unit=unit,
        width=width,
        mappings=mappings or [],
        link=link,
        is_gauge=is_gauge,
        is_filled=is_filled,
    )


def rows(
    text: Text,
    asked: Sequence[Query],
    columns: Sequence[Column],
    *,
    size: Size = WIDE,
    unit: str = "none",
    most: str | None = None,
    least: Sequence[str] = (),
) -> model.Panel:
    """Return a table of this moment; rows are what shares all labels that the queries share.

    `most` is the title of the column by which rows are sorted, largest first; `least` names
    those by which they are sorted, smallest first.
    """
    letters = string.ascii_uppercase[: len(asked)]
    made = (
        table.Panel()
        .unit(unit)
        .thresholds(plain())
        .color_scheme(FieldColor().mode(model.FieldColorModeId.THRESHOLDS))
        .show_header(True)
        .align(common_model.FieldTextAlignment.AUTO)
    )
    made.with_transformation(model.DataTransformerConfig(id_val="merge", options={}))
    made.with_transformation(_organized(columns, letters))
    for one in columns:
        properties = _properties(one)
        if properties:
            made.override_by_name(one.title, properties)
    order = [(most, True)] if most is not None else [(name, False) for name in least]
    if order:
        made.sort_by([common.TableSortByFieldState().display_name(n).desc(d) for n, d in order])
    targets = [instant(one, letter, PromQueryFormat.TABLE) for one, letter in zip(asked, letters)]
    return finished(made.build(), text, targets, size)


def strip(
    text: Text,
    asked: Query,
    mappings: list[model.ValueMapping],
    *,
    label: str,
    slot: str,
    title: str,
    size: Size = WIDE,
) -> model.Panel:
    """Return a table with one row per value of a label and one colored cell per slot."""
    made = (
        table.Panel()
        .unit("none")
        .thresholds(plain())
        .mappings(mappings)
        .width(_SLOT_WIDTH)
        .align(common_model.FieldTextAlignment.CENTER)
        .show_header(True)
        .cell_options(
            common_model.TableColoredBackgroundCellOptions(
                mode=common_model.TableCellBackgroundDisplayMode.BASIC
            )
        )
        .override_by_name(
            f"{label}\\{slot}",
            [
                model.DynamicConfigValue(id_val="displayName", value=title),
                model.DynamicConfigValue(id_val="custom.cellOptions", value={"type": "auto"}),
                model.DynamicConfigValue(id_val="custom.align", value="left"),
                model.DynamicConfigValue(id_val="custom.width", value=_NAME_WIDTH),
            ],
        )
        .with_transformation(sorted_by(slot))
        .with_transformation(to_matrix(rows=label, columns=slot, values="Value"))
        .with_transformation(sorted_by(f"{label}\\{slot}"))
    )
    return finished(made.build(), text, [instant(asked, "A", PromQueryFormat.TABLE)], size)


def _value_field(letter: str, letters: str) -> str:
    """Return Grafana's name for the values of a query: with a letter if there are several."""
    return f"Value #{letter}" if len(letters) > 1 else "Value"


def _organized(columns: Sequence[Column], letters: str) -> model.DataTransformerConfig:
    """Return a transformation that names and orders the columns and hides all others' values."""
    names = [
        _value_field(one.name, letters) if one.name in letters else one.name for one in columns
    ]
    hidden = [*_HIDDEN, *(_value_field(letter, letters) for letter in letters)]
    options = {
        "excludeByName": {name: True for name in hidden if name not in names},
        "indexByName": {name: index for index, name in enumerate(names)},
        "renameByName": {name: one.title for name, one in zip(names, columns)},
    }
    return model.DataTransformerConfig(id_val="organize", options=options)


def _properties(one: Column) -> list[model.DynamicConfigValue]:
    """Return what a column sets for itself."""
    found: list[tuple[str, object]] = []
    if one.unit is not None:
        found.append(("unit", one.unit))
    if one.unit in ("percentunit", "s"):
        found.append(("decimals", 0))
    if one.width is not None:
        found.append(("custom.width", one.width))
    if one.mappings:
        cell_of_word = _COLORED if one.is_filled else _COLORED_TEXT
        found += [("mappings", one.mappings), ("custom.cellOptions", cell_of_word)]
    if one.is_gauge:
        cell = {"type": "gauge", "mode": "basic", "valueDisplayMode": "text"}
        found += [("min", 0), ("max", 1), ("custom.cellOptions", cell)]
    if one.link is not None:
        found.append(("links", [{"title": one.title, "url": one.link}]))
    return [model.DynamicConfigValue(id_val=name, value=value) for name, value in found]
