"""What surrounds the panels: variables, links, annotations, grid and JSON."""

import json
from collections.abc import Sequence
from dataclasses import dataclass

from grafana_foundation_sdk.builders.dashboard import (
    AnnotationQuery,
    Dashboard,
    DashboardLink,
    DatasourceVariable,
    QueryVariable,
)
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models import dashboard as model

from grafana.src.parts import SOURCE
from grafana.src.query import on_gpu, on_node

TAG = "migscaler"
_EVERYTHING = model.VariableOption(text="All", value="$__all", selected=True)
_WIDTH = 24


@dataclass(frozen=True, slots=True, kw_only=True)
class Section:
    """A row of the dashboard with its panels, which carry width and height only."""

    title: str
    panels: Sequence[model.Panel]


def every(
    name: str, label: str, definition: str, description: str, *, all_value: str = ".+"
) -> QueryVariable:
    """Return a variable of which several or all values may be chosen."""
    made = one(name, label, definition, description)
    return made.multi(True).include_all(True).all_value(all_value).current(_EVERYTHING)


def one(name: str, label: str, definition: str, description: str) -> QueryVariable:
    """Return a variable of which one value is chosen."""
    return (
        QueryVariable(name)
        .label(label)
        .description(description)
        .datasource(SOURCE)
        .definition(definition)
        .query({"qryType": 1, "query": definition, "refId": f"variable-{name}"})
        .refresh(model.VariableRefresh.ON_TIME_RANGE_CHANGED)
        .sort(model.VariableSort.NATURAL_ASC)
    )


def datasource() -> DatasourceVariable:
    """Return the choice of the Prometheus that all panels ask."""
    made = DatasourceVariable("datasource").label("Data source").type("prometheus")
    return made.description("The Prometheus that scrapes migscaler.")


def places(*, one_node: bool = False) -> list[QueryVariable]:
    """Return the variables that choose nodes; a cluster label need not exist."""
    info = "migscaler_build_info"
    node = f'label_values({info}{{cluster=~"$cluster", job=~"$job"}}, instance)'
    about = "Node, by the address that is scraped."
    return [
        every(
            "cluster",
            "Cluster",
            f"label_values({info}, cluster)",
            "Value of the label cluster, if your Prometheus sets it.",
            all_value=".*",
        ),
        every(
            "job",
            "Job",
            f'label_values({info}{{cluster=~"$cluster"}}, job)',
            "Scrape job, whatever you called it.",
        ),
        one("node", "Node", node, about) if one_node else every("node", "Node", node, about),
    ]


def gpu() -> QueryVariable:
    """Return the choice of GPUs, by index."""
    found = f"label_values({on_node('gpu_info')}, gpu)"
    return every("gpu", "GPU", found, "Index of the GPU on its node.")


def profile(*, by_gpu: bool) -> QueryVariable:
    """Return the choice of profiles that the nodes' GPUs know."""
    family = "gpu_profile_present_instances"
    selector = on_gpu(family) if by_gpu else on_node(family)
    found = f"label_values({selector}, profile)"
    return every("profile", "Profile", found, "MIG profile; names differ between GPU models.")


def assemble(
    uid: str,
    title: str,
    description: str,
    variables: Sequence[QueryVariable],
    sections: Sequence[Section],
) -> model.Dashboard:
    """Return the dashboard, its panels numbered by section and laid on the grid."""
    made = (
        Dashboard(title)
        .uid(uid)
        .description(description)
        .tags([TAG, "gpu", "mig"])
        .readonly()
        .refresh("30s")
        .time("now-6h", "now")
        .timezone("browser")
        .tooltip(model.DashboardCursorSync.CROSSHAIR)
        .variables([datasource(), *variables])
        .link(_link())
        .annotation(_changes())
        .build()
    )
    made.panels = _placed(sections)
    return made


def encode(dashboard: model.Dashboard) -> str:
    """Return the JSON text: sorted keys, no nulls, for a null is not an unset option to Grafana."""
    tree = json.loads(JSONEncoder(sort_keys=True).encode(dashboard))
    for shown in (*tree["links"], *tree["annotations"]["list"]):
        del shown["placement"]  # the builder would hide them in a menu
    return json.dumps(_without_nulls(tree), indent=2, sort_keys=True) + "\n"


def _without_nulls(tree: object) -> object:
    """Return the tree without keys that have no value; thresholds keep theirs.

    The first threshold begins at minus infinity, which Grafana writes as null.
    """
    if isinstance(tree, dict):
        is_threshold = set(tree) == {"color", "value"}
        return {k: _without_nulls(v) for k, v in tree.items() if v is not None or is_threshold}
    if isinstance(tree, list):
        return [_without_nulls(value) for value in tree]
    return tree


def _placed(sections: Sequence[Section]) -> list[model.Panel | model.RowPanel]:
    """Return rows and panels with ids and grid positions, left to right, top to bottom."""
    placed: list[model.Panel | model.RowPanel] = []
    y = 0
    for number, section in enumerate(sections, start=1):
        row = model.RowPanel(title=section.title, id_val=100 * number)
        row.grid_pos = model.GridPos(x=0, y=y, w=_WIDTH, h=1)
        placed.append(row)
        y += 1
        x = line = 0
        for index, panel in enumerate(section.panels, start=1):
            size = panel.grid_pos or model.GridPos()
            if x + size.w > _WIDTH:
                x, y, line = 0, y + line, 0
            panel.id_val = 100 * number + index
            panel.grid_pos = model.GridPos(x=x, y=y, w=size.w, h=size.h)
            x, line = x + size.w, max(line, size.h)
            placed.append(panel)
        y += line
    return placed


def _link() -> DashboardLink:
    """Return the row of links to the other migscaler dashboards."""
    made = DashboardLink("migscaler").type(model.DashboardLinkType.DASHBOARDS).tags([TAG])
    return made.as_dropdown(False).include_vars(True).keep_time(True)


def _changes() -> AnnotationQuery:
    """Return marks on all graphs at the moments at which a layout changed."""
    return (
        AnnotationQuery()
        .name("Layout changes")
        .datasource(SOURCE)
        .enable(False)
        .icon_color("#6f55d0")
        .expr(f"{on_node('gpu_layout_changed_timestamp_seconds')} * 1000")
        .use_value_for_time(True)
        .title_format("Layout changed")
        .text_format("{{instance}} GPU {{gpu}}")
    )
