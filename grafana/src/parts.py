"""What every panel has: its text, its place, its queries and their shaping."""

from dataclasses import dataclass

from grafana_foundation_sdk.builders import prometheus
from grafana_foundation_sdk.models import common as common_model
from grafana_foundation_sdk.models import dashboard as model
from grafana_foundation_sdk.models.prometheus import PromQueryFormat

from grafana.src.query import Query

SOURCE = common_model.DataSourceRef(type_val="prometheus", uid="${datasource}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Text:
    """What a panel says about itself."""

    title: str
    about: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Size:
    """Place a panel takes, in grid units; 24 are the whole width."""

    width: int = 8
    height: int = 8


WIDE = Size(width=24)
THIRD = Size()


def panel_text(title: str, about: str) -> Text:
    """Return title and description; neither may be empty."""
    return Text(title=title, about=" ".join(about.split()))


def finished(
    panel: model.Panel, text: Text, targets: list[prometheus.Dataquery], size: Size
) -> model.Panel:
    """Return the panel with what every kind has."""
    panel.title, panel.description = text.title, text.about
    panel.datasource = SOURCE
    panel.repeat_direction = None
    panel.targets = [target.build() for target in targets]
    panel.grid_pos = model.GridPos(w=size.width, h=size.height)
    return panel


def _target(asked: Query, ref: str, form: PromQueryFormat) -> prometheus.Dataquery:
    """Return the query as Grafana sends it."""
    made = prometheus.Dataquery().expr(asked.expr).ref_id(ref).datasource(SOURCE).format(form)
    return made.legend_format(asked.legend or "__auto")


def instant(asked: Query, ref: str, form: PromQueryFormat) -> prometheus.Dataquery:
    """Return a query of the range's end."""
    return _target(asked, ref, form).instant()


def ranged(
    asked: Query, ref: str, form: PromQueryFormat = PromQueryFormat.TIME_SERIES
) -> prometheus.Dataquery:
    """Return a query over the range."""
    return _target(asked, ref, form).range()


def sorted_by(field: str) -> model.DataTransformerConfig:
    """Return a transformation that sorts rows."""
    options = {"fields": {}, "sort": [{"field": field, "desc": False}]}
    return model.DataTransformerConfig(id_val="sortBy", options=options)


def to_matrix(*, rows: str, columns: str, values: str) -> model.DataTransformerConfig:
    """Return a transformation to one row per value of a field and one column per another's."""
    options = {
        "rowField": rows,
        "columnField": columns,
        "valueField": values,
        "emptyValue": "null",
    }
    return model.DataTransformerConfig(id_val="groupingToMatrix", options=options)
