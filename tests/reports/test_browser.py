"""Pages in a real browser: Debian's chromium, without a window. What people see, click and read with keys alone.

Each page is opened once for each look (light and dark, narrow and wide), and once without scripts.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("matplotlib", reason="reports need the extra `report`")
pytest.importorskip("jinja2", reason="reports need the extra `report`")
pytest.importorskip("playwright", reason="pages are opened with playwright: pip install 'corank[browser]'")

from playwright.sync_api import Browser, ConsoleMessage, Page, Route, sync_playwright
from reports.page_records import RECORDS

from corank.reports import write_report, write_study

CHROMIUM = shutil.which("chromium")
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="there is no chromium here: apt-get install chromium")

LOOKS = [("light", 1400), ("dark", 1400), ("light", 390), ("dark", 390)]
Open = Callable[..., Page]


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A page of each kind, from records with numbers that a test can predict."""
    folder = tmp_path_factory.mktemp("pages")
    return {
        name: write_study(folder / f"{name}.html", records[0])
        if name in ("study", "subnets")
        else write_report(folder / f"{name}.html", records)
        for name, records in RECORDS.items()
    }


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        opened = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu"])
        yield opened
        opened.close()


class Seen:
    """What a page said on its console, and what it asked for beside itself."""

    def __init__(self) -> None:
        self.said: list[str] = []
        self.asked: list[str] = []

    def hear(self, message: ConsoleMessage) -> None:
        self.said.append(f"{message.type}: {message.text}")

    def route(self, route: Route) -> None:
        address = route.request.url
        if address.startswith("file:") and route.request.is_navigation_request():
            route.continue_()
        else:
            self.asked.append(address)
            route.abort()


@pytest.fixture
def seen() -> Seen:
    return Seen()


@pytest.fixture
def opened(browser: Browser, seen: Seen) -> Iterator[Open]:
    """Opens a page in a look; what it said and asked for must be nothing."""
    contexts = []

    def open_page(path: Path, colours: str = "light", width: int = 1400, scripts: bool = True) -> Page:
        context: Any = browser.new_context(
            viewport={"width": width, "height": 900}, color_scheme=colours, java_script_enabled=scripts
        )
        contexts.append(context)
        context.route("**/*", seen.route)
        page = context.new_page()
        page.on("console", seen.hear)
        page.on("pageerror", lambda error: seen.said.append(str(error)))
        page.goto(path.as_uri())
        return page

    yield open_page
    for context in contexts:
        context.close()
    assert seen.said == [] and seen.asked == []


@pytest.mark.parametrize("name", RECORDS)
def test_every_look(opened: Open, pages: dict[str, Path], name: str) -> None:
    page = opened(pages[name])
    for colours, width in LOOKS:
        page.emulate_media(color_scheme=colours)
        page.set_viewport_size({"width": width, "height": 900})
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        assert page.evaluate(CUT) == [], (name, colours, width)
        assert page.evaluate(FAINT) == [], (name, colours, width)
    paper = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert sum(map(int, paper.removeprefix("rgb(").removesuffix(")").split(","))) < 120  # the last look is dark
    assert page.locator("h2, h3").count() > 1 and page.evaluate(EMPTY) == []


def test_a_column_sorts_by_its_numbers_and_back(opened: Open, pages: dict[str, Path]) -> None:
    page = opened(pages["quantize"])
    table = page.get_by_role("region", name="Layers", exact=True)
    heading = table.get_by_role("columnheader", name="size")
    cells = table.locator("tbody tr > :nth-child(6)")
    assert heading.get_attribute("aria-sort") is None
    heading.get_by_role("button").click()
    assert heading.get_attribute("aria-sort") == "ascending"
    rising = cells.all_inner_texts()
    assert rising[:2] == ["100 B", "200 B"] and rising[-1] == "2.00 KB"
    heading.get_by_role("button").press("Enter")
    assert heading.get_attribute("aria-sort") == "descending" and cells.all_inner_texts() == rising[::-1]
    table.get_by_role("columnheader", name="layer").get_by_role("button").click()
    assert heading.get_attribute("aria-sort") is None
    names = table.locator("tbody th").all_inner_texts()
    assert names[:2] == ["conv1", "fc"] and names == sorted(names)


