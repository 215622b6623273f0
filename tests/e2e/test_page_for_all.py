"""The page by keyboard alone, for a screen reader, and as readable text in light and dark."""

import itertools
import re
from typing import Literal

import pytest
from playwright.sync_api import Browser, Page

from tests.e2e.test_page import Node, browser, node, page  # noqa: F401 - fixtures

pytestmark = pytest.mark.xdist_group("chromium")

# WCAG 2.2, success criterion 1.4.3: 4.5, for large text (24 px, or 18.66 px and bold) 3.
CONTRASTS = """() => {
  const canvas = document.createElement("canvas").getContext("2d", {willReadFrequently: true});
  const rgba = (color) => {
    canvas.clearRect(0, 0, 1, 1);
    canvas.fillStyle = color;
    canvas.fillRect(0, 0, 1, 1);
    return canvas.getImageData(0, 0, 1, 1).data;
  };
  const light = ([r, g, b]) => {
    const [x, y, z] = [r, g, b].map((part) => {
      const share = part / 255;
      return share <= 0.04045 ? share / 12.92 : ((share + 0.055) / 1.055) ** 2.4;
    });
    return 0.2126 * x + 0.7152 * y + 0.0722 * z;
  };
  const behind = (element) => {
    for (let one = element; one; one = one.parentElement) {
      const found = rgba(getComputedStyle(one).backgroundColor);
      if (found[3] > 250) return found;
    }
    return [255, 255, 255];
  };
  const poor = {};
  for (const element of document.querySelectorAll("body *")) {
    const own = [...element.childNodes].some((n) => n.nodeType === 3 && n.textContent.trim());
    if (!own || !element.checkVisibility({visibilityProperty: true, opacityProperty: true})) {
      continue;
    }
    const style = getComputedStyle(element);
    const [a, b] = [light(rgba(style.color)), light(behind(element))].sort((x, y) => y - x);
    const size = parseFloat(style.fontSize);
    const large = size >= 24 || (size >= 18.66 && style.fontWeight >= 700);
    const ratio = (a + 0.05) / (b + 0.05);
    if (ratio < (large ? 3 : 4.5)) {
      const place = `${element.tagName} in .${element.parentElement.className}`;
      poor[place] = `${ratio.toFixed(2)} ${element.textContent}`;
    }
  }
  return poor;
}"""


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_all_text_has_enough_contrast(
    browser: Browser,  # noqa: F811
    node: Node,  # noqa: F811
    scheme: Literal["light", "dark"],
) -> None:
    context = browser.new_context(color_scheme=scheme, viewport={"width": 1240, "height": 900})
    shown = context.new_page()
    shown.goto(node.url)
    shown.evaluate("document.querySelectorAll('details').forEach((one) => { one.open = true; })")

    assert shown.evaluate(CONTRASTS) == {}
    context.close()


def test_screen_reader_finds_headings_regions_and_words_for_every_picture(
    page: Page,  # noqa: F811
    node: Node,  # noqa: F811
) -> None:
    page.goto(node.url)
    levels = [
        int(tag[1])
        for tag in page.evaluate(
            "[...document.querySelectorAll('h1, h2, h3, h4')].map((one) => one.tagName)"
        )
    ]
    pictures = page.get_by_role("img")
    names = [one.get_attribute("aria-label") or "" for one in pictures.all()]
    heads = page.locator("th").evaluate_all("found => found.map((one) => one.scope)")

    assert levels[0] == 1
    assert [pair for pair in itertools.pairwise(levels) if pair[1] > pair[0] + 1] == []
    assert [name for name in names if not re.search(r"\w{3}", name)] == []
    assert set(heads) <= {"col", "row"}
    for region in ("Last decision", "GPUs", "Explanation"):
        assert page.get_by_role("region", name=region, exact=True).count() == 1
    assert page.get_by_role("main").count() == 1
    assert page.get_by_role("navigation").count() == 1
    assert page.get_by_role("article", name="GPU 0").count() == 1


def test_tab_reaches_everything_that_can_be_opened_and_shows_where_it_is(
    page: Page,  # noqa: F811
    node: Node,  # noqa: F811
) -> None:
    page.goto(node.url)
    there = page.locator("summary, a[href], button").evaluate_all("found => found.length")
    reached = []
    for _ in range(there):
        page.keyboard.press("Tab")
        reached.append(
            page.evaluate(
                """() => {
                    const one = document.activeElement;
                    const ring = getComputedStyle(one);
                    return [one.textContent, ring.outlineStyle !== "none"];
                }"""
            )
        )

    assert len({text for text, _ in reached}) == there
    assert [text for text, is_shown in reached if not is_shown] == []
