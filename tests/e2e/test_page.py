"""The page in a real Chromium, from the real server, on a node of eight GPUs."""

from collections.abc import Iterator
from dataclasses import replace

import pytest
from playwright.sync_api import Browser, Page, sync_playwright

from migscaler.metrics.exposition import Renderer
from migscaler.model.gpu import PinReason
from migscaler.model.status import Status
from migscaler.web.app import create_app
from migscaler.web.server import WebServer
from tests.builders import A100, gpu_state, snapshot
from tests.unit.metrics.statuses import full_status

pytestmark = pytest.mark.xdist_group("chromium")

ARGUMENTS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]


class Node:
    """A served status that a test can replace."""

    def __init__(self) -> None:
        self.status: Status = full_status(paused=True)
        self.server = WebServer(create_app(Renderer().render, lambda: self.status), "127.0.0.1:0")
        self.server.start()
        assert self.server.address is not None
        self.url = "http://{}:{}/".format(*self.server.address)


@pytest.fixture
def node() -> Iterator[Node]:
    made = Node()
    yield made
    made.server.stop()


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        made = playwright.chromium.launch(executable_path="/usr/bin/chromium", args=ARGUMENTS)
        yield made
        made.close()


@pytest.fixture
def page(browser: Browser) -> Iterator[Page]:
    """Return a page that notes complaints and every address it asks for."""
    context = browser.new_context(viewport={"width": 1240, "height": 900})
    made = context.new_page()
    yield made
    context.close()


def complaints(page: Page) -> list[str]:
    """Return a list that fills with console messages and script errors."""
    found: list[str] = []
    page.on("console", lambda message: found.append(message.text))
    page.on("pageerror", lambda error: found.append(str(error)))
    return found


def test_page_draws_each_gpu_as_its_row_of_slices(page: Page, node: Node) -> None:
    found = complaints(page)
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    page.goto(node.url)

    labels = [strip.get_attribute("aria-label") for strip in page.get_by_role("img").all()]
    assert labels[0] == (
        "GPU 0: 3g.20gb in use at slices 0 to 3, 2g.10gb idle at slices 4 to 5,"
        " 1g.5gb allocated at slice 6, stranded at slice 7"
    )
    assert len(labels) == 10  # seven partitioned GPUs, one wanted layout, a change with both sides
    cells = page.locator("article").nth(0).locator(".cell")
    boxes = [cell.bounding_box() for cell in cells.all()]
    widths = [box["width"] for box in boxes if box is not None]
    assert widths[0] > 1.9 * widths[1] > 3.6 * widths[2]
    assert found == []
    assert [url for url in asked if not url.startswith(node.url)] == []


def test_page_says_in_words_what_happens(page: Page, node: Node) -> None:
    page.goto(node.url)

    assert page.get_by_text("Waiting to make GPU 2 finer").first.is_visible()
    assert page.get_by_text("Paused").is_visible()
    assert page.get_by_text("opens in 1 min 15 s").is_visible()
    assert page.get_by_role("row", name="notebooks 1g 11 7 2 2").is_visible()


def test_card_is_as_high_as_what_it_says(page: Page, node: Node) -> None:
    """The card of the sources used to be stretched to the height of its neighbour."""
    page.goto(node.url)
    boxes = [page.locator(f"[data-part={part}]").bounding_box() for part in ("sources", "outcomes")]

    assert boxes[0] is not None
    assert boxes[1] is not None
    assert boxes[0]["y"] == boxes[1]["y"]
    assert boxes[0]["height"] < boxes[1]["height"] - 20


def test_page_follows_the_node_without_reload(page: Page, node: Node) -> None:
    found = complaints(page)
    page.goto(node.url)
    page.evaluate("window.stayed = true")
    page.get_by_text("All instances as a table").click()
    page.get_by_text("Rule training (7g)").click()
    before = snapshot(*(node.status.snapshot.gpus if node.status.snapshot else ()))
    changed = gpu_state(A100, "3g@0 2g@4 1g@6", {"3g@0": PinReason.PROCESS}, index=2)
    gpus = tuple(changed if gpu.uuid == changed.uuid else gpu for gpu in before.gpus)
    node.status = replace(node.status, snapshot=snapshot(*gpus), pause=None)

    row = page.locator("article", has_text="GPU 2")
    row.locator(".strip:not(.next) .cell.w2").wait_for(timeout=60_000)

    assert not page.get_by_text("Paused").is_visible()
    assert page.evaluate("window.stayed")
    opened = [part.get_attribute("data-part") for part in page.locator("details[open]").all()]
    assert opened == ["table", "explained Rule training (7g)"]
    assert found == []


def test_page_says_when_the_daemon_no_longer_answers(page: Page, node: Node) -> None:
    page.goto(node.url)
    node.server.stop()

    page.get_by_text("The daemon has not answered for").wait_for(timeout=60_000)


def test_page_is_whole_without_javascript(browser: Browser, node: Node) -> None:
    context = browser.new_context(java_script_enabled=False)
    still = context.new_page()
    still.goto(node.url)

    assert still.locator("article.gpu").count() == 8
    assert still.get_by_text("Waiting to make GPU 2 finer").first.is_visible()
    context.close()


@pytest.mark.parametrize("width", [360, 760, 1240])
def test_page_fits_the_screen(browser: Browser, node: Node, width: int) -> None:
    context = browser.new_context(viewport={"width": width, "height": 800})
    narrow = context.new_page()
    narrow.goto(node.url)

    assert narrow.evaluate("document.documentElement.scrollWidth") == width
    context.close()


def test_dark_follows_the_system(browser: Browser, node: Node) -> None:
    context = browser.new_context(color_scheme="dark")
    dark = context.new_page()
    dark.goto(node.url)

    color = dark.evaluate("getComputedStyle(document.body).backgroundColor")
    assert color == "rgb(18, 21, 28)"
    context.close()


def test_keyboard_opens_the_table(page: Page, node: Node) -> None:
    page.goto(node.url)
    page.locator("[data-part=table] summary").focus()
    page.keyboard.press("Enter")

    page.get_by_role("cell", name="3g.20gb@0").first.wait_for()


def test_keyboard_opens_the_explanation_of_a_gpu(page: Page, node: Node) -> None:
    page.goto(node.url)
    line = page.get_by_text("2g.10gb@4 idle").first
    assert not line.is_visible()
    page.locator("[data-part='explained GPU 0 (enforce)'] summary").focus()
    page.keyboard.press("Enter")

    line.wait_for()
    assert page.get_by_role("region", name="Explanation").is_visible()


def test_explanation_unfolds_without_javascript(browser: Browser, node: Node) -> None:
    context = browser.new_context(java_script_enabled=False)
    still = context.new_page()
    still.goto(node.url)
    still.get_by_text("Rule notebooks (1g)").click()

    still.get_by_text("7 in use and 4 waiting, 1 spare").last.wait_for()
    context.close()
