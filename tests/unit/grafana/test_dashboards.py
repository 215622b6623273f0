"""The dashboards are what the code makes, valid for Grafana, and follow its linter's rules."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from grafana.src.boards import texts
from migscaler.metrics.families import FAMILIES
from migscaler.metrics.family import Kind

GRAFANA = Path(__file__).parents[3] / "grafana"
SCHEMA = json.loads((GRAFANA / "schema" / "dashboard.schema.json").read_text())
BOARDS: dict[str, dict[str, Any]] = {
    path.name: json.loads(path.read_text())
    for path in sorted((GRAFANA / "dashboards").glob("*.json"))
}
NAMES = {f.name for f in FAMILIES} | {
    f.name + suffix
    for f in FAMILIES
    if f.kind is Kind.HISTOGRAM
    for suffix in ("_bucket", "_sum", "_count")
}

each_board = pytest.mark.parametrize("name", sorted(BOARDS))


def panels(name: str) -> list[dict[str, Any]]:
    """Return the panels of a dashboard without its rows."""
    return [panel for panel in BOARDS[name]["panels"] if panel["type"] != "row"]


def queries(name: str) -> Iterator[str]:
    """Yield every query of panels, annotations and variables."""
    for panel in panels(name):
        yield from (target["expr"] for target in panel["targets"])
    yield from (mark["expr"] for mark in BOARDS[name]["annotations"]["list"])
    for variable in BOARDS[name]["templating"]["list"][1:]:
        yield variable["definition"]


def test_committed_files_are_what_the_code_makes() -> None:
    committed = {path.name: path.read_text() for path in (GRAFANA / "dashboards").iterdir()}

    assert committed == texts()


def test_making_them_twice_gives_the_same_text() -> None:
    assert texts() == texts()


@each_board
def test_dashboard_is_valid_by_grafanas_own_types(name: str) -> None:
    jsonschema.validate(BOARDS[name], SCHEMA)


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("panels", 1, "title"), 7),
        (("panels", 1, "gridPos"), {"x": "left"}),
        (("panels", 1, "fieldConfig", "defaults", "unit"), None),
        (("templating", "list", 0, "type"), "choice"),
    ],
)
def test_schema_notices_a_fault(path: tuple[str | int, ...], value: object) -> None:
    board = json.loads(json.dumps(BOARDS["node.json"]))
    spot = board
    for key in path[:-1]:
        spot = spot[key]
    spot[path[-1]] = value

    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(board, SCHEMA)


def test_dashboards_have_names_of_their_own() -> None:
    named = {name: (board["uid"], board["title"]) for name, board in BOARDS.items()}

    assert named == {
        "fleet.json": ("migscaler-fleet", "migscaler / Fleet"),
        "node.json": ("migscaler-node", "migscaler / Node"),
        "policy.json": ("migscaler-policy", "migscaler / Policy"),
    }


@each_board
def test_dashboard_is_uneditable_and_of_the_schema_that_grafana_12_and_13_read(name: str) -> None:
    board = BOARDS[name]

    assert board["schemaVersion"] == 42
    assert board["editable"] is False
    assert "migscaler" in board["tags"]
    assert [link["tags"] for link in board["links"]] == [["migscaler"]]
    assert board["links"][0]["includeVars"]
    assert board["links"][0]["keepTime"]


@each_board
def test_panel_ids_are_set_and_unique(name: str) -> None:
    ids = [panel["id"] for panel in BOARDS[name]["panels"]]

    assert len(set(ids)) == len(ids)
    assert min(ids) == 100


@each_board
def test_every_panel_has_title_description_and_unit(name: str) -> None:
    for panel in panels(name):
        assert panel["title"], panel["id"]
        assert len(panel["description"]) > 15, panel["title"]
        assert panel["fieldConfig"]["defaults"]["unit"], panel["title"]
        assert panel["targets"], panel["title"]


@each_board
def test_every_panel_and_query_asks_the_chosen_data_source(name: str) -> None:
    wanted = {"type": "prometheus", "uid": "${datasource}"}
    for panel in panels(name):
        assert panel["datasource"] == wanted, panel["title"]
        assert [t["datasource"] for t in panel["targets"]] == [wanted] * len(panel["targets"])
    variables = BOARDS[name]["templating"]["list"]
    assert [v["datasource"] for v in variables[1:]] == [wanted] * (len(variables) - 1)
    assert BOARDS[name]["annotations"]["list"][0]["datasource"] == wanted


@pytest.mark.parametrize(
    ("name", "variables"),
    [
        ("fleet.json", ["datasource", "cluster", "job", "node", "profile"]),
        ("node.json", ["datasource", "cluster", "job", "node", "gpu", "profile"]),
        ("policy.json", ["datasource", "cluster", "job", "node", "gpu"]),
    ],
)
def test_variables_are_those_that_the_queries_use(name: str, variables: list[str]) -> None:
    listed = BOARDS[name]["templating"]["list"]
    used = set(re.findall(r"\$([a-z_]+)", " ".join(queries(name)))) - {"__rate_interval", "__range"}

    assert [variable["name"] for variable in listed] == variables
    assert used == set(variables) - {"datasource"}
    assert (listed[0]["type"], listed[0]["query"]) == ("datasource", "prometheus")
    assert all(v["label"] and v["description"] for v in listed)


@each_board
def test_choices_of_several_match_by_regular_expression(name: str) -> None:
    """A multi-value variable becomes `a|b`, which `=` would take for one value."""
    for query in queries(name):
        assert re.findall(r'="\$\w+"', query) == [], query
    for variable in BOARDS[name]["templating"]["list"][1:]:
        if (name, variable["name"]) == ("node.json", "node"):
            assert not variable["multi"]
        else:
            assert variable["multi"] is variable["includeAll"] is True
            assert variable["allValue"] == (".*" if variable["name"] == "cluster" else ".+")


@each_board
def test_every_selector_is_bound_to_cluster_job_and_node(name: str) -> None:
    for panel in panels(name):
        for target in panel["targets"]:
            selectors = re.findall(r"(?:migscaler_\w+|\bup)(\{[^}]*\})?", target["expr"])
            for matchers in selectors:
                assert 'cluster=~"$cluster", job=~"$job", instance=~"$node"' in matchers, target


@each_board
def test_no_job_name_is_written_into_a_query(name: str) -> None:
    for query in queries(name):
        assert set(re.findall(r'job(=~?|!~|!=)"([^"]*)"', query)) <= {("=~", "$job")}, query


@each_board
def test_rates_span_what_the_scrape_interval_asks_for(name: str) -> None:
    for query in queries(name):
        windows = re.findall(r"\[([^\]]*)\]", query)
        assert set(windows) <= {"$__rate_interval", "$__range"}, query
        assert len(windows) == len(re.findall(r"(?:rate|increase)\s*\(", query)), query


@each_board
def test_counters_are_shown_as_rates(name: str) -> None:
    for query in queries(name):
        for counter in re.findall(r"migscaler_\w+_total\b", query):
            if counter == "migscaler_gpu_ecc_uncorrected_errors_total":
                continue  # the sum since the driver was loaded is what is asked for
            assert re.search(rf"(rate|increase)\({counter}", query), query


@each_board
def test_queries_name_only_families_of_the_table(name: str) -> None:
    used = {found for query in queries(name) for found in re.findall(r"migscaler_\w+", query)}

    assert used - NAMES == set()


@each_board
def test_nothing_is_null_but_the_first_threshold(name: str) -> None:
    def nulls(tree: object, path: str = "") -> Iterator[str]:
        if isinstance(tree, dict):
            for key, value in tree.items():
                yield from nulls(value, f"{path}.{key}")
        elif isinstance(tree, list):
            for value in tree:
                yield from nulls(value, path)
        elif tree is None:
            yield path

    assert {path.split(".")[-2:] == ["steps", "value"] for path in nulls(BOARDS[name])} == {True}


@each_board
def test_panels_fill_the_grid_without_overlap(name: str) -> None:
    taken: set[tuple[int, int]] = set()
    for panel in BOARDS[name]["panels"]:
        at = panel["gridPos"]
        cells = {
            (x, y)
            for x in range(at["x"], at["x"] + at["w"])
            for y in range(at["y"], at["y"] + at["h"])
        }
        assert at["x"] + at["w"] <= 24
        assert not cells & taken, panel["title"]
        taken |= cells


def test_links_to_a_node_lead_to_the_node_dashboard() -> None:
    text = json.dumps(BOARDS["fleet.json"])

    assert set(re.findall(r"/d/([\w-]+)", text)) == {BOARDS["node.json"]["uid"]}


def test_provisioning_names_the_directory_that_the_page_tells_to_copy_to() -> None:
    provisioning = (GRAFANA / "provisioning" / "dashboards.yaml").read_text()
    page = (GRAFANA.parent / "docs" / "dashboards.md").read_text()
    found = re.search(r"path: (\S+)", provisioning)

    assert found is not None
    assert found[1] in page