def test_what_is_not_there_is_sorted_last(opened: Open, pages: dict[str, Path]) -> None:
    page = opened(pages["study"])
    table = page.get_by_role("region", name="Trials, the best first")
    column = table.get_by_role("columnheader", name="score")
    cells = table.locator("tbody tr > :nth-child(3)")
    for ends in (("20.00", "–"), ("90.50", "–")):
        column.get_by_role("button").click()
        texts = cells.all_inner_texts()
        assert (texts[0], texts[-1]) == ends


@pytest.mark.parametrize("name", ["study", "subnets", "comparison"])
def test_a_point_says_what_makes_it(opened: Open, pages: dict[str, Path], name: str) -> None:
    page = opened(pages[name])
    told, points = page.locator(".told"), page.locator("a.point")
    commands = {
        point.get_attribute("href"): page.locator(f"{point.get_attribute('href')} pre.says").text_content()
        for point in points.all()
    }
    assert len(commands) > 1 and len(set(commands.values())) == len(commands)
    assert told.locator("pre").text_content() in commands.values()  # before anything is chosen, that of the best
    for number, point in enumerate([*points.all()[:6], points.last]):
        point.scroll_into_view_if_needed()
        href, box = point.get_attribute("href"), point.locator("use").bounding_box()
        assert box is not None
        if number % 2:
            point.focus()
        else:  # that another point may be all but covered by is no matter: the nearest one is told
            page.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
        assert told.locator("pre").text_content() == commands[href]
        assert "shown" in (point.get_attribute("class") or "")
    page.mouse.down()
    page.mouse.up()
    assert told.locator("pre").text_content() == commands[points.last.get_attribute("href")]
    assert told.inner_text().count("\n") >= 2 and page.url == pages[name].as_uri()
    first = points.first
    first.focus()
    page.keyboard.press("Tab")
    reached = page.evaluate("document.activeElement.getAttribute('href')")
    assert reached != first.get_attribute("href") and told.locator("pre").text_content() == commands[reached]


def test_without_scripts_all_can_be_read(opened: Open, pages: dict[str, Path]) -> None:
    page = opened(pages["study"], scripts=False)
    assert page.locator("thead button").count() == 0
    assert "corank tune net --configuration 2" in page.locator(".told").inner_text()
    page.locator("a.point").first.click()
    target = page.url.rpartition("#")[2]
    assert page.locator(f"#{target}").count() == 1
    assert "corank tune net" in (page.locator(f"#{target} pre").text_content() or "")


# Texts that a box cuts: wider than what shows them, where that does not scroll.
CUT = """
() => [...document.querySelectorAll("h1, h2, h3, p, dd, dt, td, th, pre, summary, figcaption")]
  .filter((one) => one.scrollWidth > one.clientWidth + 1 && one.clientWidth > 0)
  .map((one) => one.textContent.trim().slice(0, 60))
"""
# Headings with nothing under them.
EMPTY = """
() => [...document.querySelectorAll("h2, h3")]
  .filter((one) => !one.nextElementSibling || /^H[123]$/.test(one.nextElementSibling.tagName)
    && one.nextElementSibling.tagName <= one.tagName)
  .map((one) => one.textContent)
"""
# Texts whose contrast to their ground is under 4.5 (WCAG 2, AA).
FAINT = """
() => {
  const channel = (value) => (value /= 255) <= 0.04045 ? value / 12.92 : ((value + 0.055) / 1.055) ** 2.4;
  const light = ([r, g, b]) => 0.2126 * channel(r) + 0.7152 * channel(g) + 0.0722 * channel(b);
  const rgb = (text) => text.match(/[\\d.]+/g).map(Number);
  const ground = (one) => {
    for (; one; one = one.parentElement) {
      const found = rgb(getComputedStyle(one).backgroundColor);
      if (found.length < 4 || found[3] > 0) return found;
    }
    return [255, 255, 255];
  };
  const found = new Set();
  for (const one of document.querySelectorAll("main *")) {
    const own = [...one.childNodes].some((node) => node.nodeType === 3 && node.data.trim());
    if (!own || !one.getClientRects().length) continue;
    const style = getComputedStyle(one);
    const ink = one.closest("svg") ? style.fill : style.color;
    const [a, b] = [light(rgb(ink)), light(ground(one))].sort();
    if ((b + 0.05) / (a + 0.05) < 4.5) found.add(`${one.textContent.trim().slice(0, 40)} ${ink}`);
  }
  return [...found];
}
"""
