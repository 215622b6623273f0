"""The kinds of panel that the dashboards are made of, one function each."""

import string
from collections.abc import Sequence

from grafana_foundation_sdk.builders import (
    bargauge,
    common,
    stat,
    statetimeline,
    timeseries,
)
from grafana_foundation_sdk.builders.dashboard import FieldColor, ThresholdsConfig
from grafana_foundation_sdk.models import common as common_model
from grafana_foundation_sdk.models import dashboard as model
from grafana_foundation_sdk.models.prometheus import PromQueryFormat

from grafana.src.look import plain
from grafana.src.parts import (
    THIRD,
    WIDE,
    Size,
    Text,
    finished,
    instant,
    ranged,
    sorted_by,
    to_matrix,
)
from grafana.src.query import Query


def figure(
    text: Text,
    asked: Query,
    unit: str,
    thresholds: ThresholdsConfig | None = None,
    *,
    width: int = 3,
    height: int = 4,
    names: bool = False,
    mappings: list[model.ValueMapping] | None = None,
) -> model.Panel:
    """Return one large figure of this moment; `names` shows the series' name instead."""
    made = (
        stat.Panel()
        .unit(unit)
        .thresholds(thresholds or plain())
        .color_mode(common_model.BigValueColorMode.VALUE)
        .graph_mode(common_model.BigValueGraphMode.NONE)
        .mappings(mappings or [])
        .color_scheme(FieldColor().mode(model.FieldColorModeId.THRESHOLDS))
        .reduce_options(common.ReduceDataOptions().calcs(["lastNotNull"]))
    )
    if unit == "percentunit":
        made.decimals(0)
    if names:
        made.text_mode(common_model.BigValueTextMode.NAME)
    targets = [instant(asked, "A", PromQueryFormat.TIME_SERIES)]
    return finished(made.build(), text, targets, Size(width=width, height=height))


def series(
    text: Text,
    asked: Sequence[Query],
    unit: str,
    *,
    size: Size = THIRD,
    stacked: bool = False,
    maximum: float | None = None,
    colors: dict[str, str] | None = None,
    nothing: str | None = None,
) -> model.Panel:
    """Return lines over time; stacked ones add up to a whole.

    `colors` are by regular expression of the line's name; `nothing` is shown if there is no line.
    """
    made = (
        timeseries.Panel()
        .unit(unit)
        .min(0)
        .color_scheme(FieldColor().mode(model.FieldColorModeId.PALETTE_CLASSIC))
        .line_width(1 if stacked else 2)
        .fill_opacity(40 if stacked else 0)
        .show_points(common_model.VisibilityMode.NEVER)
        .legend(
            common.VizLegendOptions()
            .display_mode(common_model.LegendDisplayMode.LIST)
            .placement(common_model.LegendPlacement.BOTTOM)
            .show_legend(True)
        )
        .tooltip(
            common.VizTooltipOptions()
            .mode(common_model.TooltipDisplayMode.MULTI)
            .sort(common_model.SortOrder.DESCENDING)
        )
    )
    if maximum is not None:
        made.max(maximum)
    if nothing is not None:
        made.no_value(nothing)
    if stacked:
        made.stacking(common.StackingConfig().mode(common_model.StackingMode.NORMAL).group("A"))
    for name, color in (colors or {}).items():
        fixed = {"mode": "fixed", "fixedColor": color}
        made.override_by_regexp(name, [model.DynamicConfigValue(id_val="color", value=fixed)])
    targets = [ranged(one, ref) for one, ref in zip(asked, string.ascii_uppercase)]
    return finished(made.build(), text, targets, size)


def gauges(
    text: Text,
    asked: Query,
    unit: str,
    thresholds: ThresholdsConfig | None = None,
    *,
    size: Size = THIRD,
    maximum: float | None = None,
    nothing: str | None = None,
) -> model.Panel:
    """Return one bar per series, of this moment; `nothing` is shown if there is none."""
    made = (
        bargauge.Panel()
        .unit(unit)
        .min(0)
        .thresholds(thresholds or plain())
        .orientation(common_model.VizOrientation.HORIZONTAL)
        .display_mode(common_model.BarGaugeDisplayMode.BASIC)
        .show_unfilled(True)
        .color_scheme(FieldColor().mode(model.FieldColorModeId.THRESHOLDS))
        .reduce_options(common.ReduceDataOptions().calcs(["lastNotNull"]))
    )
    if maximum is not None:
        made.max(maximum)
    if nothing is not None:
        made.no_value(nothing)
    targets = [instant(asked, "A", PromQueryFormat.TIME_SERIES)]
    return finished(made.build(), text, targets, size)


def timeline(
    text: Text,
    asked: Sequence[Query],
    mappings: list[model.ValueMapping],
    *,
    thresholds: ThresholdsConfig | None = None,
    size: Size = WIDE,
    matrix: tuple[str, str] | None = None,
    repeat: str | None = None,
    values: bool = False,
) -> model.Panel:
    """Return states over time, one row per series.

    `matrix` (label of the rows, label whose text is the state) turns info series into text over
    time. `repeat` names the variable of which each value gets its own panel; `values` writes the
    state into its block.
    """
    made = (
        statetimeline.Panel()
        .unit("none")
        .mappings(mappings)
        .color_scheme(FieldColor().mode(model.FieldColorModeId.THRESHOLDS))
        .thresholds(thresholds or plain())
        .merge_values(True)
        .row_height(0.9)
        .line_width(0)
        .fill_opacity(85)
        .show_value(
            common_model.VisibilityMode.AUTO if values else common_model.VisibilityMode.NEVER
        )
        .legend(
            common.VizLegendOptions()
            .display_mode(common_model.LegendDisplayMode.LIST)
            .placement(common_model.LegendPlacement.BOTTOM)
            .show_legend(matrix is None)
        )
    )
    targets = [ranged(one, ref) for one, ref in zip(asked, string.ascii_uppercase)]
    if matrix is not None:
        row, state = matrix
        targets = [ranged(one, "A", PromQueryFormat.TABLE) for one in asked]
        # Columns come in the order of their first rows, so names are sorted first.
        made.with_transformation(sorted_by(row))
        made.with_transformation(to_matrix(rows="Time", columns=row, values=state))
        made.with_transformation(sorted_by(f"Time\\{row}"))
    panel = finished(made.build(), text, targets, size)
    if repeat is not None:
        panel.repeat, panel.repeat_direction, panel.max_per_row = repeat, "h", 2
    return panel
