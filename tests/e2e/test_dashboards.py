"""Every query of every panel answers on a real Prometheus that watched a fleet for a while.

The table of what each query returned is printed (`pytest -s`) and kept in docs/dashboards.md.
"""

import json
import math
import re
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.e2e.fleet import NODES, Fleet, fleet, lease, play
from tests.e2e.processes import ANSWER_SECONDS, wait_until

pytestmark = pytest.mark.xdist_group("dashboards")

DASHBOARDS = Path(__file__).parents[2] / "grafana" / "dashboards"
ALL = {
    "cluster": ".*",
    "job": ".+",
    "node": ".+",
    "gpu": ".+",
    "profile": ".+",
    "__rate_interval": "15s",
    "__range": "5m",
}


@pytest.fixture(scope="module")
def watched(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    """Return the fleet after its story, one instance still leased."""
    directory = tmp_path_factory.mktemp("fleet")
    with fleet(directory) as made, lease(made.nodes["h100-1"], "1g"):
        play(made)
        yield made


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """One query of a panel."""

    board: str
    panel: str
    expr: str
    is_instant: bool


def boards() -> dict[str, dict[str, Any]]:
    return {path.stem: json.loads(path.read_text()) for path in sorted(DASHBOARDS.glob("*.json"))}


def asked() -> list[Asked]:
    """Return every query of every panel, and of the annotations."""
    return [one for name, board in boards().items() for one in _of_board(name, board)]


def _of_board(name: str, board: dict[str, Any]) -> Iterator[Asked]:
    """Yield the queries of one dashboard."""
    for panel in board["panels"]:
        for target in panel.get("targets", ()):
            instant = bool(target.get("instant"))
            yield Asked(board=name, panel=panel["title"], expr=target["expr"], is_instant=instant)
    for mark in board["annotations"]["list"]:
        yield Asked(board=name, panel=mark["name"], expr=mark["expr"], is_instant=False)


def substituted(text: str, **chosen: str) -> str:
    """Return a query with Grafana's variables replaced."""
    values = {**ALL, **chosen}
    return re.sub(r"\$\{?(\w+)\}?", lambda m: values.get(m[1], m[0]), text)


def told(one: Asked) -> str:
    """Return a query as docs/dashboards.md tells it: without the variables' matchers."""
    short = re.sub(r'(, )?\w+=~"\$\w+"', "", one.expr).replace("{, ", "{").replace("{}", "")
    return f"| {one.board} | {one.panel} | `{short}` |"


def series(server: httpx.Client, one: Asked, began: float, **chosen: str) -> int:
    """Return how many series had at least one finite value since then."""
    expr = substituted(one.expr, **chosen)
    assert "$" not in re.sub(r'"[^"]*"', "", expr), expr
    now = time.time()
    if one.is_instant:
        answer = server.get("/query", params={"query": expr}).json()
    else:
        span = {"start": began, "end": now, "step": 2.0}
        answer = server.get("/query_range", params={"query": expr, **span}).json()
    assert answer["status"] == "success", (one, answer)
    rows = [row.get("values") or [row["value"]] for row in answer["data"]["result"]]
    return sum(any(math.isfinite(float(value)) for _, value in row) for row in rows)


def test_every_query_of_every_panel_returns_data(watched: Fleet) -> None:
    table, empty = [], []
    server = httpx.Client(base_url=f"{watched.server.url}/api/v1", timeout=30)
    for one in asked():
        choices = [{"node": name} for name in NODES] if one.board == "node" else [{}]
        if "$gpu" in one.panel:
            choices = [{**choice, "gpu": "0"} for choice in choices]
        counts = [0]
        for _ in range(10):  # a scrape that came late leaves nothing for a moment
            counts = [series(server, one, watched.began, **choice) for choice in choices]
            if sum(counts):
                break
            time.sleep(1)
        table.append(f"{told(one)} {' + '.join(map(str, counts))} |")
        if not sum(counts):
            empty.append(one)
    server.close()
    print("\n".join(("| dashboard | panel | query | series |", "|---|---|---|---|", *table)))

    assert empty == []
    assert len(table) > 80


def test_every_variable_offers_values(watched: Fleet) -> None:
    offered: dict[str, set[str]] = {}
    for name, board in boards().items():
        for variable in board["templating"]["list"][1:]:
            found = re.fullmatch(r"label_values\((.*), (\w+)\)", variable["definition"])
            assert found is not None
            selector, label = substituted(found[1]), found[2]
            url = f"{watched.server.url}/api/v1/label/{label}/values"
            asked_for = {"match[]": selector}
            answer = httpx.get(url, params=asked_for, timeout=ANSWER_SECONDS).json()
            offered[f"{name} {variable['name']}"] = set(answer["data"])

    assert offered["fleet cluster"] == {"lab"}
    assert offered["fleet job"] == {"gpu-nodes"}
    assert offered["node node"] == set(NODES)
    assert offered["node gpu"] == {"0", "1", "2"}
    assert {"1g.5gb", "1g.6gb", "1g.10gb", "7g.40gb"} <= offered["fleet profile"]
    assert all(offered.values())


def test_choosing_a_node_and_a_gpu_narrows_every_query_of_the_node_dashboard(
    watched: Fleet,
) -> None:
    """A selector that forgot a variable would show another node's figures under this one's name."""
    selectors = re.compile(r"migscaler_\w+\{([^}]*)\}")
    for one in asked():
        found = selectors.findall(one.expr)
        assert found or one.expr.startswith("count (up{"), one
        for matchers in found:
            assert 'instance=~"$node"' in matchers, one
    query = 'sum (migscaler_gpu_instances{instance=~"h100-1", gpu=~"0|1"})'
    wait_until("h100-1 is shown", lambda: (watched.server.value(query) or 0) >= 5)


def test_page_lists_every_query_of_every_panel() -> None:
    page = (DASHBOARDS.parents[1] / "docs" / "dashboards.md").read_text().splitlines()
    rows = [row.rpartition("` |")[0] + "` |" for row in page if re.match(r"\| \w+ \| .*` \|", row)]

    assert rows == [told(one) for one in asked()]
