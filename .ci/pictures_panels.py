"""Asks Prometheus what the panels ask, and has Grafana's components draw the answers."""

import json
import re
import threading
import urllib.parse
import urllib.request
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from pictures_png import small_png
from playwright.sync_api import Browser

BUILT = Path(__file__).parents[1] / "grafana" / "render" / "dist"
STEP_SECONDS = 2
WIDTH = 1500
CHOSEN = {
    "cluster": ".*", "job": ".+", "node": ".+", "gpu": ".+", "profile": ".+",
    "__rate_interval": "16s", "__range": "230s",
}  # fmt: skip
# Only what a picture needs: the first rows show what a dashboard is about.
SHOWN = {
    "fleet": (100, 200, 300, 400, 500),
    "node": (100, 200, 300, 400),
    "policy": (100, 200, 400, 500),
}
REPEATED = ("0", "6")


class Quiet(SimpleHTTPRequestHandler):
    """Serves the built page without telling about it."""

    def log_message(self, format: str, *arguments: object) -> None:
        """Say nothing."""


def answered_board(
    board: dict[str, Any], server: str, since: float, until: float
) -> dict[str, object]:
    """Return the panels with rows of Prometheus' answers, repeated ones for two GPUs."""
    name = board["uid"].removeprefix("migscaler-")
    chosen = {**CHOSEN, "node": "gpu-01"} if name == "node" else CHOSEN
    since, until = (STEP_SECONDS * round(moment / STEP_SECONDS) for moment in (since, until))
    panels = []
    for panel in board["panels"]:
        if panel["id"] // 100 * 100 not in SHOWN[name]:
            continue
        for index, gpu in enumerate(REPEATED if panel.get("repeat") else (None,)):
            values = chosen if gpu is None else {**chosen, "gpu": gpu}
            place = {**panel["gridPos"], "x": panel["gridPos"]["x"] + 12 * index}
            answers = [
                {
                    "target": one,
                    "rows": _ask(server, _filled(one["expr"], values), one, since, until),
                }
                for one in panel.get("targets", ())
            ]
            panels.append(
                {
                    **panel,
                    "key": f"{panel['id']}-{index}",
                    "gridPos": place,
                    "title": _filled(panel["title"], values),
                    "answers": answers,
                }
            )
    _close_gaps(panels)
    times = [since + STEP_SECONDS * n for n in range(int((until - since) / STEP_SECONDS) + 1)]
    span = {"from": since * 1000, "to": until * 1000}
    return {"panels": panels, "times": times, "range": span, "width": WIDTH}


def drawn_boards(browser: Browser, boards: dict[str, dict[str, object]], place: Path) -> None:
    """Write a picture of each dashboard."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(BUILT)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    url = f"http://127.0.0.1:{server.server_address[1]}/index.html"
    for name, board in boards.items():
        page = browser.new_page(viewport={"width": WIDTH, "height": 1000})
        page.on("pageerror", lambda error: print(f"page error: {error}"))
        page.add_init_script(f"window.board = {json.dumps(board)}")
        page.goto(url)
        shown = page.locator("#board")
        shown.wait_for(timeout=30_000)
        height = shown.bounding_box()
        page.set_viewport_size(
            {"width": WIDTH, "height": int(height["height"]) if height else 1000}
        )
        page.wait_for_timeout(1500)  # charts are laid out anew after the window grew
        (place / f"dashboard-{name}.png").write_bytes(small_png(page, shown.screenshot()))
        page.close()
    server.shutdown()


def _filled(text: str, values: dict[str, str]) -> str:
    """Return a text with Grafana's variables replaced."""
    return re.sub(r"\$([a-z_]+)", lambda found: values.get(found[1], found[0]), text)


def _ask(
    server: str, expr: str, target: dict[str, Any], since: float, until: float
) -> list[dict[str, Any]]:
    """Return Prometheus' rows, of the end or over the range as the target wants."""
    asked: dict[str, object] = {"query": expr, "time": until}
    if not target.get("instant"):
        asked = {"query": expr, "start": since, "end": until, "step": STEP_SECONDS}
    path = "query" if target.get("instant") else "query_range"
    url = f"{server}/api/v1/{path}?{urllib.parse.urlencode(asked)}"
    with urllib.request.urlopen(url, timeout=60) as answer:
        rows: list[dict[str, Any]] = json.load(answer)["data"]["result"]
    return rows


def _close_gaps(panels: list[dict[str, Any]]) -> None:
    """Move panels up over the rows that were left out."""
    taken = sorted({y for p in panels for y in range(p["gridPos"]["y"], _bottom(p))})
    moved = {y: index for index, y in enumerate(taken)}
    for panel in panels:
        panel["gridPos"]["y"] = moved[panel["gridPos"]["y"]]


def _bottom(panel: dict[str, Any]) -> int:
    """Return the first grid line below a panel."""
    return int(panel["gridPos"]["y"]) + int(panel["gridPos"]["h"])
